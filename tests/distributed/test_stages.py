"""Stages of a pipeline: all that a model can do on one rank, on stages; what is kept where; what a stage says when it does not fit."""

from __future__ import annotations

from typing import Any

import meshwright as mw
import numpy as np
import pytest
from tiny_models import VOCAB, assert_same, make_batch, make_model, make_trainer, states_of, weights_of

ORDERS: list[dict[str, Any]] = [
    dict(pipeline="gpipe"),
    dict(pipeline="1f1b"),
    dict(pipeline="zero_bubble"),
    dict(pipeline="interleaved", interleave=2),
    dict(pipeline="gpipe", interleave=2),
]
ORDER_NAMES = ["-".join(map(str, order.values())) for order in ORDERS]
DEEPSEEK: dict[str, Any] = dict(
    embedding_dim=32,
    mlp_dim=32,
    moe_mlp_dim=16,
    num_layers=3,
    num_query_heads=2,
    num_kv_heads=2,
    head_dim=12,
    vocab_size=VOCAB,
    max_position_embeddings=64,
    mla=dict(q_lora_rank=12, kv_lora_rank=16, qk_nope_head_dim=8, qk_rope_head_dim=4, v_head_dim=8),
    mtp_layers=1,
)


def deepseek(**changes: Any) -> mw.Model:
    fields = dict(DEEPSEEK)
    moe = dict(num_experts=4, experts_per_token=2, num_shared_experts=1, shared_expert_mlp_dim=16, first_dense_layers=1)
    return mw.Model(
        "deepseek3-671b", **{**fields, "moe": {**moe, "num_expert_groups": 1, "groups_selected": 1}, **changes}, dtype="float32"
    )


@pytest.mark.parametrize("order", ORDERS, ids=ORDER_NAMES)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_every_order_has_the_bits_of_one_rank(order, dtype) -> None:
    """Gradients are added up in the order of the microbatches, so stages alone change no bit."""
    runs = []
    for mesh, more in [({}, {}), ({"stage": 2}, order)]:
        model = make_model(num_layers=5)
        trainer = make_trainer(model, optimizer=mw.SGD(lr=0.1), clip=None, dtype=dtype, mesh=mesh, microbatches=4, **more)
        losses = [trainer.step(make_batch(rows=8, seed=step)).loss for step in range(3)]
        runs.append((losses, weights_of(model), trainer.step(make_batch(rows=8)).bubble))
    assert runs[0][0] == runs[1][0]
    assert_same(runs[0][1], runs[1][1])
    assert runs[0][2] is None and 0 < runs[1][2] < 1


@pytest.mark.parametrize(
    "losses", [mw.Losses(), mw.Losses(mtp=0.0), mw.Losses(selection_bias_rate=0.01, load_balance=0.01, expert_load=True)]
)
@pytest.mark.parametrize("stages", [2, 3])
def test_experts_and_multi_token_prediction(losses, stages) -> None:
    """The embedding is read by the first stage and, for the modules of multi-token prediction, by the last."""
    runs = []
    for mesh in ({}, {"stage": stages}):
        model = deepseek()
        trainer = make_trainer(model, optimizer=mw.SGD(lr=0.1, momentum=0.9), mesh=mesh, microbatches=2, losses=losses)
        metrics = [trainer.step(make_batch(rows=4, seed=step)) for step in range(3)]
        runs.append((metrics, weights_of(model), states_of(trainer)))
    for one, cut in zip(runs[0][0], runs[1][0], strict=True):
        assert cut.loss == pytest.approx(one.loss, rel=1e-6)
        assert cut.grad_norm == pytest.approx(one.grad_norm, rel=1e-6)
        assert {**cut.terms} == pytest.approx({**one.terms}, rel=1e-5)
        assert cut.expert_load == one.expert_load
    assert_same(runs[1][1], runs[0][1], 1e-5)
    assert_same(runs[1][2], runs[0][2], 1e-5)


@pytest.mark.parametrize("mesh", [{"stage": 2}, {"stage": 3, "tensor": 2}], ids=["stage2", "stage3-tensor2"])
@pytest.mark.parametrize("tied", [False, True])
def test_what_a_model_does_without_training(mesh, tied) -> None:
    batch = make_batch()
    answers = []
    for axes in ({}, mesh):
        model = make_model(num_layers=3, tie_embeddings=tied)
        trainer = make_trainer(model, mesh=axes)
        result = model.forward(batch["input_ids"], capture=["layers.*.output", "layers.*.attention.context"])
        loss, gradients = model.loss_and_gradients(batch)
        text = mw.Generator(model).generate([[1, 2, 3], [4]], max_new_tokens=6)
        answers.append((result, loss, gradients, trainer.evaluate([batch]).loss, text))
    one, cut = answers
    assert_same({"logits": cut[0].logits}, {"logits": one[0].logits}, 1e-5)
    assert len(cut[0].captured) == 6
    captured = [{name: np.asarray(value) for name, value in result.captured.items()} for result in (cut[0], one[0])]
    assert_same(captured[0], captured[1], 1e-5)
    assert cut[1] == pytest.approx(one[1], rel=1e-6) and cut[3] == pytest.approx(one[3], rel=1e-6)
    assert_same(cut[2], one[2], 1e-5)
    assert cut[4] == one[4]


def test_captured_values_keep_their_dtype() -> None:
    scopes = ["layers.0.output", "layers.1.output"]
    found = []
    for axes in ({}, {"stage": 2}):
        model = make_model()
        make_trainer(model, mesh=axes, dtype="bfloat16")
        found.append({name: np.asarray(value) for name, value in model.forward(make_batch()["input_ids"], capture=scopes).captured.items()})
    assert_same(found[1], found[0])


def test_ranks_keep_the_layers_of_their_stage() -> None:
    model = make_model(num_layers=4, tie_embeddings=True)
    trainer = make_trainer(model, mesh={"stage": 2, "tensor": 2})
    trainer.step(make_batch())
    state = model.state_dict()
    for name, weight in state.items():
        layer = int(name.split(".")[2]) if ".layers." in name else None
        stages = {0, 1} if layer is None and "embed" in name else {1} if layer is None else {layer // 2}
        for rank in range(4):
            if rank // 2 in stages:
                assert weight.local(rank)[0].size > 0
            else:
                with pytest.raises(mw.UserError, match=f"rank {rank} is of stage {rank // 2}, which has nothing of '{name}'"):
                    weight.local(rank)
    session = model._session
    copies = [session.local_shard("model.embed_tokens.weight", rank)[0].copy() for rank in range(4)]
    assert np.array_equal(copies[0], copies[2]) and np.array_equal(copies[1], copies[3])
    half = [trainer._step.bytes_in_use(rank) for rank in (0, 2)]
    whole = make_trainer(make_model(num_layers=4, tie_embeddings=True), mesh={"tensor": 2})
    whole.step(make_batch())
    assert max(half) < 0.8 * whole._step.bytes_in_use(0)


@pytest.mark.parametrize(("stages", "layers"), [(3, [1, 1, 0]), (4, [0, 1, 1, 0])])
def test_the_head_and_the_embedding_may_have_a_stage_of_their_own(stages, layers) -> None:
    runs = []
    for mesh in ({}, {"stage": stages}):
        model = make_model(tie_embeddings=True)
        trainer = make_trainer(model, optimizer=mw.SGD(lr=0.1), mesh=mesh, microbatches=4)
        runs.append(([trainer.step(make_batch(seed=step)).loss for step in range(2)], weights_of(model)))
    assert runs[0][0] == runs[1][0]
    assert_same(runs[1][1], runs[0][1], 1e-6)
    held = [sum(_has(model, f"model.layers.{layer}.mlp.up_proj.weight", rank) for layer in range(2)) for rank in range(stages)]
    assert held == layers


def test_a_run_goes_on_with_other_stages(tmp_path) -> None:
    """A folder of runs: stages come and go, layers move between them, and the loss goes on."""
    batches = [make_batch(rows=8, seed=step) for step in range(6)]
    whole = make_trainer(make_model(num_layers=4), microbatches=2)
    expected = [whole.step(batch).loss for batch in batches]
    settings: list[dict[str, Any]] = [
        dict(mesh={"stage": 2}),
        dict(mesh={"stage": 4}, pipeline="zero_bubble"),
        dict(mesh={"stage": 2, "fsdp": 2}, pipeline="interleaved", interleave=2),
    ]
    for i, more in enumerate(settings):
        trainer = make_trainer(make_model(num_layers=4), output=tmp_path / "run", microbatches=2, **more)
        assert trainer.steps_done == 2 * i
        found = [trainer.step(batch).loss for batch in batches[2 * i : 2 * i + 2]]
        assert found == pytest.approx(expected[2 * i : 2 * i + 2], rel=1e-5)
        trainer._save_step()
        trainer._wait_for_save()


def test_what_a_plan_says_of_stages() -> None:
    settings: dict[str, Any] = dict(batch=8, seq=16, dtype="float32", microbatches=4, mesh={"stage": 2, "data": 2}, remat="full")
    model = make_model(num_layers=4)
    trainer = make_trainer(model, **{key: settings[key] for key in ("mesh", "microbatches", "remat")})
    metrics = trainer.step(make_batch(rows=8))
    alone, timed = (mw.plan(model, clip=1.0, **settings, **more) for more in ({}, {"hardware": "cpu"}))
    assert alone.peak_bytes == timed.peak_bytes == metrics.peak_bytes
    assert alone.traffic == timed.traffic and {"collective", "bytes"} <= alone.traffic[0].keys()
    sent = next(row for row in alone.traffic if row["collective"] == "send")
    assert sent["axes"] == "stage" and sent["calls"] == 4 and sent["bytes"] == 4 * (1 * 16 * 32 * 4)
    assert [row["memory"]["parameters"] for row in timed.stages] == [
        sum(model.state_dict()[name].local(rank)[0].nbytes for name in model.state_dict() if _has(model, name, rank)) for rank in (0, 1)
    ]
    assert "== stage 1 of 2 ==" in alone.explain(after="partition")
    assert "send to stage 1  layers.1.output" in alone.explain(after="collectives")
    assert not any("wait" in warning for warning in alone.warnings)
    few = mw.plan(model, **{**settings, "microbatches": 1})
    assert "1 microbatches go through 2 stages, which wait 50% of the time; more of them wait less" in few.warnings
    gpipe = mw.plan(model, clip=1.0, pipeline="gpipe", **settings)
    assert gpipe.memory["activations"] > alone.memory["activations"]  # all microbatches are in flight


def _has(model: mw.Model, name: str, rank: int) -> bool:
    try:
        return model.state_dict()[name].local(rank)[0].size > 0
    except mw.UserError:
        return False


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (dict(mesh={"stage": 5}), r"a model of 2 layers cannot be cut into 5 parts \(stages times chunks\); expected at most 4"),
        (dict(mesh={"stage": 3}, interleave=2), "a model of 2 layers cannot be cut into 6 parts"),
        (dict(mesh={"stage": 2}, pipeline="1f1"), r"there is no pipeline order '1f1' \(did you mean '1f1b'\?\)"),
        (dict(mesh={"stage": 2}, interleave=0), "2 stages, 0 chunks and 1 microbatches; expected at least 1 of each"),
        (dict(mesh={"stage": 2}, memory=1000), r"state take \d+ bytes of a rank, \d+ more than the 1000 there are"),
    ],
)
def test_errors(settings, message) -> None:
    with pytest.raises(mw.UserError, match=message):
        make_trainer(make_model(), **settings)


def test_errors_of_orders_that_do_not_go_with_the_microbatches() -> None:
    with pytest.raises(mw.UserError, match="2 chunks, which pipeline=interleaved and gpipe take; found pipeline=zero_bubble"):
        make_trainer(make_model(num_layers=4), mesh={"stage": 2}, pipeline="zero_bubble", interleave=2)
    with pytest.raises(
        mw.UserError, match=r"groups of as many microbatches as there are stages \(2\); found 3 .* nearest that work: 2 or 4"
    ):
        make_trainer(make_model(num_layers=4), mesh={"stage": 2}, pipeline="interleaved", interleave=2, microbatches=3)


def test_a_loss_that_is_not_finite_changes_nothing() -> None:
    model = make_model()
    trainer = make_trainer(model, mesh={"stage": 2}, microbatches=2)
    weight = "model.layers.1.mlp.down_proj.weight"
    model._session.write_tensor(weight, np.full(model.state_dict()[weight].shape, np.inf, np.float32))
    before = weights_of(model)
    with pytest.raises(FloatingPointError, match=r"layers\.1\.mlp\.down"):
        trainer.step(make_batch())
    assert_same(weights_of(model), before)
