"""Where the files that come with the package stand."""

from __future__ import annotations

from pathlib import Path


def configs_folder() -> Path:
    """`configs/` of the installed package, or of the source tree when the package is used from there."""
    here = Path(__file__).resolve().parent
    installed = here / "configs"
    return installed if installed.is_dir() else here.parents[1] / "configs"
