"""Two MPI ranks with one thread each beside one rank with two threads, as the ratio of interleaved runs.

    python benchmarks/mpi_throughput.py model=small dtype=float32 rounds=5 steps=8

Each run is a job of its own that makes a few steps of 8x256 tokens; the layouts take turns. Printed for each: the best and the median
step, tokens per second of both, their ratio to one rank (best against best, median against median), the bytes that a rank sends in a step,
and how much of the processors other programs had meanwhile.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from peers.turns import machine_ticks

BATCH, SEQ, RANKS = 8, 256, 2
LAYOUTS: dict[str, dict[str, int]] = {"one rank, 2 threads": {}, "data=2": {"data": 2}, "fsdp=2": {"fsdp": 2}}
TICKS = os.sysconf("SC_CLK_TCK")


def busy_seconds() -> float:
    """Processor seconds that all programs of this machine have had, and those that the hypervisor kept from it."""
    return machine_ticks()[0] / TICKS


def run_layout(mesh: dict[str, int], model: str, dtype: str, steps: int) -> dict[str, Any]:
    """What one rank of a job measures."""
    import meshwright as mw
    import numpy as np
    from meshwright.batch import adapt

    net = mw.Model(model, seed=0)
    trainer = mw.Trainer(net, mw.AdamW(lr=1e-4), mesh=mesh, dtype=dtype, clip=1.0, show=False, threads=RANKS)
    batch = {"input_ids": np.random.default_rng(0).integers(0, net.config.vocab_size, (BATCH, SEQ))}
    for _ in range(2):
        trainer.step(batch)
    seconds, own, all_programs, begin = [], time.process_time(), busy_seconds(), time.perf_counter()
    for _ in range(steps):
        start = time.perf_counter()
        metrics = trainer.step(batch)
        seconds.append(time.perf_counter() - start)
    wall, own, all_programs = time.perf_counter() - begin, time.process_time() - own, busy_seconds() - all_programs
    fields = adapt(batch, net.config.vocab_size).arrays
    rank = trainer._ranks.rank
    return {
        "seconds": seconds,
        "loss": metrics.loss,
        "bytes": sum(row["bytes"] for row in trainer._step.counted_traffic(fields, rank)) if mesh else 0.0,
        "foreign": max(0.0, all_programs - own * (RANKS if mesh else 1)) / (wall * (os.cpu_count() or 1)),
    }


def start(name: str, settings: dict[str, str]) -> dict[str, Any]:
    from meshwright.cli.launch import mpirun_command

    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "result.json"
        command = [sys.executable, __file__, *(f"{key}={value}" for key, value in settings.items()), f"layout={name}", f"result={result}"]
        if LAYOUTS[name]:
            launcher = mpirun_command([], RANKS)
            command = [*launcher[: launcher.index(sys.executable)], *command]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            raise SystemExit(done.stderr)
        return dict(json.loads(result.read_text()))


def main() -> None:
    settings = {"model": "small", "dtype": "float32", "rounds": "5", "steps": "8"}
    settings.update(argument.split("=", 1) for argument in sys.argv[1:])
    if "layout" in settings:
        found = run_layout(LAYOUTS[settings["layout"]], settings["model"], settings["dtype"], int(settings["steps"]))
        if os.environ.get("OMPI_COMM_WORLD_RANK", "0") == "0":
            Path(settings["result"]).write_text(json.dumps(found))
        return
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in LAYOUTS}
    for _ in range(int(settings["rounds"])):
        for name in LAYOUTS:
            runs[name].append(start(name, settings))
    alone = next(iter(LAYOUTS))
    steps = {name: [s for run in found for s in run["seconds"]] for name, found in runs.items()}
    best, median = ({name: reduce(s) for name, s in steps.items()} for reduce in (min, statistics.median))
    print(f"{settings['model']}, {BATCH}x{SEQ}, {settings['dtype']}; {len(steps[alone])} steps of each layout")
    print("| layout | best step | median | tokens/s (best) | best / best | median / median | bytes sent per rank | loss | others' share |")
    print("|---|---|---|---|---|---|---|---|---|")
    for name, found in runs.items():
        print(
            f"| {name} | {best[name] * 1e3:.1f} ms | {median[name] * 1e3:.1f} ms | {BATCH * SEQ / best[name]:,.0f} "
            f"| {best[alone] / best[name]:.3f} | {median[alone] / median[name]:.3f} | {found[0]['bytes']:,.0f} "
            f"| {found[0]['loss']:.6f} | {statistics.mean(run['foreign'] for run in found):.0%} |"
        )


if __name__ == "__main__":
    main()
