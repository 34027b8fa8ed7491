"""The tokenizer inside a GGUF file, from the keys `tokenizer.*` of its metadata.

Keys: github.com/ggml-org/ggml, docs/gguf.md; what llama.cpp does with them: its src/llama-vocab.cpp.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from meshwright._core import UserError
from meshwright.data.byte_level import CUTTINGS, byte_level_backend
from meshwright.data.sentencepiece_model import BPE, BYTE, CONTROL, UNKNOWN, USER_DEFINED, PieceModel, backend_of_pieces, check_pieces
from meshwright.data.tokenizer import Tokenizer
from meshwright.data.tokenizer_conversion import finished
from meshwright.data.tokenizer_files import CONFIG

# `tokenizer.ggml.pre` -> how a text is cut.
PRE_TOKENIZERS = {
    "default": "default",
    "gpt-2": "gpt2",
    "llama3": "llama3",
    "llama-v3": "llama3",
    "llama-bpe": "llama3",
    "llama4": "llama4",
    "gpt-4o": "o200k",
    "qwen2": "qwen2",
    "deepseek-r1-qwen": "qwen2",
    "deepseek-llm": "deepseek-llm",
    "deepseek-coder": "deepseek-coder",
    "deepseek-v3": "deepseek-v3",
}
_KINDS = {str: "a text", int: "a whole number", bool: "true or false"}


class _Metadata:
    """Typed look-ups; every mistake names its key."""

    def __init__(self, values: Mapping[str, Any], source: str) -> None:
        self.values, self.source = values, source

    def get(self, key: str, kind: type, default: Any = None) -> Any:
        value = self.values.get(key)
        if value is None:
            return default
        if hasattr(value, "item") and not hasattr(value, "__len__"):
            value = value.item()
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise UserError(f"{self.source}, {key}: expected {_KINDS[kind]}, found {value!r}"[:300])
        return value

    def list(self, key: str, kind: type, length: int | None = None) -> list[Any]:
        value = self.values.get(key)
        if value is None or isinstance(value, (str, bytes)) or not hasattr(value, "__len__"):
            raise UserError(f"{self.source}, {key}: expected a list, found {'none' if value is None else type(value).__name__}")
        items = value.tolist() if hasattr(value, "tolist") else list(value)
        if length is not None and len(items) != length:
            raise UserError(f"{self.source}, {key}: expected {length} entries, one for each token, found {len(items)}")
        for at, item in enumerate(items):
            if not isinstance(item, (int, float) if kind is float else kind) or item != item:
                raise UserError(f"{self.source}, {key}, entry {at}: expected a {kind.__name__}, found {item!r}"[:300])
        return items

    def token(self, name: str, tokens: Sequence[str]) -> int | None:
        """The id under `tokenizer.ggml.<name>_token_id`."""
        key = f"tokenizer.ggml.{name}_token_id"
        id: int | None = self.get(key, int)
        if id is not None and not 0 <= id < len(tokens):
            raise UserError(f"{self.source}, {key}: expected an id below {len(tokens)}, found {id}")
        return id


def tokenizer_from_gguf(metadata: Mapping[str, Any], source: str = "GGUF file") -> Tokenizer:
    """The tokenizer of a GGUF file's metadata (keys as in the file), with its chat templates.

    Raises UserError: no tokenizer, a kind or pre-tokenizer that is not known (with the list of those that are), lists that do not fit.
    """
    values = _Metadata(metadata, source)
    model = values.get("tokenizer.ggml.model", str)
    if model not in ("llama", "gpt2"):
        found = "none" if model is None else repr(model)
        raise UserError(f"{source}, tokenizer.ggml.model: expected 'llama' (SentencePiece) or 'gpt2' (byte-level BPE), found {found}")
    tokens = values.list("tokenizer.ggml.tokens", str)
    if not tokens:
        raise UserError(f"{source}, tokenizer.ggml.tokens: expected tokens, found an empty list")
    ids = {name: values.token(name, tokens) for name in ("bos", "eos", "unknown", "padding", "eot", "eom")}
    if model == "llama":
        backend, add_bos = _sentencepiece(values, tokens, ids), True
    else:
        backend, add_bos = _byte_level(values, tokens)
    names = {"bos": "bos_token", "eos": "eos_token", "unknown": "unk_token", "padding": "pad_token"}
    named = {key: tokens[id] for name, key in names.items() if (id := ids[name]) is not None}
    if model == "llama" and ids["unknown"] is None:
        named["unk_token"] = tokens[0]
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        **named,
        "add_bos_token": values.get("tokenizer.ggml.add_bos_token", bool, add_bos),
        "add_eos_token": values.get("tokenizer.ggml.add_eos_token", bool, False),
        "clean_up_tokenization_spaces": False,
        "model_max_length": 10**30,
        **_templates(values),
    }
    files = {CONFIG: (json.dumps(config, indent=2, ensure_ascii=False) + "\n").encode()}
    ends = [id for name in ("eos", "eot", "eom") if (id := ids[name]) is not None]
    return Tokenizer(finished(files, backend, {}, source, add_bos=add_bos), source, eos_token_ids=list(dict.fromkeys(ends)))


def _sentencepiece(values: _Metadata, tokens: list[str], ids: Mapping[str, int | None]) -> Any:
    types = values.list("tokenizer.ggml.token_type", int, len(tokens))
    unknown = ids["unknown"]
    model = PieceModel(
        tokens,
        [float(score) for score in values.list("tokenizer.ggml.scores", float, len(tokens))],
        types,
        model_type=BPE,
        byte_fallback=BYTE in types,
        dummy_prefix=values.get("tokenizer.ggml.add_space_prefix", bool, True),
        remove_extra_spaces=values.get("tokenizer.ggml.remove_extra_whitespaces", bool, False),
        unk_id=0 if unknown is None else unknown,
        source=f"{values.source}, tokenizer.ggml.tokens",
    )
    check_pieces(model)
    return backend_of_pieces(model, prefix_every_chunk=False)


def _byte_level(values: _Metadata, tokens: list[str]) -> tuple[Any, bool]:
    pre = values.get("tokenizer.ggml.pre", str, "default")
    if pre not in PRE_TOKENIZERS:
        near = difflib.get_close_matches(pre, PRE_TOKENIZERS, 1, 0)[0]
        raise UserError(
            f"{values.source}, tokenizer.ggml.pre: expected one of {', '.join(PRE_TOKENIZERS)}, found {pre!r} (did you mean {near!r}?)"
        )
    vocab: dict[str, int] = {}
    for id, token in enumerate(tokens):
        if (first := vocab.setdefault(token, id)) != id:
            raise UserError(f"{values.source}, tokenizer.ggml.tokens: expected every token once, found {token!r} at {first} and {id}")
    merges = []
    for at, line in enumerate(values.list("tokenizer.ggml.merges", str)):
        left, space, right = line.partition(" ")
        if not space or left not in vocab or right not in vocab or left + right not in vocab:
            raise UserError(f"{values.source}, tokenizer.ggml.merges, entry {at}: expected two tokens that make a third, found {line!r}")
        merges.append((left, right))
    types = values.list("tokenizer.ggml.token_type", int, len(tokens))
    special = [token for token, kind in zip(tokens, types, strict=True) if kind in (UNKNOWN, CONTROL)]
    plain = [token for token, kind in zip(tokens, types, strict=True) if kind == USER_DEFINED]
    cutting = CUTTINGS[PRE_TOKENIZERS[pre]]
    return byte_level_backend(vocab, merges, cutting, special, plain, values.source), cutting.add_bos


def _templates(values: _Metadata) -> dict[str, Any]:
    """The configuration's entry for the chat templates of `tokenizer.chat_template` and `tokenizer.chat_template.<name>`."""
    prefix = "tokenizer.chat_template"
    default = values.get(prefix, str)
    named = {key.removeprefix(prefix + "."): values.get(key, str) for key in values.values if key.startswith(prefix + ".")}
    if not named:
        return {} if default is None else {"chat_template": default}
    named |= {} if default is None else {"default": default}
    return {"chat_template": [{"name": name, "template": template} for name, template in named.items()]}
