"""Model folders and the checkpoints of runs."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Any

from meshwright import _core
from meshwright._core import UserError

if TYPE_CHECKING:
    from meshwright.model import Model


def small_files(model: Model, dtype: str) -> list[tuple[str, bytes]]:
    """config.json, generation_config.json and the tokenizer's files."""
    files = [("config.json", _core.huggingface_config_text(model._config_text, dtype).encode())]
    eos = model.eos_token_ids
    generation = {
        "eos_token_id": eos[0] if len(eos) == 1 else eos,
        "bos_token_id": model.config.bos_token_id,
        "pad_token_id": model.config.pad_token_id,
    }
    files.append(
        ("generation_config.json", json.dumps({k: v for k, v in generation.items() if v not in (None, [])}, indent=2).encode() + b"\n")
    )
    if model.tokenizer is not None:
        files += list(model.tokenizer.files.items())
    return files


def save_model(model: Model, path: Path, dtype: str | None, keep_quantized: bool = False) -> None:
    """Writes a Hugging Face folder; see `Model.save_pretrained`."""
    if dtype is None:
        dtype = "float32" if model._session.has_masters else model.dtype
    check_place(path)
    files = small_files(model, dtype)
    if keep_quantized:
        files = [(name, _with_quantization(model, text) if name == "config.json" else text) for name, text in files]
    _core.save_model(model._session, str(path), dtype, files, keep_quantized)


def _with_quantization(model: Model, config: bytes) -> bytes:
    """The configuration with what the model's own folder says of its quantisation."""
    folder = model._folder
    published = json.loads((folder / "config.json").read_text()) if folder is not None else {}
    if "quantization_config" not in published:
        return config
    return json.dumps({**json.loads(config), "quantization_config": published["quantization_config"]}, indent=2).encode() + b"\n"


def settings_of(folder: Path) -> dict[str, Any]:
    """The settings of the training run that a checkpoint belongs to; UserError where the folder holds none."""
    if (folder / "config.json").is_file() and not (folder / "trainer").is_dir():
        raise UserError(f"{os.fspath(folder)!r} is a model without a training run (it has no folder 'trainer'); use Model.from_pretrained")
    settings = json.loads(_core.read_trainer_state(str(folder))["run"]).get("settings")
    wanted = ("model", "optimizer", "schedule", "clip", "microbatches", "dtype", "seed")
    if not isinstance(settings, dict) or any(key not in settings for key in wanted):
        raise UserError(f"{os.fspath(folder / 'trainer' / 'trainer.json')!r}: expected the settings {', '.join(wanted)} under run.settings")
    return settings


def check_place(folder: Path) -> None:
    """UserError where no folder can be made because `folder` is a file or lies below one."""
    for path in (folder, *folder.parents):
        try:
            mode = path.stat().st_mode  # asked once: another rank may be making it
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            raise UserError(f"{os.fspath(folder)!r}: {error.strerror}") from None
        if not stat.S_ISDIR(mode):
            raise UserError(f"expected a folder, found {os.fspath(folder)!r}: {os.fspath(path)!r} is a file")
        return
