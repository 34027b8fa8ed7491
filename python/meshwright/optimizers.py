"""Optimizers: what the Trainer is told about them. The update rules themselves are traced ops in `cpp/optim`.

Weight decay applies to Hugging Face tensors with two or more dims except embeddings (a tied embedding is one).
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from meshwright._core import UserError


def _check(owner: str, name: str, value: float, low: float, below: float = math.inf) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value < below:
        top = "" if below == math.inf else f" and below {below:g}"
        raise UserError(f"{owner}: {name} must be a number of at least {low:g}{top}, found {value!r}")


@dataclass(frozen=True)
class AdamW:
    """Adam with decoupled weight decay (arXiv:1711.05101), as `torch.optim.AdamW` computes it.

    m <- b1 m + (1-b1) g;  v <- b2 v + (1-b2) g^2;  w <- w (1 - lr decay) - lr (m / (1-b1^t)) / (sqrt(v / (1-b2^t)) + eps),  t from 1
    """

    lr: float = 3e-4
    betas: tuple[float, float] = (0.9, 0.95)
    eps: float = 1e-8
    weight_decay: float = 0.1
    decay_embeddings: bool = False
    kind: ClassVar[str] = "adamw"

    def __post_init__(self) -> None:
        _check("AdamW", "lr", self.lr, 0)
        if not isinstance(self.betas, (tuple, list)) or len(self.betas) != 2:
            raise UserError(f"AdamW: betas must be two numbers, for example (0.9, 0.95), found {self.betas!r}")
        object.__setattr__(self, "betas", tuple(self.betas))
        for beta in self.betas:
            _check("AdamW", "betas", beta, 0, 1)
        _check("AdamW", "eps", self.eps, 0)
        _check("AdamW", "weight_decay", self.weight_decay, 0)

    def to_dict(self) -> dict[str, Any]:
        return {"kind": self.kind, **asdict(self), "betas": list(self.betas)}


@dataclass(frozen=True)
class SGD:
    """Stochastic gradient descent, as `torch.optim.SGD` computes it; the decay is part of the gradient.

    g <- g + decay w;  b <- momentum b + g;  w <- w - lr b,  with b = 0 before the first step
    """

    lr: float
    momentum: float = 0.0
    weight_decay: float = 0.0
    decay_embeddings: bool = False
    kind: ClassVar[str] = "sgd"

    def __post_init__(self) -> None:
        _check("SGD", "lr", self.lr, 0)
        _check("SGD", "momentum", self.momentum, 0, 1)
        _check("SGD", "weight_decay", self.weight_decay, 0)

    def to_dict(self) -> dict[str, Any]:
        return {"kind": self.kind, **asdict(self)}


def optimizer_from_dict(fields: dict[str, Any]) -> AdamW | SGD:
    """The optimizer that `to_dict` described; a kind or field that does not exist is a UserError."""
    rest = dict(fields)
    kinds: dict[str, type[AdamW | SGD]] = {AdamW.kind: AdamW, SGD.kind: SGD}
    kind = rest.pop("kind", None)
    if kind not in kinds:
        raise UserError(f"optimizer kind must be one of {', '.join(kinds)}, found {kind!r}")
    try:
        return kinds[kind](**rest)
    except TypeError as error:
        raise UserError(f"optimizer {kind}: {error}") from None


def core_fields(optimizer: AdamW | SGD, clip: float | None) -> dict[str, Any]:
    """The rule as the core takes it; `clip`: largest global norm of the gradient."""
    fields: dict[str, Any] = {"kind": optimizer.kind, "weight_decay": optimizer.weight_decay, "clip": clip or 0.0}
    if isinstance(optimizer, AdamW):
        fields |= {"beta1": optimizer.betas[0], "beta2": optimizer.betas[1], "eps": optimizer.eps}
    else:
        fields |= {"momentum": optimizer.momentum}
    return fields


def one_count(microbatches: int | None, gradient_accumulation: int | None) -> int:
    """Parts into which a batch is cut, from its two names."""
    if microbatches is not None and gradient_accumulation is not None and microbatches != gradient_accumulation:
        raise UserError(
            f"microbatches={microbatches} and gradient_accumulation={gradient_accumulation} are two names of one count; give one of them"
        )
    count = microbatches if microbatches is not None else gradient_accumulation
    if count is not None and (isinstance(count, bool) or not isinstance(count, int) or count < 1):
        raise UserError(f"microbatches: expected a whole number of at least 1, found {count!r}")
    return 1 if count is None else count
