"""Experts on a mesh axis of their own: every family of experts equals one rank, and a step that has too little room is run again."""

from __future__ import annotations

from typing import Any

import meshwright as mw
import numpy as np
import pytest
from meshwright.batch import adapt
from parity.reference_models import VOCAB, save_model

MESHES: list[dict[str, int]] = [
    {"expert": 2},
    {"expert": 4},
    {"data": 2, "expert": 2},
    {"fsdp": 2, "expert": 2},
    {"expert": 2, "tensor": 2},
    {"fsdp": 2, "expert": 2, "tensor": 2},
]
NAMES = ["-".join(f"{axis}{size}" for axis, size in mesh.items()) for mesh in MESHES]
# With as many experts as every mesh here divides.
FAMILIES: dict[str, dict[str, int]] = {
    "mixtral": {"num_local_experts": 8},
    "qwen3_moe": {"num_experts": 8},
    "gpt_oss": {"num_local_experts": 8},
    "llama4_scout": {"num_local_experts": 8},
    "llama4_maverick": {"num_local_experts": 4},
    "deepseek_v2_lite": {},
    "deepseek_v2_groups": {},
    "deepseek_v3": {},
}
OPTIMIZERS = {"sgd": mw.SGD(lr=0.1, momentum=0.9), "adamw": mw.AdamW(lr=1e-3, eps=1e-3)}


@pytest.fixture(scope="module", params=FAMILIES)
def folder(request, tmp_path_factory):
    return save_model(request.param, tmp_path_factory.mktemp("models"), **FAMILIES[request.param])


@pytest.fixture(scope="module")
def gpt_oss(tmp_path_factory):
    return save_model("gpt_oss", tmp_path_factory.mktemp("models"), num_local_experts=8)


def make_batch(seed: int = 0, rows: int = 4) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {"input_ids": rng.integers(3, VOCAB, (rows, 24)), "loss_weights": rng.random((rows, 24)).astype(np.float32)}


def open_on(folder: Any, mesh: dict[str, int] | None, optimizer: str = "sgd", **arguments: Any) -> tuple[mw.Model, mw.Trainer]:
    model = mw.Model.from_pretrained(folder, dtype="float32")
    return model, mw.Trainer(model, OPTIMIZERS[optimizer], mesh=mesh, clip=1.0, show=False, **arguments)


def assert_near(name: str, found: np.ndarray, expected: np.ndarray, tolerance: float) -> None:
    assert np.abs(found - expected).max() <= tolerance * np.abs(expected).max(), name


@pytest.mark.parametrize("mesh", MESHES, ids=NAMES)
def test_loss_and_every_gradient(folder, mesh) -> None:
    single, _ = open_on(folder, None)
    model, _ = open_on(folder, mesh)
    loss, gradients = single.loss_and_gradients(make_batch())
    mesh_loss, mesh_gradients = model.loss_and_gradients(make_batch())
    assert abs(mesh_loss - loss) <= 1e-5 * abs(loss)
    for name, gradient in gradients.items():
        assert_near(name, mesh_gradients[name], gradient, 1e-5)


@pytest.mark.parametrize("mesh", MESHES, ids=NAMES)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_steps_loads_and_text(folder, mesh, optimizer) -> None:
    (single, alone), (model, together) = open_on(folder, None, optimizer), open_on(folder, mesh, optimizer)
    for name, weight in single.state_dict().items():
        assert np.array_equal(model.state_dict()[name].gather(), weight.gather()), name
    for step in range(3):
        a, b = alone.step(make_batch(step)), together.step(make_batch(step))
        assert abs(a.loss - b.loss) <= 1e-5 * a.loss
        assert abs(a.grad_norm - b.grad_norm) <= 1e-5 * a.grad_norm
        assert b["expert_rows"] <= b["expert_rows_bound"]
    for name, weight in single.state_dict().items():
        assert_near(name, model.state_dict()[name].gather(), weight.gather(), 2e-5)
    prompts = [[5, 6, 7], [8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18]]
    texts = [mw.Generator(m).generate(prompts, max_new_tokens=12, eos_token_id=None) for m in (single, model)]
    assert texts[0] == texts[1]


LOSSES = [
    mw.Losses(load_balance=0.05, expert_load=True),
    mw.Losses(sequence_balance=0.05, router_z=0.01),
    mw.Losses(selection_bias_rate=0.01, expert_load=True),
]


@pytest.mark.parametrize("losses", LOSSES, ids=str)
def test_terms_of_the_routers(tmp_path, losses) -> None:
    folder = save_model("deepseek_v3", tmp_path)
    (single, alone), (model, together) = open_on(folder, None, losses=losses), open_on(folder, {"fsdp": 2, "expert": 2}, losses=losses)
    for step in range(3):
        a, b = alone.step(make_batch(step)), together.step(make_batch(step))
        assert abs(a.loss - b.loss) <= 1e-5 * a.loss
        for name, value in a.terms.items():
            assert abs(b.terms[name] - value) <= 1e-5 * abs(value), name
        assert a.expert_load == b.expert_load
    for name, weight in single.state_dict().items():
        assert_near(name, model.state_dict()[name].gather(), weight.gather(), 2e-5)


def all_to_the_first_experts(model: mw.Model) -> None:
    """By the biases of the routers: every token chooses the same two experts, which one rank holds."""
    weights = {name: weight.gather() for name, weight in model.state_dict().items()}
    for name, values in weights.items():
        if name.endswith("router.bias"):
            values[:] = 0.0
            values[:2] = 30.0
    model.load_state_dict(weights)


@pytest.mark.parametrize("mesh", [{"expert": 2}, {"expert": 2, "tensor": 2}, {"data": 2, "expert": 2}], ids=str)
@pytest.mark.parametrize("remat", ["none", "full"])
def test_too_little_room_is_run_again(gpt_oss, mesh, remat) -> None:
    (single, alone), (model, together) = open_on(gpt_oss, None), open_on(gpt_oss, mesh, remat=remat, microbatches=2)
    for m in (single, model):
        all_to_the_first_experts(m)
    bounds = []
    for step in range(2):
        a, b = alone.step(make_batch(step, 8)), together.step(make_batch(step, 8))
        assert abs(a.loss - b.loss) <= 1e-5 * a.loss
        assert abs(a.grad_norm - b.grad_norm) <= 1e-5 * a.grad_norm
        assert b["expert_reruns"] == 1  # the larger bound is kept
        assert b["expert_rows"] <= b["expert_rows_bound"]
        bounds.append(b["expert_rows_bound"])
    assert bounds[0] == bounds[1]
    for name, weight in single.state_dict().items():
        assert_near(name, model.state_dict()[name].gather(), weight.gather(), 2e-5)
    assert abs(model.loss(make_batch(5)) - single.loss(make_batch(5))) <= 1e-5 * abs(single.loss(make_batch(5)))
    assert_near("logits", model(make_batch(5)["input_ids"]), single(make_batch(5)["input_ids"]), 1e-4)
    loss, gradients = single.loss_and_gradients(make_batch(6))
    mesh_loss, mesh_gradients = model.loss_and_gradients(make_batch(6))
    assert abs(mesh_loss - loss) <= 1e-5 * abs(loss)
    for name, gradient in gradients.items():
        assert_near(name, mesh_gradients[name], gradient, 1e-5)


def test_the_plan_tells_how_much_room_there_is(gpt_oss) -> None:
    report = mw.plan(gpt_oss, {"expert": 2}, batch=4, seq=24, dtype="float32", optimizer="sgd")
    rows = report.expert_rows
    assert rows is not None and rows["mean"] <= rows["bound"] <= rows["worst"]
    assert f"room for {rows['bound']:,}" in report.table()
    assert {c["collective"] for c in report.collectives} >= {"expert_counts", "expert_dispatch", "expert_return"}
    assert mw.plan(gpt_oss, {"data": 2}, batch=4, seq=24).expert_rows is None


@pytest.mark.parametrize("mesh", MESHES, ids=NAMES)
def test_planned_memory_is_what_is_in_use(gpt_oss, mesh) -> None:
    model, trainer = open_on(gpt_oss, mesh)
    usual = mw.plan(gpt_oss, mesh, batch=8, seq=24, dtype="float32", optimizer="sgd", clip=1.0)
    all_to_the_first_experts(model)
    repeated = trainer.step(make_batch(rows=8))
    assert repeated["expert_reruns"] == 1
    assert usual.expert_rows is not None and repeated["expert_rows_bound"] > usual.expert_rows["bound"]
    room = mw.plan(
        gpt_oss,
        mesh,
        batch=8,
        seq=24,
        dtype="float32",
        optimizer=OPTIMIZERS["sgd"],
        clip=1.0,
        expert_rows_factor=repeated["expert_rows_bound"] / usual.expert_rows["mean"],
    )
    assert repeated.peak_bytes == room.peak_bytes > usual.peak_bytes
    ranks = range(int(np.prod(list(mesh.values()))))
    assert [trainer._step.bytes_in_use(rank) for rank in ranks] == [repeated.peak_bytes for _ in ranks]


@pytest.mark.parametrize("mesh", MESHES, ids=NAMES)
@pytest.mark.parametrize("remat", ["none", "full"])
def test_counted_bytes_are_the_planned_ones(folder, mesh, remat) -> None:
    _, trainer = open_on(folder, mesh, remat=remat, microbatches=2)
    batch = make_batch(rows=8)
    trainer.step(batch)
    arrays = adapt(batch, VOCAB, trainer._mtp_depths).arrays
    planned = trainer._step.planned_traffic(arrays, 0)
    counted = [trainer._step.counted_traffic(arrays, rank) for rank in range(int(np.prod(list(mesh.values()))))]
    kinds = {row["collective"] for row in planned}
    assert kinds >= {"expert_counts", "expert_dispatch", "expert_return"}
    for rank in counted:
        assert [(row["collective"], row["axes"], row["calls"]) for row in rank] == [
            (r["collective"], r["axes"], r["calls"]) for r in planned
        ]
        for row, plan in zip(rank, planned, strict=True):
            if row["collective"] in ("expert_dispatch", "expert_return"):
                assert 0 < row["bytes"] <= plan["most_bytes"]
            else:
                assert row["bytes"] == pytest.approx(plan["bytes"], rel=1e-12) and plan["bytes"] == plan["most_bytes"]
    # What all ranks together send out comes back.
    total = [
        sum(row["bytes"] for rank in counted for row in rank if row["collective"] == kind) for kind in ("expert_dispatch", "expert_return")
    ]
    assert min(total) > 0 and (remat != "none" or total[0] == total[1])


def test_more_room_from_the_start_needs_no_second_run(gpt_oss) -> None:
    model, trainer = open_on(gpt_oss, {"expert": 2}, expert_rows_factor=2.0)
    all_to_the_first_experts(model)
    metrics = trainer.step(make_batch())
    assert metrics["expert_reruns"] == 0 and metrics["expert_rows"] == metrics["expert_rows_bound"]
    assert mw.plan(gpt_oss, {"expert": 2}, batch=4, seq=24, expert_rows_factor=2.0).expert_rows["bound"] == metrics["expert_rows_bound"]
    with pytest.raises(mw.UserError, match="expert_rows_factor is 0.5; expected at least 1"):
        open_on(gpt_oss, {"expert": 2}, expert_rows_factor=0.5)


def test_steps_in_bfloat16_with_masters(gpt_oss) -> None:
    (single, alone), (model, together) = (
        open_on(gpt_oss, None, dtype="bfloat16"),
        open_on(gpt_oss, {"fsdp": 2, "expert": 2}, dtype="bfloat16"),
    )
    for step in range(3):
        a, b = alone.step(make_batch(step)), together.step(make_batch(step))
        assert abs(a.loss - b.loss) <= 1e-2 * a.loss
    assert set(model.state_dict()) == set(single.state_dict())


def test_captured_rows_have_their_tokens_order(gpt_oss) -> None:
    single, _ = open_on(gpt_oss, None)
    model, _ = open_on(gpt_oss, {"expert": 2})
    ids = make_batch()["input_ids"]
    a, b = (m.forward(ids, capture=["layers.0.mlp.*"]).captured for m in (single, model))
    assert set(a) == set(b) and any("expert_rows" in values.dims for values in a.values())
    for name, values in a.items():
        found, expected = np.asarray(b[name]), np.asarray(values)
        assert found.shape == expected.shape, name
        if "expert_rows" in values.dims:  # rank by rank: the same rows in another order
            found, expected = (np.sort(x.reshape(len(x), -1).sum(1)) for x in (found, expected))
        assert_near(name, found, expected, 1e-4)


def test_any_mesh_loads_what_this_one_saved(gpt_oss, tmp_path) -> None:
    model, trainer = open_on(gpt_oss, {"fsdp": 2, "expert": 2}, "adamw")
    trainer.step(make_batch(0))
    trainer.save(tmp_path / "saved")
    weights = {name: weight.gather() for name, weight in model.state_dict().items()}
    states = {name: trainer._step.read_state(name) for name in trainer._step.state_names()}
    following = trainer.step(make_batch(1))
    for mesh in (None, {"expert": 4}, {"data": 2, "tensor": 2}, {"expert": 2, "tensor": 2}):
        restored = mw.Trainer.restore(tmp_path / "saved", mesh=mesh, show=False)
        for name, weight in weights.items():
            assert np.array_equal(restored.model.state_dict()[name].gather(), weight), name
        for name, state in states.items():
            assert np.array_equal(restored._step.read_state(name), state), name
        assert abs(restored.step(make_batch(1)).loss - following.loss) <= 1e-5 * following.loss


def test_evaluation(gpt_oss) -> None:
    (_, alone), (_, together) = open_on(gpt_oss, None), open_on(gpt_oss, {"data": 2, "expert": 2})
    batches = [make_batch(seed) for seed in range(3)]
    a, b = alone.evaluate(batches), together.evaluate(batches)
    assert abs(a.loss - b.loss) <= 1e-5 * a.loss


def test_experts_that_do_not_divide(gpt_oss) -> None:
    with pytest.raises(mw.UserError, match="'expert' of size 16 does not divide dim 'experts' of size 8.*nearest sizes that work: 16"):
        open_on(gpt_oss, {"expert": 16})


def test_a_dense_model_sees_one_more_axis_of_the_batch() -> None:
    config = dict(
        family="llama",
        embedding_dim=64,
        mlp_dim=96,
        num_layers=2,
        num_query_heads=8,
        num_kv_heads=2,
        head_dim=8,
        vocab_size=VOCAB,
        max_position_embeddings=64,
    )
    single, model = mw.Model(config, seed=3), mw.Model(config, seed=3)
    alone = mw.Trainer(single, OPTIMIZERS["sgd"], show=False)
    together = mw.Trainer(model, OPTIMIZERS["sgd"], mesh={"expert": 2, "fsdp": 2}, show=False)
    for step in range(3):
        a, b = alone.step(make_batch(step)), together.step(make_batch(step))
        assert abs(a.loss - b.loss) <= 1e-5 * a.loss
    for name, weight in single.state_dict().items():
        assert_near(name, model.state_dict()[name].gather(), weight.gather(), 2e-5)
