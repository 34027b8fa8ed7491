"""Records optimizer steps of a Trainer and makes a Profile of them."""

from __future__ import annotations

import json
import socket
import time
from collections import Counter
from pathlib import Path

import numpy as np

from meshwright import _core
from meshwright._core import UserError
from meshwright.machine import measured_peaks
from meshwright.profiling import BEGIN, Profile, Records
from meshwright.ranks import Ranks

CLOCK_QUESTIONS = 5
"""Barriers after which ranks on other machines read their clocks."""


class Profiler:
    """Of the next `steps` steps of a core TrainStep, those of other processes among `ranks` too. `profile` is there when they are done;
    with `output`, its files are in that folder."""

    def __init__(self, steps: int, step: _core.TrainStep, ranks: Ranks, output: Path | None = None) -> None:
        if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
            raise UserError(f"profile: expected a number of steps, at least 1, found {steps!r}")
        self._left, self._step, self._ranks, self._output = steps, step, ranks, output
        self._recording: _core.Recording | None = None
        self._recorded = 0
        self._news = ""
        self.skip_first = True  # the first step that it sees, which plans and touches memory for the first time
        self.profile: Profile | None = None

    @property
    def steps_left(self) -> int:
        return self._left

    def begin_step(self) -> None:
        if self._left and self._recording is None and not self.skip_first:
            self._recording = _core.Recording()
            self._step.record(self._recording)
        self.skip_first = False

    def end_step(self) -> bool:
        """Whether this has completed the profile."""
        if self._recording is None:
            return False
        self._recorded += 1
        self._left -= 1
        return self._left == 0 and self.finish()

    def finish(self) -> bool:
        """Makes the profile of the steps so far; false where there are none. All ranks call it together."""
        if self._recording is None:
            return False
        self._left = 0
        self._step.record(None)
        recording, self._recording = self._recording, None
        if not self._recorded:
            return False
        records = Records(recording.work, recording.slices, recording.places)
        if self._ranks.size > 1:
            self.profile = self._gathered(records, recording.threads_per_rank)
        else:
            self.profile = Profile(records, _shared_peaks(recording.threads_per_rank * len(records.places), len(records.places)))
            if self.profile.is_above_peak:  # it was measured while the machine was busy
                peaks = _shared_peaks(recording.threads_per_rank * len(records.places), len(records.places), again=True)
                self.profile = Profile(records, peaks)
        if self._output is not None and self._ranks.is_first:
            self._news = f"profile: {', '.join(str(path) for path in self.profile.save(self._output))}"
        return True

    def news(self) -> str:
        """Where a profile was written since it was last asked; "" where none was."""
        news, self._news = self._news, ""
        return news

    def _gathered(self, mine: Records, threads: int) -> Profile:
        """Everyone's records by the clock of rank 0."""
        hosts = self._ranks.gather(socket.gethostname())
        together = Counter(hosts)[hosts[self._ranks.rank]]
        readings = []  # where machines differ so do their clocks, which show about the same moment after a barrier
        for _ in range(CLOCK_QUESTIONS):
            self._ranks.barrier()
            readings.append(time.monotonic_ns())
        # All ranks measure at once: that is what each can have while the others work.
        peaks = {**_core.measure_peak_flops(threads), "read_bytes": _core.measure_read_bandwidth(threads, (512 << 20) // together)}
        shares = {"work": mine.work, "slices": mine.slices.tolist(), "places": mine.places, "readings": readings, "peaks": peaks}
        everyone = [json.loads(text) for text in self._ranks.gather(json.dumps(shares))]
        parts = []
        for host, part in zip(hosts, everyone, strict=True):
            slices = np.array(part["slices"], dtype=np.int64)
            if host != hosts[0]:
                ahead = np.subtract(part["readings"], everyone[0]["readings"])
                slices[:, BEGIN:] -= int(np.median(ahead))
            parts.append(Records(part["work"], slices, {int(rank): place for rank, place in part["places"].items()}))
        mean = {name: float(np.mean([part["peaks"][name] for part in everyone])) for name in peaks}
        return Profile(Records.joined(parts), mean)


def _shared_peaks(threads: int, ranks: int, again: bool = False) -> dict[str, float]:
    """What one of so many ranks can do while the others work: the peaks of all threads, divided."""
    peaks = measured_peaks(min(threads, _core.machine_facts()["usable_processors"]), bandwidth=True, again=again)
    return {name: value / ranks for name, value in peaks.items()}
