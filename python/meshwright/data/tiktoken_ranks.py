"""tiktoken files (`tokenizer.model` of Llama 3 and 4, `o200k_base.tiktoken` of GPT-OSS): lines of a token in base64 and its rank.

Such a file holds neither the pattern that cuts a text nor the special tokens; they belong to the vocabulary, which is known by its
file's name, by its size, or by the family of the model beside it.
"""

from __future__ import annotations

import base64
import binascii
import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from meshwright._core import UserError
from meshwright.data.bpe_merges import byte_level, merges_of
from meshwright.data.byte_level import CUTTINGS, byte_level_backend

MOST_TOKENS = 1 << 22
LONGEST_TOKEN = 1 << 12


def _named(first: int, *names: str) -> dict[str, int]:
    return {name: first + i for i, name in enumerate(names)}


def _reserved(kind: str, first: int, last: int) -> list[str]:
    return [f"<|{kind}reserved_special_token_{i}|>" for i in range(first, last + 1)]


def _llama3() -> dict[str, int]:
    known = ["<|begin_of_text|>", "<|end_of_text|>", *_reserved("", 0, 1), "<|finetune_right_pad_id|>", *_reserved("", 2, 2)]
    chat = ["<|start_header_id|>", "<|end_header_id|>", "<|eom_id|>", "<|eot_id|>", "<|python_tag|>"]
    return _named(128000, *known, *chat, *_reserved("", 3, 247))


def _llama4() -> dict[str, int]:
    text = ["<|begin_of_text|>", "<|end_of_text|>", "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>"]
    chat = ["<|header_start|>", "<|header_end|>", "<|eom|>", "<|eot|>", "<|step|>", *_reserved("text_post_train_", 0, 5)]
    chat += ["<|python_start|>", "<|python_end|>", "<|finetune_right_pad|>", *_reserved("text_post_train_", 8, 68)]
    image = ["<|image_start|>", "<|image_end|>", *_reserved("vision_", 0, 1), "<|tile_x_separator|>", "<|tile_y_separator|>"]
    image += [*_reserved("vision_", 2, 5), "<|image|>", *_reserved("vision_", 6, 6), "<|patch|>", *_reserved("vision_", 7, 1047)]
    reasoning = [*_reserved("reasoning_", 0, 7), "<|reasoning_thinking_start|>", "<|reasoning_thinking_end|>"]
    named = text + chat + image + reasoning
    return _named(200000, *named, *_reserved("", 0, 2047 - len(named)))


def _harmony() -> dict[str, int]:
    named = {"<|startoftext|>": 199998, "<|endoftext|>": 199999, "<|return|>": 200002, "<|constrain|>": 200003, "<|channel|>": 200005}
    named |= _named(200006, "<|start|>", "<|end|>", "<|message|>") | {"<|call|>": 200012, "<|endofprompt|>": 200018}
    taken = set(named.values())
    return named | {f"<|reserved_{id}|>": id for id in range(200000, 201088) if id not in taken}


@dataclass(frozen=True)
class Encoding:
    """A vocabulary whose ranks are published as a tiktoken file."""

    cutting: str
    num_ranks: int
    special: Callable[[], dict[str, int]]
    bos: str | None
    eos: str
    files: tuple[str, ...] = ()
    model_types: tuple[str, ...] = ()


ENCODINGS = {
    "llama3": Encoding("llama3", 128000, _llama3, "<|begin_of_text|>", "<|end_of_text|>", model_types=("llama",)),
    "llama4": Encoding("llama4", 200000, _llama4, "<|begin_of_text|>", "<|end_of_text|>", model_types=("llama4", "llama4_text")),
    "o200k_harmony": Encoding(
        "o200k", 199998, _harmony, "<|startoftext|>", "<|return|>", ("o200k_base.tiktoken", "o200k_harmony.tiktoken"), ("gpt_oss",)
    ),
    "cl100k_base": Encoding(
        "cl100k",
        100256,
        lambda: _named(100257, "<|endoftext|>", "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>") | {"<|endofprompt|>": 100276},
        None,
        "<|endoftext|>",
        ("cl100k_base.tiktoken",),
    ),
    "r50k_base": Encoding("gpt2", 50256, lambda: {"<|endoftext|>": 50256}, None, "<|endoftext|>", ("r50k_base.tiktoken",), ("gpt2",)),
}


def looks_like_ranks(data: bytes) -> bool:
    """Whether a `tokenizer.model` is text, so a tiktoken file; SentencePiece files begin with the bytes of a piece's length."""
    start = data[:4096]
    return bool(start) and all(0x20 <= byte < 0x7F or byte in b"\t\r\n" for byte in start) and not start.startswith(b"\n")


def read_ranks(data: bytes, source: str) -> dict[bytes, int]:
    """Token -> rank; every byte must be a token, and the ranks 0, 1, 2, ... each stand once."""
    ranks: dict[bytes, int] = {}
    lines = data.splitlines()
    if len(lines) > MOST_TOKENS:
        raise UserError(f"{source}: expected at most {MOST_TOKENS} lines, found {len(lines)}")
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        parts = line.split()
        try:
            if len(parts) != 2 or not parts[1].isdigit():
                raise ValueError
            token, rank = base64.b64decode(parts[0], validate=True), int(parts[1])
        except (ValueError, binascii.Error):
            shown = line[:60].decode("ascii", "backslashreplace")
            raise UserError(f"{source}, line {number}: expected a token in base64 and its rank, found {shown!r}") from None
        if not 1 <= len(token) <= LONGEST_TOKEN:
            raise UserError(f"{source}, line {number}: expected a token of 1 to {LONGEST_TOKEN} bytes, found {len(token)}")
        if token in ranks:
            raise UserError(f"{source}, line {number}: expected every token once, found {token!r} with the ranks {ranks[token]} and {rank}")
        ranks[token] = rank
    missing = [byte for byte in range(256) if bytes([byte]) not in ranks]
    if missing:
        raise UserError(f"{source}: expected a token for each of 256 bytes, found none for {len(missing)}, the first 0x{missing[0]:02x}")
    if sorted(ranks.values()) != list(range(len(ranks))):
        raise UserError(f"{source}: expected the ranks 0 to {len(ranks) - 1}, each once, found other ones")
    return ranks


def find_encoding(num_ranks: int, file_name: str, model_type: str | None, asked: str | None, source: str) -> Encoding:
    """The vocabulary that was asked for, else by the file's name, the number of tokens or the model's family."""
    if asked is not None:
        if asked not in ENCODINGS:
            near = difflib.get_close_matches(asked, ENCODINGS, 1, 0)
            raise UserError(f"encoding: expected one of {', '.join(ENCODINGS)}, found {asked!r} (did you mean {near[0]!r}?)")
        return ENCODINGS[asked]
    for encoding in ENCODINGS.values():
        if file_name in encoding.files or num_ranks == encoding.num_ranks:
            return encoding
    for encoding in ENCODINGS.values():
        if model_type in encoding.model_types:
            return encoding
    sizes = ", ".join(f"{name} ({encoding.num_ranks})" for name, encoding in ENCODINGS.items())
    raise UserError(
        f"{source}: expected the ranks of a vocabulary whose pattern and special tokens are known, {sizes}, "
        f"found {num_ranks} tokens; say which with Tokenizer.from_path(..., encoding=NAME)"
    )


def special_ids(encoding: Encoding, num_ranks: int) -> dict[str, int]:
    """The special tokens behind a vocabulary of `num_ranks` tokens."""
    return {token: id - encoding.num_ranks + num_ranks for token, id in encoding.special().items()}


def backend_of_ranks(ranks: Mapping[bytes, int], encoding: Encoding, special: Mapping[str, int], source: str) -> Any:
    """A `tokenizers.Tokenizer` that encodes as tiktoken does."""
    names = {token: byte_level(token) for token in ranks}
    vocab = {names[token]: rank for token, rank in ranks.items()}
    for token, id in special.items():
        if vocab.setdefault(token, id) != id or id < len(ranks):
            raise UserError(f"{source}: expected special tokens behind the {len(ranks)} ordinary ones, found {token!r} at id {id}")
    merges = [(byte_level(left), byte_level(right)) for left, right in merges_of(ranks, source)]
    return byte_level_backend(vocab, merges, CUTTINGS[encoding.cutting], sorted(special, key=special.__getitem__), (), source)
