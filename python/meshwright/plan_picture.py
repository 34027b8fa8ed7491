"""The picture of a plan: memory over the time of a step with what fills it, and where the time goes."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from meshwright._core import UserError

if TYPE_CHECKING:
    from meshwright.plan_report import PlanReport

GIB = 2**30
MOST_SCOPES = 12
COMPUTE, MEMORY_BOUND, BUBBLE = "tab:blue", "tab:cyan", "lightgray"
SHADES = (COMPUTE, "lightsteelblue")
OF_AXES = ("tab:orange", "tab:red", "tab:purple", "tab:olive", "tab:pink", "tab:brown")
OF_USES = {
    "parameters": "#1f4e79",
    "gradients": "#2e75b6",
    "optimizer_state": "#9dc3e6",
    "activations": "tab:green",
    "gathered_ahead": "tab:olive",
    "batch": "tab:gray",
    "scratch": "tab:orange",
}


def memory_layers(report: PlanReport) -> tuple[list[float], dict[str, list[float]]]:
    """Times (seconds; pieces of the Plan behind each other, each once) and the bytes of one rank then, by use, to be stacked.

    Activations of microbatches in flight beside the one that is drawn stay as they are."""
    held = {use: report.memory[use] for use in ("parameters", "gradients", "optimizer_state")}
    held["gradients"] = max(0, held["gradients"] - _most_gradients(report))  # the others come and go
    held["gathered_ahead"] = report.needed_bytes - report.peak_bytes
    held["batch"] = sum(report.memory[use] for use in ("batch", "results", "staging"))
    # Of the stage with most memory, while the pieces are those of the slowest: a microbatch has at most its share.
    copies = max(
        (row["microbatches_in_flight"] for row in report.stages if row["memory"]["activations"] == report.memory["activations"]), default=1
    )
    one = report.memory["activations"] / copies
    times: list[float] = []
    layers: dict[str, list[float]] = {use: [] for use in OF_USES}
    for start, piece, memory in _pieces(report):
        ends = [sample["seconds"] for sample in memory["samples"][1:]] + [piece["seconds"]]
        for sample, end in zip(memory["samples"], ends, strict=True):
            for seconds in (sample["seconds"], end):
                times.append(start + seconds)
                for use in layers:
                    layers[use].append(held.get(use, 0))
                layers["gradients"][-1] += sample["gradients"]
                layers["activations"][-1] = report.memory["activations"] - one + min(one, sample["carried"])
                layers["scratch"][-1] = min(report.memory["scratch"], sample["scratch"])
    return times, layers


def step_shares(report: PlanReport) -> dict[str, float]:
    """Seconds of a step by what they go to; their sum is step_seconds."""
    estimate = report.estimate
    assert estimate is not None
    waits = {f"waiting for {axes}": seconds for axes, seconds in estimate.exposed.items() if seconds > 0}
    named = sum(waits.values())
    parts = {"compute (FLOPs)": estimate.seconds["flops"], "compute (memory)": estimate.seconds["bytes"], **waits}
    if (rest := estimate.seconds["exposed"] - named) > 1e-9 * estimate.step_seconds:
        parts["waiting"] = rest
    return {name: seconds for name, seconds in {**parts, "bubble": estimate.seconds["bubble"]}.items() if seconds > 0}


def save_png(report: PlanReport, path: str | os.PathLike[str]) -> Path:
    """Draws a plan made with `hardware`; returns the file's path.

    Raises:
        UserError: a plan without hardware, which has no time; a place that cannot be written.
    """
    if report.estimate is None:
        raise UserError("picture: a plan without hardware has no time to draw; expected hardware=h100, hardware=cpu, ...")
    # The object interface: no pyplot, so nothing global and no display.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 11), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    s = report.settings
    mesh = " ".join(f"{axis}={size}" for axis, size in s["mesh"].items()) or "one rank"
    figure.suptitle(f"{s['model']} on {report.num_ranks:,} {s['hardware']}, {mesh}, batch {s['batch']} x {s['seq']}, remat={s['remat']}")
    grid = figure.add_gridspec(3, 2, height_ratios=(3, 3, 1), width_ratios=(3, 2))
    _draw_memory(figure.add_subplot(grid[0, 0]), report)
    _draw_scopes(figure.add_subplot(grid[0, 1]), report)
    _draw_timeline(figure.add_subplot(grid[1, :]), report)
    _draw_step(figure.add_subplot(grid[2, :]), report)
    path = Path(path)
    temporary = path.with_name(path.name + ".new")
    try:
        figure.savefig(temporary, format="png")
        os.replace(temporary, path)
    except OSError as error:
        raise UserError(f"picture: {os.fspath(path)!r} cannot be written: {error.strerror}") from None
    return path


def _pieces(report: PlanReport) -> list[tuple[float, dict[str, Any], dict[str, Any]]]:
    """Start, time and memory of each piece that runs."""
    assert report.estimate is not None
    found, start = [], 0.0
    for piece, memory in zip(report.estimate.pieces, report.memory_over_time, strict=True):
        if piece["runs"]:
            found.append((start, piece, memory))
            start += piece["seconds"]
    return found


def _most_gradients(report: PlanReport) -> int:
    """Bytes of the gradients that lie among carried values, all of which the update finds."""
    return int(max(sample["gradients"] for _, _, memory in _pieces(report) for sample in memory["samples"]))


def _mark_pieces(axes: Any, report: PlanReport) -> None:
    for start, piece, _ in _pieces(report):
        axes.axvline(start, color="black", linewidth=0.5, alpha=0.4)
        name = piece["piece"] + (f" x {piece['runs']}" if piece["runs"] > 1 else "")
        axes.annotate(name, (start, 1.0), xycoords=("data", "axes fraction"), xytext=(2, -9), textcoords="offset points", fontsize=7)


def _draw_memory(axes: Any, report: PlanReport) -> None:
    times, layers = memory_layers(report)
    shown = {use: [count / GIB for count in counts] for use, counts in layers.items() if any(counts)}
    axes.stackplot(times, *shown.values(), labels=[use.replace("_", " ") for use in shown], colors=[OF_USES[use] for use in shown])
    limit = report.available_bytes / GIB
    axes.axhline(limit, color="red", linestyle="--", linewidth=1, label=f"available: {limit:.1f} GiB")
    axes.set_title(f"memory of one rank: {report.needed_bytes / GIB:.1f} GiB at most" + ("" if report.fits else ", DOES NOT FIT"))
    axes.set_xlabel("seconds, each piece of the step once")
    axes.set_ylabel("GiB")
    axes.margins(x=0)
    _mark_pieces(axes, report)
    axes.legend(fontsize=7, loc="lower right")


def _draw_scopes(axes: Any, report: PlanReport) -> None:
    """Activations, and what lies in the fullest scratch."""
    fullest: Sequence[Mapping[str, Any]] = max(
        (memory["fullest"] for _, _, memory in _pieces(report)), key=lambda rows: sum(row["bytes"] for row in rows), default=[]
    )
    kinds = (("activations", report.activations), ("scratch", fullest))
    rows = [(row["bytes"] / GIB, row["scope"] or "(outside)", kind) for kind, scopes in kinds for row in scopes]
    rows = sorted(rows, reverse=True)[:MOST_SCOPES]
    rows = [row for row in rows if row[0] > 0.01 * rows[0][0]][::-1]
    axes.barh(range(len(rows)), [row[0] for row in rows], color=[OF_USES[row[2]] for row in rows])
    axes.set_yticks(range(len(rows)), [row[1] for row in rows], fontsize=7)
    axes.set_xlabel("GiB")
    axes.set_title("activations (green), fullest scratch (orange)")


def _draw_timeline(axes: Any, report: PlanReport) -> None:
    """Compute by layer and transfers by mesh axes, while each piece runs once."""
    lanes, colors = {"compute": 0}, _colors_of_axes(report)
    for start, piece, _ in _pieces(report):
        for index, span in enumerate(piece["spans"]):
            axes.broken_barh([(start + span["start"], span["end"] - span["start"])], (-0.4, 0.8), color=SHADES[index % 2])
        for transfer in piece["transfers"]:
            lane = lanes.setdefault(transfer["axes"], len(lanes))
            bar = (start + transfer["start"], transfer["end"] - transfer["start"])
            axes.broken_barh([bar], (lane - 0.4, 0.8), color=colors[transfer["axes"]])
    axes.set_yticks(range(len(lanes)), list(lanes))
    axes.invert_yaxis()
    axes.margins(x=0)
    _mark_pieces(axes, report)
    axes.set_xlabel("seconds, each piece of the step once; layers in two shades, waiting included")
    axes.set_title("compute and transfers of one rank")


def _colors_of_axes(report: PlanReport) -> dict[str, str]:
    assert report.estimate is not None
    names = sorted({transfer["axes"] for piece in report.estimate.pieces for transfer in piece["transfers"]})
    return {name: OF_AXES[index % len(OF_AXES)] for index, name in enumerate(names)}


def _draw_step(axes: Any, report: PlanReport) -> None:
    shares, left = step_shares(report), 0.0
    colors = {"compute (FLOPs)": COMPUTE, "compute (memory)": MEMORY_BOUND, "bubble": BUBBLE}
    colors |= {f"waiting for {name}": color for name, color in _colors_of_axes(report).items()}
    total = report.step_seconds or 0.0
    for name, seconds in shares.items():
        axes.barh([0], [seconds], left=[left], color=colors.get(name, "black"), label=f"{name}: {seconds:.3g} s, {seconds / total:.1%}")
        left += seconds
    axes.set_yticks([])
    axes.margins(x=0)
    axes.set_xlabel("seconds")
    axes.set_title(f"one step: {total:.3g} s, MFU {report.mfu:.1%}")
    axes.legend(fontsize=7, ncols=4, loc="upper center", bbox_to_anchor=(0.5, -0.6))
