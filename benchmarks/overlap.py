"""What collectives beside compute save: steps with and without overlap, in turns, and how long collectives held a rank up.

    python benchmarks/overlap.py model=small mesh=fsdp dtype=float32 rounds=5 steps=4

Two ranks with one thread each, as threads of this process and as processes of mpirun. Printed for each: the best and the median step,
the median of the seconds that collectives held up rank 0 in a step (all of one that is waited for, both ends of one beside compute), the
planned peak, and whether the losses have the same bits.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from peers.cases import settings_of

BATCH, SEQ, RANKS = 8, 256, 2


def run(settings: dict[str, str]) -> dict[str, Any]:
    """The rounds on one rank: both ways take turns."""
    import meshwright as mw
    import numpy as np
    from meshwright.batch import adapt

    found: dict[str, Any] = {}
    trainers = {}
    for overlap in (False, True):
        net = mw.Model(settings["model"], seed=0)
        trainer = mw.Trainer(
            net, mw.AdamW(lr=1e-4), mesh={settings["mesh"]: RANKS}, dtype=settings["dtype"], overlap=overlap, show=False, threads=RANKS
        )
        trainers[overlap] = trainer
        found[str(overlap)] = {"seconds": [], "held": [], "losses": []}
    batch = {"input_ids": np.random.default_rng(0).integers(0, net.config.vocab_size, (BATCH, SEQ))}
    fields = adapt(batch, net.config.vocab_size).arrays
    for trainer in trainers.values():
        trainer.step(batch)
    for _ in range(int(settings["rounds"])):
        for overlap, trainer in trainers.items():
            rows = found[str(overlap)]
            for _ in range(int(settings["steps"])):
                start = time.perf_counter()
                metrics = trainer.step(batch)
                rows["seconds"].append(time.perf_counter() - start)
                rows["held"].append(trainer._step.transfer_seconds(fields, trainer._ranks.rank))
                rows["losses"].append(float(metrics.loss).hex())
            rows["peak"] = metrics.peak_bytes
    found["rank"] = trainer._ranks.rank
    return found


def main(arguments: list[str]) -> None:
    defaults = {"model": "small", "mesh": "fsdp", "dtype": "float32", "rounds": "5", "steps": "4", "output": ""}
    settings = settings_of(arguments, defaults)
    if settings["output"]:  # a process of the second half
        found = run(settings)
        if found["rank"] == 0:
            Path(settings["output"]).write_text(json.dumps(found), encoding="utf-8")
        return
    from meshwright.cli.launch import mpirun_command

    print(f"{'ranks':10} {'overlap':8} {'best s':>9} {'median s':>9} {'held up s':>10} {'peak MiB':>9}  same bits")
    with tempfile.TemporaryDirectory() as folder:
        for kind in ("threads", "processes"):
            if kind == "threads":
                found = run(settings)
            else:
                head = mpirun_command([], RANKS)
                command = [*head[: head.index(sys.executable)], sys.executable, __file__]
                output = Path(folder) / "found.json"
                each = [f"{key}={value}" for key, value in {**settings, "output": output}.items()]
                subprocess.run([*command, *each], check=True)
                found = json.loads(output.read_text(encoding="utf-8"))
            same = found["False"]["losses"] == found["True"]["losses"]
            for overlap in ("False", "True"):
                rows = found[overlap]
                print(
                    f"{kind:10} {overlap:8} {min(rows['seconds']):9.4f} {statistics.median(rows['seconds']):9.4f} "
                    f"{statistics.median(rows['held']):10.4f} {rows['peak'] / 2**20:9.1f}  {same}"
                )


if __name__ == "__main__":
    main(sys.argv[1:])
