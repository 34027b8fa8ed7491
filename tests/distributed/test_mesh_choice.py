"""Trainer(mesh="auto"): ranks that are threads, as many as pay; the same numbers as one rank; what is said where it cannot be."""

from __future__ import annotations

import meshwright as mw
import numpy as np
import pytest
from meshwright.mesh_choice import choose_mesh
from meshwright.ranks import Ranks

BATCH = {"input_ids": np.random.default_rng(0).integers(0, 256, (8, 32))}


def trainer(**settings) -> mw.Trainer:
    return mw.Trainer(mw.Model("tiny", seed=1, vocab_size=256), mw.SGD(lr=0.1), **settings)


def test_threads(capsys) -> None:
    automatic = trainer(mesh="auto", batch_shape=(8, 32), microbatches=2)
    assert "(auto: the fastest of" in capsys.readouterr().err
    alone = trainer(microbatches=2, show=False)
    for _ in range(2):
        assert automatic.step(BATCH).loss == pytest.approx(alone.step(BATCH).loss, rel=1e-5)
    assert trainer(mesh="auto", batch_shape=(8, 32), microbatches=2, show=False).mesh == automatic.mesh


def test_as_many_ranks_as_mpirun_started(monkeypatch) -> None:
    ranks = Ranks()
    monkeypatch.setattr(ranks, "size", 8)
    monkeypatch.setattr(ranks, "gather", lambda text: [text] * 8)
    settings = dict(optimizer=mw.AdamW(lr=1e-3), dtype="float32", microbatches=1)
    mesh, line = choose_mesh("small", ranks, (16, 256), settings)
    assert np.prod(list(mesh.values())) == 8 and line.startswith("mesh: ")
    again, _ = choose_mesh("small", ranks, (16, 256), settings)
    assert again == mesh
    with pytest.raises(mw.UserError, match="no mesh of 8 ranks that divides a batch of 3 sequences of 7 tokens in 2 micro"):
        choose_mesh("tiny", ranks, (3, 7), {**settings, "microbatches": 2})


def test_memory_counts() -> None:
    plan = {mesh: mw.plan("tiny", mesh={"fsdp": mesh}, batch=8, seq=32, dtype="float32", hardware="cpu") for mesh in (1, 8)}
    limit = (plan[1].needed_bytes + plan[8].needed_bytes) // 2
    ranks = Ranks()
    settings = dict(optimizer=mw.AdamW(lr=1e-3), dtype="float32", microbatches=1, memory=limit)
    ranks.size, ranks.gather = 8, lambda text: [text]  # type: ignore[method-assign]
    mesh, _ = choose_mesh("tiny", ranks, (8, 32), settings)
    assert mesh.get("data", 1) < 8 and mw.plan("tiny", mesh=mesh, batch=8, seq=32, dtype="float32", memory=limit).fits
    with pytest.raises(
        mw.UserError, match=r"mesh='auto': none of \d+ meshes fits; on the smallest a rank needs .* more than the 1000 B given"
    ):
        trainer(mesh="auto", batch_shape=(8, 32), memory=1000)


def test_messages() -> None:
    with pytest.raises(mw.UserError, match=r"mesh='auto' plans for a batch; expected batch_shape=\(sequences, tokens\), found None"):
        trainer(mesh="auto")
    with pytest.raises(mw.UserError, match="expected a Mesh, a dict such as .* or 'auto', found 'atuo'"):
        trainer(mesh="atuo")
