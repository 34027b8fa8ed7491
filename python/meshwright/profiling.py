"""Where the time of optimizer steps goes, op by op and rank by rank, from wall-clock time stamps (docs/profiling.md).

profile = trainer.profile(batch, steps=3)      # or Trainer(profile=3): the first steps of a run
print(profile.table())
profile.save("runs/a")                         # profile.txt, profile.json and trace.json, which ui.perfetto.dev shows
"""

from __future__ import annotations

import json
import os
import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from textwrap import shorten
from typing import Any

import numpy as np
from numpy.typing import NDArray

WORK, RANK, STEP, ROW, MICROBATCH, BEGIN, END = range(7)
"""Columns of `Records.slices`."""

USES = {
    "compute": "compute",
    "collective": "collectives",
    "start": "collectives",
    "finish": "collectives",
    "progress": "collectives",
    "mail": "mail",
    "wait": "waiting for stages",
    "other": "other",
}
"""Kind of work -> what `Profile.shares` calls it. What is "in flight" runs beside all these."""


@dataclass(frozen=True)
class Records:
    """What the core has written down, of all ranks. `_core.Recording` tells the fields of `work`."""

    work: list[dict[str, Any]]
    slices: NDArray[np.int64]
    places: dict[int, str]
    """Rank -> where it stands in the mesh: "stage=1 tensor=0"."""

    @staticmethod
    def joined(parts: Sequence[Records]) -> Records:
        """Of several processes; each has its own work."""
        work: list[dict[str, Any]] = []
        slices: list[NDArray[np.int64]] = []
        places: dict[int, str] = {}
        for part in parts:
            slices.append(part.slices + np.array([len(work), 0, 0, 0, 0, 0, 0]))
            work += part.work
            places |= part.places
        return Records(work, np.concatenate(slices), places)


def any_layer(scope: str) -> str:
    """`layers.3.mlp.gate` as `layers.*.mlp.gate`."""
    return re.sub(r"(?<![^.])\d+(?![^.])", "*", scope)


class Profile:
    """What optimizer steps went to.

    steps: their numbers. num_ranks. step_seconds: wall time of one, from its first op's inputs to its end; mean of steps and ranks.
    peaks: what one rank can do: float32 and bfloat16 (FLOP/s; bfloat16 is 0 where it is computed as float32), read_bytes (bytes/s).
    shares: of the ranks' time in these steps, 0 to 1: compute, collectives (that are waited for), mail, waiting for stages, other.
    records: the slices themselves.
    """

    def __init__(self, records: Records, peaks: dict[str, float]) -> None:
        self.records, self.peaks = records, peaks
        slices = records.slices
        self.steps: list[int] = np.unique(slices[:, STEP]).tolist()
        self.ranks: list[int] = np.unique(slices[:, RANK]).tolist()
        self.num_ranks = len(self.ranks)
        self._runs = len(self.steps) * self.num_ranks
        seconds = np.bincount(slices[:, WORK], weights=slices[:, END] - slices[:, BEGIN], minlength=len(records.work)) * 1e-9
        self._seconds: list[float] = seconds.tolist()
        self._calls: list[int] = np.bincount(slices[:, WORK], minlength=len(records.work)).tolist()
        uses: dict[str, float] = defaultdict(float)
        for work, taken in zip(records.work, self._seconds, strict=True):
            if work["kind"] in USES:
                uses[USES[work["kind"]]] += taken
        total = sum(uses.values())
        self.step_seconds = total / self._runs
        self.shares: dict[str, float] = {use: uses[use] / total for use in dict.fromkeys(USES.values()) if uses[use]}

    @cached_property
    def rows(self) -> list[dict[str, Any]]:
        """By piece, scope and op, those that take longest first.

        piece, scope (layer numbers as `*`), op; use: as in `shares`, or "in flight" for a collective beside compute, from its start to its
        end; calls: in a step, of all ranks; seconds: in a step, mean of the ranks; share: of the step; flops_per_second, bytes_per_second:
        of a rank while it is at it, the bytes being those of memory or, of collectives and mail, those sent; of_bound: the time that the
        bound allows, max(FLOPs / peak, bytes / bandwidth), over the time taken; bound: which of the two it is. None where it says nothing.
        """
        return self._rows(lambda work: (work["piece"].split(" ")[0], any_layer(work["scope"]), work["name"]))

    @cached_property
    def scopes(self) -> list[dict[str, Any]]:
        """As `rows`, the ops of a scope together."""
        return self._rows(lambda work: (work["piece"].split(" ")[0], any_layer(work["scope"]), work["name"] if not work["scope"] else ""))

    @property
    def compute(self) -> dict[str, Any]:
        """As one of `rows`, all compute together."""
        rows = [row for row in self._rows(lambda work: ("", "", "")) if row["use"] == "compute"]
        return rows[0]

    @property
    def is_above_peak(self) -> bool:
        """Whether some matrix product was faster than its peak, which then was measured too low."""
        return any(
            work["dtype"] and work["kind"] == "compute" and calls * self._flops_seconds(work) > seconds
            for work, calls, seconds in zip(self.records.work, self._calls, self._seconds, strict=True)
        )

    def _rows(self, key: Callable[[dict[str, Any]], tuple[str, str, str]]) -> list[dict[str, Any]]:
        groups: dict[tuple[str, str, str, str], list[int]] = defaultdict(list)
        for i, work in enumerate(self.records.work):
            piece, scope, op = key(work)
            groups[USES.get(work["kind"], work["kind"]), piece, scope, op].append(i)
        rows = [self._row(names, members) for names, members in groups.items() if any(self._calls[i] for i in members)]
        return sorted(rows, key=lambda row: -row["seconds"])

    def _row(self, names: tuple[str, str, str, str], members: list[int]) -> dict[str, Any]:
        (use, piece, scope, op), work = names, self.records.work
        seconds = sum(self._seconds[i] for i in members)
        flops = sum(self._calls[i] * work[i]["flops"] for i in members)
        # A collective in flight is sent once, however many slices tell of it.
        sent = sum(self._calls[i] * work[i]["sent"] for i in members if work[i]["kind"] in ("collective", "mail", "in flight"))
        moved = sent or sum(self._calls[i] * work[i]["bytes"] for i in members)
        by_flops = sum(self._calls[i] * self._flops_seconds(work[i]) for i in members)
        by_bytes = sum(self._calls[i] * self._bytes_seconds(work[i]) for i in members)
        bound = sum(self._calls[i] * self.bound_seconds(work[i]) for i in members)
        computes = use == "compute" and bound > 0 and seconds > 0
        return {
            "piece": piece,
            "scope": scope,
            "op": op or ", ".join(dict.fromkeys(work[i]["name"] for i in members)),
            "use": use,
            "calls": round(sum(self._calls[i] for i in members if work[i]["kind"] != "finish") / len(self.steps)),
            "seconds": seconds / self._runs,
            "share": seconds / self._runs / self.step_seconds,
            "flops_per_second": flops / seconds if flops and seconds else None,
            "bytes_per_second": moved / seconds if moved and seconds else None,
            "of_bound": bound / seconds if computes else None,
            "bound": ("flops" if by_flops > by_bytes else "bytes") if computes else None,
        }

    def bound_seconds(self, work: dict[str, Any]) -> float:
        """The time that the bound allows for one of `records.work`."""
        return max(self._flops_seconds(work), self._bytes_seconds(work))

    def _flops_seconds(self, work: dict[str, Any]) -> float:
        peak = (self.peaks["bfloat16"] if work["dtype"] == "bfloat16" else 0.0) or self.peaks["float32"]
        return float(work["flops"] / peak)

    def _bytes_seconds(self, work: dict[str, Any]) -> float:
        return float(work["bytes"] / self.peaks["read_bytes"])

    def table(self, most: int = 30) -> str:
        """For people: the `most` scopes that take longest, and what the rest of a step goes to."""
        ranks = f" · {self.num_ranks} ranks, times are their mean" if self.num_ranks > 1 else ""
        steps = f"step {self.steps[0]}" if len(self.steps) == 1 else f"steps {self.steps[0]} to {self.steps[-1]}"
        narrow = f", {self.peaks['bfloat16'] / 1e9:,.0f} GFLOP/s bfloat16" if self.peaks["bfloat16"] else ""
        compute = self.compute
        lines = [
            f"profile of {steps}{ranks}: {self.step_seconds * 1e3:,.1f} ms per step",
            "  " + "  ".join(f"{use} {share:.1%}" for use, share in self.shares.items()),
            f"  compute at {compute['flops_per_second'] / 1e9:,.1f} GFLOP/s, {compute['of_bound']:.1%} of its bound",
            f"bound of a rank: {self.peaks['float32'] / 1e9:,.0f} GFLOP/s float32{narrow}, {self.peaks['read_bytes'] / 1e9:,.1f} GB/s",
            "",
        ]
        beside = [row for row in self.scopes if row["use"] == "in flight"]
        inside = [row for row in self.scopes if row["use"] != "in flight"]
        lines += _aligned([_shown(row) for row in inside[:most]])
        if rest := inside[most:]:
            seconds = sum(row["seconds"] for row in rest)
            lines.append(f"... {len(rest)} more: {seconds * 1e3:,.2f} ms, {seconds / self.step_seconds:.1%}")
        if beside:
            lines += ["", "in flight beside these, from start to end"]
            lines += _aligned([_shown(row) for row in beside[:most]])
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        names = ("steps", "num_ranks", "step_seconds", "shares", "peaks", "rows", "scopes")
        return {name: getattr(self, name) for name in names}

    def trace(self) -> dict[str, Any]:
        """The slices in the trace-event format of Chrome and Perfetto: one process per rank."""
        from meshwright.trace_events import trace_events

        return trace_events(self)

    def save(self, folder: str | os.PathLike[str]) -> list[Path]:
        """Writes profile.txt (the table), profile.json (every row) and trace.json (for ui.perfetto.dev or chrome://tracing)."""
        place = Path(folder)
        place.mkdir(parents=True, exist_ok=True)
        texts = {
            "profile.txt": self.table() + "\n",
            "profile.json": json.dumps(self.to_dict(), indent=2),
            "trace.json": json.dumps(self.trace()),
        }
        paths = []
        for name, text in texts.items():
            path, temporary = place / name, place / (name + ".new")
            temporary.write_text(text, encoding="utf-8")
            os.replace(temporary, path)
            paths.append(path)
        return paths


def _shown(row: dict[str, Any]) -> dict[str, str]:
    def number(name: str, scale: float, digits: int) -> str:
        return "" if row[name] is None else f"{row[name] * scale:,.{digits}f}"

    return {
        "piece": row["piece"],
        "scope": row["scope"] or row["op"],
        "ops": shorten(row["op"], 36, placeholder=" ...") if row["scope"] else "",
        "calls": f"{row['calls']:,}",
        "ms": number("seconds", 1e3, 2),
        "share": number("share", 100, 1) + " %",
        "GFLOP/s": number("flops_per_second", 1e-9, 1),
        "GB/s": number("bytes_per_second", 1e-9, 2),
        "of bound": number("of_bound", 100, 0) + (" %" if row["of_bound"] is not None else ""),
        "by": row["bound"] or "",
    }


def _aligned(rows: Sequence[dict[str, str]]) -> list[str]:
    cells = [list(rows[0]), *(list(row.values()) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    left = {"piece", "scope", "ops", "by"}
    return [
        "  ".join(text.ljust(w) if name in left else text.rjust(w) for name, text, w in zip(rows[0], line, widths, strict=True)).rstrip()
        for line in cells
    ]
