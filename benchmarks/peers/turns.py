"""Contestants as processes that take turns: one steps while the others wait, so that all meet the same state of the machine.

    results = race({"ours": start("ours", ...), "jax": start("jax", ...)}, rounds=4, steps=2)

Beside times and losses it is told what share of the processors other programs used during each contestant's turns.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from peers.contestants import PEAK_NAME, Contestant

WORKER = Path(__file__).resolve().parent / "worker.py"
HUGE_PAGES = {"THP_MEM_ALLOC_ENABLE": "1", "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
"""For everybody: PyTorch reads the first, malloc the second."""


PEAK_STEPS = 3
QUIET = 0.05
"""Share of the processors that others may use while a machine counts as quiet."""


@dataclass
class Result:
    """Of one contestant in one case. `values`: what its steps gave, mostly losses, the first step's ahead."""

    first_step_seconds: float = 0.0
    seconds: list[float] = field(default_factory=list)
    values: list[Any] = field(default_factory=list)
    others: list[float] = field(default_factory=list)
    peak_bytes: int = 0
    versions: dict[str, str] = field(default_factory=dict)


def ticks_of(stat: str) -> tuple[int, int]:
    """Busy and all ticks in the first line of /proc/stat; what the hypervisor took (steal) is busy."""
    user, nice, system, idle, iowait, irq, softirq, steal = (int(word) for word in stat.split("\n", 1)[0].split()[1:9])
    busy = user + nice + system + irq + softirq + steal
    return busy, busy + idle + iowait


def session_ticks(session: int) -> int:
    """Ticks used by all processes of a session, those that ended and were waited for included."""
    total = 0
    for place in Path("/proc").iterdir():
        if place.name.isdigit():
            try:
                words = (place / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
            except OSError:  # it has ended
                continue
            if int(words[3]) == session:
                total += sum(int(word) for word in words[11:15])
    return total


def others_share(before: tuple[int, int], after: tuple[int, int], own_ticks: int) -> float:
    """Share of all processors' time that was neither idle nor ours, between two readings of `ticks_of`."""
    return max(0.0, (after[0] - before[0] - own_ticks) / max(1, after[1] - before[1]))


def machine_ticks() -> tuple[int, int]:
    return ticks_of(Path("/proc/stat").read_text(encoding="ascii"))


def wait_for_quiet(patience: float) -> None:
    """Returns when the processors have been idle for a while, after at most `patience` seconds."""
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        before = machine_ticks()
        time.sleep(0.5)
        if others_share(before, machine_ticks(), 0) < QUIET:
            return


class Racer:
    """A contestant's process, in a session of its own so that its helpers are counted and ended with it."""

    def __init__(self, contestant: Contestant, python: Path, spec: Mapping[str, Any], cache: Path, log: Path) -> None:
        self.title, self.log = contestant.title, log
        self.result = Result()
        # OPENBLAS_CORETYPE stays as it is: it must not decide our speed, and torch's own BLAS does not read it.
        environment = dict(
            os.environ, **HUGE_PAGES, OMP_NUM_THREADS=str(spec["threads"]), TORCHINDUCTOR_CACHE_DIR=str(cache), HF_HUB_OFFLINE="1"
        )
        if not contestant.ours:
            environment.pop("PYTHONPATH", None)
        command = [str(python), str(WORKER), json.dumps({**spec, **contestant.options, "module": contestant.module})]
        start = time.monotonic()
        with log.open("w", encoding="utf-8") as errors:
            self.process = subprocess.Popen(
                command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True, start_new_session=True
            )
        try:
            first = self._answer()
        except BaseException:
            self.stop()
            raise
        self.result.first_step_seconds = first["at"] - start
        self.result.values.append(first["value"])

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            tail = "\n".join(self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-12:])
            raise SystemExit(f"{self.title} ended with status {self.process.wait()}; its last lines (all of them: {self.log}):\n{tail}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def turn(self, steps: int) -> None:
        assert self.process.stdin is not None
        before, own = self._ticks()
        print(steps, file=self.process.stdin, flush=True)
        answer = self._answer()
        after, own_after = self._ticks()
        self.result.seconds += answer["seconds"]
        self.result.values += answer["values"]
        self.result.others.append(others_share(before, after, own_after - own))

    def _ticks(self) -> tuple[tuple[int, int], int]:
        return machine_ticks(), session_ticks(self.process.pid)

    def finish(self) -> Result:
        """Asks what it has used, and ends it."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        answer = self._answer()
        self.result.peak_bytes, self.result.versions = answer["peak_bytes"], answer["versions"]
        self.stop()
        return self.result

    def stop(self) -> None:
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.process.wait()


def race(
    contestants: Mapping[str, Contestant],
    spec: Mapping[str, Any],
    peers_python: Path,
    work: Path,
    rounds: int,
    steps: int,
    patience: float = 0.0,
) -> dict[str, Result]:
    """Starts them one after the other and lets them take turns; another one begins each round. Before each start and each turn it waits at
    most `patience` seconds for other programs to be idle, and who had no quiet turn gets up to `rounds` more. The FMA peak, where it takes
    part, has a turn after each of the others."""
    racers: dict[str, Racer] = {}
    try:
        for name, contestant in contestants.items():
            python = Path(sys.executable) if contestant.ours else peers_python
            wait_for_quiet(patience)
            racers[name] = Racer(contestant, python, spec, work / "inductor", work / f"{name}.log")
            if name != PEAK_NAME:
                print(f"  {contestant.title}: first step after {racers[name].result.first_step_seconds:.1f} s", flush=True)

        def take_turn(name: str) -> None:
            wait_for_quiet(patience)
            racers[name].turn(steps)
            if PEAK_NAME in racers:
                racers[PEAK_NAME].turn(PEAK_STEPS)

        names = [name for name in racers if name != PEAK_NAME]
        for turn in range(rounds):
            for place in range(len(names)):
                take_turn(names[(turn + place) % len(names)])
        for _ in range(rounds if patience > 0 else 0):
            for name in names:
                if min(racers[name].result.others) > QUIET:
                    take_turn(name)
        return {name: racer.finish() for name, racer in racers.items()}
    finally:
        for racer in racers.values():
            racer.stop()
