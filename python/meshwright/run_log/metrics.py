"""The numbers of one training step or one evaluation."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from difflib import get_close_matches


@dataclass(frozen=True)
class Metrics:
    """Numbers of one step; `metrics.loss` and `metrics["loss"]` are the same. None: not measured (an evaluation has no grad_norm)."""

    loss: float
    """Mean cross-entropy over the weighted tokens, in nats."""
    perplexity: float
    """exp(loss)."""
    grad_norm: float | None = None
    """Global L2 norm of the gradient before clipping."""
    lr: float | None = None
    """Learning rate that this step used."""
    tokens: int = 0
    """Tokens trained on since step 0 of the run, this step included (a resumed run continues the count)."""
    tokens_per_second: float | None = None
    tflops: float | None = None
    """Model FLOPs of the step (docs/flops.md) per second of `step_seconds`, in 1e12."""
    mfu: float | None = None
    """`tflops` as a share of the machine's measured peak, 0 to 1."""
    step_seconds: float | None = None
    peak_bytes: int | None = None
    """Planned peak memory of one rank."""

    def __getitem__(self, name: str) -> float | int | None:
        if name not in Metrics.names():
            near = get_close_matches(name, Metrics.names(), 1)
            raise KeyError(f"no metric is called {name!r}" + (f"; did you mean {near[0]!r}?" if near else ""))
        value: float | int | None = getattr(self, name)
        return value

    def __iter__(self) -> Iterator[str]:
        return iter(Metrics.names())

    def keys(self) -> tuple[str, ...]:
        return Metrics.names()

    def to_dict(self) -> dict[str, float | int]:
        """The measured numbers by name."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    @staticmethod
    def names() -> tuple[str, ...]:
        return tuple(field.name for field in fields(Metrics))
