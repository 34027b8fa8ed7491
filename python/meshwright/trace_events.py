"""Profiles in the Trace Event Format, which ui.perfetto.dev and chrome://tracing read.

A rank is a process of it. Its first thread has the ops, inside the pieces, inside the steps; further ones have the collectives that are in
flight beside compute, as many as there are at once. A letter from stage to stage is an arrow (a flow).
Format: "Trace Event Format", the Chromium project's document of that name.
"""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING, Any

from meshwright.profiling import BEGIN, END, MICROBATCH, RANK, ROW, STEP, WORK

if TYPE_CHECKING:
    from meshwright.profiling import Profile

OPS = 0
"""The thread of a rank's ops; those of collectives in flight follow."""

GRAIN = 125
"""Nanoseconds. Times are microseconds, in eighths: sums of begin and length then are exact whether a reader counts in floating-point
microseconds or in whole nanoseconds, so that neighbours never seem to overlap."""


Placed = tuple[list[int], int, int]
"""A row of `Records.slices`, and where it begins and ends in the trace, in grains."""


def trace_events(profile: Profile) -> dict[str, Any]:
    """The whole file as JSON values."""
    slices = profile.records.slices
    zero = int(slices[:, BEGIN].min())
    events: list[dict[str, Any]] = []
    letters: list[Placed] = []
    for rank in profile.ranks:
        placed = _placed(profile, slices[slices[:, RANK] == rank].tolist(), zero)
        events += _of_rank(profile, rank, placed)
        letters += [row for row in placed if profile.records.work[row[0][WORK]]["letters"]]
    return {
        "traceEvents": events + _arrows(profile, letters),
        "displayTimeUnit": "ms",
        "otherData": {"steps": profile.steps, "peaks of a rank": profile.peaks},
    }


def _placed(profile: Profile, rows: list[list[int]], zero: int) -> list[Placed]:
    """Each slice is at least a grain long, since readers lose track of the order of empty ones; what follows begins that much later."""
    placed, last = [], 0
    for row in rows:
        begin, end = ((row[column] - zero + GRAIN // 2) // GRAIN for column in (BEGIN, END))
        if profile.records.work[row[WORK]]["kind"] != "in flight":
            begin = max(begin, last)
            last = end = max(end, begin + 1)
        placed.append((row, begin, max(end, begin + 1)))
    return placed


def _of_rank(profile: Profile, rank: int, placed: list[Placed]) -> list[dict[str, Any]]:
    records = profile.records
    in_flight = [row for row in placed if records.work[row[0][WORK]]["kind"] == "in flight"]
    here = [row for row in placed if records.work[row[0][WORK]]["kind"] != "in flight"]
    place = records.places.get(rank, "")
    events = _names(rank, f"rank {rank}" + (f" ({place})" if place else ""), {OPS: "ops"})
    for step, rows in groupby(here, key=lambda row: row[0][STEP]):
        of_step = list(rows)
        events.append(_slice(f"step {step}", "step", rank, OPS, of_step[0][1], of_step[-1][2], {"step": step}))
        for row_number, of_piece in groupby(of_step, key=lambda row: row[0][ROW]):
            inside = list(of_piece)
            if row_number >= 0:
                piece, microbatch = records.work[inside[-1][0][WORK]]["piece"], inside[-1][0][MICROBATCH]
                name = piece if piece == "update" else f"{piece} of microbatch {microbatch}"
                args = {"piece": piece, "microbatch": microbatch}
                events.append(_slice(name, "piece", rank, OPS, inside[0][1], inside[-1][2], args))
            events += [_of_work(profile, row, OPS) for row in inside]
    lanes: list[int] = []  # when each is free again
    for row in sorted(in_flight, key=lambda row: row[1]):
        lane = next((i for i, free in enumerate(lanes) if free <= row[1]), len(lanes))
        if lane == len(lanes):
            lanes.append(0)
        lanes[lane] = row[2]
        events.append(_of_work(profile, row, OPS + 1 + lane))
    return events + _names(rank, None, {OPS + 1 + lane: f"collectives in flight {lane + 1}" for lane in range(len(lanes))})


def _names(rank: int, process: str | None, threads: dict[int, str]) -> list[dict[str, Any]]:
    def fact(kind: str, tid: int, **args: Any) -> dict[str, Any]:
        return {"ph": "M", "name": kind, "pid": rank, "tid": tid, "ts": 0, "args": args}

    events = [] if process is None else [fact("process_name", OPS, name=process), fact("process_sort_index", OPS, sort_index=rank)]
    for tid, name in threads.items():
        events += [fact("thread_name", tid, name=name), fact("thread_sort_index", tid, sort_index=tid)]
    return events


def _microseconds(grains: int) -> float:
    return grains / (1000 // GRAIN)


def _slice(name: str, category: str, rank: int, tid: int, begin: int, end: int, args: dict[str, Any]) -> dict[str, Any]:
    times = {"ts": _microseconds(begin), "dur": _microseconds(end - begin)}
    return {"ph": "X", "name": name, "cat": category, "pid": rank, "tid": tid, **times, "args": args}


def _of_work(profile: Profile, placed: Placed, tid: int) -> dict[str, Any]:
    row, begin, end = placed
    work = profile.records.work[row[WORK]]
    seconds = (row[END] - row[BEGIN]) * 1e-9
    prefix = work["kind"] + " " if work["kind"] in ("start", "finish") else ""
    args: dict[str, Any] = {"op": work["name"]}
    args |= {name: work[name] for name in ("scope", "types", "dtype", "source", "pass") if work[name]}
    if work["kernel"]:
        args["kernel" if work["kind"] == "compute" else "axes"] = work["kernel"]
    args |= {label: work[name] for label, name in (("FLOPs", "flops"), ("bytes", "bytes"), ("bytes sent", "sent")) if work[name]}
    if work["kind"] == "compute" and seconds > 0:
        args["of bound"] = round(profile.bound_seconds(work) / seconds, 3)
        if work["flops"]:
            args["GFLOP/s"] = round(work["flops"] / seconds / 1e9, 3)
    if work["letters"]:
        verb = "from" if work["kind"] == "wait" else "to"
        args["letters"] = [f"{name}, {size} bytes, {verb} rank {peer}" for name, peer, size in work["letters"]]
    if row[MICROBATCH] >= 0:
        args["microbatch"] = row[MICROBATCH]
    name = f"{prefix}{work['name']} {work['scope']}".rstrip()
    return _slice(name, work["kind"], row[RANK], tid, begin, end, args)


def _arrows(profile: Profile, letters: list[Placed]) -> list[dict[str, Any]]:
    sent: dict[tuple[Any, ...], tuple[int, int]] = {}  # rank, and when
    received: dict[tuple[Any, ...], tuple[int, int]] = {}
    for row, begin, _ in letters:
        work = profile.records.work[row[WORK]]
        for name, peer, _ in work["letters"]:
            if work["kind"] == "mail":
                sent[row[STEP], row[MICROBATCH], name, row[RANK], peer] = row[RANK], begin
            else:
                received[row[STEP], row[MICROBATCH], name, peer, row[RANK]] = row[RANK], begin
    events = []
    for number, (key, (sender, begin)) in enumerate(sent.items()):
        if key not in received:
            continue
        receiver, waits_since = received[key]
        fields = {"name": key[2], "cat": "mail", "id": number}
        # Inside their slices, and no arrow goes back in time: a letter may be taken in before its sender has ended the others.
        arrival = max(begin, waits_since)
        events.append({"ph": "s", "pid": sender, "tid": OPS, "ts": _microseconds(begin), **fields})
        events.append({"ph": "f", "bp": "e", "pid": receiver, "tid": OPS, "ts": _microseconds(arrival), **fields})
    return events
