"""The progress of a run on the terminal: a live line by rich, plain lines where the output is not a terminal."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Any, TextIO

from meshwright.run_log.metrics import Metrics


def describe(step: int, total_steps: int, metrics: Metrics) -> str:
    """One line for people: `step 20/100 · loss 5.1234 · perplexity 167.9 · lr 3.0e-04 · 12,345 tokens/s · 45.1 % of peak`."""
    parts = [f"step {step:,}/{total_steps:,}", f"loss {metrics.loss:.4f}", f"perplexity {metrics.perplexity:.4g}"]
    if metrics.grad_norm is not None:
        parts.append(f"gradient {metrics.grad_norm:.3g}")
    if metrics.lr is not None:
        parts.append(f"lr {metrics.lr:.2e}")
    if metrics.step_seconds is not None:
        parts.append(f"{metrics.step_seconds:.3g} s")
    if metrics.tokens_per_second is not None:
        parts.append(f"{metrics.tokens_per_second:,.0f} tokens/s")
    if metrics.tflops is not None:
        parts.append(f"{metrics.tflops:.3g} TFLOP/s")
    if metrics.mfu is not None:
        parts.append(f"{100 * metrics.mfu:.1f} % of peak")
    return " · ".join(parts)


class Progress:
    """Shows steps as they end. Lines that must stay (evaluations, saves) go through `note`."""

    def __init__(self, total_steps: int, done: int = 0, stream: TextIO | None = None) -> None:
        self.total_steps = total_steps
        self._stream = stream if stream is not None else sys.stderr
        self._live: Any = None
        self._task: Any = None
        if self._stream.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
            from rich.progress import Progress as Live

            columns = (
                TextColumn("{task.description}"),
                BarColumn(bar_width=20),
                TimeElapsedColumn(),
                TextColumn("of"),
                TimeRemainingColumn(),
            )
            self._live = Live(*columns, console=Console(file=self._stream), transient=False)
            self._task = self._live.add_task(f"step {done:,}/{total_steps:,}", total=total_steps, completed=done)
            self._live.start()

    def advance(self, step: int, metrics: Metrics, log: bool) -> None:
        """Step `step` (from 1) has ended; `log` says whether it is one of every `log_every`: only these print without a terminal."""
        if self._live is not None:
            self._live.update(self._task, completed=step, **({"description": describe(step, self.total_steps, metrics)} if log else {}))
        elif log:
            self.note(describe(step, self.total_steps, metrics))

    def note(self, text: str) -> None:
        """A line that stays on the screen."""
        if self._live is not None:
            self._live.console.print(text, markup=False, highlight=False)
        else:
            print(text, file=self._stream, flush=True)

    def close(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()
