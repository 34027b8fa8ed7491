"""Our own speed against what is recorded: each training step as a share of its FMA bound, each kernel as a share of the FMA peak.

    python benchmarks/self.py                                   # small, base and moe, 8x256, both dtypes; 2 to 3 minutes
    python benchmarks/self.py model=small batch=8x256,2x1024 kernels=no
    python benchmarks/self.py record=yes                        # what was measured replaces what is recorded

The peak is measured in turns with the steps, so that the shares compare between runs. What fell by more than `margin` of its recorded share
is measured again, `tries` times in all, and its best share counts. Exits with 1 when one is still too low, and names it. Shares without a
record are recorded in benchmarks/results, unless other programs kept the machine busy.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from peers.cases import Case, cases_of, save_weights, settings_of, step_flops
from peers.contestants import DENSE, KERNELS, OURS, PEAK, PEAK_NAME, Contestant
from peers.report import RESULTS, machine_kind, recorded
from peers.table import regressions, row_of
from peers.turns import Result, race

BUSY = 0.1
"""Share of the processors used by others from which on a share of the bound is no record."""
DEFAULTS = {
    "model": "small,base,moe",
    "batch": "8x256",
    "dtype": "float32,bfloat16",
    "kernels": "yes",
    "rounds": "4",
    "steps": "2",
    "threads": str(min(2, len(os.sched_getaffinity(0)))),
    "wait": "0",
    "margin": "0.05",
    "tries": "3",
    "record": "no",
    "results": str(RESULTS),
}


Found = tuple[dict[str, float], float]
"""Shares by name, and what others used of the processors meanwhile."""


def step_shares(case: Case, settings: dict[str, str], work: Path) -> Found:
    folder = work / case.model
    if not folder.is_dir():
        save_weights(case.model, folder)
    spec = {"folder": str(folder), "batch": case.batch, "seq": case.seq, "dtype": case.dtype, "threads": int(settings["threads"])}
    results = _race({OURS: DENSE[OURS], **PEAK}, spec, settings, work)
    row = row_of(results[OURS], step_flops(folder, case), case.batch * case.seq, results[PEAK_NAME].values)
    print(f"  {case}: {row['share_of_bound']:.1%} of its bound; others' CPU {row['others_share']:.0%}", flush=True)
    return {str(case): row["share_of_bound"]}, row["others_share"]


def kernel_shares(dtype: str, settings: dict[str, str], work: Path) -> Found:
    result = _race(KERNELS, {"dtype": dtype, "threads": int(settings["threads"])}, {**settings, "steps": "1"}, work)["kernels"]
    best = {name: max(run[name] for run in result.values) for name in result.values[0]}
    shares = {f"{name} {dtype}": rate / best["peak"] for name, rate in best.items() if name != "peak"}
    for name, share in shares.items():
        print(f"  {name}: {share:.1%} of the peak", flush=True)
    return shares, statistics.median(result.others)


def _race(contestants: dict[str, Contestant], spec: dict[str, Any], settings: dict[str, str], work: Path) -> dict[str, Result]:
    return race(contestants, spec, Path(sys.executable), work, int(settings["rounds"]), int(settings["steps"]), float(settings["wait"]))


def measure(jobs: list[Callable[[], Found]], known: dict[str, float], margin: float, tries: int) -> Found:
    """The best share that each job found, and the most that others used; a job is done again while one of its shares is too low."""
    best: dict[str, float] = {}
    most = 0.0
    for job in jobs:
        for _ in range(tries):
            found, others = job()
            best |= {name: max(share, best.get(name, 0.0)) for name, share in found.items()}
            most = max(most, others)
            if not any(name in found for name in regressions(known, best, margin)):
                break
    return best, most


def main(arguments: list[str]) -> int:
    settings = settings_of(arguments, DEFAULTS)
    file = Path(settings["results"]) / f"self-{machine_kind(int(settings['threads']))}.json"
    anew = settings["record"] == "yes"
    known: dict[str, float] = recorded(file)
    margin = float(settings["margin"])
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        jobs: list[Callable[[], Found]] = [partial(step_shares, case, settings, work) for case in cases_of(settings)]
        if settings["kernels"] == "yes":
            jobs += [partial(kernel_shares, dtype, settings, work) for dtype in settings["dtype"].split(",")]
        measured, others = measure(jobs, {} if anew else known, margin, int(settings["tries"]))
    worse = {} if anew else regressions(known, measured, margin)
    for line in worse.values():
        print(f"slower: {line}")
    kept = {**known, **measured} if anew else {**measured, **known}
    if kept != known and (anew or others < BUSY):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps({name: round(share, 4) for name, share in kept.items()}, indent=1) + "\n", encoding="utf-8")
        print(f"recorded in {file}")
    print(f"{len(measured)} shares, {len(worse)} more than {margin:.0%} below the record; others used up to {others:.0%} of the processors")
    return 1 if worse else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
