"""What the profiler costs: steps with and without recording, in turns on one Trainer.

    python benchmarks/profiler.py model=small mesh=fsdp:2 batch=8 seq=256 pairs=40

Each pair is a recorded step and a plain one, in random order; the time is that of the whole call of `Trainer.step`. Printed: the best and
the median of each, their ratios, the median of the ratios of the pairs, and the same for two plain steps, which is the noise.
"""

from __future__ import annotations

import random
import statistics
import sys
import time
from typing import Any

from peers.cases import settings_of


def timed(trainer: Any, batch: Any, recording: Any) -> float:
    trainer._step.record(recording)
    start = time.perf_counter()
    trainer.step(batch)
    seconds = time.perf_counter() - start
    trainer._step.record(None)
    return seconds


def main(arguments: list[str]) -> None:
    import meshwright as mw
    import numpy as np

    defaults = {
        "model": "small",
        "mesh": "",
        "batch": "8",
        "seq": "256",
        "pairs": "40",
        "dtype": "float32",
        "microbatches": "1",
        "overlap": "0",
    }
    settings = settings_of(arguments, defaults)
    mesh = {axis: int(size) for axis, _, size in (part.partition(":") for part in settings["mesh"].split(",") if part)}
    model = mw.Model(settings["model"], seed=0)
    trainer = mw.Trainer(
        model,
        mw.AdamW(lr=1e-4),
        mesh=mesh,
        dtype=settings["dtype"],
        microbatches=int(settings["microbatches"]),
        overlap=settings["overlap"] == "1",
        show=False,
    )
    batch = {"input_ids": np.random.default_rng(0).integers(0, model.config.vocab_size, (int(settings["batch"]), int(settings["seq"])))}
    recording = mw._core.Recording()
    for record in (None, recording, None):  # the first plans; the first recorded one names the ops
        timed(trainer, batch, record)
    seconds: dict[str, list[float]] = {"plain": [], "recorded": [], "plain again": []}
    order = random.Random(0)
    for _ in range(int(settings["pairs"])):
        ways = list(seconds)
        order.shuffle(ways)
        for way in ways:
            seconds[way].append(timed(trainer, batch, recording if way == "recorded" else None))
    slices = len(recording.slices) / (int(settings["pairs"]) + 1)
    print(f"{settings}: {slices:,.0f} slices per step")
    for way, found in seconds.items():
        ratios = [a / b for a, b in zip(found, seconds["plain"], strict=True)]
        best, median = min(found) / min(seconds["plain"]), statistics.median(found) / statistics.median(seconds["plain"])
        print(
            f"  {way:<12} best {min(found) * 1e3:9.3f} ms  median {statistics.median(found) * 1e3:9.3f} ms"
            f"   over plain: best {best:.4f}  median {median:.4f}  median of pairs {statistics.median(ratios):.4f}"
        )


if __name__ == "__main__":
    main(sys.argv[1:])
