"""doctor: what this machine offers and what stands in the way. bench: one op's time, rate and kernel."""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from meshwright import _core
from meshwright._core import UserError
from meshwright.machine import cache_file, huge_pages, measured_peaks, memory_bytes, peak_flops, processor
from meshwright.program import Program
from meshwright.tracing import Spec, trace

DOCTOR_GEMM = {"m": 2048, "n": 768, "k": 768}
"""A projection of `base` over 2,048 tokens."""


@dataclass(frozen=True)
class BenchOp:
    """An op that `bench` times: the sizes it takes with their defaults, and a Program that holds it."""

    sizes: dict[str, int]
    program: Callable[..., Program]
    int_below: Callable[[dict[str, int]], int] = lambda sizes: 1
    dtypes: tuple[str, ...] = ("float32", "bfloat16")


def _dot(dtype: str, m: int, n: int, k: int) -> Program:
    from meshwright import ops

    return trace(lambda x, w: ops.dot(x, w, "embed"), x=Spec(dtype, tokens=m, embed=k), w=Spec(dtype, mlp=n, embed=k))


def _rms_norm(dtype: str, m: int, n: int) -> Program:
    from meshwright import ops

    return trace(lambda x, w: ops.rms_norm(x, w), x=Spec(dtype, tokens=m, embed=n), w=Spec(dtype, embed=n))


def _layer_norm(dtype: str, m: int, n: int) -> Program:
    from meshwright import ops

    return trace(lambda x, w, b: ops.layer_norm(x, w, b), x=Spec(dtype, tokens=m, embed=n), w=Spec(dtype, embed=n), b=Spec(dtype, embed=n))


def _gated_activation(dtype: str, m: int, n: int) -> Program:
    from meshwright import ops

    return trace(lambda gate, up: ops.gated_activation(gate, up), gate=Spec(dtype, tokens=m, mlp=n), up=Spec(dtype, tokens=m, mlp=n))


def _reduce_sum(dtype: str, m: int, n: int) -> Program:
    from meshwright import ops

    return trace(lambda x: ops.reduce_sum(x, "embed"), x=Spec(dtype, tokens=m, embed=n))


def _gather_rows(dtype: str, m: int, n: int, k: int) -> Program:
    from meshwright import ops

    return trace(lambda t, ids: ops.gather_rows(t, ids, "vocab"), t=Spec(dtype, vocab=n, embed=k), ids=Spec("int32", tokens=m))


def _rope(dtype: str, batch: int, seq: int, heads: int, head_dim: int) -> Program:
    from meshwright import ops

    x, positions = Spec(dtype, batch=batch, seq=seq, heads=heads, head_dim=head_dim), Spec("int32", batch=batch, seq=seq)
    return trace(lambda x, positions: ops.rope(x, positions), x=x, positions=positions)


def _attention(dtype: str, batch: int, seq: int, heads: int, kv_heads: int, head_dim: int) -> Program:
    from meshwright import ops

    if heads % kv_heads != 0:
        raise UserError(f"bench: heads={heads} is no multiple of kv_heads={kv_heads}")
    q = Spec(dtype, batch=batch, seq=seq, kv_heads=kv_heads, q_per_kv=heads // kv_heads, head_dim=head_dim)
    kv = Spec(dtype, batch=batch, kv_seq=seq, kv_heads=kv_heads, head_dim=head_dim)
    return trace(lambda q, k, v: ops.attention(q, k, v), q=q, k=kv, v=kv)


def _cross_entropy(dtype: str, m: int, n: int, k: int) -> Program:
    from meshwright import ops

    specs = {"x": Spec(dtype, tokens=m, embed=k), "w": Spec(dtype, vocab=n, embed=k), "targets": Spec("int32", tokens=m)}
    return trace(lambda x, w, targets: ops.cross_entropy(x, w, targets), **specs)


def _adamw(dtype: str, n: int) -> Program:
    from meshwright import ops

    names = ("weight", "gradient", "first_moment", "second_moment", "lr", "gradient_scale", "correction1", "correction2")
    specs = {name: Spec(dtype, embed=n) if i < 4 else Spec(dtype) for i, name in enumerate(names)}
    return trace(lambda **tensors: ops.adamw(**tensors, weight_decay=0.1), **specs)


_ROWS = {"m": 16384, "n": 2048}  # 128 MiB in float32: more than caches hold
_PRODUCT = {"m": 2048, "n": 768, "k": 768}
_HEADS = {"batch": 8, "seq": 256, "heads": 12, "kv_heads": 4, "head_dim": 64}

BENCH_OPS = {
    "dot": BenchOp(_PRODUCT, _dot),
    "attention": BenchOp(_HEADS, _attention),
    "cross_entropy": BenchOp({"m": 2048, "n": 32000, "k": 768}, _cross_entropy, lambda sizes: sizes["n"]),
    "rms_norm": BenchOp(_ROWS, _rms_norm),
    "layer_norm": BenchOp(_ROWS, _layer_norm),
    "gated_activation": BenchOp(_ROWS, _gated_activation),
    "rope": BenchOp({name: _HEADS[name] for name in ("batch", "seq", "heads", "head_dim")}, _rope, lambda sizes: sizes["seq"]),
    "gather_rows": BenchOp({"m": 16384, "n": 32000, "k": 2048}, _gather_rows, lambda sizes: sizes["n"]),
    "reduce_sum": BenchOp(_ROWS, _reduce_sum),
    "adamw": BenchOp({"n": 1 << 24}, _adamw, dtypes=("float32",)),
}
"""m, n, k: rows, columns, contraction (cross_entropy, gather_rows: tokens, vocabulary, embedding; adamw: n elements)."""


def bench_op(op: str) -> BenchOp:
    if op not in BENCH_OPS:
        near = difflib.get_close_matches(op, BENCH_OPS, 1)
        hint = f"; did you mean '{near[0]}'?" if near else ""
        raise UserError(f"bench: cannot time {op!r}; expected one of {', '.join(BENCH_OPS)}{hint}")
    return BENCH_OPS[op]


def bench(op: str = "dot", *, dtype: str = "float32", threads: int | None = None, **sizes: int) -> dict[str, Any]:
    """Times one op: median of at least five runs on warm memory.

    sizes: those of BENCH_OPS[op]; what is left out has its default. Returns op, sizes, dtype, threads, seconds, gflops (FLOPs by the op's
    own cost), gbytes_per_second (operands read and results written once), bound (what limits it at best: compute or memory),
    share_of_bound (of the measured peak; above 1 where operands stay in a cache), kernel and why it was chosen.

    Raises:
        UserError: an op, size or dtype that it does not know.
    """
    entry = bench_op(op)
    unknown = [name for name in sizes if name not in entry.sizes]
    if unknown:
        raise UserError(f"bench: {op} takes {', '.join(entry.sizes)}; found {', '.join(unknown)}")
    if dtype not in entry.dtypes:
        raise UserError(f"bench: {op} runs in {' or '.join(entry.dtypes)}, found {dtype!r}")
    size = {**entry.sizes, **sizes}
    count = threads or 0
    timing = _core.time_op(entry.program(dtype, **size)._core, op, count, entry.int_below(size))
    peaks = measured_peaks(count, bandwidth=True)
    compute = timing["flops"] / (peak_flops(peaks, dtype) or 1.0)
    memory = timing["bytes"] / peaks["read_bytes"]
    facts = _core.machine_facts()
    return {
        "op": op,
        **size,
        "dtype": dtype,
        "threads": count or facts["usable_processors"],
        "seconds": timing["seconds"],
        "gflops": timing["flops"] / timing["seconds"] / 1e9,
        "gbytes_per_second": timing["bytes"] / timing["seconds"] / 1e9,
        "bound": "compute" if compute >= memory else "memory",
        "share_of_bound": max(compute, memory) / timing["seconds"],
        "kernel": timing["kernel"],
        "why": _why(dtype, facts),
    }


BF16_PRODUCTS = {"avx512bf16": ", pairs of bf16 are multiplied at once", "amx": ", tiles of bf16 are multiplied at once"}
"""By instruction set that multiplies bf16 in hardware."""


def _why(dtype: str, facts: dict[str, Any]) -> str:
    isa, best = facts["isa"], facts["available_isas"][-1]
    chosen = f"{isa} is the best of this CPU" if isa == best else f"MESHWRIGHT_ISA={isa}, though this CPU has {best}"
    if dtype == "bfloat16":
        chosen += BF16_PRODUCTS.get(isa, ", bf16 is widened to f32")
    return chosen


def doctor(threads: int | None = None, fresh: bool = False) -> dict[str, Any]:
    """Facts about this machine, and warnings. Peaks are measured once and remembered; `fresh` measures them again.

    isa, available_isas, cpu, cores, processors, threads, memory_bytes, huge_pages; peak_float32_gflops, peak_bfloat16_gflops (multiply-adds
    in registers), memory_gbytes_per_second (read); gemm (the shape), gemm_float32_share and gemm_bfloat16_share (of those peaks), openblas
    (None, or what it says of itself) and openblas_float32_share; kernels (op -> variants of a training step); peaks_file; warnings.
    """
    count = threads or 0
    facts = _core.machine_facts()
    cpu = processor()
    peaks = measured_peaks(count, fresh, bandwidth=True)
    flops = 2.0 * DOCTOR_GEMM["m"] * DOCTOR_GEMM["n"] * DOCTOR_GEMM["k"]
    blas = _core.time_openblas(DOCTOR_GEMM["m"], DOCTOR_GEMM["n"], DOCTOR_GEMM["k"], count)
    report: dict[str, Any] = {
        "cpu": cpu.name,
        "cores": cpu.cores,
        "processors": facts["usable_processors"],
        "threads": count or facts["usable_processors"],
        "memory_bytes": memory_bytes(),
        "huge_pages": huge_pages(),
        "isa": facts["isa"],
        "available_isas": facts["available_isas"],
        "peak_float32_gflops": peaks["float32"] / 1e9,
        "peak_bfloat16_gflops": (peak_flops(peaks, "bfloat16") or 0.0) / 1e9,
        "memory_gbytes_per_second": peaks["read_bytes"] / 1e9,
        "gemm": "y[{m}, {n}] = x[{m}, {k}] w[{n}, {k}]^T".format(**DOCTOR_GEMM),
    }
    for dtype in ("float32", "bfloat16"):
        timing = _core.time_op(_dot(dtype, **DOCTOR_GEMM)._core, "dot", count, 1)
        report[f"gemm_{dtype}_share"] = flops / timing["seconds"] / (peak_flops(peaks, dtype) or 1.0)
    report["openblas"] = blas["config"] if blas else None
    report["openblas_float32_share"] = flops / blas["seconds"] / peaks["float32"] if blas else None
    report["kernels"] = _kernels()
    report["peaks_file"] = str(cache_file())
    report["warnings"] = _warnings(report)
    return report


def _kernels() -> dict[str, list[str]]:
    from meshwright.planning import plan

    used: dict[str, set[str]] = {}
    for dtype in ("float32", "bfloat16"):
        for op, variants in _core.kernels_in_use(plan("tiny", seq=64, batch=2, dtype=dtype)._spec).items():
            used.setdefault(op, set()).update(variants)
    return {op: sorted(variants) for op, variants in sorted(used.items())}


def _warnings(report: dict[str, Any]) -> list[str]:
    warnings = []
    core_type = os.environ.get("OPENBLAS_CORETYPE")
    if core_type:
        warnings.append(f"OPENBLAS_CORETYPE={core_type} is set: Meshwright ignores it, NumPy and others may be slow")
    if report["isa"] != report["available_isas"][-1]:
        warnings.append(f"MESHWRIGHT_ISA={report['isa']} is set, though this CPU has {report['available_isas'][-1]}")
    if report["isa"] == "avx2" and len(report["available_isas"]) == 1:
        warnings.append("this CPU has no AVX-512: kernels run at half the width")
    if report["threads"] < 4:
        warnings.append(f"{report['threads']} thread{'s' if report['threads'] > 1 else ''} only: training will be slow")
    if report["threads"] > report["processors"]:
        warnings.append(f"threads={report['threads']}, but this process may use {report['processors']} processors")
    if report["huge_pages"] == "never":
        warnings.append("huge pages are off: `echo madvise > /sys/kernel/mm/transparent_hugepage/enabled` (as root) helps")
    load = os.getloadavg()[0]
    if load > 0.5 * report["processors"]:
        warnings.append(f"other programs keep {load:.1f} processors busy: what was measured here is too low")
    return warnings
