"""What the turns say: rows with rates, shares of the bound and ratios; which losses disagree; which ratios got worse."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from peers.cases import Case
from peers.contestants import OURS
from peers.turns import Result

COMPARED_STEPS = 4
"""Of the first losses. Later ones drift apart in bfloat16, as the batch is learnt by heart."""


def tolerance(case: Case) -> float:
    """Largest relative difference of losses. A rounded router sends some tokens to other experts."""
    if case.dtype == "float32":
        return 1e-4
    return 1e-2 if case.model == "moe" else 2e-3


def loss_gap(losses: Sequence[float], expected: Sequence[float]) -> float:
    """Largest relative difference of the first losses; infinite where one is not a number."""
    pairs = list(zip(losses[:COMPARED_STEPS], expected[:COMPARED_STEPS], strict=True))
    gaps = [abs(loss - wanted) / abs(wanted) for loss, wanted in pairs]
    return max(gaps) if gaps and all(gap == gap for gap in gaps) else float("inf")


def disagreements(losses: Mapping[str, Sequence[float]], largest: float) -> list[str]:
    """One line for each contestant whose first losses are not those of the first one, and one where the losses of that one do not fall."""
    names = list(losses)
    expected = losses[names[0]]
    found = []
    for name in names[1:]:
        gap = loss_gap(losses[name], expected)
        if gap > largest:
            shown = [", ".join(f"{loss:.6f}" for loss in losses[who][:COMPARED_STEPS]) for who in (name, names[0])]
            found.append(f"{name}: losses {shown[0]}, but {names[0]} has {shown[1]} (gap {gap:.1e}, at most {largest:.0e})")
    first = expected[:COMPARED_STEPS]
    if not first[-1] < first[0]:
        found.append(f"{names[0]}: the loss does not fall from {first[0]:.6f}")
    return found


def row_of(result: Result, flops: float, tokens: int, peaks: Sequence[float]) -> dict[str, Any]:
    """Of one contestant. The bound of a step is its FLOPs at the FMA peak: best step against best peak, median against median."""
    best, median = min(result.seconds), statistics.median(result.seconds)
    return {
        "best_seconds": best,
        "median_seconds": median,
        "tokens_per_second": tokens / best,
        "tflops": flops / best / 1e12,
        "share_of_bound": flops / max(peaks) / best,
        "median_share_of_bound": flops / statistics.median(peaks) / median,
        "peak_bytes": result.peak_bytes,
        "first_step_seconds": result.first_step_seconds,
        "others_share": statistics.median(result.others),
        "steps": len(result.seconds),
    }


def rows_of(results: Mapping[str, Result], flops: float, tokens: int, peaks: Sequence[float]) -> dict[str, dict[str, Any]]:
    """Rows by contestant; `ours_faster` is its time over ours, best against best."""
    rows = {name: row_of(result, flops, tokens, peaks) for name, result in results.items()}
    if OURS in rows:
        for name, row in rows.items():
            row["ours_faster"] = row["best_seconds"] / rows[OURS]["best_seconds"]
            row["ours_faster_median"] = row["median_seconds"] / rows[OURS]["median_seconds"]
            row["loss_gap"] = loss_gap(results[name].values, results[OURS].values)
    return rows


def verdict(rows: Mapping[str, Mapping[str, Any]]) -> dict[str, float] | None:
    """Against the best peer: time over ours, our peak memory over the smallest peer's, our start over the quickest peer's."""
    peers = [row for name, row in rows.items() if name != OURS]
    if OURS not in rows or not peers:
        return None
    ours = rows[OURS]
    return {
        "faster": min(row["best_seconds"] for row in peers) / ours["best_seconds"],
        "memory": ours["peak_bytes"] / min(row["peak_bytes"] for row in peers),
        "start": ours["first_step_seconds"] / min(row["first_step_seconds"] for row in peers),
    }


def regressions(known: Mapping[str, float], measured: Mapping[str, float], margin: float) -> dict[str, str]:
    """What is told of each share that is more than `margin` below the known one; what only one side has is not compared."""
    return {
        name: f"{name}: {measured[name]:.3f}, but {was:.3f} is recorded ({measured[name] / was - 1:+.1%}, at most -{margin:.0%})"
        for name, was in known.items()
        if name in measured and measured[name] < was * (1 - margin)
    }
