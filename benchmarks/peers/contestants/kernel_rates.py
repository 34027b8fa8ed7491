"""Not a training step: the rates of single kernels at shapes of `small`, `base` and `moe`, forward, beside the FMA peak."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from meshwright import _core
from meshwright.diagnostics import BENCH_OPS
from meshwright.machine import peak_flops

KERNELS: dict[str, tuple[str, dict[str, int]]] = {
    "dot 2048x288x288": ("dot", {"m": 2048, "n": 288, "k": 288}),
    "dot 2048x768x288": ("dot", {"m": 2048, "n": 768, "k": 288}),
    "dot 2048x768x768": ("dot", {"m": 2048, "n": 768, "k": 768}),
    "dot 2048x2048x768": ("dot", {"m": 2048, "n": 2048, "k": 768}),
    "dot 2048x768x2048": ("dot", {"m": 2048, "n": 768, "k": 2048}),
    "cross_entropy 2048x32000x288": ("cross_entropy", {"m": 2048, "n": 32000, "k": 288}),
    "cross_entropy 2048x32000x768": ("cross_entropy", {"m": 2048, "n": 32000, "k": 768}),
    "attention 8x256": ("attention", {"batch": 8, "seq": 256, "heads": 12, "kv_heads": 4, "head_dim": 64}),
    "attention 1x8192": ("attention", {"batch": 1, "seq": 8192, "heads": 12, "kv_heads": 4, "head_dim": 64}),
}


def step_of(spec: dict[str, Any]) -> Callable[[], dict[str, float]]:
    dtype, threads = spec["dtype"], spec["threads"]
    traced = {}
    for name, (op, given) in KERNELS.items():
        sizes = {**BENCH_OPS[op].sizes, **given}
        traced[name] = (BENCH_OPS[op].program(dtype, **sizes), op, BENCH_OPS[op].int_below(sizes))

    def step() -> dict[str, float]:
        rates = {"peak": 0.0}
        for name, (program, op, below) in traced.items():
            rates["peak"] = max(rates["peak"], peak_flops(_core.measure_peak_flops(threads), dtype) or 0.0)
            timing = _core.time_op(program._core, op, threads, below)
            rates[name] = timing["flops"] / timing["seconds"]
        return rates

    return step
