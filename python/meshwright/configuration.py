"""Configurations of models: finding, overriding and reading them. No weights, no NumPy."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

from meshwright import _core
from meshwright._core import UserError
from meshwright.packaged import configs_folder


class ModelConfig(SimpleNamespace):
    """Fields of a model as configs/models/*.json names them; nested objects (rope) are namespaces too."""

    @staticmethod
    def from_text(text: str) -> ModelConfig:
        fields: ModelConfig = json.loads(text, object_hook=lambda fields: ModelConfig(**fields))
        return fields

    def to_dict(self) -> dict[str, Any]:
        return {name: value.to_dict() if isinstance(value, ModelConfig) else value for name, value in vars(self).items()}


def config_text(config: str | Mapping[str, Any] | os.PathLike[str], overrides: Mapping[str, Any]) -> tuple[str, str]:
    """Name and full configuration, as JSON, of what `Model` takes; a field that is unknown or does not fit is a UserError."""
    if isinstance(config, Mapping):
        fields = dict(config)
        name = str(fields.get("name", "model"))
        text = _core.parse_model_config(json.dumps(fields), "the given configuration")
    elif isinstance(config, (str, os.PathLike)):
        name, text = _core.find_model_config(os.fspath(config), str(configs_folder() / "models"))
    else:
        raise UserError(f"a model is a name, a path or a dict of fields, found {type(config).__name__}")
    if overrides:
        text = _core.override_model_config(text, json.dumps(overrides))
    return name, text
