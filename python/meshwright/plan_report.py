"""What `mw.plan` returns."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from meshwright import _core
from meshwright.machine import memory_bytes


class Estimate:
    """The time of a step on given hardware, predicted from the cost of every op; `PlanReport.estimate`.

    hardware: its name; assumptions: what the estimate rests on, the two measured constants of the chip among them, as a dict.
    step_seconds, tokens_per_second (all chips), tokens_per_second_per_chip.
    mfu: model_flops per second and chip as a share of the peak of the compute dtype.
    seconds: of one chip, by what they go to: flops (compute that the peak bounds), bytes (compute that memory bounds), exposed
        (waiting for transfers), bubble (waiting for other stages).
    exposed: the waiting for transfers by mesh axes. transfer_seconds: how long links are busy, beside compute or not.
    scopes: seconds of compute by scope, largest first.
    pieces: time of each piece of the Plan, with spans per layer, transfers (axes, start, end) and exposed by axes.
    gathered_ahead_bytes: what gathering the next layer's parameters early adds to the peak; `PlanReport.fits` counts it.
    """

    def __init__(self, hardware: _core.Hardware, facts: dict[str, Any], settings: dict[str, Any], model_flops: float, chips: int) -> None:
        self.hardware = hardware.name
        self.assumptions: dict[str, Any] = {
            "flops_efficiency": hardware.flops_efficiency,
            "bandwidth_efficiency": hardware.bandwidth_efficiency,
            "overlap": settings["overlap"],
            "dot_dtype": settings["dot_dtype"] or settings["dtype"],
            "expert_imbalance": settings["expert_imbalance"],
            "tokens_cross_once": settings["tokens_cross_once"],
        }
        self.peak_flops: float = hardware.peak_flops[settings["dtype"]]
        self.step_seconds: float = facts["step_seconds"]
        time = facts["time"]
        self.seconds: dict[str, float] = {
            "flops": time["flops_seconds"],
            "bytes": time["bytes_seconds"],
            "exposed": time["exposed_seconds"],
            "bubble": facts["bubble_seconds"],
        }
        self.transfer_seconds: float = time["transfer_seconds"]
        self.exposed: dict[str, float] = time["exposed"]
        self.scopes: dict[str, float] = dict(sorted(time["scopes"].items(), key=lambda item: -item[1]))
        self.pieces: list[dict[str, Any]] = time["pieces"]
        self.gathered_ahead_bytes: int = time["gathered_ahead_bytes"]
        tokens = settings["batch"] * settings["seq"]
        self.tokens_per_second = tokens / self.step_seconds
        self.tokens_per_second_per_chip = self.tokens_per_second / chips
        self.flops_per_second_per_chip = model_flops / self.step_seconds / chips
        self.mfu = self.flops_per_second_per_chip / self.peak_flops

    def to_dict(self) -> dict[str, Any]:
        return dict(vars(self))

    def lines(self) -> list[str]:
        """For the report's table."""
        assumed = ", ".join(f"{name}={value}" for name, value in self.assumptions.items())
        rate = self.flops_per_second_per_chip
        shares = "  ".join(f"{name} {seconds / self.step_seconds:.1%}" for name, seconds in self.seconds.items() if seconds)
        lines = [
            f"time of one step on {self.hardware} ({assumed})",
            f"  {'step':<16} {_seconds(self.step_seconds):>12}  {shares}",
            f"  {'MFU':<16} {self.mfu:>12.1%}  {rate / 1e12:,.1f} of {self.peak_flops / 1e12:,.1f} TFLOP/s per chip",
            f"  {'tokens/s':<16} {self.tokens_per_second:>12,.0f}  {self.tokens_per_second_per_chip:,.1f} per chip",
        ]
        lines += [f"  {'waiting for':<16} {axes:<12}  {_seconds(seconds)}" for axes, seconds in self.exposed.items() if seconds > 0]
        return lines


class PlanReport:
    """What one optimizer step needs. Bytes are those of one rank, FLOPs those of all ranks.

    peak_bytes: most memory that a rank holds; the sum of `memory`.
    memory: bytes by use: parameters, gradients, optimizer_state, activations (left by the forward for the backward), batch, scratch,
        results, staging. With one microbatch gradients lie where activations were that the backward has read; those are not counted
        again.
    host_bytes: offloaded activations, not part of the peak; they count for `fits` where the host's memory is this machine's too.
    activations: the same activations by scope, largest first: `{"scope": "layers.*.mlp.gate", "bytes": ...}`.
    expert_rows: where rows of experts travel to the ranks of their experts (mesh axis `expert`), of one layer and rank: `mean`, when all
        experts are chosen equally often; `bound`, the room in this plan; `worst`, never exceeded. A step that needs more than the bound
        is planned again with more room and run again. None elsewhere.
    model_flops: FLOPs of the model's mathematics, as docs/flops.md counts them (MFU uses these).
    executed_flops: kernel work, recompute and optimizer included; rows of experts at their mean.
    traffic: per kind of collective and mesh axes, its calls in a step and the `bytes` that one rank sends (around a ring); rows of
        experts as if all were chosen equally often, and `most_bytes` as the room for them allows.
    collectives: every collective of every piece, with scope and source line.
    estimate: with `hardware`, the `Estimate` of the step's time; step_seconds, mfu, tokens_per_second are its own. None without.
    memory_over_time: with `hardware`, per piece samples of the bytes alive in scratch, in carried values and in the gradients that lie
        among them, and what fills scratch most.
    stages: with `hardware`, one row per group of stages that are alike: first, count, layers, microbatches_in_flight, memory, seconds.
    advice: where it does not fit, up to three changes that would make it fit, each planned: `change` (arguments of `plan`), `text`,
        `peak_bytes`, `step_seconds`, `chips`. Those that need no more chips come first.
    fits: whether peak_bytes fits into the memory of a chip, into `memory` bytes per rank, or all ranks together into this machine.
    warnings: what a user should know before running it.
    """

    def __init__(
        self,
        spec: _core.TrainPlanSpec,
        settings: dict[str, Any],
        memory_limit: int | None,
        warnings: Sequence[str],
        hardware: _core.Hardware | None = None,
        advise: Callable[[PlanReport], list[dict[str, Any]]] | None = None,
    ) -> None:
        """advise: finds what `advice` gives out."""
        self._spec = spec
        self._advise = advise
        self.memory_given = memory_limit is not None
        self._hardware = hardware
        self.settings = settings
        if hardware is None:
            facts: dict[str, Any] = spec.report()
        else:
            facts = spec.report_on(
                hardware,
                {
                    **{name: settings[name] for name in ("overlap", "expert_imbalance", "tokens_cross_once", "exact_stages")},
                    "dot_dtype": settings["dot_dtype"] or "",
                },
            )
        self.num_ranks: int = facts["num_ranks"]
        self.num_parameters: int = facts["num_parameters"]
        self.peak_bytes: int = facts["peak_bytes"]
        self.host_bytes: int = facts["host_bytes"]
        self.memory: dict[str, int] = facts["memory"]
        self.activations: list[dict[str, Any]] = facts["activations"]
        rows: dict[str, int] = facts["expert_rows"]
        self.expert_rows: dict[str, int] | None = rows if rows["bound"] else None
        self.model_flops: float = facts["model_flops"]
        self.executed_flops: float = facts["executed_flops"]
        self.traffic: list[dict[str, Any]] = facts["traffic"]
        self.collectives: list[dict[str, Any]] = facts["collectives"]
        self.stages: list[dict[str, Any]] = facts.get("stages", [])
        self.memory_over_time: list[dict[str, Any]] = facts.get("memory_over_time", [])
        self.estimate = None if hardware is None else Estimate(hardware, facts, settings, self.model_flops, self.num_ranks)
        self.needed_bytes: int = self.peak_bytes + (self.estimate.gathered_ahead_bytes if self.estimate else 0)
        self.available_bytes: int = (
            memory_limit
            if memory_limit is not None
            else int(hardware.memory_bytes)
            if hardware is not None
            else memory_bytes() // self.num_ranks
        )
        one_memory = memory_limit is None and hardware is None  # of device and host
        self.fits: bool = self.needed_bytes + (self.host_bytes if one_memory else 0) <= self.available_bytes
        self.warnings: list[str] = list(warnings)
        if not self.fits:
            whose = (
                "given"
                if memory_limit is not None
                else f"of a {hardware.name}"
                if hardware is not None
                else "of this machine"
                if self.num_ranks == 1
                else "that this machine has for each rank"
            )
            self.warnings.append(f"a rank needs {_size(self.needed_bytes)}, more than the {_size(self.available_bytes)} {whose}")

    @property
    def step_seconds(self) -> float | None:
        """Predicted time of a step; None without hardware."""
        return self.estimate.step_seconds if self.estimate else None

    @property
    def mfu(self) -> float | None:
        """Predicted share of the peak; None without hardware."""
        return self.estimate.mfu if self.estimate else None

    @property
    def tokens_per_second(self) -> float | None:
        """Predicted, of all chips; None without hardware."""
        return self.estimate.tokens_per_second if self.estimate else None

    @cached_property
    def advice(self) -> list[dict[str, Any]]:
        return [] if self.fits or self._advise is None else self._advise(self)

    def to_dict(self) -> dict[str, Any]:
        """Everything but the programs."""
        names = (
            "settings num_ranks num_parameters fits peak_bytes needed_bytes host_bytes available_bytes memory activations expert_rows "
            "model_flops executed_flops traffic collectives warnings advice"
        )
        facts = {name: getattr(self, name) for name in names.split()}
        if self.estimate:
            facts |= {"estimate": self.estimate.to_dict(), "stages": self.stages, "memory_over_time": self.memory_over_time}
        return facts

    def to_json(self) -> str:
        return json.dumps(self.to_dict(), indent=2)

    @property
    def program_hash(self) -> str:
        """16 hexadecimal digits of the partitioned Programs, their run order and the buffers they share. Ranks that agree on it do the same
        work; it depends on settings alone, not on weights, source lines or the machine."""
        text: str = self._spec.hash(self._hardware)
        return text

    def explain(self, after: str = "partition") -> str:
        """The pieces as they are after a pass (cut, partition, simplify, rematerialize, lower, fuse, place), or after="before PASS";
        after="collectives" and after="memory" list those.

        Raises:
            UserError: another word, naming the nearest.
        """
        text: str = self._spec.explain(after, self._hardware)
        return text

    def save_png(self, path: str | os.PathLike[str]) -> Path:
        """Draws memory over the time of a step, by use and by scope, and where the time goes: compute, transfers by mesh axes, bubble.

        Raises:
            UserError: a plan without hardware; a place that cannot be written.
        """
        from meshwright.plan_picture import save_png

        return save_png(self, path)

    def table(self) -> str:
        """The report for people."""
        s = self.settings
        mesh = " ".join(f"{axis}={size}" for axis, size in s["mesh"].items()) or "one rank"
        fits = "fits into" if self.fits else "DOES NOT FIT into"
        lines = [
            f"{s['model']}: {self.num_parameters:,} parameters, {s['dtype']}, {s['optimizer']}, remat={s['remat']}, on {mesh}",
            f"batch {s['batch']} x {s['seq']} tokens in {s['microbatches']} microbatch{'es' if s['microbatches'] > 1 else ''}",
            *([f"mesh={s['mesh_asked']}"] if "mesh_asked" in s else []),
            "",
            "memory of one rank",
            *(f"  {name.replace('_', ' '):<16} {_size(count):>12}" for name, count in self.memory.items() if count),
        ]
        if self.needed_bytes > self.peak_bytes:
            lines.append(f"  {'gathered ahead':<16} {_size(self.needed_bytes - self.peak_bytes):>12}")
        lines += [
            f"  {'peak':<16} {_size(self.needed_bytes):>12}  {fits} {_size(self.available_bytes)}{self._over()}",
            *([f"  {'on the host':<16} {_size(self.host_bytes):>12}"] if self.host_bytes else []),
            "",
            "FLOPs of one step, all ranks",
            f"  {'model':<16} {self.model_flops:>12.4g}",
            f"  {'executed':<16} {self.executed_flops:>12.4g}",
        ]
        if self.estimate:
            lines += ["", *self.estimate.lines()]
        if rows := self.expert_rows:
            lines += [
                "",
                "rows of experts on one rank, of one layer",
                f"  room for {rows['bound']:,}, {rows['bound'] / rows['mean']:.2f} times the mean of {rows['mean']:,}; "
                f"at worst {rows['worst']:,}",
            ]
        if self.activations:
            lines += ["", "largest activations", *(f"  {a['scope']:<32} {_size(a['bytes']):>12}" for a in self.activations[:8])]
        if self.traffic:
            lines += ["", "collectives of one step, sent by one rank"]
            lines += [f"  {t['collective']:<16} {t['axes']:<16} {t['calls']:>6} calls {_size(t['bytes']):>12}" for t in self.traffic]
        lines += [f"warning: {warning}" for warning in self.warnings]
        if self.advice:
            lines += ["", "changes that would make it fit, each planned"]
            lines += [f"  {a['text']:<40} peak {_size(a['peak_bytes']):>10}{_step_text(a['step_seconds'])}" for a in self.advice]
        return "\n".join(lines)

    def _over(self) -> str:
        return "" if self.fits else f", {_size(self.needed_bytes - self.available_bytes)} too much"

    def __repr__(self) -> str:
        return f"PlanReport({self.settings['model']!r}, peak {_size(self.needed_bytes)}, {'fits' if self.fits else 'does not fit'})"


def _size(count: float) -> str:
    from meshwright.cli.table import size_text

    return size_text(int(count))


def _step_text(seconds: float | None) -> str:
    return "" if seconds is None else f"  step {_seconds(seconds)}"


def _seconds(seconds: float) -> str:
    return f"{seconds:.3g} s" if seconds >= 1 else f"{seconds * 1e3:.3g} ms"
