"""Trainer: optimizer steps, logs, evaluation, checkpoints and resuming."""

from __future__ import annotations

import json
import math
import os
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from meshwright import _core
from meshwright._core import UserError
from meshwright.batch import adapt
from meshwright.checkpoints import small_files
from meshwright.mesh import Mesh, mesh_axes
from meshwright.model import Model
from meshwright.optimizers import SGD, AdamW, optimizer_from_dict
from meshwright.run_log import Metrics, RunRecorder
from meshwright.schedules import Constant, Schedule, schedule_from_dict

Callback = Callable[["Trainer", int, Metrics], None]


class Trainer:
    """Trains a model. Everything but `model` and `optimizer` is optional.

    trainer = Trainer(model, optimizer=AdamW(lr=3e-4), output="runs/a", save_every=500)
    trainer.fit(data, steps=1000)         # or: metrics = trainer.step(batch)

    mesh: axis -> size (`data`, `fsdp`, `tensor`); the ranks are threads of this process. rules: "ddp", "zero1", "zero2", "zero3", a dict
        of four tables, or None: `data` is DDP, `fsdp` is ZeRO-3, `tensor` has sequence parallelism.
    remat: "none", "full", "minimal" or "custom:NAME,NAME". dtype: compute dtype ("float32", "bfloat16"); masters are FP32, made from the
        values as they were. clip: largest global norm of the gradient. microbatches = gradient_accumulation: parts of a batch that are
        run one after the other.
    output: folder of checkpoints, metrics.jsonl, TensorBoard events and loss.png; a run that stands there is resumed from its newest
        whole checkpoint.
    callbacks: called as `callback(trainer, step, metrics)` after every step.

    Raises UserError: settings that do not fit, a batch that does not divide, a checkpoint of another run.
    """

    def __init__(
        self,
        model: Model,
        optimizer: AdamW | SGD,
        *,
        schedule: Schedule | None = None,
        mesh: Mesh | Mapping[str, int] | None = None,
        remat: str = "none",
        dtype: str | None = None,
        gradient_accumulation: int | None = None,
        microbatches: int | None = None,
        rules: str | Mapping[str, Sequence[str]] | None = None,
        seed: int = 0,
        clip: float | None = None,
        output: str | os.PathLike[str] | None = None,
        log_every: int = 10,
        save_every: int | None = None,
        keep: int = 3,
        eval_data: Iterable[Mapping[str, Any]] | None = None,
        eval_every: int | None = None,
        callbacks: Sequence[Callback] = (),
        reset_optimizer: bool = False,
        threads: int = 0,
        show: bool = True,
    ) -> None:
        self.model, self.optimizer = model, optimizer
        self.schedule: Schedule = schedule if schedule is not None else Constant()
        self.mesh = mesh_axes(mesh)
        self.output = Path(output) if output is not None else None
        self.log_every, self.save_every, self.keep = log_every, save_every, keep
        self.eval_data, self.eval_every = eval_data, eval_every
        self.callbacks = tuple(callbacks)
        self.seed = seed
        self._reset_optimizer, self._show = reset_optimizer, show
        self._microbatches = _one_count(microbatches, gradient_accumulation)
        self._dtype = dtype or model.dtype
        self._tokens = 0
        self._peak_bytes: int | None = None
        self._stop: int | None = None
        self._data_state: dict[str, Any] | None = None
        self._checkpointer = _core.TrainCheckpointer()
        model._session.rehome(self._dtype, self.mesh, _rules(rules), threads)
        self._step = _core.TrainStep(
            model._session,
            _optimizer_fields(optimizer, clip),
            microbatches=self._microbatches,
            remat=remat,
            decay_embeddings=optimizer.decay_embeddings,
        )
        # What must agree when a run is resumed; meshes and logging may change.
        self.settings: dict[str, Any] = {
            "model": model.config.to_dict(),
            "optimizer": optimizer.to_dict(),
            "schedule": self.schedule.to_dict(),
            "clip": clip,
            "microbatches": self._microbatches,
            "dtype": self._dtype,
            "seed": seed,
        }
        self._total_steps: int | None = None
        self._resumed = False
        if self.output is not None:
            self._resume(self.output)

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
            FloatingPointError: the loss is not finite; it names the op, and weights and optimizer are as before the step.
        """
        start = time.perf_counter()
        fields = adapt(batch, self.model.config.vocab_size)
        self.model._check_length(fields.arrays["input_ids"].shape[1])
        lr = self.optimizer.lr * self._lr_multiplier()
        loss, grad_norm, finite = self._step.run(fields.arrays, fields.loss_scale, lr)
        if not finite:
            raise FloatingPointError(self._not_finite(fields.arrays, fields.loss_scale, loss))
        seconds = time.perf_counter() - start
        self._tokens += fields.tokens
        if self._peak_bytes is None:
            self._peak_bytes = int(self._step.peak_bytes(fields.arrays))
        flops = self._flops(*fields.arrays["input_ids"].shape)
        return Metrics(
            loss=loss,
            perplexity=_exp(loss),
            grad_norm=grad_norm,
            lr=lr,
            tokens=self._tokens,
            tokens_per_second=fields.tokens / seconds,
            tflops=flops / seconds / 1e12,
            mfu=_share_of_peak(flops / seconds, self._dtype),
            step_seconds=seconds,
            peak_bytes=self._peak_bytes,
        )

    def profile(self, batch: Mapping[str, Any], steps: int = 3) -> list[dict[str, Any]]:
        """Makes `steps` optimizer steps on a batch and tells where their processor time went, the slowest op first: piece, op, scope,
        calls, seconds (of all threads, per step), gflops_per_second (per processor second)."""
        fields = adapt(batch, self.model.config.vocab_size)
        lr = self.optimizer.lr * self._lr_multiplier()
        self._step.run(fields.arrays, fields.loss_scale, lr)
        rows = self._step.profile(fields.arrays, fields.loss_scale, lr, steps)
        names = ("piece", "op", "scope", "calls", "seconds", "gflops_per_second")
        return [dict(zip(names, (*row[:5], row[5] / max(row[4], 1e-12) / 1e9), strict=True)) for row in rows]

    def _lr_multiplier(self) -> float:
        # Without a known end (single steps) the schedule stands at its first phase: only `fit` knows how long the run is.
        total = self._total_steps if self._total_steps is not None else max(self.steps_done + 1, 2**62)
        return float(self.schedule.lr_at(self.steps_done, total))

    def _not_finite(self, fields: dict[str, Any], loss_scale: float, loss: float) -> str:
        op = self.model._session.first_not_finite(fields, loss_scale)
        kept = f"; the last checkpoint in {os.fspath(self.output)!r} is whole" if self.output is not None else ""
        cause = op or "no op of the forward pass made it"
        return f"step {self.steps_done + 1}: the loss is {loss}; {cause}. Weights are as before this step{kept}"

    def _flops(self, batch: int, seq: int) -> float:
        return float(_core.model_costs(self.model._config_text, float(seq))["training_flops_per_token"]) * batch * seq

    # ---- a whole run ----

    def fit(self, data: Iterable[Mapping[str, Any]], steps: int) -> Metrics | None:
        """Trains until `steps` steps are done in all (a resumed run makes the rest). Returns the last step's metrics.

        `data` is iterated again from its start when it ends; its `state_dict` (where it has one) is part of the checkpoints, else a
        resumed run passes over the batches that were used. SIGTERM and Ctrl-C save before leaving (KeyboardInterrupt or SystemExit);
        a second Ctrl-C leaves at once.
        """
        if steps < 1:
            raise UserError(f"steps is {steps}; expected at least 1")
        self._check_length_of_run(steps)
        self._total_steps = steps
        self._restore_data(data)
        metrics: Metrics | None = None
        recorder = RunRecorder(
            self.output, model=self.model.name, total_steps=steps, resume_step=self.steps_done, log_every=self.log_every, show=self._show
        )
        with recorder, self._signals():
            if self._resumed:
                recorder.note(f"resumed from step {self.steps_done:,} in {self.output}")
            batches = self._batches(data)
            while self.steps_done < steps:
                metrics = self.step(next(batches))
                step = self.steps_done
                recorder.step(step, metrics)
                for callback in self.callbacks:
                    callback(self, step, metrics)
                if self.eval_data is not None and self.eval_every and (step % self.eval_every == 0 or step == steps):
                    recorder.validation(step, self.evaluate(self.eval_data))
                if self.output is not None and self.save_every and step % self.save_every == 0 and step < steps:
                    self._save_to(self.output / _core.checkpoint_name(step), data)
                self._checkpointer.poll()
                if self._stop is not None:
                    break
            if self.output is not None and metrics is not None:
                self._save_to(self.output / _core.checkpoint_name(self.steps_done), data)
            self._checkpointer.wait()
        if self._stop is not None:
            self._leave(self._stop)
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
        """Writes a whole checkpoint (a Hugging Face folder with `trainer/`) and waits until it is durable."""
        self._save_to(Path(path), None)
        self._checkpointer.wait()

    @classmethod
    def restore(cls, path: str | os.PathLike[str], *, mesh: Mesh | Mapping[str, int] | None = None, **changes: Any) -> Trainer:
        """A Trainer that goes on from a checkpoint, on any mesh; `changes` are further arguments of Trainer."""
        folder = Path(path)
        if not (folder / "config.json").is_file():
            newest = _core.newest_checkpoint(str(folder))
            if newest["path"] is None:
                raise UserError(f"{os.fspath(path)!r} holds no whole checkpoint: {'; '.join(newest['skipped']) or 'none was saved there'}")
            folder = Path(newest["path"])
        state = _core.read_trainer_state(str(folder))
        settings = json.loads(state["run"])["settings"]
        optimizer = optimizer_from_dict(settings["optimizer"])
        arguments: dict[str, Any] = {
            "schedule": schedule_from_dict(settings["schedule"]),
            "clip": settings["clip"],
            "microbatches": settings["microbatches"],
            "dtype": settings["dtype"],
            "seed": settings["seed"],
            **changes,
        }
        trainer = cls(Model.from_pretrained(folder), optimizer, mesh=mesh, **arguments)
        trainer._load(folder)
        return trainer

    def _save_to(self, folder: Path, data: Any) -> None:
        state = data.state_dict() if hasattr(data, "state_dict") else self._data_state
        run = {"settings": self.settings, "tokens": self._tokens, "total_steps": self._total_steps}
        folder.parent.mkdir(parents=True, exist_ok=True)
        self._checkpointer.save(
            self.model._session,
            self._step,
            str(folder),
            small_files(self.model, self._dtype),
            self.seed,
            json.dumps(state or {}),
            json.dumps(run),
            self.keep if self.output is not None and folder.parent == self.output else 0,
        )

    def _resume(self, output: Path) -> None:
        if output.exists() and not output.is_dir():
            raise UserError(f"output: expected a folder, found {os.fspath(output)!r}, which is a file")
        if not output.is_dir():
            return
        _core.remove_leftovers(str(output))
        newest = _core.newest_checkpoint(str(output))
        for reason in newest["skipped"]:
            print(f"warning: not a whole checkpoint: {reason}")
        if newest["path"] is None:
            return
        self._check_settings(Path(newest["path"]))
        self._load(Path(newest["path"]))
        self._resumed = True

    def _check_settings(self, folder: Path) -> None:
        there = json.loads(_core.read_trainer_state(str(folder))["run"])["settings"]
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
        self._data_state = json.loads(data)
        self._tokens = int(json.loads(run)["tokens"])
        self._saved_total = json.loads(run).get("total_steps")

    def _check_length_of_run(self, steps: int) -> None:
        saved = getattr(self, "_saved_total", None)
        if saved is not None and saved != steps and not isinstance(self.schedule, Constant) and self.steps_done < saved:
            raise UserError(
                f"the run in {os.fspath(self.output or 'the checkpoint')!r} was planned for steps={saved}, found steps={steps}: "
                "its schedule would change half way; finish it, or use another output"
            )

    # ---- data ----

    def _restore_data(self, data: Any) -> None:
        self._skip = 0
        if self.steps_done == 0:
            return
        if hasattr(data, "load_state_dict") and self._data_state:
            data.load_state_dict(self._data_state)
        elif self._resumed:
            self._skip = self.steps_done

    def _batches(self, data: Iterable[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
        skipped = 0
        while True:
            found = False
            for batch in data:
                found = True
                if skipped < self._skip:
                    skipped += 1
                    continue
                yield batch
            if not found:
                raise UserError("fit: the data gave no batch; expected at least one (an iterator cannot be read twice: pass an iterable)")

    # ---- signals ----

    def _signals(self) -> _SignalGuard:
        self._stop = None

        def ask_to_stop(number: int, frame: FrameType | None) -> None:
            if self._stop is not None and number == signal.SIGINT:
                raise KeyboardInterrupt
            self._stop = number

        return _SignalGuard(ask_to_stop)

    def _leave(self, number: int) -> None:
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(128 + number)


class _SignalGuard:
    """Handlers of SIGINT and SIGTERM for the time of a `with`; those before come back. Does nothing outside the main thread."""

    def __init__(self, handler: Callable[[int, FrameType | None], None]) -> None:
        self._handler = handler
        self._before: dict[int, Any] = {}

    def __enter__(self) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            try:
                self._before[number] = signal.signal(number, self._handler)
            except ValueError:
                return

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)


def _exp(x: float) -> float:
    return math.exp(x) if x < 700 else math.inf


def _share_of_peak(flops_per_second: float, dtype: str) -> float | None:
    from meshwright.machine import cached_peak_flops

    peak = cached_peak_flops(dtype)
    return None if peak is None else flops_per_second / peak


def _one_count(microbatches: int | None, gradient_accumulation: int | None) -> int:
    if microbatches is not None and gradient_accumulation is not None and microbatches != gradient_accumulation:
        raise UserError(
            f"microbatches={microbatches} and gradient_accumulation={gradient_accumulation} are two names of one count; give one of them"
        )
    count = microbatches if microbatches is not None else gradient_accumulation
    return 1 if count is None else count


def _rules(rules: str | Mapping[str, Sequence[str]] | None) -> Any:
    return dict(rules) if isinstance(rules, Mapping) else rules


def _optimizer_fields(optimizer: AdamW | SGD, clip: float | None) -> dict[str, Any]:
    fields: dict[str, Any] = {"kind": optimizer.kind, "weight_decay": optimizer.weight_decay, "clip": clip or 0.0}
    if isinstance(optimizer, AdamW):
        fields |= {"beta1": optimizer.betas[0], "beta2": optimizer.betas[1], "eps": optimizer.eps}
    else:
        fields |= {"momentum": optimizer.momentum}
    return fields
