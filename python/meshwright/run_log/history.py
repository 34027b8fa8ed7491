"""metrics.jsonl: one JSON object per line, each written by one call, so that a killed run leaves at most one half line, which readers skip.

    {"kind": "run", "model": "mini"}
    {"kind": "baseline", "name": "bigram", "loss": 4.16}
    {"kind": "train", "step": 10, "loss": 6.1, "perplexity": 445.9, "lr": 0.0003, "tokens": 20480, ...}
    {"kind": "validation", "step": 200, "loss": 5.0, "perplexity": 148.4, "tokens": 409600}

`step` counts finished optimizer steps, from 1. A number that is not finite is written as null.
"""

from __future__ import annotations

import json
import math
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from meshwright.run_log.metrics import Metrics

FILE_NAME = "metrics.jsonl"


@dataclass
class RunHistory:
    """What metrics.jsonl says; `train` and `validation` rows are in the order of the file."""

    model: str = ""
    baselines: dict[str, float] = field(default_factory=dict)
    train: list[dict[str, Any]] = field(default_factory=list)
    validation: list[dict[str, Any]] = field(default_factory=list)


def _whole_entries(path: Path) -> list[dict[str, Any]]:
    entries = []
    for line in path.read_bytes().split(b"\n"):
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(entry, dict) and isinstance(entry.get("step", 0), int):
            entries.append(entry)
    return entries


def read_history(folder: str | os.PathLike[str]) -> RunHistory:
    """Reads a run's metrics.jsonl; lines that are not whole are skipped, a missing file is a FileNotFoundError."""
    history = RunHistory()
    for entry in _whole_entries(Path(folder) / FILE_NAME):
        kind = entry.get("kind")
        if kind == "run":
            history.model = str(entry.get("model", ""))
        elif kind == "baseline":
            if isinstance(loss := entry.get("loss"), (int, float)):
                history.baselines[str(entry.get("name", ""))] = float(loss)
        elif kind == "train":
            history.train.append(entry)
        elif kind == "validation":
            history.validation.append(entry)
    return history


class History:
    """Appends to metrics.jsonl. On resume, entries of steps after `resume_step` (and a half line) are cut off first."""

    def __init__(self, folder: str | os.PathLike[str], resume_step: int = 0) -> None:
        self.path = Path(folder) / FILE_NAME
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._seen: set[tuple[str, str]] = set()
        kept: list[dict[str, Any]] = []
        if self.path.exists() and resume_step > 0:
            kept = [entry for entry in _whole_entries(self.path) if entry.get("step", 0) <= resume_step]
            self._seen = {(str(entry.get("kind")), str(entry.get("name", ""))) for entry in kept if "step" not in entry}
        temporary = self.path.with_suffix(".jsonl.new")
        temporary.write_bytes(b"".join(_line(entry) for entry in kept))
        os.replace(temporary, self.path)
        self._file = open(self.path, "ab", buffering=0)

    def describe(self, model: str) -> None:
        """Names the model once per run."""
        self._once("run", "", {"model": model})

    def baseline(self, name: str, loss: float) -> None:
        """A loss to compare with, drawn as a horizontal line; once per name."""
        self._once("baseline", name, {"name": name, "loss": loss})

    def append(self, kind: str, step: int, metrics: Metrics) -> None:
        """One `train` or `validation` row; `step` finished optimizer steps stand behind it."""
        self._file.write(_line({"kind": kind, "step": step, **metrics.to_dict()}))

    def close(self) -> None:
        self._file.close()

    def _once(self, kind: str, name: str, fields: dict[str, Any]) -> None:
        if (kind, name) not in self._seen:
            self._seen.add((kind, name))
            self._file.write(_line({"kind": kind, **fields}))


def _line(entry: dict[str, Any]) -> bytes:
    finite = {key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in entry.items()}
    return json.dumps(finite).encode() + b"\n"
