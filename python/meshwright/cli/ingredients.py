"""What several commands make from a Config: model, optimizer, schedule, mesh."""

from __future__ import annotations

import os
import sys
from typing import Any

from meshwright._core import UserError, newest_checkpoint
from meshwright.cli.parser import Config
from meshwright.losses import Losses
from meshwright.optimizers import SGD, AdamW
from meshwright.ranks import speaks
from meshwright.schedules import Constant, Linear, WarmupCosine, WarmupStableDecay


def say(text: str) -> None:
    """A remark beside the command's output."""
    if speaks():
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


def make_mesh(config: Config) -> dict[str, int] | str:
    """Axis -> size, or "auto", as `mw.Trainer` and `mw.plan` take it."""
    chosen = config.values.get("mesh")
    if chosen is None:
        return config.group("mesh")
    if given := sorted(name for name in config.given if name.startswith("mesh.")):
        raise UserError(f"mesh={chosen} chooses every axis, but {given[0]}={config[given[0]]} is given; expected one of them")
    return str(chosen)


def make_losses(config: Config) -> Losses:
    return Losses(**config.group("losses"))


def is_folder(model: Any) -> bool:
    return isinstance(model, str) and os.path.isdir(model)


def checkpoint_of(path: Any) -> str:
    """The checkpoint that `path` means: itself, or the newest whole one in a run's folder; says which ones it passed over and why."""
    if not isinstance(path, str) or not os.path.exists(path):
        raise UserError(f"expected a checkpoint folder, a run folder or a .safetensors file, found {path!r}, which does not exist")
    if os.path.isfile(path) or os.path.exists(os.path.join(path, "config.json")):
        return path
    found = newest_checkpoint(path)
    for reason in found["skipped"]:
        say(f"warning: not a whole checkpoint: {reason}")
    return path if found["path"] is None else str(found["path"])


def open_model(config: Config) -> Any:
    """The model of a checkpoint folder, of the newest checkpoint in a run's folder, or of a .gguf file."""
    import meshwright as mw

    return mw.Model.from_pretrained(checkpoint_of(config["model"]), dtype=config["dtype"])
