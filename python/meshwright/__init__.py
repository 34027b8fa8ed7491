"""Meshwright trains, post-trains and decodes large language models: a C++20 core scripted in Python."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from meshwright._core import InternalError, UserError
from meshwright.optimizers import SGD, AdamW
from meshwright.run_log import Metrics, plot_run
from meshwright.schedules import Constant, Linear, WarmupCosine, WarmupStableDecay

if TYPE_CHECKING:
    from meshwright.baselines import Bigram, Unigram
    from meshwright.data import PrepareReport, TokenDataset, Tokenizer, prepare
    from meshwright.generator import Generation, Generator
    from meshwright.mesh import Mesh
    from meshwright.model import Model
    from meshwright.trainer import Trainer

__version__ = "0.1.0"
__all__ = [
    "SGD",
    "AdamW",
    "Bigram",
    "Constant",
    "Generation",
    "Generator",
    "InternalError",
    "Linear",
    "Mesh",
    "Metrics",
    "Model",
    "PrepareReport",
    "TokenDataset",
    "Tokenizer",
    "Trainer",
    "Unigram",
    "UserError",
    "WarmupCosine",
    "WarmupStableDecay",
    "plot_run",
    "prepare",
]

# Names whose modules import NumPy or more: loaded when first asked for. The imports above tell type checkers the same.
_LAZY = {
    "Bigram": "meshwright.baselines",
    "Generation": "meshwright.generator",
    "Generator": "meshwright.generator",
    "Mesh": "meshwright.mesh",
    "Model": "meshwright.model",
    "PrepareReport": "meshwright.data",
    "TokenDataset": "meshwright.data",
    "Tokenizer": "meshwright.data",
    "Trainer": "meshwright.trainer",
    "Unigram": "meshwright.baselines",
    "prepare": "meshwright.data",
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'meshwright' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_LAZY])
