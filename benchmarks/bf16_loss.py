"""How far training in bfloat16 stays from training in float32: the quickstart's model, data and schedule, the same steps in both.

    python benchmarks/bf16_loss.py                                      # 500 steps on the data of runs/quickstart: 2 to 4 minutes
    python benchmarks/bf16_loss.py data=runs/quickstart/data steps=500 window=100 limit=0.01

Compares the mean losses of each `window` of steps. Exits with 1 where they differ by more than `limit` of the float32 loss.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from peers.cases import settings_of

DEFAULTS = {"data": "runs/quickstart/data", "steps": "500", "window": "100", "seed": "0", "limit": "0.01"}


def losses_of(data_folder: Path, dtype: str, steps: int, seed: int) -> list[float]:
    from meshwright.quickstart import make_trainer

    data, _, trainer = make_trainer(data_folder, seed, dtype, output=None)
    losses: list[float] = []
    trainer.callbacks = (lambda _, step, metrics: losses.append(metrics.loss),)
    trainer.fit(data, steps=steps)
    return losses


def main(arguments: list[str]) -> int:
    settings = settings_of(arguments, DEFAULTS)
    steps, window = int(settings["steps"]), int(settings["window"])
    means = {}
    for dtype in ("float32", "bfloat16"):
        losses = losses_of(Path(settings["data"]), dtype, steps, int(settings["seed"]))
        means[dtype] = np.array(losses[: steps // window * window]).reshape(-1, window).mean(axis=1)
    difference = means["bfloat16"] / means["float32"] - 1
    for index, (exact, rounded, part) in enumerate(zip(means["float32"], means["bfloat16"], difference, strict=True)):
        print(f"steps {index * window + 1:>5} to {(index + 1) * window:>5}: float32 {exact:.4f}  bfloat16 {rounded:.4f}  {part:+.3%}")
    worst = float(np.abs(difference).max())
    print(f"bfloat16 stays within {worst:.3%} of float32")
    return 1 if worst > float(settings["limit"]) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
