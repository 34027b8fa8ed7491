"""run.json: the settings of the run that stands in a folder, in the form of a run file; a resumed run must agree with it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from meshwright._core import UserError

FILE_NAME = "run.json"


def read_settings(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """The settings in `folder`; empty where no run stands."""
    path = Path(folder) / FILE_NAME
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not valid JSON: {error}") from None
    if not isinstance(settings, dict):
        raise UserError(f"{path}: expected an object of settings, found {type(settings).__name__}")
    return settings


def remember_settings(
    folder: str | os.PathLike[str], settings: Mapping[str, Any], free: Iterable[str] = (), *, binding: bool = True
) -> None:
    """Writes `settings` to a new run folder; in one that has some, a setting that differs is an error, unless it is one of `free`.

    A free setting (where to save, how often to log, the mesh) does not change the numbers of the run; its new value is kept. Where the
    settings there are not `binding` (nothing was saved with them, they may have been the mistake), they are replaced.
    """
    free = set(free)
    before = read_settings(folder) if binding else {}
    now = json.loads(json.dumps(dict(settings)))
    if before:
        differing = [key for key in sorted(before.keys() | now.keys()) if key not in free and before.get(key) != now.get(key)]
        if differing:
            listed = "\n".join(f"  {key}: {json.dumps(before.get(key))} there, {json.dumps(now.get(key))} here" for key in differing)
            raise UserError(f"{os.fspath(folder)!r} holds a run with other settings; use another output, or the same values of\n{listed}")
    path = Path(folder) / FILE_NAME
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".json.new")
    with open(temporary, "w", encoding="utf-8") as file:
        json.dump(now, file, indent=2)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
