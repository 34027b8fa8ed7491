"""Meshwright trains, post-trains and decodes large language models: a C++20 core scripted in Python."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from meshwright._core import InternalError, UserError
from meshwright.losses import Losses
from meshwright.optimizers import SGD, AdamW
from meshwright.run_log import Metrics, plot_run
from meshwright.schedules import Constant, Linear, WarmupCosine, WarmupStableDecay

if TYPE_CHECKING:
    from meshwright import ops
    from meshwright.arrays import NamedArray
    from meshwright.baselines import Bigram, Trigram, Unigram
    from meshwright.data import PrepareReport, TokenDataset, Tokenizer, prepare
    from meshwright.diagnostics import bench, doctor
    from meshwright.generator import Generation, Generator
    from meshwright.mesh import Mesh, rules
    from meshwright.model import Model
    from meshwright.plan_report import PlanReport
    from meshwright.plan_search import MeshSweep
    from meshwright.planning import count_parameters, model_costs, plan, sweep
    from meshwright.program import Program
    from meshwright.tracing import Dim, Spec, Tensor, immediate, scope, tensor, trace
    from meshwright.trainer import Trainer

__version__ = "0.1.0"
__all__ = [
    "SGD",
    "AdamW",
    "Bigram",
    "Constant",
    "Dim",
    "Generation",
    "Generator",
    "InternalError",
    "Linear",
    "Losses",
    "Mesh",
    "MeshSweep",
    "Metrics",
    "Model",
    "NamedArray",
    "PlanReport",
    "PrepareReport",
    "Program",
    "Spec",
    "Tensor",
    "TokenDataset",
    "Tokenizer",
    "Trainer",
    "Trigram",
    "Unigram",
    "UserError",
    "WarmupCosine",
    "WarmupStableDecay",
    "bench",
    "count_parameters",
    "doctor",
    "immediate",
    "model_costs",
    "ops",
    "plan",
    "plot_run",
    "prepare",
    "rules",
    "scope",
    "sweep",
    "tensor",
    "trace",
]

# Names whose modules import NumPy or more: loaded when first asked for. The imports above tell type checkers the same.
_LAZY = {
    "Bigram": "meshwright.baselines",
    "Dim": "meshwright.tracing",
    "Generation": "meshwright.generator",
    "Generator": "meshwright.generator",
    "Mesh": "meshwright.mesh",
    "MeshSweep": "meshwright.plan_search",
    "Model": "meshwright.model",
    "NamedArray": "meshwright.arrays",
    "PlanReport": "meshwright.plan_report",
    "PrepareReport": "meshwright.data",
    "Program": "meshwright.program",
    "Spec": "meshwright.tracing",
    "Tensor": "meshwright.tracing",
    "TokenDataset": "meshwright.data",
    "Tokenizer": "meshwright.data",
    "Trainer": "meshwright.trainer",
    "Trigram": "meshwright.baselines",
    "Unigram": "meshwright.baselines",
    "bench": "meshwright.diagnostics",
    "count_parameters": "meshwright.planning",
    "doctor": "meshwright.diagnostics",
    "immediate": "meshwright.tracing",
    "model_costs": "meshwright.planning",
    "plan": "meshwright.planning",
    "prepare": "meshwright.data",
    "rules": "meshwright.mesh",
    "scope": "meshwright.tracing",
    "sweep": "meshwright.planning",
    "tensor": "meshwright.tracing",
    "trace": "meshwright.tracing",
}


if not TYPE_CHECKING:  # a type checker that saw it would take any name for granted

    def __getattr__(name: str) -> Any:
        if name == "ops":
            return import_module("meshwright.ops")
        if name in _LAZY:
            return getattr(import_module(_LAZY[name]), name)
        raise AttributeError(f"module 'meshwright' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY, "ops"})
