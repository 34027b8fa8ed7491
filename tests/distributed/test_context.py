"""Sequences that are split over `context`: every kind of attention equals one rank's, with keys gathered and around a ring."""

from __future__ import annotations

from typing import Any

import meshwright as mw
import numpy as np
import pytest
from parity.reference_models import VOCAB, save_model

FAMILIES = ["qwen3", "gemma2", "gemma3", "mistral_window", "gpt_oss", "llama4_scout", "deepseek_v2_lite", "deepseek_v3", "gpt2"]
CONFIG = dict(
    family="llama",
    embedding_dim=32,
    mlp_dim=48,
    num_layers=2,
    num_query_heads=4,
    num_kv_heads=2,
    head_dim=8,
    vocab_size=64,
    max_position_embeddings=64,
)


@pytest.fixture(scope="module", params=FAMILIES)
def folder(request, tmp_path_factory):
    return save_model(request.param, tmp_path_factory.mktemp("models"))


def make_batch(seed: int = 0) -> dict[str, np.ndarray]:
    """Packed: segments and positions of their own, in rows longer than every window and chunk."""
    rng = np.random.default_rng(seed)
    return {
        "input_ids": rng.integers(3, VOCAB, (2, 32)),
        "loss_weights": rng.random((2, 32)).astype(np.float32),
        "segment_ids": np.sort(rng.integers(1, 4, (2, 32)), axis=1),
    }


def trained(folder: Any, **arguments: Any) -> tuple[mw.Model, mw.Trainer]:
    model = mw.Model.from_pretrained(folder, dtype="float32")
    return model, mw.Trainer(model, mw.SGD(lr=0.1, momentum=0.9), clip=1.0, show=False, **arguments)


@pytest.mark.parametrize("attention", ["gather", "ring"])
@pytest.mark.parametrize("mesh", [{"context": 4}, {"context": 2, "tensor": 2}], ids=["context4", "context2-tensor2"])
def test_every_kind_of_attention(folder, mesh, attention) -> None:
    (single, alone), (model, together) = trained(folder), trained(folder, mesh=mesh, context_attention=attention)
    batch = make_batch()
    loss, gradients = single.loss_and_gradients(batch)
    mesh_loss, mesh_gradients = model.loss_and_gradients(batch)
    assert abs(mesh_loss - loss) <= 1e-5 * abs(loss)
    for name, gradient in gradients.items():
        assert np.abs(mesh_gradients[name] - gradient).max() <= 1e-5 * np.abs(gradient).max(), name
    a, b = alone.step(make_batch(1)), together.step(make_batch(1))
    assert abs(a.loss - b.loss) <= 1e-5 * a.loss and abs(a.grad_norm - b.grad_norm) <= 1e-5 * a.grad_norm


@pytest.mark.parametrize("attention", ["gather", "ring"])
def test_bfloat16(attention) -> None:
    single, model = mw.Model(CONFIG, seed=3), mw.Model(CONFIG, seed=3)
    optimizer = mw.SGD(lr=0.1)
    alone = mw.Trainer(single, optimizer, dtype="bfloat16", show=False)
    together = mw.Trainer(model, optimizer, dtype="bfloat16", mesh={"context": 4}, context_attention=attention, show=False)
    for step in range(3):
        batch = {"input_ids": np.random.default_rng(step).integers(0, 64, (2, 32))}
        a, b = alone.step(batch), together.step(batch)
        assert abs(a.loss - b.loss) <= 1e-3 * a.loss


def test_results_and_captures_are_in_their_natural_order() -> None:
    ids = np.random.default_rng(0).integers(0, 64, (2, 16))
    single, model = mw.Model(CONFIG, seed=3), mw.Model(CONFIG, seed=3)
    mw.Trainer(model, mw.SGD(lr=0.1), mesh={"context": 4}, show=False)
    expected, found = (m.forward(ids, capture=["layers.0.attention.context"]) for m in (single, model))
    assert np.abs(found.logits - expected.logits).max() <= 1e-5 * np.abs(expected.logits).max()
    (scope,) = expected.captured
    assert np.abs(found.captured[scope] - expected.captured[scope]).max() <= 1e-5 * np.abs(expected.captured[scope]).max()


def test_a_ring_never_holds_all_keys() -> None:
    sizes = dict(mesh={"context": 16}, seq=65536, batch=1, remat="full")
    gathered, ring = (mw.plan("llama3-8b", context_attention=how, **sizes) for how in ("gather", "ring"))
    assert ring.peak_bytes < gathered.peak_bytes
    over_context = [{(c["collective"], c["scope"]) for c in report.collectives if c["axes"] == "context"} for report in (gathered, ring)]
    assert ("all_gather", "layers.0.attention.context") in over_context[0] and not any(op == "ring_shift" for op, _ in over_context[0])
    assert ("ring_shift", "layers.0.attention.context") in over_context[1] and not any(op == "all_gather" for op, _ in over_context[1])


def test_errors() -> None:
    model = mw.Model(CONFIG)
    with pytest.raises(mw.UserError, match="context_attention: expected 'gather' or 'ring', found 'rings'"):
        mw.Trainer(model, mw.SGD(lr=0.1), mesh={"context": 2}, context_attention="rings", show=False)
    trainer = mw.Trainer(model, mw.SGD(lr=0.1), mesh={"context": 4}, show=False)
    with pytest.raises(
        mw.UserError, match="'context' of size 4 does not cut dim 'seq' of size 12 into two blocks.*nearest sizes that work: 8 or 16"
    ):
        trainer.step({"input_ids": np.zeros((2, 12), dtype=np.int64)})
    assert np.isfinite(trainer.step({"input_ids": np.zeros((2, 16), dtype=np.int64)}).loss)
