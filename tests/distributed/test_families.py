"""Every family on meshes of data, fsdp, tensor and context: loss, every gradient, steps, and generated text equal one rank's."""

from __future__ import annotations

from typing import Any

import meshwright as mw
import numpy as np
import pytest
from parity.reference_models import CASES, VOCAB, save_model

MESHES: list[dict[str, int]] = [{"data": 2}, {"fsdp": 4}, {"tensor": 2}, {"fsdp": 2, "tensor": 2}, {"context": 4}]
NAMES = ["-".join(f"{axis}{size}" for axis, size in mesh.items()) for mesh in MESHES]
# Families beside llama; those that differ only in settings stand once.
FAMILIES = [
    "mixtral",
    "gemma",
    "gemma2",
    "gemma3",
    "qwen3",
    "qwen3_moe",
    "deepseek_v2_lite",
    "deepseek_v2_groups",
    "deepseek_v3",
    "gpt_oss",
    "llama4_scout",
    "llama4_maverick",
    "gpt2",
    "mistral_window",
]


@pytest.fixture(scope="module", params=FAMILIES)
def folder(request, tmp_path_factory):
    return save_model(request.param, tmp_path_factory.mktemp("models"))


def make_batch(seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {"input_ids": rng.integers(3, VOCAB, (4, 24)), "loss_weights": rng.random((4, 24)).astype(np.float32)}


def open_on(folder: Any, mesh: dict[str, int] | None, **arguments: Any) -> tuple[mw.Model, mw.Trainer]:
    model = mw.Model.from_pretrained(folder, dtype="float32")
    return model, mw.Trainer(model, mw.SGD(lr=0.1, momentum=0.9), mesh=mesh, clip=1.0, show=False, **arguments)


@pytest.mark.parametrize("mesh", MESHES, ids=NAMES)
def test_loss_and_every_gradient(folder, mesh) -> None:
    single, _ = open_on(folder, None)
    model, _ = open_on(folder, mesh)
    loss, gradients = single.loss_and_gradients(make_batch())
    mesh_loss, mesh_gradients = model.loss_and_gradients(make_batch())
    assert abs(mesh_loss - loss) <= 1e-5 * abs(loss)
    for name, gradient in gradients.items():
        assert np.abs(mesh_gradients[name] - gradient).max() <= 1e-5 * np.abs(gradient).max(), name


@pytest.mark.parametrize("mesh", MESHES, ids=NAMES)
def test_steps_and_text(folder, mesh) -> None:
    (single, alone), (model, together) = open_on(folder, None), open_on(folder, mesh)
    for step in range(3):
        a, b = alone.step(make_batch(step)), together.step(make_batch(step))
        assert abs(a.loss - b.loss) <= 1e-5 * a.loss
        assert abs(a.grad_norm - b.grad_norm) <= 1e-5 * a.grad_norm
    weights, mesh_weights = single.state_dict(), model.state_dict()
    for name, weight in weights.items():
        whole = weight.gather()
        assert np.abs(mesh_weights[name].gather() - whole).max() <= 2e-5 * np.abs(whole).max(), name
    prompts = [[5, 6, 7], [8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18]]
    texts = [mw.Generator(m).generate(prompts, max_new_tokens=12, eos_token_id=None) for m in (single, model)]
    assert texts[0] == texts[1]


def test_every_case_is_here() -> None:
    left_out = {name for name in CASES if name not in FAMILIES}
    assert all(name.startswith(("llama_", "mistral_", "qwen3_")) for name in left_out)
