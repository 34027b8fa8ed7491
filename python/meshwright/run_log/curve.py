"""The picture of a run: training and validation loss against tokens, with baselines as horizontal lines."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from meshwright._core import UserError
from meshwright.run_log.history import FILE_NAME, read_history

PICTURE_NAME = "loss.png"


def plot_run(
    folder: str | os.PathLike[str], output: str | os.PathLike[str] | None = None, baselines: Mapping[str, float] | None = None
) -> Path:
    """Draws the run in `folder` from its metrics.jsonl and returns the PNG's path (`folder/loss.png` unless `output` says otherwise).

    `baselines` (name -> nats per token) are drawn beside those that metrics.jsonl holds.
    """
    if not (Path(folder) / FILE_NAME).is_file():
        raise UserError(f"expected a run folder with {FILE_NAME}, found none in {os.fspath(folder)!r}")
    history = read_history(folder)
    train, validation = _points(history.train), _points(history.validation)
    if not train and not validation:
        raise UserError(f"{Path(folder) / FILE_NAME} holds no losses to draw; train at least log_every steps first")
    path = Path(output) if output is not None else Path(folder) / PICTURE_NAME

    # The object interface: no pyplot, so nothing global and no display.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    if train:
        axes.plot(*zip(*train, strict=True), color="tab:blue", linewidth=1, label="training loss")
    if validation:
        axes.plot(*zip(*validation, strict=True), color="tab:orange", marker="o", markersize=3, label="validation loss")
    lines = {**history.baselines, **(baselines or {})}
    for (name, loss), color in zip(
        lines.items(), ["tab:gray", "tab:green", "tab:red", "tab:purple", "tab:brown"] * len(lines), strict=False
    ):
        axes.axhline(loss, color=color, linestyle="--", linewidth=1, label=f"{name} ({loss:.2f})")
    axes.set_xlabel("tokens")
    axes.set_ylabel("loss (nats per token)")
    axes.set_title(history.model or Path(folder).name)
    axes.grid(alpha=0.3)
    axes.legend()
    temporary = path.with_name(path.name + ".new")
    figure.savefig(temporary, format="png")
    os.replace(temporary, path)
    return path


def _points(rows: Sequence[Mapping[str, object]]) -> list[tuple[float, float]]:
    points = []
    for row in rows:
        tokens, loss = row.get("tokens"), row.get("loss")
        if isinstance(tokens, (int, float)) and isinstance(loss, (int, float)):
            points.append((float(tokens), float(loss)))
    return points
