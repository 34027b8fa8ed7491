"""Planning ahead of time: what a training step will need, without weights and without running it."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

from meshwright import _core
from meshwright._core import UserError
from meshwright.configuration import ModelConfig, config_text
from meshwright.losses import Losses
from meshwright.machine import memory_bytes
from meshwright.mesh import Mesh, core_rules, mesh_axes
from meshwright.optimizers import SGD, AdamW, core_fields, one_count, optimizer_from_dict


class PlanReport:
    """What one optimizer step needs. Bytes are those of one rank, FLOPs those of all ranks.

    peak_bytes: most memory that a rank holds; the sum of `memory`.
    memory: bytes by use: parameters, gradients, optimizer_state, activations (left by the forward for the backward), batch, scratch,
        results, staging.
    activations: the same activations by scope, largest first: `{"scope": "layers.*.mlp.gate", "bytes": ...}`.
    expert_rows: where rows of experts travel to the ranks of their experts (mesh axis `expert`), of one layer and rank: `mean`, when all
        experts are chosen equally often; `bound`, the room in this plan; `worst`, never exceeded. A step that needs more than the bound
        is planned again with more room and run again. None elsewhere.
    model_flops: FLOPs of the model's mathematics, as docs/flops.md counts them (MFU uses these).
    executed_flops: kernel work, recompute and optimizer included.
    traffic: per kind of collective and mesh axes, its calls in a step and the `bytes` that one rank sends (around a ring); rows of
        experts as if all were chosen equally often, and `most_bytes` as the room for them allows.
    collectives: every collective of every piece, with scope and source line.
    fits: whether peak_bytes fits into `memory` bytes per rank, or all ranks together into this machine.
    warnings: what a user should know before running it.
    """

    def __init__(self, spec: _core.TrainPlanSpec, settings: dict[str, Any], memory_limit: int | None, warnings: Sequence[str]) -> None:
        facts: dict[str, Any] = spec.report()
        self._spec = spec
        self.settings = settings
        self.num_ranks: int = facts["num_ranks"]
        self.num_parameters: int = facts["num_parameters"]
        self.peak_bytes: int = facts["peak_bytes"]
        self.memory: dict[str, int] = facts["memory"]
        self.activations: list[dict[str, Any]] = facts["activations"]
        rows: dict[str, int] = facts["expert_rows"]
        self.expert_rows: dict[str, int] | None = rows if rows["bound"] else None
        self.model_flops: float = facts["model_flops"]
        self.executed_flops: float = facts["executed_flops"]
        self.traffic: list[dict[str, Any]] = facts["traffic"]
        self.collectives: list[dict[str, Any]] = facts["collectives"]
        self.available_bytes: int = memory_limit if memory_limit is not None else memory_bytes() // self.num_ranks
        self.fits: bool = self.peak_bytes <= self.available_bytes
        self.warnings: list[str] = list(warnings)
        if not self.fits:
            whose = (
                "given" if memory_limit is not None else "of this machine" if self.num_ranks == 1 else "that this machine has for each rank"
            )
            self.warnings.append(f"a rank needs {_size(self.peak_bytes)}, more than the {_size(self.available_bytes)} {whose}")

    def to_dict(self) -> dict[str, Any]:
        """Everything but the programs."""
        names = (
            "settings num_ranks num_parameters fits peak_bytes available_bytes memory activations expert_rows model_flops "
            "executed_flops traffic collectives warnings"
        )
        return {name: getattr(self, name) for name in names.split()}

    def to_json(self) -> str:
        return json.dumps(self.to_dict(), indent=2)

    def explain(self, after: str = "partition") -> str:
        """The pieces as they are after a pass (cut, partition, simplify, rematerialize, lower, fuse, place), or after="before PASS";
        after="collectives" and after="memory" list those.

        Raises:
            UserError: another word, naming the nearest.
        """
        text: str = self._spec.explain(after)
        return text

    def table(self) -> str:
        """The report for people."""
        s = self.settings
        mesh = " ".join(f"{axis}={size}" for axis, size in s["mesh"].items()) or "one rank"
        fits = "fits into" if self.fits else "DOES NOT FIT into"
        lines = [
            f"{s['model']}: {self.num_parameters:,} parameters, {s['dtype']}, {s['optimizer']}, remat={s['remat']}, on {mesh}",
            f"batch {s['batch']} x {s['seq']} tokens in {s['microbatches']} microbatch{'es' if s['microbatches'] > 1 else ''}",
            "",
            "memory of one rank",
            *(f"  {name.replace('_', ' '):<16} {_size(count):>12}" for name, count in self.memory.items() if count),
            f"  {'peak':<16} {_size(self.peak_bytes):>12}  {fits} {_size(self.available_bytes)}",
            "",
            "FLOPs of one step, all ranks",
            f"  {'model':<16} {self.model_flops:>12.4g}",
            f"  {'executed':<16} {self.executed_flops:>12.4g}",
        ]
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
        return "\n".join([*lines, *(f"warning: {warning}" for warning in self.warnings)])

    def __repr__(self) -> str:
        return f"PlanReport({self.settings['model']!r}, peak {_size(self.peak_bytes)}, {'fits' if self.fits else 'does not fit'})"


def plan(
    model: Any,
    mesh: Mesh | Mapping[str, int] | None = None,
    *,
    seq: int | None = None,
    batch: int | None = None,
    optimizer: str | AdamW | SGD = "adamw",
    dtype: str = "bfloat16",
    remat: str = "none",
    rules: str | os.PathLike[str] | Mapping[str, Sequence[str]] | None = None,
    microbatches: int | None = None,
    gradient_accumulation: int | None = None,
    clip: float | None = None,
    losses: Losses | None = None,
    expert_rows_factor: float = 1.5,
    memory: int | None = None,
) -> PlanReport:
    """Plans one optimizer step; nothing is allocated and nothing runs.

    model: a name from configs/models, a dict of fields, a file, a folder, or a Model (its configuration is used).
    seq: tokens per sequence (default: the model's length, at most 2,048). batch: sequences per step over all ranks (default: one per rank
        and microbatch).
    memory: bytes that a rank may use, for `fits`; None: the memory of this machine, shared by all ranks.
    The others as in `Trainer`.

    Raises:
        UserError: unknown names, dims that do not divide their axes, a batch that does not divide (naming the nearest that do).
    """
    name, text = _name_and_config(model)
    axes = mesh_axes(mesh)
    length = json.loads(text)["max_position_embeddings"]
    seq = min(length, 2048) if seq is None else _whole("seq", seq)
    count = one_count(microbatches, gradient_accumulation)
    if batch is None:
        batch = count
        for axis in ("data", "fsdp", "expert"):
            batch *= axes.get(axis, 1)
    chosen = optimizer_from_dict({"kind": optimizer, "lr": 0.0}) if isinstance(optimizer, str) else optimizer
    spec = _core.TrainPlanSpec(
        config=text,
        dtype=dtype,
        mesh=axes,
        rules=core_rules(rules),
        optimizer=core_fields(chosen, clip),
        decay_embeddings=chosen.decay_embeddings,
        remat=remat,
        microbatches=count,
        losses=(losses or Losses()).for_training(ModelConfig.from_text(text)),
        batch=_whole("batch", batch),
        seq=seq,
        expert_rows_factor=expert_rows_factor,
    )
    warnings = []
    if seq > length:
        warnings.append(f"a sequence of {seq} tokens is longer than the model allows: max_position_embeddings={length}")
    settings = {
        "model": name,
        "mesh": {axis: size for axis, size in axes.items() if size != 1},
        "seq": seq,
        "batch": batch,
        "optimizer": chosen.kind,
        "dtype": dtype,
        "remat": remat,
        "rules": dict(rules) if isinstance(rules, Mapping) else rules if rules is None else os.fspath(rules),
        "microbatches": count,
        "clip": clip,
    }
    return PlanReport(spec, settings, memory, warnings)


def count_parameters(model: Any) -> int:
    """Trained elements of a model, by name, dict, file or folder; a tied head counts once, an image encoder counts, and multi-token
    prediction (`model_costs`) does not."""
    return int(model_costs(model)["num_parameters"])


def model_costs(model: Any, seq: int | None = None) -> dict[str, Any]:
    """num_parameters, and of them vision_parameters and embedding_parameters; active_parameters, those of the text part that one token
    meets; mtp_parameters, which are not among them. training_flops_per_token and forward_flops_per_token of sequences of `seq` tokens
    (default: the model's length), as docs/flops.md counts them. kv_cache_bytes_per_token in bfloat16, and kv_cache_bytes of a sequence
    of `seq` tokens, of which windows and chunks keep no more than they look at."""
    _, text = _name_and_config(model)
    length = json.loads(text)["max_position_embeddings"] if seq is None else _whole("seq", seq)
    costs: dict[str, Any] = _core.model_costs(text, float(length))
    return costs


def _name_and_config(model: Any) -> tuple[str, str]:
    text = getattr(model, "_config_text", None)  # a Model, without importing what it needs
    return (model.name, text) if isinstance(text, str) else config_text(model, {})


def _whole(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise UserError(f"plan: {name} must be a whole number of at least 1, found {value!r}")
    return value


def _size(count: float) -> str:
    from meshwright.cli.table import size_text

    return size_text(int(count))
