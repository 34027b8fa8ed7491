"""What would make a plan fit: single changes first, each tried by planning it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from meshwright import _core
from meshwright.hardware import find_hardware, hardware_names
from meshwright.mesh import AXES
from meshwright.plan_search import Judge, Judged, Question, Replan, divisors, rows_over, side_by_side

if TYPE_CHECKING:
    from meshwright.plan_report import PlanReport

HOW_MANY = 3


@dataclass(frozen=True)
class Change:
    """A run with other settings than the one that does not fit."""

    mesh: dict[str, int]
    microbatches: int
    remat: str
    more: dict[str, Any]
    """Other arguments of `plan`: batch, hardware."""


def find_advice(report: PlanReport, replan: Replan, fields: dict[str, Any]) -> list[dict[str, Any]]:
    """Up to three changes with which the run fits, those that need no more chips first, then by the time of a step: dicts of `change`
    (arguments of `plan`), `text`, `peak_bytes` of a rank, `step_seconds` (None without hardware) and `chips`. Single changes, or where they
    do not do, changes beside full recompute and microbatches of one sequence."""
    search = _Search(report, replan, fields)
    found = search.changes()
    found.sort(key=lambda pair: (math.prod(pair[0].mesh.values()), float(f"{pair[1].step_seconds:.4g}")))
    advice: list[dict[str, Any]] = []
    for change, _ in found:
        whole = search.plan(change)
        different = search.difference(change)
        if whole.fits:
            advice.append(
                {
                    "change": different,
                    "text": " ".join(_texts(different)),
                    "peak_bytes": whole.needed_bytes,
                    "step_seconds": whole.step_seconds,
                    "chips": whole.num_ranks,
                }
            )
        if len(advice) == HOW_MANY:
            break
    return advice


class _Search:
    def __init__(self, report: PlanReport, replan: Replan, fields: dict[str, Any]) -> None:
        s = self.settings = report.settings
        self.fields, self.replan = fields, replan
        self.timed = report.estimate is not None
        self.own_memory = report.memory_given
        self.chips = report.num_ranks
        question = Question(replan, fields, report.num_ranks, s["seq"], s["batch"], s["microbatches"], [s["remat"]], {})
        self.judge = Judge(question)
        self.now = Change(dict(s["mesh"]), s["microbatches"], s["remat"], {})

    def plan(self, change: Change) -> PlanReport:
        return self.judge.question.with_mesh(change.mesh, change.microbatches, change.remat, **change.more)

    def changes(self) -> list[tuple[Change, Judged]]:
        """At least three where there are so many: from the run as it is, then with full recompute, with the smallest microbatches, with
        both. No mesh comes twice."""
        now = self.now
        most = max([now.microbatches, *self.counts(now)])
        bases = [now] + [
            Change(now.mesh, count, remat, {})
            for count, remat in ((now.microbatches, "full"), (most, now.remat), (most, "full"))
            if (count, remat) != (now.microbatches, now.remat)
        ]
        found: list[tuple[Change, Judged]] = []
        for base in bases:
            judged = None if base is now else self.judged(base)
            options = [(base, judged)] if judged and judged.fits else self.single_changes(base)
            for change, facts in options:
                if all(self.key(change) != self.key(other) for other, _ in found):
                    found.append((change, facts))
            if len(found) >= HOW_MANY:
                break
        return found

    def key(self, change: Change) -> Any:
        return change.mesh if change.mesh != self.now.mesh else (change.microbatches, change.remat, change.more)

    def judged(self, change: Change) -> Judged | None:
        return self.judge.judge(change.mesh, change.microbatches, change.remat, **change.more)

    def single_changes(self, base: Change) -> list[tuple[Change, Judged]]:
        """Of every kind of change the smallest that does."""
        kinds = [self.recompute(base), self.microbatches(base), self.hardware(base), self.shard_copies(base)]
        kinds += [self.larger(base, axis) for axis in ("fsdp", "tensor", "expert", "context", "stage")]
        return [found for found in side_by_side(self.first_that_fits, kinds) if found]

    def first_that_fits(self, changes: Iterator[Change]) -> tuple[Change, Judged] | None:
        for change in changes:
            judged = self.judged(change)
            if judged and judged.fits:
                return change, judged
        return None

    def recompute(self, base: Change) -> Iterator[Change]:
        """More recompute, where all of it does."""
        policies = _core.remat_candidates()
        at = policies.index(base.remat) + 1 if base.remat in policies else 0
        options = [Change(base.mesh, base.microbatches, remat, base.more) for remat in policies[at:]]
        if options and self.first_that_fits(iter(options[-1:])):
            yield from options

    def microbatches(self, base: Change) -> Iterator[Change]:
        """More microbatches, where the smallest do."""
        options = [Change(base.mesh, count, base.remat, base.more) for count in self.counts(base)]
        if options and self.first_that_fits(iter(options[-1:])):
            yield from options

    def counts(self, base: Change) -> list[int]:
        """More microbatches than there are."""
        each: int = self.settings["batch"] // rows_over(base.mesh)
        return [count for count in divisors(each) if count > base.microbatches and count % base.microbatches == 0]

    def hardware(self, base: Change) -> Iterator[Change]:
        """Chips with more memory, the smallest first."""
        judged = None if not self.timed or self.own_memory else self.judged(base)
        if judged is None:
            return
        chips = [find_hardware(name) for name in hardware_names() if name != "cpu"]
        for chip in sorted(chips, key=lambda chip: (chip.memory_bytes, chip.name)):
            if chip.memory_bytes >= judged.needed_bytes:
                yield Change(base.mesh, base.microbatches, base.remat, {**base.more, "hardware": chip.name, "network": None})

    def shard_copies(self, base: Change) -> Iterator[Change]:
        """The same chips with fewer copies of the model."""
        for share in divisors(base.mesh.get("data", 1))[1:]:
            mesh = {**base.mesh, "data": base.mesh["data"] // share, "fsdp": base.mesh.get("fsdp", 1) * share}
            yield Change(_in_order(mesh), base.microbatches, base.remat, base.more)

    def larger(self, base: Change, axis: str) -> Iterator[Change]:
        """More chips along one axis while that needs less; the batch grows where it would not divide."""
        if (axis == "expert" and not self.fields.get("moe")) or (axis == "stage" and not self.timed):
            return
        needed, batch = math.inf, int(self.settings["batch"])
        for times in (2**power for power in range(1, 13)):
            mesh = _in_order({**base.mesh, axis: base.mesh.get(axis, 1) * times})
            parts = rows_over(mesh) * base.microbatches
            more = base.more if batch % parts == 0 else {**base.more, "batch": math.lcm(batch, parts)}
            change = Change(mesh, base.microbatches, base.remat, more)
            judged = self.judged(change)
            if judged is None or judged.needed_bytes > 0.99 * needed:
                return
            needed = judged.needed_bytes
            if judged.fits:
                yield change

    def difference(self, change: Change) -> dict[str, Any]:
        """What is another argument of `plan` than before."""
        changed: dict[str, Any] = {}
        if change.mesh != self.now.mesh:
            changed["mesh"] = change.mesh
        if change.microbatches != self.now.microbatches:
            changed["microbatches"] = change.microbatches
        if change.remat != self.now.remat:
            changed["remat"] = change.remat
        return changed | {name: value for name, value in change.more.items() if value is not None}


def _in_order(mesh: Mapping[str, int]) -> dict[str, int]:
    return {axis: mesh[axis] for axis in AXES if mesh.get(axis, 1) > 1}


def _texts(change: Mapping[str, Any]) -> Iterator[str]:
    """As they are typed: `mesh.fsdp=8`, `remat=full`."""
    for name, value in change.items():
        if isinstance(value, Mapping):
            yield from (f"{name}.{axis}={size}" for axis, size in value.items())
        else:
            yield f"{name}={value}"
