"""The bubble of a pipeline in every order: measured on stages that are threads, beside what a plan of the same step says.

    python benchmarks/pipeline_bubbles.py model=small microbatches=8 rounds=3 steps=3

Two stages with one thread each take turns with one rank of two threads. Printed for each order: the best step, as a ratio of one rank's;
the bubble as measured (median) and as predicted for this machine; the planned peak of the fuller stage; whether the losses have the bits of
one rank's.
"""

from __future__ import annotations

import statistics
import sys
import time
from typing import Any

from peers.cases import settings_of

BATCH, SEQ, STAGES = 8, 256, 2
ORDERS: dict[str, dict[str, Any]] = {
    "one rank": {},
    "gpipe": {"pipeline": "gpipe"},
    "1f1b": {"pipeline": "1f1b"},
    "interleaved": {"pipeline": "interleaved", "interleave": 2},
    "zero_bubble": {"pipeline": "zero_bubble"},
}


def main(arguments: list[str]) -> None:
    settings = settings_of(arguments, {"model": "small", "dtype": "float32", "microbatches": "8", "rounds": "3", "steps": "3"})
    import meshwright as mw
    import numpy as np
    from meshwright.hardware import this_machine

    count, dtype = int(settings["microbatches"]), settings["dtype"]
    trainers, plans = {}, {}
    for name, order in ORDERS.items():
        mesh = {"stage": STAGES} if order else {}
        net = mw.Model(settings["model"], seed=0)
        trainers[name] = mw.Trainer(
            net, mw.AdamW(lr=1e-4), clip=1.0, mesh=mesh, dtype=dtype, microbatches=count, show=False, threads=STAGES, **order
        )
        plans[name] = mw.plan(
            net,
            mesh=mesh,
            dtype=dtype,
            microbatches=count,
            batch=BATCH,
            seq=SEQ,
            clip=1.0,
            hardware=this_machine(STAGES if order else 1),
            **order,
        )
    batch = {"input_ids": np.random.default_rng(0).integers(0, net.config.vocab_size, (BATCH, SEQ))}
    seconds: dict[str, list[float]] = {name: [] for name in ORDERS}
    bubbles: dict[str, list[float]] = {name: [] for name in ORDERS}
    losses: dict[str, list[float]] = {name: [] for name in ORDERS}
    for trainer in trainers.values():
        trainer.step(batch)
    for _ in range(int(settings["rounds"])):
        for name, trainer in trainers.items():
            for _ in range(int(settings["steps"])):
                start = time.perf_counter()
                metrics = trainer.step(batch)
                seconds[name].append(time.perf_counter() - start)
                bubbles[name].append(metrics.bubble or 0.0)
                losses[name].append(metrics.loss)
    print(f"{settings['model']}, {BATCH} x {SEQ} tokens in {count} microbatches, {dtype}, {STAGES} stages with one thread each")
    print(f"{'order':<12} {'best step':>10} {'of one rank':>12} {'bubble':>8} {'predicted':>10} {'peak MiB':>9}  bits of one rank")
    alone = min(seconds["one rank"])
    for name in ORDERS:
        best, plan = min(seconds[name]), plans[name]
        predicted = plan.estimate.seconds["bubble"] / plan.estimate.step_seconds
        same = losses[name] == losses["one rank"]
        print(
            f"{name:<12} {best:>8.3f} s {alone / best:>11.2f}x {statistics.median(bubbles[name]):>8.1%} {predicted:>10.1%}"
            f" {plan.peak_bytes / 2**20:>9.0f}  {'yes' if same else 'no'}"
        )


if __name__ == "__main__":
    main(sys.argv[1:])
