"""Which mesh? `mesh="auto"` and `sweep`: meshes are compared by planning a step on each.

A step's time and memory grow by the same amount with every layer, so a mesh is first judged by two models of a few layers, which takes
milliseconds; the best ones are then planned as they are, and only those are chosen.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from meshwright._core import UserError, machine_facts
from meshwright.mesh import AXES

if TYPE_CHECKING:
    from meshwright.plan_report import PlanReport

In = TypeVar("In")
Out = TypeVar("Out")

LEAST_WITHOUT_RECOMPUTE = 0.6
"""Of a step that recomputes all, at least this share is left without: forward and backward are three of its four parts, and two of three
gathers of the weights."""

FEWEST_TOKENS = 4096
"""Of a sequence on one rank, unless only shorter parts use all chips: below, attention waits for keys and values."""
PLANNED_WHOLE = 2
"""Meshes that are planned with all layers before one is chosen."""

Replan = Callable[..., "PlanReport"]
"""`plan` with some of its arguments changed; `model` is one of them."""


@dataclass(frozen=True)
class Judged:
    """What a step on a mesh takes: estimated (`exact` is False), or planned whole."""

    mesh: dict[str, int]
    microbatches: int
    remat: str
    needed_bytes: int
    available_bytes: int
    step_seconds: float
    mfu: float
    exact: bool = False

    @property
    def fits(self) -> bool:
        return self.needed_bytes <= self.available_bytes

    def row(self) -> dict[str, Any]:
        """As `sweep` gives it out; over_bytes: by how much it does not fit, 0 where it does."""
        return {
            "mesh": self.mesh,
            "microbatches": self.microbatches,
            "remat": self.remat,
            "step_seconds": self.step_seconds,
            "mfu": self.mfu,
            "needed_bytes": self.needed_bytes,
            "over_bytes": max(0, self.needed_bytes - self.available_bytes),
            "fits": self.fits,
            "exact": self.exact,
        }


@dataclass(frozen=True)
class Question:
    """What is searched: `chips` ranks, over which a model of `fields` takes steps of `batch` sequences of `seq` tokens."""

    replan: Replan
    fields: dict[str, Any]
    chips: int
    seq: int
    batch: int
    microbatches: int | None
    """None: chosen with the mesh."""
    remats: Sequence[str]
    """The first that fits is taken."""
    fixed: Mapping[str, int]
    """Sizes of axes that are not searched."""
    within: int = 0
    """Neighbouring chips over which `tensor` may reach; 0: all."""

    def with_mesh(self, mesh: Mapping[str, int], microbatches: int, remat: str, **more: Any) -> PlanReport:
        return self.replan(mesh=mesh, microbatches=microbatches, gradient_accumulation=None, remat=remat, chips=None, **more)


def divisors(count: int) -> list[int]:
    small = [d for d in range(1, math.isqrt(count) + 1) if count % d == 0]
    return small + [count // d for d in reversed(small) if d * d != count]


def meshes(question: Question, strict: bool = True) -> Iterator[dict[str, int]]:
    """Every mesh of so many chips whose axes divide what they split; `strict` leaves out those with tensor groups beyond the innermost
    links and parts of sequences that are short."""
    q, fields = question, question.fields
    experts: int = fields["moe"]["num_experts"] if fields.get("moe") else 1
    heads: int = fields["num_query_heads"]
    layers: int = fields["num_layers"]

    def allowed(axis: str, size: int) -> bool:
        if axis in q.fixed:
            return size == q.fixed[axis]
        if size == 1:
            return True
        if axis == "tensor":
            return heads % size == 0 and not (strict and q.within and size > q.within)
        if axis == "context":
            return q.seq % (2 * size) == 0 and (not strict or q.seq // size >= FEWEST_TOKENS)
        if axis == "stage":
            return size <= layers
        if axis == "expert":
            return experts % size == 0 and q.batch % size == 0
        return q.batch % size == 0

    def rest(index: int, chips: int) -> Iterator[dict[str, int]]:
        if index == len(AXES):
            if chips == 1:
                yield {}
            return
        axis = AXES[index]
        for size in divisors(chips):
            if allowed(axis, size):
                for mesh in rest(index + 1, chips // size):
                    yield {axis: size, **mesh} if size > 1 else mesh

    for mesh in rest(0, q.chips):
        if q.batch % (rows_over(mesh) * (q.microbatches or 1)) == 0:
            yield mesh


def rows_over(mesh: Mapping[str, int]) -> int:
    """Ranks over which the sequences of a batch are split."""
    return math.prod(mesh.get(axis, 1) for axis in ("data", "fsdp", "expert"))


def counts_of_microbatches(question: Question, mesh: Mapping[str, int]) -> list[int]:
    """What is tried, fastest first: without stages few large ones; with stages many, since the bubble gets shorter."""
    if question.microbatches is not None:
        return [question.microbatches]
    each, stages = question.batch // rows_over(mesh), mesh.get("stage", 1)
    if stages == 1:
        return divisors(each)
    return [each // d for d in (1, 2, 4) if each % d == 0 and (d == 1 or each // d >= 4 * stages)]


class Judge:
    """Time and memory of a step on a mesh: without stages from two models of few layers, with stages from those of each kind of stage."""

    def __init__(self, question: Question) -> None:
        self.question = question
        fields = question.fields
        kinds = fields.get("attention_pattern", {}).get("layer_kinds") or [""]
        moe = fields.get("moe") or {}
        self.period = math.lcm(len(kinds), moe.get("moe_layer_step") or 1)
        self.first = moe.get("first_dense_layers") or 0

    def judge(self, mesh: dict[str, int], microbatches: int, remat: str, **more: Any) -> Judged | None:
        """None: an axis does not divide what it splits, or the rules have no row for it. more: other arguments of `plan`."""
        q = self.question
        layers = q.fields["num_layers"]
        few = self.period * math.ceil((self.first + 1) / self.period)
        many = few + self.period
        try:
            if mesh.get("stage", 1) > 1:  # stages of few layers are not dealt out as those of many
                return judged(q.with_mesh(mesh, microbatches, remat, exact_stages=False, **more), exact=False)
            if layers <= few + many:  # no dearer than the two
                return judged(q.with_mesh(mesh, microbatches, remat, **more))
            small, large = (q.with_mesh(mesh, microbatches, remat, model={**q.fields, "num_layers": n}, **more) for n in (few, many))
        except UserError:
            return None
        times = (layers - few) / self.period
        seconds = small.step_seconds + times * (large.step_seconds - small.step_seconds) if small.step_seconds and large.step_seconds else 0
        bytes_ = small.needed_bytes + times * (large.needed_bytes - small.needed_bytes)
        flops = small.model_flops + times * (large.model_flops - small.model_flops)
        peak = small.estimate.peak_flops if small.estimate else 0
        mfu = flops / seconds / q.chips / peak if seconds and peak else 0
        return Judged(mesh, microbatches, remat, int(bytes_), small.available_bytes, seconds, mfu)

    def all(self, candidates: Sequence[dict[str, int]], limit: float = math.inf, prune: bool = False) -> list[Judged]:
        """Of each mesh that works the best: with the least recompute that fits, and of its counts of microbatches the fastest that fits;
        else what needs least memory. Counts whose bubble alone is longer than `limit` times the rest of the step are passed over. With
        `prune`, less recompute is tried only where it could make a mesh the fastest. Side by side on all processors."""
        *others, last = self.question.remats

        def with_most(mesh: dict[str, int]) -> Judged | None:  # where that does not fit, nothing does
            return self._fastest(mesh, last, limit)

        def with_less(one: Judged) -> Judged:
            if not one.fits or (prune and LEAST_WITHOUT_RECOMPUTE * one.step_seconds > fastest):
                return one
            for remat in others:
                if (found := self._fastest(one.mesh, remat, limit)) and found.fits:
                    return found
            return one

        found = [one for one in side_by_side(with_most, candidates) if one]
        fastest = min((one.step_seconds for one in found if one.fits), default=math.inf)
        return side_by_side(with_less, found)

    def _fastest(self, mesh: dict[str, int], remat: str, limit: float) -> Judged | None:
        """Of the counts of microbatches."""
        stages = mesh.get("stage", 1)
        counts = [c for c in counts_of_microbatches(self.question, mesh) if (stages - 1) / c <= limit]
        return min(self._judged(mesh, remat, counts), key=_order, default=None)

    def _judged(self, mesh: dict[str, int], remat: str, counts: Sequence[int]) -> list[Judged]:
        if mesh.get("stage", 1) == 1:
            return self._first_that_fits(mesh, remat, counts)
        found: list[Judged] = []
        for count in counts:  # the most microbatches first: where they do not fit, larger ones do not
            if (one := self.judge(mesh, count, remat)) is None:
                break
            found.append(one)
            if not one.fits:
                break
        return found

    def _first_that_fits(self, mesh: dict[str, int], remat: str, counts: Sequence[int]) -> list[Judged]:
        """Without stages, the fewest microbatches are the fastest, and more need less memory."""
        last = self.judge(mesh, counts[-1], remat)
        if last is None or not last.fits or len(counts) == 1:
            return [last] if last else []
        first = self.judge(mesh, counts[0], remat)
        if first is None or first.fits:
            return [first or last]
        low, high = 0, len(counts) - 1  # counts[low] does not fit, counts[high] does
        while high - low > 1:
            middle = self.judge(mesh, counts[(low + high) // 2], remat)
            if middle and middle.fits:
                last, high = middle, (low + high) // 2
            else:
                low = (low + high) // 2
        return [last]


def side_by_side(work: Callable[[In], Out], inputs: Sequence[In]) -> list[Out]:
    """`work` of each, in order; the core plans without Python's lock."""
    with ThreadPoolExecutor(machine_facts()["usable_processors"]) as pool:
        return list(pool.map(work, inputs))


def judged(report: PlanReport, exact: bool = True) -> Judged:
    s = report.settings
    return Judged(
        s["mesh"],
        s["microbatches"],
        s["remat"],
        report.needed_bytes,
        report.available_bytes,
        report.step_seconds or 0.0,
        report.mfu or 0.0,
        exact=exact,
    )


def _order(one: Judged) -> tuple[Any, ...]:
    """Fits before fits not; then time, then fewer axes: the same choice wherever it is made."""
    names = tuple(one.mesh.get(axis, 1) for axis in AXES)
    return (not one.fits, one.needed_bytes if not one.fits else 0, float(f"{one.step_seconds:.4g}"), len(one.mesh), names)


def compare(question: Question, prune: bool) -> list[Judged]:
    """Every mesh that works, best first. With `prune`, meshes are passed over whose bubble alone makes them slower than one that fits."""
    judge = Judge(question)
    candidates = list(meshes(question)) or list(meshes(question, strict=False))
    without = [mesh for mesh in candidates if "stage" not in mesh]
    found = judge.all(without, prune=prune)
    busy = min((one.step_seconds for one in found), default=0.0)
    fastest = min((one.step_seconds for one in found if one.fits), default=0.0)
    limit = fastest / busy - 1 if prune and fastest else math.inf
    found += judge.all([mesh for mesh in candidates if "stage" in mesh], limit, prune)
    if candidates and not found:  # says why
        mesh = candidates[0]
        question.with_mesh(mesh, counts_of_microbatches(question, mesh)[0], question.remats[0])
    return sorted(found, key=_order)


def choose(question: Question, prune: bool = True) -> tuple[PlanReport, list[Judged]]:
    """The plan of the best mesh, and all that were compared; where none fits, the one that needs least memory.

    Raises:
        UserError: no mesh of so many chips divides the model and the batch.
    """
    rows = compare(question, prune)
    if not rows:
        fixed = " ".join(f"{axis}={size}" for axis, size in question.fixed.items())
        raise UserError(
            f"there is no mesh of {question.chips} ranks{' with ' + fixed if fixed else ''} that divides "
            f"a batch of {question.batch} sequences of {question.seq} tokens"
            + (f" in {question.microbatches} microbatches" if question.microbatches else "")
            + f", {question.fields['num_query_heads']} heads and {question.fields['num_layers']} layers"
        )
    whole: dict[int, Judged] = {}
    plans: dict[int, PlanReport] = {}
    for index, row in enumerate(rows):
        if len(whole) >= PLANNED_WHOLE and (any(one.fits for one in whole.values()) or not row.fits):
            break
        plans[index] = question.with_mesh(row.mesh, row.microbatches, row.remat)
        whole[index] = judged(plans[index])
    best = min(whole, key=lambda index: _order(whole[index]))
    return plans[best], sorted([whole.get(index, row) for index, row in enumerate(rows)], key=_order)


class MeshSweep:
    """Meshes of one number of chips, best first; `mw.sweep` returns it.

    rows: dicts of mesh, microbatches, remat, step_seconds, mfu, needed_bytes (of a rank), over_bytes (by how much it does not fit), fits,
        exact (planned whole; else estimated). best: the PlanReport of the first row.
    """

    def __init__(self, best: PlanReport, rows: Sequence[Judged]) -> None:
        self.best = best
        self.rows = [row.row() for row in rows]

    def to_dict(self) -> dict[str, Any]:
        return {"best": self.best.to_dict(), "meshes": self.rows}

    def to_json(self) -> str:
        return json.dumps(self.to_dict(), indent=2)

    def table(self, most: int = 40) -> str:
        """For people; at most so many rows."""
        from meshwright.cli.table import size_text

        s = self.best.settings
        chips, limit = self.best.num_ranks, size_text(self.best.available_bytes)
        lines = [
            f"{s['model']} on {chips:,} ranks of {s['hardware']} with {limit} each, batch {s['batch']} x {s['seq']} tokens: "
            f"{len(self.rows)} meshes, {sum(row['fits'] for row in self.rows)} fit"
        ]
        lines.append(f"  {'mesh':<44} {'microbatches':>12} {'remat':<22} {'step':>9} {'MFU':>6} {'memory':>10}")
        for row in self.rows[:most]:
            mesh = " ".join(f"{axis}={size}" for axis, size in row["mesh"].items()) or "one rank"
            over = "" if row["fits"] else f"  {size_text(row['over_bytes'])} too much"
            lines.append(
                f"  {mesh:<44} {row['microbatches']:>12} {row['remat']:<22} {row['step_seconds']:>7.3g} s {row['mfu']:>6.1%} "
                f"{size_text(row['needed_bytes']):>10}{over}"
            )
        if len(self.rows) > most:
            lines.append(f"  ... {len(self.rows) - most} more (json=true lists all)")
        return "\n".join(lines)
