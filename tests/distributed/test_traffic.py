"""What every rank sends in a step is what the plan says, byte by byte, and so is the memory that it holds."""

from __future__ import annotations

import meshwright as mw
import numpy as np
import pytest
from meshwright.batch import adapt

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
MESHES: list[tuple[dict[str, int], str | None]] = [
    ({"data": 4}, "ddp"),
    ({"data": 4}, "zero1"),
    ({"data": 2, "fsdp": 2}, "zero2"),
    ({"fsdp": 4}, None),
    ({"tensor": 4}, None),
    ({"data": 2, "fsdp": 2, "tensor": 2}, None),
    ({"fsdp": 2, "expert": 2, "tensor": 2}, None),
    ({"data": 2, "context": 2}, None),
    ({"context": 2, "tensor": 4}, None),
    ({"context": 4}, None),  # as a ring
    ({"stage": 2, "fsdp": 2}, None),
    ({"data": 2, "stage": 2, "tensor": 2}, "3d"),
]
NAMES = ["-".join(f"{axis}{size}" for axis, size in mesh.items()) + (f"-{rules}" if rules else "") for mesh, rules in MESHES]


@pytest.mark.parametrize(("mesh", "rules"), MESHES, ids=NAMES)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("remat", ["none", "minimal", "full", "save_dot_except_mlp", "minimal_offloaded"])
def test_counted_bytes_and_memory_are_the_planned_ones(mesh, rules, dtype, remat) -> None:
    settings = dict(
        mesh=mesh,
        rules=rules,
        context_attention="ring" if mesh.get("context", 1) > 2 else None,
        dtype=dtype,
        remat=remat,
        microbatches=2,
        clip=1.0,
    )
    model = mw.Model(CONFIG, seed=3)
    trainer = mw.Trainer(model, mw.AdamW(lr=1e-3), show=False, **settings)
    batch = {"input_ids": np.random.default_rng(0).integers(0, CONFIG["vocab_size"], (8, 16))}
    metrics = trainer.step(batch)
    planned = mw.plan(CONFIG, batch=8, seq=16, **settings)
    assert planned.peak_bytes == metrics.peak_bytes
    assert (planned.host_bytes > 0) == remat.endswith("offloaded")
    fields = adapt(batch, CONFIG["vocab_size"]).arrays
    held = [trainer._step.peak_bytes(fields, rank) for rank in range(planned.num_ranks)]
    assert max(held) == planned.peak_bytes
    for rank, peak in enumerate(held):
        assert trainer._step.bytes_in_use(rank) == peak
        sent = trainer._step.planned_traffic(fields, rank)
        if peak == planned.peak_bytes:  # stages need different amounts; the plan tells the fullest one's
            assert trainer._step.host_bytes_in_use(rank) == planned.host_bytes
            assert sent == planned.traffic
        counted = trainer._step.counted_traffic(fields, rank)
        assert counted == [{**row, "bytes": pytest.approx(row["bytes"]), "most_bytes": pytest.approx(row["most_bytes"])} for row in sent]
        assert ("send" in {row["collective"] for row in counted}) == ("stage" in mesh)
