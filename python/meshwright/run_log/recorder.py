"""One object for everything a run records, used by the Trainer.

with RunRecorder("runs/a", model="mini", total_steps=1000, resume_step=0, log_every=10) as recorder:
    recorder.step(1, metrics)
    recorder.validation(200, metrics)
"""

from __future__ import annotations

import os
from types import TracebackType
from typing import TextIO

from meshwright.run_log.curve import plot_run
from meshwright.run_log.event_file import EventFile
from meshwright.run_log.history import History
from meshwright.run_log.metrics import Metrics
from meshwright.run_log.progress import Progress

# Metric -> TensorBoard tag.
_TRAIN_TAGS = {
    "loss": "learning/loss",
    "perplexity": "learning/perplexity",
    "grad_norm": "learning/grad_norm",
    "lr": "learning/current_learning_rate",
    "tokens": "learning/tokens",
    "tokens_per_second": "perf/tokens_per_second",
    "tflops": "perf/tflops_per_second",
    "mfu": "perf/mfu",
    "step_seconds": "perf/step_time_seconds",
    "peak_bytes": "perf/peak_bytes",
    "bubble": "perf/pipeline_bubble",
}
_VALIDATION_TAGS = {"loss": "eval/loss", "perplexity": "eval/perplexity"}


class RunRecorder:
    """Progress display, metrics.jsonl, TensorBoard events and loss.png of one run; with `output=None` the display alone."""

    def __init__(
        self,
        output: str | os.PathLike[str] | None,
        *,
        model: str,
        total_steps: int,
        resume_step: int = 0,
        log_every: int = 10,
        show: bool = True,
        stream: TextIO | None = None,
    ) -> None:
        self._output = output
        self._log_every = max(1, log_every)
        self._total_steps = total_steps
        self.history = History(output, resume_step) if output is not None else None
        self._events = EventFile(output, resume_step) if output is not None else None
        if self.history is not None:
            self.history.describe(model)
        self._progress = Progress(total_steps, resume_step, stream) if show else None

    def step(self, step: int, metrics: Metrics) -> None:
        """Step `step` (from 1) has ended; every `log_every`-th and the last are recorded."""
        log = step % self._log_every == 0 or step == self._total_steps
        if log and self.history is not None:
            self.history.append("train", step, metrics)
        if log and self._events is not None:
            known = {tag: float(v) for name, tag in _TRAIN_TAGS.items() if (v := metrics[name]) is not None}
            further = {f"learning/{name}": float(v) for name, v in metrics.to_dict().items() if name not in _TRAIN_TAGS}
            self._events.add_scalars(step, {**known, **further})
        if self._progress is not None:
            self._progress.advance(step, metrics, log)

    def validation(self, step: int, metrics: Metrics) -> None:
        """An evaluation after `step` finished steps."""
        if self.history is not None:
            self.history.append("validation", step, metrics)
        if self._events is not None:
            self._events.add_scalars(step, {tag: float(v) for name, tag in _VALIDATION_TAGS.items() if (v := metrics[name]) is not None})
        self.note(f"step {step:,}/{self._total_steps:,} · validation loss {metrics.loss:.4f} · perplexity {metrics.perplexity:.4g}")

    def note(self, text: str) -> None:
        """A line for the user that stays on the screen (a save, a resume)."""
        if self._progress is not None:
            self._progress.note(text)

    def close(self, picture: bool = True) -> None:
        """Ends the display, closes the files and draws loss.png where there is a loss to draw."""
        if self._progress is not None:
            self._progress.close()
        if self.history is not None:
            self.history.close()
        if self._events is not None:
            self._events.close()
        if picture and self._output is not None and self.history is not None and b'"loss"' in self.history.path.read_bytes():
            plot_run(self._output)

    def __enter__(self) -> RunRecorder:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close(picture=kind is None or kind is KeyboardInterrupt)
