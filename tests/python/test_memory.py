"""Planned memory is used memory, and what the process holds is not much more."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest
from meshwright import UserError
from meshwright.batch import adapt
from tiny_models import VOCAB, assert_same, make_batch, make_model, make_trainer, weights_of


def planned_and_used(rows=8, seq=16, **arguments):
    trainer = make_trainer(**arguments)
    metrics = trainer.step(make_batch(rows, seq))
    trainer.step(make_batch(rows, seq, 1))
    fields = adapt(make_batch(rows, seq), VOCAB).arrays
    assert trainer._step.peak_bytes(fields) == metrics.peak_bytes
    return metrics.peak_bytes, [trainer._step.bytes_in_use(rank) for rank in range(trainer.model._session.num_ranks)]


@pytest.mark.parametrize("arguments", [dict(), dict(mesh={"fsdp": 2}), dict(remat="minimal_offloaded")])
def test_a_step_that_does_not_fit_is_refused_before_it_allocates(arguments):
    first = make_trainer(**arguments)
    first.step(make_batch(8, 16))
    needed = first._step.bytes_in_use(0) + first._step.host_bytes_in_use(0)
    exact = make_trainer(memory=needed, **arguments)
    exact.step(make_batch(8, 16))

    tight = make_trainer(memory=needed - 1, **arguments)
    before, weights = tight._step.bytes_in_use(0), weights_of(tight.model)
    with pytest.raises(UserError, match=rf"8 x 16 tokens needs {needed} bytes.*, 1 more than the {needed - 1} there are; .*remat=auto"):
        tight.step(make_batch(8, 16))
    assert tight._step.bytes_in_use(0) == before < needed and tight._step.host_bytes_in_use(0) == 0
    assert_same(weights_of(tight.model), weights)
    tight.step(make_batch(4, 16))  # a smaller batch fits

    with pytest.raises(UserError, match=r"parameters and adamw's state take \d+ bytes of a rank, \d+ more than the 5000 there are"):
        make_trainer(memory=5000, **arguments)


@pytest.mark.parametrize(
    "arguments",
    [
        dict(),
        dict(dtype="bfloat16"),
        dict(microbatches=4),
        dict(remat="full"),
        dict(remat="minimal", dtype="bfloat16", microbatches=2),
        dict(mesh={"data": 2}),
        dict(mesh={"fsdp": 4}),
        dict(mesh={"data": 2, "tensor": 2}, remat="full"),
        dict(mesh={"fsdp": 2, "tensor": 2}, dtype="bfloat16", microbatches=2),
    ],
)
def test_planned_peak_is_what_is_in_use(arguments):
    planned, used = planned_and_used(**arguments)
    assert used == [planned] * len(used)


def test_remat_changes_both_and_no_number():
    kinds = {kind: planned_and_used(rows=4, seq=64, remat=kind)[0] for kind in ("none", "minimal", "full")}
    assert kinds["full"] < kinds["minimal"] < kinds["none"]
    trainers = {kind: make_trainer(remat=kind) for kind in kinds}
    for step in range(3):
        batch = make_batch(seed=step)
        metrics = {kind: trainer.step(batch) for kind, trainer in trainers.items()}
        assert metrics["full"].loss == metrics["minimal"].loss == metrics["none"].loss
    for kind in ("minimal", "full"):
        assert_same(weights_of(trainers[kind].model), weights_of(trainers["none"].model))


def peak_of(trainer, batch, seq) -> float:
    return float(re.search(r"peak\s+([\d.]+) MiB", trainer._step.explain(batch, seq, "memory"))[1])


def test_memory_grows_with_the_length_not_with_its_square():
    trainer = make_trainer(make_model(vocab_size=4096, max_position_embeddings=8192))
    assert peak_of(trainer, 1, 8192) <= 2.2 * peak_of(trainer, 1, 4096)


SMALL = """
import json, re, sys
import numpy as np
import meshwright as mw
from meshwright import model, trainer

def resident():
    return 1024 * int(re.search(r"VmRSS:\\s+(\\d+) kB", open("/proc/self/status").read())[1])

before = resident()
small = mw.Model("small")
run = mw.Trainer(small, mw.AdamW(lr=1e-3), show=False)
rng = np.random.default_rng(0)
peaks = []
for step in range(3):
    metrics = run.step({"input_ids": rng.integers(0, 32000, (8, 256))})
    peaks.append(resident())
print(json.dumps({"grown": max(peaks) - before, "planned": metrics.peak_bytes, "used": run._step.bytes_in_use(0)}))
"""


@pytest.mark.slow
def test_resident_memory_of_a_training_process():
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    result = subprocess.run([sys.executable, "-c", SMALL], capture_output=True, text=True, timeout=300, env=environment)
    assert result.returncode == 0, result.stderr
    report = json.loads(result.stdout)
    assert report["used"] == report["planned"]
    assert report["grown"] <= 1.1 * report["planned"] + (64 << 20), report


def test_arenas_are_given_back_with_the_model():
    first = make_trainer(make_model())
    first.step(make_batch())
    held = first._step.bytes_in_use(0)
    first.model(np.zeros((1, 8), np.int64))
    assert first._step.bytes_in_use(0) - held < held
