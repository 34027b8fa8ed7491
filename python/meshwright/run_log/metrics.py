"""The numbers of one training step or one evaluation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
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
    """Planned peak memory of one rank; with stages, of the fullest."""
    bubble: float | None = None
    """With stages, the share of a step's time before the update in which ranks waited for other stages, mean of all ranks, 0 to 1."""
    terms: Mapping[str, float] = field(default_factory=dict)
    """The terms of a loss that has several, without their weights: token_loss, mtp_loss, balance_loss, sequence_balance_loss,
    router_z_loss."""
    expert_load: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    """How many choices fell on each expert of a layer, "layers.3" -> counts, where `Losses(expert_load=True)` asks for it."""

    def __getitem__(self, name: str) -> float | int | None:
        if name in self.terms:
            return self.terms[name]
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
        """The measured numbers by name: the terms beside the others, and of each layer's expert load the largest over the mean."""
        numbers = {name: value for name in Metrics.names() if (value := getattr(self, name)) is not None}
        imbalance = {f"expert_imbalance.{layer}": max(load) * len(load) / max(sum(load), 1e-30) for layer, load in self.expert_load.items()}
        return {**numbers, **self.terms, **imbalance}

    @staticmethod
    def names() -> tuple[str, ...]:
        return tuple(f.name for f in fields(Metrics) if f.name not in ("terms", "expert_load"))
