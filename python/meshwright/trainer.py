"""Trainer: optimizer steps, logs, evaluation, checkpoints and resuming."""

from __future__ import annotations

import json
import math
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from meshwright import _core
from meshwright._core import UserError
from meshwright.batch import adapt
from meshwright.checkpoints import check_place, settings_of, small_files
from meshwright.losses import Losses
from meshwright.machine import measured_peaks, share_of_peak
from meshwright.mesh import Mesh, core_rules, mesh_axes, most_in_flight
from meshwright.mesh_choice import choose_mesh
from meshwright.model import Model
from meshwright.optimizers import SGD, AdamW, core_fields, one_count, optimizer_from_dict
from meshwright.profiler import Profiler
from meshwright.profiling import Profile
from meshwright.ranks import Ranks
from meshwright.run_log import Metrics, RunRecorder
from meshwright.schedules import Constant, Schedule, schedule_from_dict
from meshwright.stopping import StopRequest

Callback = Callable[["Trainer", int, Metrics], None]

EXPERT_LOAD = "expert_load."  # results of a step
BATCHES_USED = "batches_used"  # the state of data that keeps none


class Trainer:
    """Trains a model. Everything but `model` and `optimizer` is optional.

    trainer = Trainer(model, optimizer=AdamW(lr=3e-4), output="runs/a", save_every=500)
    trainer.fit(data, steps=1000)         # or: metrics = trainer.step(batch)

    mesh: axis -> size (`data`, `stage`, `fsdp`, `expert`, `context`, `tensor`); the ranks are threads of this process, or the processes
        that mpirun started. "auto": of as many ranks as mpirun started, or of any number of threads, the mesh with the fastest step that
        fits, by planning a batch of `batch_shape` (sequences, tokens). `trainer.mesh` is the mesh in force. rules: a layout of
        configs/rules ("ddp", "zero1", "fsdp", "tp_sp", ...), a JSON file or a dict of four tables, or None: `data` is DDP, `fsdp` is
        ZeRO-3, `expert` has the experts, `tensor` has sequence parallelism.
    remat: what the backward recomputes: a policy of docs/memory.md ("none", "minimal", "full", "minimal_offloaded", ...),
        "custom:NAME,NAME=offload", or "auto": the least recompute with which a rank needs at most `memory` bytes. `trainer.remat` is the
        policy in force. memory: bytes that a rank may use (None: its share of this machine's); what needs more is an error before it is
        allocated. dtype: compute dtype ("float32", "bfloat16"); masters are FP32, made from the values as they were. clip: largest
        global norm of the gradient. microbatches = gradient_accumulation: parts of a batch that are run one after the other.
    losses: weights of the terms beside the loss per token (balance of experts, multi-token prediction); see Losses.
    context_attention: with a mesh axis `context`, how attention meets the keys and values of other ranks: "gather" takes all of them
        before it, "ring" one rank's after the other, so that none holds them all; None: as the rules say ("gather" unless they name it).
    expert_rows_factor: with a mesh axis `expert`, the rows of experts that a rank has room for, as a multiple of their mean. A step that
        needs more is planned again and run again, so it costs time once and changes no result.
    reduce_dtype: what gradients are sent as where ranks add them up ("float32", "bfloat16"). bfloat16 halves those bytes; each sum is
        formed in FP32 in the order of the ranks and rounded once, and gradients of microbatches add up in FP32.
    pipeline: with a mesh axis `stage`, the order in which the stages work on the microbatches: "gpipe", "1f1b", "interleaved" (with
        `interleave` runs of layers per stage) or "zero_bubble". Waiting is shorter with more microbatches; `metrics.bubble` measures it.
    overlap: whether collectives run beside compute: parameters are gathered before they are needed and gradients' reductions end after the
        next layers have computed. Results have the same bits either way; it costs memory (`overlap_bytes`).
    overlap_bytes: bound on the bytes that such collectives hold at once on a rank; None: what the layer with the most of them needs.
    output: folder of checkpoints, metrics.jsonl, TensorBoard events and loss.png; a run that stands there is resumed from its newest
        whole checkpoint.
    callbacks: called as `callback(trainer, step, metrics)` after every step.
    profile: records so many steps on all ranks, from the second on (in a run that is too short for that, from the first);
        `trainer.profiled` is their Profile when they are done, and `output` gets it as profile.txt, profile.json and trace.json.

    Raises UserError: settings that do not fit, a batch that does not divide, a checkpoint of another run.
    """

    def __init__(
        self,
        model: Model,
        optimizer: AdamW | SGD,
        *,
        schedule: Schedule | None = None,
        mesh: Mesh | Mapping[str, int] | str | None = None,
        batch_shape: tuple[int, int] | None = None,
        remat: str = "none",
        memory: int | None = None,
        dtype: str | None = None,
        gradient_accumulation: int | None = None,
        microbatches: int | None = None,
        rules: str | os.PathLike[str] | Mapping[str, Sequence[str]] | None = None,
        seed: int = 0,
        clip: float | None = None,
        losses: Losses | None = None,
        context_attention: str | None = None,
        expert_rows_factor: float = 1.5,
        reduce_dtype: str = "float32",
        pipeline: str = "1f1b",
        interleave: int = 1,
        overlap: bool = False,
        overlap_bytes: int | None = None,
        output: str | os.PathLike[str] | None = None,
        log_every: int = 10,
        save_every: int | None = None,
        keep: int = 3,
        eval_data: Iterable[Mapping[str, Any]] | None = None,
        eval_every: int | None = None,
        callbacks: Sequence[Callback] = (),
        profile: int | None = None,
        reset_optimizer: bool = False,
        threads: int = 0,
        show: bool = True,
    ) -> None:
        self.schedule: Schedule = schedule if schedule is not None else Constant()
        self.output = Path(output) if output is not None else None
        self.log_every, self.save_every, self.keep = log_every, save_every, keep
        self.eval_data, self.eval_every = eval_data, eval_every
        self.callbacks = tuple(callbacks)
        self.seed = seed
        self._reset_optimizer, self._show = reset_optimizer, show
        if not isinstance(optimizer, (AdamW, SGD)):
            raise UserError(f"optimizer: expected mw.AdamW(...) or mw.SGD(...), found {optimizer!r}")
        self.model, self.optimizer = model, optimizer
        for name, count in {"log_every": log_every, "save_every": save_every, "eval_every": eval_every, "keep": keep}.items():
            if count is not None and (isinstance(count, bool) or not isinstance(count, int) or count < 1):
                raise UserError(f"{name}: expected a whole number of at least 1, found {count!r}")
        if self.output is not None:
            check_place(self.output)
        self._microbatches = one_count(microbatches, gradient_accumulation)
        self._dtype = dtype or model.dtype
        self._tokens = 0
        self._peak_bytes: int | None = None
        self.remat = remat  # of "auto", what it has chosen, once a step has shown the shape of the batches
        self._stop = StopRequest()
        self._data: Any = None  # of the fit under way, or of the last one
        self._batches_used = 0  # of `_data`, where it keeps no state of its own
        self._loaded_data_state: dict[str, Any] = {}  # of the checkpoint, until a fit has taken it
        self._saved_step: int | None = None
        self._spoiled = False
        self._flops_of: dict[int, float] = {}
        self._checkpointer = _core.TrainCheckpointer()
        self._losses = (losses or Losses()).for_training(model.config)
        self._mtp_depths = (model.config.mtp_layers or 0) if self._losses["mtp"] else 0
        self._ranks = Ranks()
        given = {
            "rules": rules,
            "context_attention": context_attention,
            "expert_rows_factor": expert_rows_factor,
            "reduce_dtype": reduce_dtype,
            "pipeline": pipeline,
            "interleave": interleave,
            "overlap": overlap,
            "overlap_bytes": overlap_bytes,
        }
        in_flight = most_in_flight(overlap, overlap_bytes)
        if mesh == "auto":
            settings = {"optimizer": optimizer, "clip": clip, "dtype": self._dtype, "losses": losses, "microbatches": self._microbatches}
            self.mesh, chosen = choose_mesh(model, self._ranks, batch_shape, {**settings, "remat": remat, "memory": memory, **given})
            if show and self._ranks.is_first:
                print(chosen, file=sys.stderr)
        else:
            self.mesh = mesh_axes(mesh)
        self._check_ranks({"remat": remat, "profile": profile, **given}, clip)
        self._claim = model._claim = object()
        model._session.rehome(self._dtype, self.mesh, core_rules(rules, context_attention), interleave, threads, expert_rows_factor)
        self._step = _core.TrainStep(
            model._session,
            core_fields(optimizer, clip),
            microbatches=self._microbatches,
            remat=remat,
            memory_bytes=self._ranks.memory_share(math.prod(self.mesh.values())) if memory is None else memory,
            decay_embeddings=optimizer.decay_embeddings,
            losses=self._losses,
            reduce_dtype=reduce_dtype,
            most_in_flight=in_flight,
            pipeline=pipeline,
        )
        self._profiler = None if profile is None else Profiler(profile, self._step, self._ranks, self.output)
        self.profiled: Profile | None = None
        self.settings = self._settings(clip)
        self._total_steps: int | None = None
        self._saved_total: int | None = None
        self._resumed = False
        if self.output is not None:
            self._resume(self.output)

    def _check_ranks(self, given: Mapping[str, Any], clip: float | None) -> None:
        """UserError unless the processes that mpirun started are those of the mesh, and were all told the same."""
        ranks, size = self._ranks, math.prod(self.mesh.values())
        if ranks.size == 1:
            return
        from meshwright import __version__

        if size != ranks.size:
            axes = ", ".join(f"{axis}={n}" for axis, n in self.mesh.items() if n > 1)
            raise UserError(
                f"mesh: {size} ranks ({axes or 'no axis'}), but mpirun started "
                f"{ranks.size}; expected sizes whose product is {ranks.size}, such as fsdp={ranks.size}"
            )
        ranks.agree(
            {
                "version of Meshwright": __version__,
                "mesh": self.mesh,
                **given,
                "output": self.output,
                "save_every": self.save_every,
                "eval_every": self.eval_every,
                **self._settings(clip),
                "weights": f"hash {self.model._session.weights_hash()}",
            },
            "the ranks of this run were given different settings:",
        )

    def _settings(self, clip: float | None) -> dict[str, Any]:
        """What must agree when a run is resumed; meshes and logging may change."""
        return {
            "model": self.model.config.to_dict(),
            "optimizer": self.optimizer.to_dict(),
            "schedule": self.schedule.to_dict(),
            "clip": clip,
            "microbatches": self._microbatches,
            "dtype": self._dtype,
            "seed": self.seed,
            "losses": self._losses,
        }

    # ---- steps ----

    @property
    def steps_done(self) -> int:
        """Optimizer steps made so far, those before a resume included."""
        return int(self._step.steps)

    def step(self, batch: Mapping[str, Any]) -> Metrics:
        """One optimizer step on a batch of arrays [batch, seq] (NumPy, torch or DLPack).

        input_ids; optionally labels (aligned with input_ids, shifted inside, -100 ignored; default: input_ids), attention_mask,
        segment_ids, position_ids, loss_weights. The loss is sum(weight * nll) / sum(weight).

        Raises:
            UserError: fields, shapes, dtypes or ids that are wrong; a batch that does not divide into microbatches or over the mesh.
            FloatingPointError: the loss is not finite; it names the op, and weights and optimizer are as before the step. Or only the
                gradient is not: then the update has spoiled them, and nothing is saved any more.
        """
        self._check_whole()
        start = time.perf_counter()
        fields = adapt(batch, self.model.config.vocab_size, self._mtp_depths)
        self.model._check_length(fields.arrays["input_ids"].shape[1])
        lr = self.optimizer.lr * self._lr_multiplier()
        if self._profiler is not None:
            self._profiler.begin_step()
        loss, grad_norm, finite, more = self._step.run(fields.arrays, fields.loss_scale, lr)
        if not finite:
            raise FloatingPointError(self._not_finite(fields.arrays, fields.loss_scale, loss))
        if not math.isfinite(grad_norm):
            self._spoiled = True
            raise FloatingPointError(
                f"step {self.steps_done}: the loss is {loss:.4g}, but the norm of its gradient is {grad_norm}. "
                f"The weights in memory are spoiled{self._kept()}"
            )
        seconds = time.perf_counter() - start
        if self._profiler is not None and self._profiler.end_step():
            self.profiled = self._profiler.profile
        self._tokens += fields.tokens
        if self._peak_bytes is None or "expert_reruns" in more:  # a step that was planned again has more room
            self._peak_bytes = int(self._step.peak_bytes(fields.arrays))
            if self.remat == "auto":
                self.remat = self._step.remat(*fields.arrays["input_ids"].shape)
        flops = self._flops(*fields.arrays["input_ids"].shape)
        return Metrics(
            loss=loss,
            perplexity=_exp(loss),
            grad_norm=grad_norm,
            lr=lr,
            tokens=self._tokens,
            tokens_per_second=fields.tokens / seconds,
            tflops=flops / seconds / 1e12,
            mfu=share_of_peak(flops / seconds, self._dtype) if self._ranks.is_first else None,
            step_seconds=seconds,
            peak_bytes=self._peak_bytes,
            bubble=self._step.bubble(fields.arrays) if self.mesh.get("stage", 1) > 1 else None,
            terms={name: values[0] for name, values in more.items() if not name.startswith(EXPERT_LOAD)},
            expert_load={name[len(EXPERT_LOAD) :]: tuple(v) for name, v in more.items() if name.startswith(EXPERT_LOAD)},
        )

    def profile(self, batch: Mapping[str, Any], steps: int = 3) -> Profile:
        """Makes an optimizer step on a batch, then `steps` more of which it tells where their time went.

        Raises:
            UserError, FloatingPointError: as `step`.
        """
        outer, self._profiler = self._profiler, Profiler(steps, self._step, self._ranks)
        try:
            for _ in range(steps + 1):
                self.step(batch)
            profile = self._profiler.profile
        finally:
            self._step.record(None)
            self._profiler = outer
        assert profile is not None
        return profile

    def _lr_multiplier(self) -> float:
        if self._total_steps is not None:
            return float(self.schedule.lr_at(self.steps_done, self._total_steps))
        # Single steps: only `fit` knows how long the run is. The schedule stands at its first phase, and a warm-up that is a share of
        # the run has no steps.
        schedule: Any = self.schedule
        if isinstance(getattr(schedule, "warmup", None), float):
            schedule = replace(schedule, warmup=0)
        return float(schedule.lr_at(self.steps_done, 2**62))

    def _not_finite(self, fields: dict[str, Any], loss_scale: float, loss: float) -> str:
        op = self.model._session.first_not_finite(fields, loss_scale)
        cause = op or "no op of the forward pass made it"
        return f"step {self.steps_done + 1}: the loss is {loss}; {cause}. Weights are as before this step{self._kept()}"

    def _kept(self) -> str:
        return f"; the last checkpoint in {os.fspath(self.output)!r} is whole" if self.output is not None else ""

    def _check_whole(self) -> None:
        if self.model._claim is not self._claim:
            raise UserError("another Trainer has taken the model, with its mesh and optimizer; expected the newest one to be used")
        if self._spoiled:
            raise UserError(f"a gradient that was not finite has spoiled the weights in memory{self._kept()}; start again from one")

    def _flops(self, batch: int, seq: int) -> float:
        if seq not in self._flops_of:
            self._flops_of[seq] = float(_core.model_costs(self.model._config_text, float(seq))["training_flops_per_token"])
        return self._flops_of[seq] * batch * seq

    # ---- a whole run ----

    def fit(self, data: Iterable[Mapping[str, Any]], steps: int) -> Metrics | None:
        """Trains until `steps` steps are done in all (a resumed run makes the rest). Returns the last step's metrics.

        `data` is iterated again from its start when it ends; its `state_dict` (where it has one) is part of the checkpoints, else a
        resumed run passes over the batches that were used. SIGTERM and Ctrl-C end the run after the step under way and save before
        leaving (SystemExit or KeyboardInterrupt); a second Ctrl-C does not wait for the save.

        Raises:
            UserError: as `step`; data without batches, or not those of the run that is resumed; a checkpoint that cannot be written.
            FloatingPointError: as `step`. The last checkpoint is whole.
        """
        if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
            raise UserError(f"steps: expected a whole number of at least 1, found {steps!r}")
        self._check_whole()
        self._check_length_of_run(steps)
        self._total_steps = steps
        self._restore_data(data)
        self._ranks.agree({"steps": steps}, "fit: the ranks of this run were given different settings:")
        if self._profiler is not None:
            self._profiler.skip_first = steps - self.steps_done > self._profiler.steps_left
        if self._ranks.is_first:
            measured_peaks()  # for MFU; remembered between runs
        metrics: Metrics | None = None
        recorder = RunRecorder(
            self.output if self._ranks.is_first else None,
            model=self.model.name,
            total_steps=steps,
            resume_step=self.steps_done,
            log_every=self.log_every,
            show=self._show and self._ranks.is_first,
        )
        with recorder, self._stop:
            if self._resumed:
                recorder.note(f"resumed from step {self.steps_done:,} in {self.output}")
            try:
                metrics = self._steps_until(steps, data, recorder)
            except Exception as error:
                # With other processes a save ends together, and only this error is known to be everyone's.
                if self._ranks.size == 1 or isinstance(error, FloatingPointError):
                    self._end_save(recorder)
                raise
            self._wait_for_save()
        self._stop.leave()
        return metrics

    def _steps_until(self, steps: int, data: Iterable[Mapping[str, Any]], recorder: RunRecorder) -> Metrics | None:
        metrics: Metrics | None = None
        batches = self._batches(data)
        while self.steps_done < steps and not self._ranks.any(bool(self._stop)):
            metrics = self.step(next(batches))
            step = self.steps_done
            recorder.step(step, metrics)
            if self._profiler is not None and (news := self._profiler.news()):
                recorder.note(news)
            for callback in self.callbacks:
                callback(self, step, metrics)
            if self.eval_data is not None and self.eval_every and (step % self.eval_every == 0 or step == steps):
                recorder.validation(step, self.evaluate(self.eval_data))
            if self.save_every and step % self.save_every == 0:
                self._save_step()
            self._checkpointer.poll()
        if self._profiler is not None and self._profiler.finish():  # fewer steps than asked for
            self.profiled = self._profiler.profile
        if metrics is not None:
            self._save_step()
        return metrics

    def evaluate(self, data: Iterable[Mapping[str, Any]]) -> Metrics:
        """Mean loss over the weighted tokens of all batches of `data`."""
        total, weight, tokens = 0.0, 0.0, 0
        start = time.perf_counter()
        for batch in data:
            fields = adapt(batch, self.model.config.vocab_size)
            self.model._check_length(fields.arrays["input_ids"].shape[1])
            share = 1.0 / fields.loss_scale
            total += self.model._session.loss(fields.arrays, fields.loss_scale) * share
            weight += share
            tokens += fields.tokens
        if weight == 0:
            raise UserError("evaluate: the data gave no batch; expected at least one")
        loss = total / weight
        return Metrics(loss=loss, perplexity=_exp(loss), tokens=self._tokens, tokens_per_second=tokens / (time.perf_counter() - start))

    # ---- checkpoints ----

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes a whole checkpoint (a Hugging Face folder with `trainer/`) and waits until it is durable.

        Raises:
            UserError: a place that cannot be written (and why), or that holds something else than a checkpoint.
        """
        check_place(Path(path))
        self._save_to(Path(path))
        self._wait_for_save()

    @classmethod
    def restore(cls, path: str | os.PathLike[str], *, mesh: Mesh | Mapping[str, int] | str | None = None, **changes: Any) -> Trainer:
        """A Trainer that goes on from a checkpoint, or from the newest whole one in a run's folder, on any mesh.

        `changes` are further arguments of Trainer.

        Raises:
            UserError: no checkpoint there, damaged or missing files, a checkpoint that holds no training run.
        """
        folder = Path(path)
        if not (folder / "config.json").is_file():
            newest = _core.newest_checkpoint(str(folder))
            if newest["path"] is None:
                raise UserError(f"{os.fspath(path)!r} holds no whole checkpoint: {'; '.join(newest['skipped']) or 'none was saved there'}")
            folder = Path(newest["path"])
        settings = settings_of(folder)
        optimizer = optimizer_from_dict(settings["optimizer"])
        arguments: dict[str, Any] = {
            "schedule": schedule_from_dict(settings["schedule"]),
            "clip": settings["clip"],
            "microbatches": settings["microbatches"],
            "dtype": settings["dtype"],
            "seed": settings["seed"],
            "losses": Losses(**settings["losses"]) if "losses" in settings else None,
            **changes,
        }
        trainer = cls(Model.from_pretrained(folder), optimizer, mesh=mesh, **arguments)
        trainer._load(folder)
        return trainer

    def _save_step(self) -> None:
        if self.output is None or self._saved_step == self.steps_done:
            return
        self._save_to(self.output / _core.checkpoint_name(self.steps_done))
        self._saved_step = self.steps_done

    def _wait_for_save(self) -> None:
        # Not the core's wait(): Python sees a second Ctrl-C only between two calls.
        while not self._checkpointer.poll():
            time.sleep(0.002)

    def _end_save(self, recorder: RunRecorder) -> None:
        """Lets a save under way end while another error is on its way to the user."""
        try:
            self._wait_for_save()
        except UserError as error:
            recorder.note(f"the checkpoint could not be written: {error}")

    def _data_state(self) -> dict[str, Any]:
        if self._data is None:
            return self._loaded_data_state
        if hasattr(self._data, "state_dict"):
            return dict(self._data.state_dict())
        return {BATCHES_USED: self._batches_used}

    def _save_to(self, folder: Path) -> None:
        self._check_whole()
        self._wait_for_save()
        run = {"settings": self.settings, "tokens": self._tokens, "total_steps": self._total_steps}
        self._checkpointer.save(
            self.model._session,
            self._step,
            str(folder),
            small_files(self.model, self._dtype),
            self.seed,
            _json_of(self._data_state()),
            json.dumps(run),
            self.keep if self.output is not None and folder.parent == self.output else 0,
        )

    def _resume(self, output: Path) -> None:
        self._ranks.check_shared(output)
        newest = ""
        if self._ranks.is_first and output.is_dir():
            _core.remove_leftovers(str(output))
            found = _core.newest_checkpoint(str(output))
            newest = found["path"] or ""
            for reason in found["skipped"]:
                print(f"warning: not a whole checkpoint: {reason}", file=sys.stderr)
        newest = self._ranks.gather(newest)[0]  # read once, by one rank
        if not newest:
            return
        self._check_settings(Path(newest))
        self._load(Path(newest))
        self._resumed = True

    def _check_settings(self, folder: Path) -> None:
        there = settings_of(folder)
        here = json.loads(json.dumps(self.settings))
        ignored = {"optimizer"} if self._reset_optimizer else set()
        differing = [key for key in here if key not in ignored and there.get(key) != here[key]]
        if differing:
            lines = "\n".join(f"  {key}: {json.dumps(there.get(key))} there, {json.dumps(here[key])} here" for key in differing)
            raise UserError(
                f"{os.fspath(folder)!r} belongs to a run with other settings; use another output, or the same values of\n{lines}"
            )

    def _load(self, folder: Path) -> None:
        data, run = _core.load_checkpoint(self.model._session, self._step, str(folder), self._reset_optimizer)
        self._loaded_data_state = json.loads(data)
        self._tokens = int(json.loads(run)["tokens"])
        self._saved_total = json.loads(run).get("total_steps")
        self._saved_step = self.steps_done

    def _check_length_of_run(self, steps: int) -> None:
        saved = self._saved_total
        if saved is not None and saved != steps and not isinstance(self.schedule, Constant) and self.steps_done < saved:
            raise UserError(
                f"the run in {os.fspath(self.output or 'the checkpoint')!r} was planned for steps={saved}, found steps={steps}: "
                "its schedule would change half way; finish it, or use another output"
            )

    # ---- data ----

    def _restore_data(self, data: Any) -> None:
        state, self._loaded_data_state = self._loaded_data_state, {}
        self._data, self._batches_used, self._skip = data, 0, 0
        if not state:
            return
        if hasattr(data, "load_state_dict"):
            data.load_state_dict(state)
        elif BATCHES_USED in state:
            self._skip = int(state[BATCHES_USED])
        else:
            raise UserError(
                "fit: the run was saved with data that has a state (such as TokenDataset); expected the same to resume it, "
                f"found {type(data).__name__}"
            )

    def _batches(self, data: Iterable[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
        while True:
            found = False
            for batch in data:
                found = True
                self._batches_used += 1
                if self._batches_used > self._skip:
                    yield batch
            if not found:
                raise UserError("fit: the data gave no batch; expected at least one (an iterator cannot be read twice: pass an iterable)")


def _json_of(state: Mapping[str, Any]) -> str:
    try:
        return json.dumps(state)
    except (TypeError, ValueError) as error:
        raise UserError(f"the data's state_dict() must be made of JSON values to be saved: {error}") from None


def _exp(x: float) -> float:
    return math.exp(x) if x < 700 else math.inf
