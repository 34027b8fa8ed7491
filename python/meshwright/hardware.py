"""Chips and networks that steps are planned for: the files of configs/hardware."""

from __future__ import annotations

import difflib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from meshwright import _core
from meshwright._core import UserError
from meshwright.machine import measured_peaks, memory_bytes
from meshwright.packaged import configs_folder

THIS_MACHINE = "cpu"
"""The hardware whose figures are measured."""


def hardware_names() -> list[str]:
    """Names that `mw.plan(hardware=...)` knows."""
    return sorted(file.stem for file in (configs_folder() / "hardware").glob("*.json"))


def find_hardware(
    hardware: str | Mapping[str, Any] | os.PathLike[str], ranks: int = 1, network: Sequence[Mapping[str, Any]] | None = None
) -> _core.Hardware:
    """A chip and its network.

    hardware: a name from configs/hardware, a JSON file, or a dict with the same keys. "cpu" is this machine: its measured peaks, memory
        and bandwidth are shared by `ranks`, and measured when they are not known yet (about a second).
    network: levels that take the place of the hardware's own, innermost first: dicts of name, chips (0 in the last: all), bandwidth
        (bytes per second that one chip sends) and latency (seconds).

    Raises:
        UserError: an unknown name (naming the nearest), a file that does not say what is needed.
    """
    fields, source = _fields(hardware)
    if network is not None:
        fields["network"] = [dict(level) for level in network]
    if fields.get("kernels") == "cpu":
        fields = _measured(fields, ranks)
    return _core.Hardware(json.dumps(fields), source)


def this_machine(ranks: int) -> dict[str, Any]:
    """ "cpu" with its measured figures, of one of `ranks` that share them."""
    return _measured(_fields(THIS_MACHINE)[0], ranks)


def _fields(hardware: str | Mapping[str, Any] | os.PathLike[str]) -> tuple[dict[str, Any], str]:
    if isinstance(hardware, Mapping):
        return dict(hardware), "the given hardware"
    name = os.fspath(hardware)
    file = configs_folder() / "hardware" / f"{name.lower()}.json"
    if not file.is_file():
        file = Path(name)
    if not file.is_file():
        known = hardware_names()
        nearest = difflib.get_close_matches(name.lower(), known, 1, 0.4)
        hint = f"; did you mean {nearest[0]!r}?" if nearest else ""
        raise UserError(f"there is no hardware {name!r}{hint}; known: {', '.join(known)}, or the path of a JSON file")
    try:
        fields = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{file}: not JSON: {error}") from None
    if not isinstance(fields, dict):
        raise UserError(f"{file}: expected an object {{...}}, found {type(fields).__name__}")
    return fields, str(file)


def _measured(fields: dict[str, Any], ranks: int) -> dict[str, Any]:
    """With the figures that the file leaves to measurement; every rank has its share of the machine."""
    peaks = measured_peaks(bandwidth=True)
    one = {"float32": peaks["float32"], "bfloat16": peaks["bfloat16"] or peaks["float32"]}
    found = {
        "peak_flops": {dtype: rate / ranks for dtype, rate in one.items()},
        "memory_bytes": memory_bytes() / ranks,
        "memory_bandwidth": peaks["read_bytes"] / ranks,
    }
    # What one rank sends is read once and written once.
    levels = [{"bandwidth": peaks["read_bytes"] / ranks / 2, **level} for level in fields.get("network", [])]
    return {**found, **fields, "network": levels}
