"""Model: weights of one model, its configuration and tokenizer; forward pass, loss and gradients."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from meshwright import _core
from meshwright._core import UserError
from meshwright.arrays import NamedArray, bfloat16_values, to_numpy
from meshwright.batch import ModelFields, adapt, forward_fields
from meshwright.configuration import ModelConfig, config_text
from meshwright.data.gguf_tokenizer import tokenizer_from_gguf
from meshwright.data.tokenizer import Tokenizer, has_tokenizer
from meshwright.data.tokenizer_files import generation_eos
from meshwright.losses import Losses
from meshwright.packaged import configs_folder


@dataclass(frozen=True)
class ForwardResult:
    """Logits and what was captured, by scope."""

    logits: NDArray[np.float32]
    """float32 [batch, seq, vocab]"""
    captured: dict[str, NamedArray]


class Weight:
    """One Hugging Face tensor: a view of this process's shard of it, and the whole by `gather()`."""

    def __init__(self, session: _core.Session, name: str, shape: tuple[int, ...]) -> None:
        self._session, self.name, self.shape = session, name, shape

    @property
    def dtype(self) -> str:
        return _core_dtype_name(self._session.dtype)

    def local(self, rank: int | None = None) -> tuple[NDArray[Any], list[int]]:
        """The shard of a rank of this process (None: its first one), zero-copy under our dims (bfloat16 as uint16 bits), and its first
        index along each dim."""
        array, start, _ = self._session.local_shard(self.name, rank)
        return array, start

    def gather(self, dtype: str = "float32") -> NDArray[Any]:
        """The whole tensor in its Hugging Face shape, copied. Where ranks are processes, all of them call it together."""
        whole: NDArray[Any] = self._session.read_tensor(self.name, dtype, False)
        return whole

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        whole = self.gather()
        return whole if dtype is None else whole.astype(dtype)

    def __repr__(self) -> str:
        return f"Weight({self.name!r}, shape={self.shape}, dtype={self.dtype})"


class Model:
    """A model with random weights, or with those of a Hugging Face folder (`from_pretrained`).

    Args:
        config: a name from configs/models, a Hugging Face repository id, a dict, or the path of a JSON file.
        dtype: storage of the weights until a Trainer takes the model: "float32" or "bfloat16".
        seed: of the initial weights, which are the same on every mesh.
        overrides: any field of the configuration (`num_layers=2`, `rope={"theta": 1e6}`).

    Raises:
        UserError: an unknown name or field (naming the nearest), sizes that do not fit together.
    """

    def __init__(
        self,
        config: str | Mapping[str, Any] | os.PathLike[str],
        *,
        dtype: str = "float32",
        seed: int = 0,
        threads: int = 0,
        **overrides: Any,
    ) -> None:
        name, text = config_text(config, overrides)
        self._attach(name, text, dtype, threads)
        self._session.initialize(seed)

    @classmethod
    def from_pretrained(cls, path: str | os.PathLike[str], dtype: str | None = None, threads: int = 0) -> Model:
        """A Hugging Face folder (config.json + safetensors, also with FP8 or MXFP4 weights, which are decoded) or a .gguf file.

        dtype: "float32" or "bfloat16"; None: the files' own where it can be computed in, else float32.

        Raises:
            UserError: files missing, truncated or hostile; tensors missing, unknown or of another shape, all listed.
        """
        place = Path(path)
        if place.is_file() and place.suffix == ".gguf":
            return cls._from_gguf(place, dtype, threads)
        if not place.is_dir():
            raise UserError(
                f"expected a folder with config.json and safetensors files or a .gguf file, found {os.fspath(path)!r}, "
                f"which {'is another file' if place.exists() else 'does not exist'}"
            )
        folder = place
        if not (folder / "config.json").is_file():
            newest = _core.newest_checkpoint(str(folder))
            if newest["path"] is None:
                raise UserError(f"{os.fspath(path)!r} holds neither a config.json nor a checkpoint of a run")
            folder = Path(newest["path"])
        _, text = _core.find_model_config(str(folder), str(configs_folder() / "models"))
        text = _core.config_for_weights(text, str(folder))
        model = cls.__new__(cls)
        model._attach(_folder_name(folder), text, dtype or _computable(_core.stored_dtype(str(folder))), threads)
        model._session.load(str(folder))
        model.tokenizer = Tokenizer.from_path(folder) if has_tokenizer(folder) else None
        model._generation_eos = generation_eos(folder)
        model._folder = folder
        return model

    @classmethod
    def _from_gguf(cls, file: Path, dtype: str | None, threads: int) -> Model:
        config = _core.gguf_config(str(file))
        text = _core.parse_model_config(config, str(file))
        model = cls.__new__(cls)
        model._attach(file.stem, text, dtype or _computable(json.loads(config).get("torch_dtype", "bfloat16")), threads)
        model._session.load(str(file))
        metadata = _core.gguf_metadata(str(file))
        model.tokenizer = tokenizer_from_gguf(metadata, str(file)) if "tokenizer.ggml.model" in metadata else None
        return model

    def _attach(self, name: str, text: str, dtype: str, threads: int) -> None:
        self.name = name
        self._config_text = text
        self._threads = threads
        self._folder: Path | None = None
        self._claim: object = None  # of the Trainer that took the model last
        self._generation_eos: list[int] = []
        self.tokenizer: Tokenizer | None = None
        self._session = _core.Session(text, dtype, {}, None, threads)
        self._shapes = {p["name"]: tuple(p["shape"]) for p in self._session.tensors()}

    @property
    def config(self) -> ModelConfig:
        """The configuration, every field of it."""
        return ModelConfig.from_text(self._config_text)

    @property
    def eos_token_ids(self) -> list[int]:
        """Tokens that end a text: those of the folder's generation_config.json, else the configuration's, else the tokenizer's."""
        own = self._generation_eos or self.config.eos_token_id
        if own is None and self.tokenizer is not None:
            own = self.tokenizer.eos_token_ids
        return [] if own is None else [own] if isinstance(own, int) else list(own)

    @property
    def num_parameters(self) -> int:
        """Elements of all tensors; a tied head counts once."""
        return sum(int(np.prod(shape)) for shape in self._shapes.values())

    @property
    def dtype(self) -> str:
        return _core_dtype_name(self._session.dtype)

    def state_dict(self) -> dict[str, Weight]:
        """Hugging Face tensor name -> Weight; `np.asarray(weight)` is the whole tensor as float32."""
        return {name: Weight(self._session, name, shape) for name, shape in self._shapes.items()}

    def load_state_dict(self, tensors: Mapping[str, Any]) -> None:
        """Overwrites weights; every name must be one of the model's and every one of the model's must be there."""
        missing, unknown = sorted(self._shapes.keys() - tensors.keys()), sorted(tensors.keys() - self._shapes.keys())
        if missing or unknown:
            raise UserError(f"state dict: missing {missing or 'nothing'}, unknown {unknown or 'nothing'}")
        arrays = {name: np.ascontiguousarray(to_numpy(values), dtype=np.float32) for name, values in tensors.items()}
        wrong = [
            f"{name} is {array.shape}; expected {self._shapes[name]}" for name, array in arrays.items() if array.shape != self._shapes[name]
        ]
        if wrong:
            raise UserError(f"state dict: shapes differ: {'; '.join(wrong)}")
        for name, array in arrays.items():
            self._session.write_tensor(name, array)

    def __call__(
        self, input_ids: Any, attention_mask: Any = None, segment_ids: Any = None, position_ids: Any = None
    ) -> NDArray[np.float32]:
        """Logits float32 [batch, seq, vocab] of token ids [batch, seq]."""
        return self.forward(input_ids, attention_mask, segment_ids, position_ids).logits

    def forward(
        self, input_ids: Any, attention_mask: Any = None, segment_ids: Any = None, position_ids: Any = None, capture: Sequence[str] = ()
    ) -> ForwardResult:
        """As calling the model; `capture` names scopes (with `*`) whose values are handed out: `["layers.0.attention.*"]`."""
        fields = forward_fields(input_ids, attention_mask, segment_ids, position_ids, self.config.vocab_size)
        self._check_length(fields["input_ids"].shape[1])
        results = self._session.forward(fields, list(capture))
        values = {
            name: NamedArray(bfloat16_values(array) if dtype == "bf16" else array, dims) for name, (array, dims, dtype) in results.items()
        }
        logits = values.pop("logits")
        return ForwardResult(np.asarray(logits), values)

    def loss_and_gradients(self, batch: Mapping[str, Any], losses: Losses | None = None) -> tuple[float, dict[str, NDArray[np.float32]]]:
        """Mean loss over the weighted tokens of a batch (fields as `Trainer.step`) and its gradient by Hugging Face name. `losses`: terms
        that are added to it, none unless they are given here."""
        terms = (losses or Losses()).for_gradients()
        fields = self._fields(batch, self.config.mtp_layers or 0 if terms["mtp"] else 0)
        loss, gradients = self._session.gradients(fields.arrays, fields.loss_scale, terms)
        return loss, gradients

    def loss(self, batch: Mapping[str, Any]) -> float:
        """Mean loss over the weighted tokens of a batch."""
        fields = self._fields(batch)
        loss: float = self._session.loss(fields.arrays, fields.loss_scale)
        return loss

    def save_pretrained(self, path: str | os.PathLike[str], dtype: str | None = None, keep_quantized: bool = False) -> None:
        """Writes a Hugging Face folder: config.json, safetensors with an index, tokenizer files. `dtype=None`: FP32 masters when there
        are some, else the stored dtype. keep_quantized: weights that were read in FP8 or MXFP4 are written as they were, byte by byte.

        Raises:
            UserError: a place that cannot be written; `keep_quantized` without such weights, or when they have changed since.
        """
        from meshwright.checkpoints import save_model

        save_model(self, Path(path), dtype, keep_quantized)

    def _fields(self, batch: Mapping[str, Any], mtp_depths: int = 0) -> ModelFields:
        fields = adapt(batch, self.config.vocab_size, mtp_depths)
        self._check_length(fields.arrays["input_ids"].shape[1])
        return fields

    def _check_length(self, seq: int) -> None:
        most = self.config.max_position_embeddings
        if seq > most:
            raise UserError(f"a sequence of {seq} tokens is longer than the model allows: max_position_embeddings={most}")

    def __repr__(self) -> str:
        return f"Model({self.name!r}, {self.num_parameters:,} parameters, {self.dtype})"


def _computable(stored: str) -> str:
    return stored if stored in ("float32", "bfloat16") else "float32"


def _folder_name(folder: Path) -> str:
    return folder.parent.name if folder.name.startswith("step-") else folder.name


def _core_dtype_name(dtype: str) -> str:
    return {"f32": "float32", "bf16": "bfloat16"}.get(dtype, dtype)
