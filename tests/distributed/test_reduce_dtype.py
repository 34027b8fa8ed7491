"""Gradients that are sent in BF16 where ranks add them up: half the bytes; the sum of rounded terms, formed in FP32, rounded once."""

from __future__ import annotations

from typing import Any

import meshwright as mw
import numpy as np
import pytest
import torch
from distributed.ranks_program import DENSE, batch, make_model
from meshwright.batch import adapt

ROWS, SEQ = 8, 16
REDUCTIONS = ("all_reduce", "reduce_scatter")


def make_trainer(model: mw.Model, **arguments: Any) -> mw.Trainer:
    return mw.Trainer(model, mw.SGD(lr=1.0), show=False, **arguments)


def rounded(x: np.ndarray) -> np.ndarray:
    return torch.from_numpy(x).bfloat16().float().numpy()


def test_the_sum_is_that_of_rounded_terms_in_the_order_of_the_ranks() -> None:
    """Each of four ranks has two rows: its gradient is what one rank finds for them, to the bit."""
    model, single = make_model("dense"), make_model("dense")
    before = {name: weight.gather() for name, weight in single.state_dict().items()}
    ids = batch(0)["input_ids"]
    parts = [single.loss_and_gradients({"input_ids": rows})[1] for rows in np.split(ids, 4)]
    make_trainer(model, mesh={"data": 4}, reduce_dtype="bfloat16").step({"input_ids": ids})
    for name, weight in model.state_dict().items():
        total = rounded(parts[0][name] / 4)
        for part in parts[1:]:
            total = total + rounded(part[name] / 4)
        assert np.array_equal(weight.gather(), before[name] - rounded(total)), name


def bytes_of(trainer: mw.Trainer, rank: int | None = None) -> dict[str, float]:
    fields = adapt(batch(0), DENSE["vocab_size"]).arrays
    rows = trainer._step.planned_traffic(fields, 0) if rank is None else trainer._step.counted_traffic(fields, rank)
    found: dict[str, float] = {}
    for row in rows:
        kind = "reductions" if row["collective"] in REDUCTIONS else "others"
        found[kind] = found.get(kind, 0.0) + row["bytes"]
    return found


@pytest.mark.parametrize(
    ("mesh", "rules", "microbatches", "sent_per_weight"),
    [
        ({"data": 2}, None, 1, 1.0),  # 2 (n - 1) / n elements
        ({"data": 2}, None, 2, 1.0),  # the parts of the ranks are added once, in the last backward
        ({"data": 4}, "zero2", 2, 2 * 0.75),  # scattered after each microbatch
        ({"fsdp": 4}, None, 1, 0.75),
    ],
    ids=["ddp", "ddp-2", "zero2-2", "fsdp"],
)
def test_bytes_are_half_and_as_planned(mesh, rules, microbatches, sent_per_weight) -> None:
    placement: dict[str, Any] = dict(mesh=mesh, rules=rules, microbatches=microbatches)
    single = make_trainer(make_model("dense"), microbatches=microbatches)
    trainers = {dtype: make_trainer(make_model("dense"), reduce_dtype=dtype, **placement) for dtype in ("float32", "bfloat16")}
    metrics = {dtype: [trainer.step(batch(step)) for step in range(2)] for dtype, trainer in trainers.items()}
    weights = sum(int(np.prod(weight.shape)) for weight in trainers["float32"].model.state_dict().values())
    wide, narrow = bytes_of(trainers["float32"]), bytes_of(trainers["bfloat16"])
    assert wide["reductions"] - narrow["reductions"] == pytest.approx(sent_per_weight * weights * 2)
    assert wide.get("others") == narrow.get("others")
    for rank in range(next(iter(mesh.values()))):
        assert bytes_of(trainers["bfloat16"], rank) == pytest.approx(narrow)
    report = mw.plan(
        trainers["bfloat16"].model, batch=ROWS, seq=SEQ, optimizer=mw.SGD(lr=1.0), dtype="float32", reduce_dtype="bfloat16", **placement
    )
    assert report.peak_bytes == metrics["bfloat16"][-1].peak_bytes
    for step in range(2):
        loss = single.step(batch(step)).loss
        assert metrics["float32"][step].loss == pytest.approx(loss, rel=1e-5)
        assert metrics["bfloat16"][step].loss == pytest.approx(loss, rel=1e-2)


def test_another_dtype_is_an_error() -> None:
    with pytest.raises(mw.UserError, match="reduce_dtype 'float16'.*expected float32 or bfloat16"):
        make_trainer(make_model("dense"), mesh={"data": 2}, reduce_dtype="float16")
