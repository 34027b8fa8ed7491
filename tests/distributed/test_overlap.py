"""Collectives beside compute: the bits of a run that waits for each of them, in the memory that was planned, within the bound."""

from __future__ import annotations

import re
from typing import Any

import meshwright as mw
import pytest
from distributed.ranks_program import DENSE, batch, make_model, train
from meshwright.batch import adapt

CASES: list[dict[str, Any]] = [
    dict(mesh={"data": 2}),
    dict(mesh={"data": 2}, rules="zero1", microbatches=2),
    dict(mesh={"fsdp": 2}, microbatches=2, remat="full"),
    dict(mesh={"fsdp": 4}, dtype="bfloat16", reduce_dtype="bfloat16"),
    dict(mesh={"tensor": 2}),
    dict(mesh={"context": 2}, context_attention="ring"),
    dict(mesh={"data": 2, "fsdp": 2}, microbatches=2),
    dict(mesh={"fsdp": 2, "tensor": 2}),
    dict(mesh={"fsdp": 2, "expert": 2}, model="experts"),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: " ".join(f"{axis}{size}" for axis, size in case["mesh"].items()))
def test_same_bits_with_and_without(case) -> None:
    def bits(**overlap: Any) -> dict[str, Any]:
        found = train({**case, **overlap}, "adamw")
        return {**found, "steps": [step[:2] for step in found["steps"]]}  # without the peak

    waiting = bits()
    assert bits(overlap=True) == waiting
    assert bits(overlap=True, overlap_bytes=30_000) == waiting


@pytest.mark.parametrize("overlap_bytes", [None, 30_000, 1 << 30])
@pytest.mark.parametrize("case", [CASES[1], CASES[2], CASES[7]], ids=["zero1", "fsdp", "fsdp-tensor"])
def test_planned_memory_is_what_is_used(case, overlap_bytes) -> None:
    def step(**overlap: Any) -> tuple[int, int]:
        trainer = mw.Trainer(make_model("dense"), mw.AdamW(lr=1e-3), show=False, **case, **overlap)
        trainer.step(batch(0))
        fields = adapt(batch(0), DENSE["vocab_size"]).arrays
        return trainer._step.peak_bytes(fields), max(trainer._step.bytes_in_use(rank) for rank in range(trainer.model._session.num_ranks))

    planned, used = step(overlap=True, overlap_bytes=overlap_bytes)
    assert used == planned
    without = step()[0]
    assert without <= planned
    if overlap_bytes == 30_000:
        assert planned <= without + 2 * overlap_bytes


def explained(**settings: Any) -> list[str]:
    report = mw.plan(DENSE, mesh={"fsdp": 2}, seq=16, batch=4, dtype="float32", **settings)
    return report.explain(after="collectives").splitlines()


def test_explain_says_where_a_transfer_starts_and_ends() -> None:
    assert not any("in flight" in line for line in explained())
    lines = explained(overlap=True)
    gathers = [line for line in lines if line.startswith("forward") and " layers.1." in line and "all_gather" in line]
    assert gathers and all(re.search(r"in flight \d+ to \d+ \(layers\.1\.", line) for line in gathers)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (dict(overlap=False, overlap_bytes=100), "overlap is off; expected overlap=True"),
        (dict(overlap=True, overlap_bytes=0), "expected a whole number of at least 1, found 0"),
        (dict(overlap=True, overlap_bytes=1.5), "found 1.5"),
    ],
)
def test_bounds_that_mean_nothing_are_errors(settings, message) -> None:
    with pytest.raises(mw.UserError, match=message):
        mw.Trainer(make_model("dense"), mw.AdamW(lr=1e-3), show=False, **settings)
    with pytest.raises(mw.UserError, match=message):
        explained(**settings)
