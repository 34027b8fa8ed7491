"""meshwright inspect: what a checkpoint, data or run folder, or a .safetensors file, holds."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from meshwright._core import UserError
from meshwright.cli.parser import Config
from meshwright.cli.table import print_json, print_table, size_text
from meshwright.run_log import read_history
from meshwright.run_log.history import FILE_NAME


def run(config: Config) -> None:
    import meshwright as mw

    path = Path(config["path"])
    if not path.exists():
        raise UserError(f"path: expected a folder or .safetensors file, found {os.fspath(path)!r}, which does not exist")
    report: dict[str, Any] = {}
    if path.is_dir() and (path / FILE_NAME).exists():
        history = read_history(path)
        last = history.train[-1] if history.train else {}
        validation = history.validation[-1]["loss"] if history.validation else None
        report["run"] = {"model": history.model, "step": last.get("step"), "loss": last.get("loss"), "validation_loss": validation}
    # The strict reader of the core: every length is checked before use.
    report.update(mw.inspect(path))
    if config["json"]:
        print_json(report)
        return
    for name, content in report.items():
        rows = content if isinstance(content, list) else [content]
        print(f"{name}:")
        print_table([{key: size_text(value) if key == "bytes" else value for key, value in row.items()} for row in rows])
