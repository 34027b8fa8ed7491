"""A checkpoint of any mesh opens on any other: every pair of 8 meshes, both ways. State is the same bit by bit, and the run goes on
as if it had not been stopped."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import meshwright as mw
import numpy as np
import pytest
from distributed.random_runs import AXES
from tiny_models import assert_same, states_of, weights_of

# Meshes of axes that the package does not have yet stand in for others as soon as it has them.
WANTED: list[dict[str, int]] = [
    {},
    {"data": 2},
    {"fsdp": 4},
    {"tensor": 2},
    {"expert": 4},
    {"stage": 2, "tensor": 2},
    {"context": 2, "fsdp": 2},
    {"data": 2, "stage": 2, "expert": 2},
    {"data": 2, "fsdp": 2},
    {"fsdp": 2, "tensor": 2},
    {"data": 2, "expert": 2, "tensor": 2},
]
MESHES = [mesh for mesh in WANTED if mesh.keys() <= {*AXES}][:8]
NAMES = ["-".join(f"{axis}{size}" for axis, size in mesh.items()) or "one" for mesh in MESHES]
SETTINGS: dict[str, dict[str, Any]] = {
    "dense-float32": dict(base="llama3-8b", dtype="float32", sizes={}),
    "experts-bfloat16": dict(base="mixtral-8x7b", dtype="bfloat16", sizes=dict(moe_mlp_dim=32, moe=dict(num_experts=4))),
}
TOLERANCE = {"float32": 1e-5, "bfloat16": 2e-2}
STEPS_BEFORE, STEPS_AFTER = 2, 2


@dataclass
class Saved:
    folder: Any
    weights: dict[str, np.ndarray]
    states: dict[str, np.ndarray]
    losses_after: list[float]


def make_batch(step: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(step)
    return {"input_ids": rng.integers(0, 64, (8, 16)), "loss_weights": rng.uniform(0.2, 1.0, (8, 16)).astype(np.float32)}


@pytest.fixture(scope="module", params=SETTINGS)
def setting(request) -> dict[str, Any]:
    return SETTINGS[request.param]


@pytest.fixture(scope="module")
def saved(setting, tmp_path_factory) -> list[Saved]:
    """Of each mesh: its checkpoint after two steps, what it held then, and how the run went on."""
    runs = []
    for mesh in MESHES:
        sizes = dict(embedding_dim=32, mlp_dim=32, num_layers=2, num_query_heads=4, num_kv_heads=2, head_dim=8, vocab_size=64)
        model = mw.Model(setting["base"], **sizes, **setting["sizes"], max_position_embeddings=32, seed=5, dtype="float32")
        trainer = mw.Trainer(model, mw.AdamW(lr=1e-2, eps=1e-3), mesh=mesh, dtype=setting["dtype"], microbatches=2, clip=1.0, show=False)
        for step in range(STEPS_BEFORE):
            trainer.step(make_batch(step))
        folder = tmp_path_factory.mktemp("saved")
        trainer.save(folder / "checkpoint")
        weights, states = weights_of(model), states_of(trainer)
        losses = [trainer.step(make_batch(step)).loss for step in range(STEPS_BEFORE, STEPS_BEFORE + STEPS_AFTER)]
        runs.append(Saved(folder / "checkpoint", weights, states, losses))
    return runs


@pytest.mark.parametrize("load", range(len(MESHES)), ids=[f"on-{name}" for name in NAMES])
@pytest.mark.parametrize("save", range(len(MESHES)), ids=[f"from-{name}" for name in NAMES])
def test_save_and_load(saved, setting, save, load) -> None:
    source = saved[save]
    restored = mw.Trainer.restore(source.folder, mesh=MESHES[load], show=False)
    assert restored.mesh == MESHES[load] and restored.steps_done == STEPS_BEFORE
    assert_same(weights_of(restored.model), source.weights)
    assert_same(states_of(restored), source.states)
    for step, expected in enumerate(source.losses_after, STEPS_BEFORE):
        loss = restored.step(make_batch(step)).loss
        assert abs(loss - expected) <= TOLERANCE[setting["dtype"]] * expected


def test_there_are_eight_meshes() -> None:
    assert len(MESHES) == 8 and {axis for mesh in MESHES for axis in mesh} == {*AXES}
