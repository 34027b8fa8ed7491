"""meshwright inspect: what a run folder, a checkpoint folder or a .safetensors file holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from meshwright._core import list_tensors
from meshwright.cli.ingredients import checkpoint_of
from meshwright.cli.parser import Config
from meshwright.cli.table import print_json, print_table, size_text
from meshwright.run_log import read_history
from meshwright.run_log.history import FILE_NAME


def run(config: Config) -> None:
    path = Path(config["path"])
    report: dict[str, Any] = {}
    if (path / FILE_NAME).is_file():
        report["run"] = _run_row(path)
    folder = checkpoint_of(str(path))
    report["checkpoint"] = folder
    # The strict reader of the core: every length is checked before use.
    report["tensors"] = [{**row, "shape": list(row["shape"])} for row in list_tensors(folder)]
    report["total_bytes"] = sum(row["bytes"] for row in report["tensors"])
    if config["json"]:
        print_json(report)
        return
    if "run" in report:
        print_table([report["run"]])
        print()
    print_table([{**row, "shape": " x ".join(map(str, row["shape"])), "bytes": size_text(row["bytes"])} for row in report["tensors"]])
    print(f"{len(report['tensors'])} tensors, {size_text(report['total_bytes'])}, in {folder}")


def _run_row(path: Path) -> dict[str, Any]:
    history = read_history(path)
    last = history.train[-1] if history.train else {}
    validation = history.validation[-1].get("loss") if history.validation else None
    return {"model": history.model, "step": last.get("step"), "loss": last.get("loss"), "validation_loss": validation}
