"""Learning-rate schedules: small dataclasses whose `lr_at(step, total_steps)` is a multiplier of the optimizer's `lr`.

Steps count from 0. Every schedule but `Constant` is 0 from `total_steps` on. A length (`warmup`, `decay`) is a number of steps, or,
as a float of at most 1, a share of the run: `int(total_steps * share)` steps.

    warm-up:   multiplier(t) = t / warmup                                  t = 0 .. warmup-1, so step 0 has lr 0
    cosine:    multiplier(t) = a + final * (1 - a),  a = (cos(pi * x) + 1) / 2
    linear:    multiplier(t) = a + final * (1 - a),  a = 1 - x
    both with  x = t / (n - 1),  t = 0 .. n-1 inside a phase of n steps (x = 0 when n = 1), so the last step has exactly `final`

These are the shapes that MaxText uses (`lr_schedule_type=cosine|wsd`).
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Protocol

from meshwright._core import UserError


class Schedule(Protocol):
    """What the Trainer asks of a schedule; a class of your own with these two methods will do."""

    def lr_at(self, step: int, total_steps: int) -> float:
        """The multiplier of the learning rate at `step` (from 0) of a run of `total_steps`."""
        ...

    def to_dict(self) -> dict[str, Any]:
        """A JSON object from which `schedule_from_dict` makes the same schedule."""
        ...


def _steps(length: int | float, total_steps: int) -> int:
    return int(total_steps * length) if isinstance(length, float) else length


def _check_length(owner: str, name: str, length: int | float) -> None:
    if isinstance(length, bool) or not isinstance(length, (int, float)) or not length >= 0 or (isinstance(length, float) and length > 1):
        raise UserError(
            f"{owner}: {name} must be a number of steps (an int >= 0) or a share of the run (a float from 0 to 1), found {length!r}"
        )


def _check_share(owner: str, name: str, value: float) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1:
        raise UserError(f"{owner}: {name} must be a number from 0 to 1, found {value!r}")


def _decay(step: int, length: int, final: float, style: str) -> float:
    x = step / (length - 1) if length > 1 else 0.0
    a = (math.cos(math.pi * x) + 1) / 2 if style == "cosine" else 1 - x
    return a + final * (1 - a)


@dataclass(frozen=True)
class Constant:
    """The same learning rate at every step."""

    kind: ClassVar[str] = "constant"

    def lr_at(self, step: int, total_steps: int) -> float:
        return 1.0

    def to_dict(self) -> dict[str, Any]:
        return {"kind": self.kind}


@dataclass(frozen=True)
class WarmupCosine:
    """Warm-up, then half a cosine from 1 to `final` over the rest of the run."""

    warmup: int | float = 0.1
    final: float = 0.1
    kind: ClassVar[str] = "cosine"

    def __post_init__(self) -> None:
        _check_length("WarmupCosine", "warmup", self.warmup)
        _check_share("WarmupCosine", "final", self.final)

    def lr_at(self, step: int, total_steps: int) -> float:
        warmup = _steps(self.warmup, total_steps)
        if step >= total_steps:
            return 0.0
        if step < warmup:
            return step / warmup
        return _decay(step - warmup, total_steps - warmup, self.final, "cosine")

    def to_dict(self) -> dict[str, Any]:
        return {"kind": self.kind, **asdict(self)}


@dataclass(frozen=True)
class WarmupStableDecay:
    """Warm-up, a constant phase, then a decay to `final` over the last `decay` steps (WSD, arXiv:2404.06395)."""

    warmup: int | float = 0.1
    decay: int | float = 0.1
    final: float = 0.1
    style: str = "linear"
    kind: ClassVar[str] = "wsd"

    def __post_init__(self) -> None:
        _check_length("WarmupStableDecay", "warmup", self.warmup)
        _check_length("WarmupStableDecay", "decay", self.decay)
        _check_share("WarmupStableDecay", "final", self.final)
        if self.style not in ("linear", "cosine"):
            raise UserError(f"WarmupStableDecay: style must be 'linear' or 'cosine', found {self.style!r}")
        if isinstance(self.warmup, float) and isinstance(self.decay, float) and self.warmup + self.decay > 1:
            raise UserError(
                f"WarmupStableDecay: warmup and decay together are {self.warmup + self.decay:g} of the run, more than all of it"
            )

    def lr_at(self, step: int, total_steps: int) -> float:
        warmup, decay = _steps(self.warmup, total_steps), _steps(self.decay, total_steps)
        if step >= total_steps:
            return 0.0
        if step < warmup:
            return step / warmup
        decay = min(decay, total_steps - warmup)
        if step < total_steps - decay:
            return 1.0
        return _decay(step - (total_steps - decay), decay, self.final, self.style)

    def to_dict(self) -> dict[str, Any]:
        return {"kind": self.kind, **asdict(self)}


@dataclass(frozen=True)
class Linear:
    """Warm-up, then a straight line from 1 to `final` over the rest of the run."""

    warmup: int | float = 0
    final: float = 0.0
    kind: ClassVar[str] = "linear"

    def __post_init__(self) -> None:
        _check_length("Linear", "warmup", self.warmup)
        _check_share("Linear", "final", self.final)

    def lr_at(self, step: int, total_steps: int) -> float:
        warmup = _steps(self.warmup, total_steps)
        if step >= total_steps:
            return 0.0
        if step < warmup:
            return step / warmup
        return _decay(step - warmup, total_steps - warmup, self.final, "linear")

    def to_dict(self) -> dict[str, Any]:
        return {"kind": self.kind, **asdict(self)}


_KINDS: dict[str, type[Constant | WarmupCosine | WarmupStableDecay | Linear]] = {
    schedule.kind: schedule for schedule in (Constant, WarmupCosine, WarmupStableDecay, Linear)
}


def schedule_from_dict(fields: dict[str, Any]) -> Constant | WarmupCosine | WarmupStableDecay | Linear:
    """The schedule that `to_dict` described; a kind or field that does not exist is a UserError."""
    rest = dict(fields)
    kind = rest.pop("kind", None)
    if kind not in _KINDS:
        raise UserError(f"schedule kind must be one of {', '.join(_KINDS)}, found {kind!r}")
    try:
        return _KINDS[kind](**rest)
    except TypeError as error:
        raise UserError(f"schedule {kind}: {error}") from None
