"""What this machine can do: measured peaks (cached), and where they are used."""

from __future__ import annotations

import json
import os
from functools import lru_cache
from pathlib import Path


def cache_file() -> Path:
    """Where measured peaks are remembered."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return Path(base) / "meshwright" / "peaks.json"


@lru_cache(maxsize=4)
def cached_peak_flops(dtype: str) -> float | None:
    """Floating-point operations per second that all CPUs reach in registers, or None when `meshwright doctor` has not measured them."""
    try:
        peaks = json.loads(cache_file().read_text(encoding="utf-8"))
        return float(peaks[dtype]["flops_per_second"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
