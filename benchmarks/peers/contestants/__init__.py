"""Who takes part. A module here has `step_of(spec)`, which gives a function that makes one step and returns its loss.

Modules of peers run in the peers' environment, without Meshwright.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Contestant:
    title: str
    module: str
    options: dict[str, Any]
    ours: bool = False
    """Whether it runs in the environment of Meshwright."""


OURS = "ours"
PEAK_NAME = "peak"
PEAK = {PEAK_NAME: Contestant("FMA peak", "fma_peak", {}, ours=True)}
KERNELS = {"kernels": Contestant("kernels", "kernel_rates", {}, ours=True)}
DENSE = {
    OURS: Contestant("Meshwright", "meshwright_step", {}, ours=True),
    "eager": Contestant("PyTorch eager", "pytorch", {"compile": False}),
    "compile": Contestant("torch.compile", "pytorch", {"compile": True}),
    "jax": Contestant("JAX jit", "jax_jit", {}),
}
EXPERTS = {
    OURS: DENSE[OURS],
    "eager": Contestant("Mixtral eager", "pytorch", {"compile": False, "experts": "eager"}),
    "grouped": Contestant("Mixtral grouped_mm", "pytorch", {"compile": False, "experts": "grouped_mm"}),
    "jax": Contestant("JAX ragged_dot", "jax_jit", {}),
}
"""Of a mixture of experts; the two of PyTorch differ in transformers' `experts_implementation`."""
