"""Planning ahead of time: what a training step will need, without weights and without running it."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from meshwright import _core
from meshwright._core import UserError
from meshwright.configuration import ModelConfig, config_text
from meshwright.hardware import find_hardware
from meshwright.losses import Losses
from meshwright.mesh import AXES, Mesh, core_rules, mesh_axes, most_in_flight
from meshwright.optimizers import SGD, AdamW, core_fields, one_count, optimizer_from_dict
from meshwright.plan_advice import find_advice
from meshwright.plan_report import PlanReport
from meshwright.plan_search import Judged, MeshSweep, Question, choose


def plan(
    model: Any,
    mesh: Mesh | Mapping[str, int] | str | None = None,
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
    context_attention: str | None = None,
    expert_rows_factor: float = 1.5,
    reduce_dtype: str = "float32",
    memory: int | None = None,
    hardware: str | Mapping[str, Any] | None = None,
    network: Sequence[Mapping[str, Any]] | None = None,
    chips: int | None = None,
    overlap: bool | None = None,
    overlap_bytes: int | None = None,
    dot_dtype: str | None = None,
    expert_imbalance: float = 1.0,
    tokens_cross_once: bool = False,
    pipeline: str = "1f1b",
    interleave: int = 1,
    exact_stages: bool = True,
) -> PlanReport:
    """Plans one optimizer step; nothing is allocated and nothing runs.

    model: a name from configs/models, a dict of fields, a file, a folder, or a Model (its configuration is used).
    mesh: axis -> size; "auto" is the mesh of `chips` ranks with the fastest step that fits (`sweep` compares them all), with the number of
        microbatches where that is None.
    seq: tokens per sequence (default: the model's length, at most 2,048). batch: sequences per step over all ranks (default: one per rank
        and microbatch).
    remat: as in `Trainer`; "auto" is the least recompute that fits, and `settings["remat"]` says which.
    memory: bytes that a rank may use, for `fits`; None: those of the hardware; without it the memory of this machine, shared by all ranks.
    hardware: the chip that every rank is, for the step's time: a name from configs/hardware ("h100", "tpu-v5p", "cpu"), a file or a dict.
        None: memory, FLOPs and traffic alone, with the CPU's kernels.
    network: levels of links in place of the hardware's own (`hardware.find_hardware`).
    chips: how many there are; must be the size of the mesh, unless that is "auto".
    overlap: whether transfers run beside compute. None: they do, except on "cpu" and without hardware. There, as in `Trainer`, the
        Plan itself says where each starts and ends (`overlap_bytes` bounds them, and the peak holds them); elsewhere it is assumed that
        parameters are gathered one layer ahead.
    dot_dtype: dtype at whose peak the matrix products of bfloat16 weights run ("float8"); nothing else changes. None: their own.
    expert_imbalance: rows of experts of the busiest rank, over the mean.
    tokens_cross_once: whether a token crosses a level of the network once for all experts behind it; else once for each, as ranks of this
        library send rows.
    exact_stages: whether memory and traffic of a pipeline's stages are those of their own Plans; else, on named hardware, of their layers
        planned as a model, which takes a tenth of the time and leaves out what only a pipeline holds (what zero_bubble keeps for the
        gradients of weights, values on their way).
    The others as in `Trainer`.

    Raises:
        UserError: unknown names, dims that do not divide their axes, a batch that does not divide (naming the nearest that do).
    """
    asked = {key: value for key, value in locals().items() if key != "model"}
    if mesh == "auto":
        best, rows = choose(_question(model, {**asked, "mesh": None}))
        best.settings["mesh_asked"] = f"auto: the best of {len(rows)} meshes"
        return best
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

    def spec_with(policy: str) -> _core.TrainPlanSpec:
        return _core.TrainPlanSpec(
            config=text,
            dtype=dtype,
            mesh=axes,
            rules=core_rules(rules, context_attention),
            optimizer=core_fields(chosen, clip),
            decay_embeddings=chosen.decay_embeddings,
            remat=policy,
            microbatches=count,
            losses=(losses or Losses()).for_training(ModelConfig.from_text(text)),
            batch=_whole("batch", batch),
            seq=seq,
            expert_rows_factor=expert_rows_factor,
            reduce_dtype=reduce_dtype,
            most_in_flight=in_flight,
            pipeline=pipeline,
            interleave=interleave,
        )

    in_flight = 0
    spec = spec_with(remat)
    on = None if hardware is None else find_hardware(hardware, spec.num_ranks, network)
    if on is None and network is not None:
        raise UserError("plan: network belongs to hardware; name one")
    if on is None or on.kernels == "cpu":
        in_flight = most_in_flight(bool(overlap), overlap_bytes)
        spec = spec_with(remat)
    elif overlap_bytes is not None:
        raise UserError("overlap_bytes: on modelled hardware it is one layer of parameters; expected it with hardware='cpu' or none")
    if chips is not None and chips != spec.num_ranks:
        raise UserError(
            f"plan: the mesh has {spec.num_ranks} ranks, but chips={chips}; every chip is one rank. Expected sizes whose product "
            f"is {chips}{_with_so_many(axes, chips)}, or mesh=auto"
        )
    warnings = []
    if seq > length:
        warnings.append(f"a sequence of {seq} tokens is longer than the model allows: max_position_embeddings={length}")
    if count < (stages := axes.get("stage", 1)):
        waiting = (stages - 1) / (count + stages - 1)
        warnings.append(f"{count} microbatches go through {stages} stages, which wait {waiting:.0%} of the time; more of them wait less")
    settings = {
        "model": name,
        "mesh": {axis: axes[axis] for axis in AXES if axes.get(axis, 1) != 1},
        "seq": seq,
        "batch": batch,
        "optimizer": chosen.kind,
        "dtype": dtype,
        "remat": remat,
        "rules": dict(rules) if isinstance(rules, Mapping) else rules if rules is None else os.fspath(rules),
        "context_attention": context_attention,
        "microbatches": count,
        "clip": clip,
    }
    if on is not None:
        settings |= {
            "hardware": on.name,
            "overlap": on.kernels != "cpu" if overlap is None else overlap,
            "dot_dtype": dot_dtype,
            "expert_imbalance": expert_imbalance,
            "tokens_cross_once": tokens_cross_once,
            "pipeline": pipeline,
            "interleave": interleave,
            "exact_stages": exact_stages,
        }

    def advise(report: PlanReport) -> list[dict[str, Any]]:
        same = {**asked, "mesh": axes, "seq": seq, "batch": batch, "chips": None}
        return find_advice(report, lambda model=model, **changes: plan(model, **{**same, **changes}), json.loads(text))

    if remat == "auto":
        return _least_recompute(
            lambda policy: PlanReport(spec_with(policy), {**settings, "remat": policy, "remat_asked": "auto"}, memory, warnings, on, advise)
        )
    return PlanReport(spec, settings, memory, warnings, on, advise)


def sweep(model: Any, chips: int, *, mesh: Mesh | Mapping[str, int] | None = None, **settings: Any) -> MeshSweep:
    """Compares the meshes of `chips` ranks, by planning a step on each.

    mesh: sizes of axes that are fixed; the others are searched. settings: as in `plan`, `hardware` among them. Where `microbatches` is None
    it is chosen for each mesh; remat="auto" is the least recompute that fits.

    Left out are meshes whose tensor groups reach beyond the innermost links of the hardware, and those that leave a rank fewer than 4,096
    tokens of a sequence, unless no other mesh uses all chips.

    Raises:
        UserError: as `plan`; no hardware; no mesh of so many ranks divides the model and the batch.
    """
    best, rows = choose(_question(model, {**settings, "mesh": mesh, "chips": chips}), prune=False)
    return MeshSweep(best, rows)


def best_mesh(model: Any, settings: dict[str, Any]) -> tuple[PlanReport, list[Judged]]:
    """The plan of the best mesh, and all that were compared; settings: arguments of `plan`, without `mesh`."""
    return choose(_question(model, settings))


def _question(model: Any, asked: dict[str, Any]) -> Question:
    """The search that `plan` with these arguments asks for; `mesh` are the axes that are fixed."""
    chips, hardware = asked.get("chips"), asked.get("hardware")
    if hardware is None or chips is None:
        missing = " and ".join(key for key in ("hardware", "chips") if asked.get(key) is None)
        raise UserError(f"plan: a search over meshes needs {missing}: what every rank is, and how many there are")
    chips, fields = _whole("chips", chips), json.loads(_name_and_config(model)[1])
    count = None
    if asked.get("microbatches") is not None or asked.get("gradient_accumulation") is not None:
        count = one_count(asked.get("microbatches"), asked.get("gradient_accumulation"))
    seq, batch = asked.get("seq"), asked.get("batch")
    seq = min(fields["max_position_embeddings"], 2048) if seq is None else _whole("seq", seq)
    batch = chips * (count or 1) if batch is None else _whole("batch", batch)
    remat = asked.get("remat", "none")

    def replan(model: Any = model, **changes: Any) -> PlanReport:
        return plan(model, **{**asked, "seq": seq, "batch": batch, **changes})

    return Question(
        replan=replan,
        fields=fields,
        chips=chips,
        seq=seq,
        batch=batch,
        microbatches=count,
        remats=_core.remat_candidates() if remat == "auto" else [remat],
        fixed=mesh_axes(asked.get("mesh")),
        within=find_hardware(hardware, chips, asked.get("network")).network[0]["chips"],
    )


def _with_so_many(axes: Mapping[str, int], chips: int) -> str:
    """`, such as fsdp=8`: the mesh with another `fsdp`, where that makes it so many ranks."""
    others = math.prod(size for axis, size in axes.items() if axis != "fsdp")
    return f", such as fsdp={chips // others}" if chips % others == 0 else ""


def _least_recompute(report_with: Callable[[str], PlanReport]) -> PlanReport:
    """Of the policies that `auto` tries, the first that fits; where none does, the smallest, which says so."""
    reports = []
    for policy in _core.remat_candidates():
        reports.append(report_with(policy))
        if reports[-1].fits:
            return reports[-1]
    return min(reports, key=lambda report: report.needed_bytes)


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
