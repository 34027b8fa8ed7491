"""A training step of ours beside PyTorch, torch.compile and JAX: the same model, weights, batch and dtype, in turns.

    python benchmarks/compare.py                                        # small, 8x256, both dtypes: about 3 minutes
    python benchmarks/compare.py model=base batch=8x256,2x1024 dtype=bfloat16 rounds=6 steps=2
    python benchmarks/compare.py model=moe peers=ours,grouped,jax       # those of benchmarks/peers/contestants
    python benchmarks/compare.py wait=60                                # before each turn, at most so many seconds for others to be idle

Every contestant is a process that takes its turns while the others wait. The run fails where the first losses disagree. Results go to
benchmarks/results, one set of files for each kind of machine; `results=FOLDER` writes them elsewhere.
"""

from __future__ import annotations

import datetime
import os
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

from peers.cases import Case, cases_of, save_weights, settings_of, step_flops
from peers.contestants import DENSE, EXPERTS, PEAK, PEAK_NAME, Contestant
from peers.install import peers_python
from peers.report import RESULTS, machine_kind, table, told, write
from peers.table import disagreements, rows_of, tolerance
from peers.turns import race

DEFAULTS = {
    "model": "small",
    "batch": "8x256",
    "dtype": "float32,bfloat16",
    "peers": "all",
    "rounds": "5",
    "steps": "2",
    "wait": "0",
    "threads": str(min(2, len(os.sched_getaffinity(0)))),
    "results": str(RESULTS),
}


def contestants_of(model: str, names: str) -> dict[str, Contestant]:
    known = EXPERTS if model == "moe" else DENSE
    chosen = list(known) if names == "all" else names.split(",")
    unknown = [name for name in chosen if name not in known]
    if unknown:
        raise SystemExit(f"peers={','.join(unknown)}: expected some of {', '.join(known)} with model={model}")
    return {name: known[name] for name in known if name in chosen}


def compare(case: Case, contestants: dict[str, Contestant], settings: dict[str, str], python: Path, work: Path) -> dict[str, Any]:
    """One case as the results hold it. SystemExit where losses disagree."""
    folder = work / case.model
    if not folder.is_dir():
        save_weights(case.model, folder)
    spec = {"folder": str(folder), "batch": case.batch, "seq": case.seq, "dtype": case.dtype, "threads": int(settings["threads"])}
    rounds, steps = int(settings["rounds"]), int(settings["steps"])
    with tempfile.TemporaryDirectory(dir=work) as scratch:  # empty caches: torch.compile starts cold
        results = race({**contestants, **PEAK}, spec, python, Path(scratch), rounds, steps, float(settings["wait"]))
    peaks = results.pop(PEAK_NAME).values
    wrong = disagreements({name: result.values for name, result in results.items()}, tolerance(case))
    if wrong:
        raise SystemExit(f"{case}: losses disagree\n" + "\n".join(wrong))
    rows = rows_of(results, step_flops(folder, case), case.batch * case.seq, peaks)
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M"),
        "rounds": rounds,
        "steps": steps,
        "peak_flops": max(peaks),
        "median_peak_flops": statistics.median(peaks),
        "versions": {name: version for result in results.values() for name, version in result.versions.items()},
        "rows": {name: {"title": contestants[name].title, **row} for name, row in rows.items()},
    }


def main(arguments: list[str]) -> None:
    settings = settings_of(arguments, DEFAULTS)
    cases = cases_of(settings)
    contestants = {case: contestants_of(case.model, settings["peers"]) for case in cases}
    python = peers_python()
    kind = machine_kind(int(settings["threads"]))
    with tempfile.TemporaryDirectory() as work:
        for case in cases:
            print(f"{case}, {settings['threads']} threads", flush=True)
            found = compare(case, contestants[case], settings, python, Path(work))
            print(f"{table(found)}\n{told(found)}", flush=True)
            page = write(kind, {str(case): found}, Path(settings["results"]))
    print(f"written to {page} and beside it")


if __name__ == "__main__":
    main(sys.argv[1:])
