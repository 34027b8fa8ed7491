"""Meshwright trains, post-trains and decodes large language models: a C++20 core scripted in Python."""

from meshwright._core import InternalError, UserError
from meshwright.optimizers import SGD, AdamW
from meshwright.run_log import Metrics, plot_run
from meshwright.schedules import Constant, Linear, WarmupCosine, WarmupStableDecay

__version__ = "0.1.0"
__all__ = [
    "SGD",
    "AdamW",
    "Constant",
    "InternalError",
    "Linear",
    "Metrics",
    "UserError",
    "WarmupCosine",
    "WarmupStableDecay",
    "plot_run",
]
