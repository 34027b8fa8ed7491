"""What this machine is and can do: processor, memory, measured peaks (cached between runs)."""

from __future__ import annotations

import json
import os
import tempfile
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from meshwright import _core


def cache_file() -> Path:
    """Where measured peaks are remembered."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return Path(base) / "meshwright" / "peaks.json"


def memory_bytes() -> int:
    """Memory that this process may use: that of the machine, or less where its control group says so."""
    limits = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    for file in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            limits.append(int(Path(file).read_text(encoding="ascii")))
        except (OSError, ValueError):  # no such group, or "max"
            continue
    return min(limits)


class Processor(NamedTuple):
    name: str
    family: str  # its number; AMD names Zen 4 and Zen 5 alike
    cores: int  # physical ones


@lru_cache(maxsize=1)
def processor() -> Processor:
    """The CPU, as far as the system tells; else "unknown"."""
    name, family, cores, package = "unknown", "unknown", set(), ""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    for line in lines:
        key, _, value = (part.strip() for part in line.partition(":"))
        if key == "model name":
            name = value
        elif key == "cpu family":
            family = value
        elif key == "physical id":
            package = value
        elif key == "core id":
            cores.add((package, value))
    return Processor(name, family, len(cores) or os.cpu_count() or 1)


def huge_pages() -> str:
    """When the system gives huge pages: "always", "madvise", "never" or "unknown"."""
    try:
        setting = Path("/sys/kernel/mm/transparent_hugepage/enabled").read_text(encoding="ascii")
        return setting[setting.index("[") + 1 : setting.index("]")]
    except (OSError, ValueError):
        return "unknown"


def _key(threads: int) -> str:
    facts = _core.machine_facts()
    cpu = processor()
    return f"{cpu.name} | family {cpu.family} | {facts['isa']} | {threads or facts['usable_processors']} threads"


@lru_cache(maxsize=16)
def cached_peaks(threads: int = 0) -> dict[str, float] | None:
    """float32, bfloat16 (FLOP/s; 0 where bfloat16 is widened to float32) and, when doctor measured it, read_bytes (bytes/s), of all
    processors or of so many threads; None when they were not measured on this machine."""
    try:
        peaks = json.loads(cache_file().read_text(encoding="utf-8"))[_key(threads)]
        return {name: float(value) for name, value in peaks.items()} if peaks["float32"] > 0 else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


_measured_here: set[int] = set()
"""Numbers of threads whose peaks this process has measured."""
_fastest: dict[tuple[int, str], float] = {}
"""The rates that asked for another measurement."""


def measured_peaks(threads: int = 0, fresh: bool = False, bandwidth: bool = False, again: bool = False) -> dict[str, float]:
    """As cached_peaks; what is missing (or everything, when `fresh`) is measured in about half a second and remembered.

    The machine may have been busy when they were measured, so each process measures the FLOP/s once more (and `again` when asked), and
    the larger ones stay. `fresh` forgets the old ones.
    """
    known = {} if fresh else dict(cached_peaks(threads) or {})
    found = dict(known)
    if fresh or again or threads not in _measured_here:
        _measured_here.add(threads)
        for name, value in _core.measure_peak_flops(threads).items():
            found[name] = max(value, known.get(name, 0.0))
    if bandwidth and "read_bytes" not in known:
        found["read_bytes"] = _core.measure_read_bandwidth(threads)
    if found != known:
        _remember(_key(threads), found)
        cached_peaks.cache_clear()
    return found


def peak_flops(peaks: dict[str, float] | None, dtype: str) -> float | None:
    """FLOP/s of a compute dtype, of what cached_peaks gave."""
    if peaks is None:
        return None
    return (peaks["bfloat16"] if dtype == "bfloat16" else 0.0) or peaks["float32"]


def share_of_peak(flops_per_second: float, dtype: str, threads: int = 0) -> float | None:
    """A rate as a share of the measured peak of its compute dtype; None where none was measured.

    A rate above the peak says that the peak was measured too low: it is measured again, and the larger one stays.
    """
    peak = peak_flops(cached_peaks(threads), dtype)
    if peak is None:
        return None
    asked = _fastest.get((threads, dtype), 0.0)
    if flops_per_second > peak and flops_per_second > 1.02 * asked:
        _fastest[threads, dtype] = flops_per_second
        peak = peak_flops(measured_peaks(threads, again=True), dtype) or peak
    return flops_per_second / peak


def _remember(key: str, peaks: dict[str, float]) -> None:
    """Written beside and renamed, so that no reader sees half a file; a folder that cannot be written is no reason to stop."""
    file = cache_file()
    try:
        known: Any = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        known = {}
    entries = {name: value for name, value in known.items() if isinstance(value, dict)} if isinstance(known, dict) else {}
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=file.parent, suffix=".partial", delete=False, encoding="utf-8") as out:
            json.dump({**entries, key: peaks}, out, indent=2)
        os.replace(out.name, file)
    except OSError:
        return
