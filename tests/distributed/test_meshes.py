"""Training on meshes of threads equals training on one rank."""

from __future__ import annotations

import meshwright as mw
import numpy as np
import pytest

CONFIG = dict(
    family="llama",
    embedding_dim=64,
    mlp_dim=96,
    num_layers=2,
    num_query_heads=8,
    num_kv_heads=2,
    head_dim=8,
    vocab_size=128,
    max_position_embeddings=64,
)
MESHES = [
    ({"data": 2}, None),
    ({"data": 4}, "zero1"),
    ({"data": 4}, "zero2"),
    ({"data": 4}, "zero3"),
    ({"fsdp": 2}, None),
    ({"fsdp": 8}, None),
    ({"data": 2, "fsdp": 2}, None),
    ({"tensor": 2}, None),
    ({"tensor": 4}, None),  # more ranks than KV heads: the rest goes to the queries of a head
    ({"tensor": 8}, None),
    ({"fsdp": 2, "tensor": 2}, None),
    ({"context": 2}, None),
    ({"fsdp": 2, "context": 2, "tensor": 2}, None),
    ({"data": 2, "fsdp": 2, "tensor": 2}, None),
]
NAMES = ["-".join(f"{axis}{size}" for axis, size in mesh.items()) + (f"-{rules}" if rules else "") for mesh, rules in MESHES]


def make_model(**changes) -> mw.Model:
    return mw.Model({**CONFIG, **changes}, seed=3)


def make_batch(rows: int = 8, seq: int = 16, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {"input_ids": rng.integers(0, CONFIG["vocab_size"], (rows, seq)), "loss_weights": rng.random((rows, seq)).astype(np.float32)}


def make_trainer(model, mesh=None, rules=None, **arguments) -> mw.Trainer:
    return mw.Trainer(model, mw.SGD(lr=0.5, momentum=0.9), mesh=mesh, rules=rules, clip=1.0, show=False, **arguments)


def assert_equal_weights(a: mw.Model, b: mw.Model, tolerance: float) -> None:
    mine, other = a.state_dict(), b.state_dict()
    for name, weight in mine.items():
        x, y = weight.gather(), other[name].gather()
        assert np.abs(x - y).max() <= tolerance * np.abs(y).max(), name


@pytest.mark.parametrize(("mesh", "rules"), MESHES, ids=NAMES)
def test_weights_after_init_are_identical(mesh, rules) -> None:
    model, single = make_model(), make_model()
    make_trainer(model, mesh, rules)
    assert_equal_weights(model, single, 0.0)


@pytest.mark.parametrize(("mesh", "rules"), MESHES, ids=NAMES)
@pytest.mark.parametrize("tied", [False, True])
def test_loss_and_every_gradient(mesh, rules, tied) -> None:
    single, model = make_model(tie_embeddings=tied), make_model(tie_embeddings=tied)
    loss, gradients = single.loss_and_gradients(make_batch())
    make_trainer(model, mesh, rules)
    mesh_loss, mesh_gradients = model.loss_and_gradients(make_batch())
    assert abs(mesh_loss - loss) <= 1e-5 * abs(loss)
    for name, gradient in gradients.items():
        assert np.abs(mesh_gradients[name] - gradient).max() <= 1e-5 * np.abs(gradient).max(), name


@pytest.mark.parametrize(("mesh", "rules"), MESHES, ids=NAMES)
@pytest.mark.parametrize("microbatches", [1, 2])
def test_steps_follow_one_rank(mesh, rules, microbatches) -> None:
    rows = 16
    single, model = make_model(), make_model()
    alone, together = make_trainer(single), make_trainer(model, mesh, rules, microbatches=microbatches)
    for step in range(3):
        a, b = alone.step(make_batch(rows, seed=step)), together.step(make_batch(rows, seed=step))
        assert abs(a.loss - b.loss) <= 1e-5 * a.loss
        assert abs(a.grad_norm - b.grad_norm) <= 1e-5 * a.grad_norm
    assert_equal_weights(model, single, 2e-5)


@pytest.mark.parametrize(("mesh", "rules"), MESHES, ids=NAMES)
def test_bfloat16_with_masters(mesh, rules) -> None:
    single, model = make_model(), make_model()
    alone, together = make_trainer(single, dtype="bfloat16"), make_trainer(model, mesh, rules, dtype="bfloat16")
    for step in range(3):
        a, b = alone.step(make_batch(seed=step)), together.step(make_batch(seed=step))
        assert abs(a.loss - b.loss) <= 2e-2 * a.loss


def test_zero3_holds_a_quarter_of_the_parameters() -> None:
    model = make_model()
    whole = sum(int(np.prod(w.shape)) * 4 for w in model.state_dict().values())
    make_trainer(model, {"data": 4}, "zero3")
    local = sum(w.local(1)[0].nbytes for w in model.state_dict().values())
    assert local * 4 == whole


def test_generation_on_a_mesh_equals_one_rank() -> None:
    single, model = make_model(), make_model()
    make_trainer(model, {"fsdp": 2, "tensor": 2})
    prompts = [[1, 2, 3], [4, 5, 6, 7, 8]]
    assert mw.Generator(model).generate(prompts, max_new_tokens=12) == mw.Generator(single).generate(prompts, max_new_tokens=12)


def test_a_dim_that_does_not_divide_is_an_error() -> None:
    model = make_model()
    trainer = make_trainer(model, {"data": 4})
    with pytest.raises(mw.UserError, match="'data' of size 4 does not divide dim 'batch' of size 6.*4 or 8"):
        trainer.step(make_batch(6))
    with pytest.raises(mw.UserError, match="'tensor'.*does not divide"):
        make_trainer(make_model(mlp_dim=90), {"tensor": 4})


def test_an_unknown_axis_names_the_nearest() -> None:
    with pytest.raises(mw.UserError, match="no mesh axis 'fspd'.*did you mean 'fsdp'"):
        make_trainer(make_model(), {"fspd": 2})
