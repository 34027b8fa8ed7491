"""What is compared: models, batches and dtypes, chosen by arguments; the weights that all start from; the FLOPs of a step."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MOE: dict[str, Any] = {
    "embedding_dim": 512,
    "mlp_dim": 512,
    "moe_mlp_dim": 512,
    "num_layers": 8,
    "num_query_heads": 8,
    "num_kv_heads": 4,
    "head_dim": 64,
    "moe": {"num_experts": 8, "experts_per_token": 2},
}
"""What the model `moe` changes of Mixtral 8x7B; 89 M parameters, 52 M of them at work in a token."""
MODELS = ("small", "base", "moe")


@dataclass(frozen=True)
class Case:
    model: str
    batch: int
    seq: int
    dtype: str

    def __str__(self) -> str:
        return f"{self.model} {self.batch}x{self.seq} {self.dtype}"


def settings_of(arguments: list[str], defaults: Mapping[str, str]) -> dict[str, str]:
    """key=value arguments over the defaults; SystemExit names the keys that there are."""
    settings = dict(defaults)
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if key not in settings or not equals:
            raise SystemExit(f"{argument}: expected key=value with one of the keys {', '.join(defaults)}")
        settings[key] = value
    return settings


def cases_of(settings: Mapping[str, str]) -> list[Case]:
    """Every model with every batch and dtype of `model=small,base batch=8x256,2x1024 dtype=float32,bfloat16`; `moe` with 8x256 alone."""
    found = []
    for model, shape, dtype in itertools.product(*(settings[key].split(",") for key in ("model", "batch", "dtype"))):
        batch, _, seq = shape.partition("x")
        if model not in MODELS or not batch.isdigit() or not seq.isdigit() or dtype not in ("float32", "bfloat16"):
            raise SystemExit(f"model={model} batch={shape} dtype={dtype}: expected {'|'.join(MODELS)}, such as 8x256, float32|bfloat16")
        if model != "moe" or shape == "8x256":
            found.append(Case(model, int(batch), int(seq), dtype))
    return found


def save_weights(model: str, folder: Path) -> None:
    """The weights that all contestants load, as a Hugging Face folder."""
    import meshwright as mw

    net = mw.Model("mixtral-8x7b", seed=0, **MOE) if model == "moe" else mw.Model(model, seed=0)
    net.save_pretrained(folder)


def step_flops(folder: Path, case: Case) -> float:
    """FLOPs of the matrix products of one step, docs/flops.md: three times forward, causal attention as half of the square."""
    import meshwright as mw
    from meshwright import _core

    costs = _core.model_costs(mw.Model.from_pretrained(folder)._config_text, float(case.seq))
    return float(costs["training_flops_per_token"]) * case.batch * case.seq
