"""What several commands make from a Config: model, optimizer, schedule, mesh."""

from __future__ import annotations

import os
import sys
from typing import Any

from meshwright._core import UserError
from meshwright.cli.parser import Config
from meshwright.optimizers import SGD, AdamW
from meshwright.schedules import Constant, Linear, WarmupCosine, WarmupStableDecay


def say(text: str) -> None:
    """A remark beside the command's output."""
    print(text, file=sys.stderr, flush=True)


def make_optimizer(config: Config) -> AdamW | SGD:
    if config["optimizer"] == "sgd":
        return SGD(config["lr"], config["momentum"], config["weight_decay"], config["decay_embeddings"])
    betas = (config["beta1"], config["beta2"])
    return AdamW(config["lr"], betas, config["eps"], config["weight_decay"], config["decay_embeddings"])


def make_schedule(config: Config) -> Constant | Linear | WarmupCosine | WarmupStableDecay:
    kind, warmup, final = config["schedule"], config["warmup"], config["final"]
    if kind == "cosine":
        return WarmupCosine(warmup, final)
    if kind == "wsd":
        return WarmupStableDecay(warmup, config["decay"], final, config["decay_style"])
    if kind == "linear":
        return Linear(warmup, final)
    return Constant()


def make_mesh(config: Config) -> dict[str, int]:
    """Axis -> size, as `mw.Trainer` and `mw.plan` take it."""
    return config.group("mesh")


def is_folder(model: Any) -> bool:
    return isinstance(model, str) and os.path.isdir(model)


def open_model(config: Config) -> Any:
    """The model of a checkpoint folder or .gguf file."""
    import meshwright as mw

    path = config["model"]
    if not isinstance(path, str) or not os.path.exists(path):
        raise UserError(f"model: expected a checkpoint folder, found {path!r}, which does not exist")
    return mw.Model.from_pretrained(path, dtype=config["dtype"])
