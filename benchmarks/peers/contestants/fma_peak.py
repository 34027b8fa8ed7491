"""What the processor can multiply and add at best, in FLOP/s of a dtype; where it has no bfloat16 instructions, float32's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from meshwright import _core
from meshwright.machine import peak_flops


def step_of(spec: dict[str, Any]) -> Callable[[], float]:
    return lambda: peak_flops(_core.measure_peak_flops(spec["threads"]), spec["dtype"]) or 0.0
