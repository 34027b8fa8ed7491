"""Hugging Face `tokenizers` files: loaded, trained, and kept beside the data and the checkpoints."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from meshwright._core import UserError, write_durably

TOKENIZER, CONFIG = "tokenizer.json", "tokenizer_config.json"
COMPANIONS = (CONFIG, "special_tokens_map.json", "chat_template.jinja")
END_OF_TEXT = "<|endoftext|>"
# Names of the end-of-text token, where no configuration says it.
USUAL_ENDS = (END_OF_TEXT, "<|end_of_text|>", "</s>", "<eos>", "<|eos|>", "[EOS]")
SMALLEST_VOCAB = 257  # all bytes and the end of text
MOST_TRAINING_CHARACTERS = 1 << 29
LARGEST_FILE = 1 << 28


class Tokenizer:
    """Text to token ids and back, by the files that models ship with.

    tokenizer = Tokenizer.from_path("Llama-3.2-1B")      # a Hugging Face folder, a data folder or a tokenizer.json
    ids = tokenizer.encode("Once")
    tokenizer.decode(ids)
    """

    def __init__(self, files: dict[str, bytes], source: str = "tokenizer.json", eos_token: str | None = None) -> None:
        """`files`: file name -> content, with at least tokenizer.json. `source` names it in errors."""
        from tokenizers import Tokenizer as Backend

        self.files = files
        self.source = source
        try:
            self.backend: Any = Backend.from_str(files[TOKENIZER].decode())
        except Exception as error:
            raise UserError(f"{source}: expected a Hugging Face tokenizer.json, found something that does not load: {error}") from None
        self.backend.no_padding()
        self.backend.no_truncation()
        vocab: dict[str, int] = self.backend.get_vocab(with_added_tokens=True)
        if not vocab:
            raise UserError(f"{source}: expected a tokenizer with a vocabulary, found an empty one")
        self.vocab_size: int = max(vocab.values()) + 1
        self.eos_token = _end_token(files, source, vocab, eos_token)
        self.eos_token_id: int | None = None if self.eos_token is None else vocab[self.eos_token]

    @staticmethod
    def from_path(path: str | os.PathLike[str], eos_token: str | None = None) -> Tokenizer:
        """A tokenizer.json file or a folder with one; the files beside it that belong to it come along."""
        file = Path(path)
        if file.is_dir():
            if not (file / TOKENIZER).is_file():
                raise UserError(
                    f"{os.fspath(path)}: expected a folder with {TOKENIZER}, found none (a slow tokenizer is converted by "
                    "transformers: AutoTokenizer.from_pretrained(folder).save_pretrained(folder))"
                )
            file = file / TOKENIZER
        if not file.is_file():
            raise UserError(
                f"tokenizer: expected 'train', a {TOKENIZER} or a folder with one, found {os.fspath(path)!r}, which does not exist"
            )
        files = {TOKENIZER: _read(file)}
        for name in COMPANIONS:
            if (file.parent / name).is_file():
                files[name] = _read(file.parent / name)
        return Tokenizer(files, str(file), eos_token)

    @staticmethod
    def train(texts: Iterable[str], vocab: int, eos_token: str = END_OF_TEXT) -> Tokenizer:
        """A byte-level BPE tokenizer of at most `vocab` tokens; the same texts in the same order give the same one."""
        from tokenizers import Tokenizer as Backend
        from tokenizers import decoders, models, pre_tokenizers, trainers

        if vocab < SMALLEST_VOCAB:
            raise UserError(f"vocab: expected at least {SMALLEST_VOCAB} (256 bytes and the end of text), found {vocab}")
        backend = Backend(models.BPE())
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        backend.decoder = decoders.ByteLevel()
        alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
        trainer = trainers.BpeTrainer(
            vocab_size=vocab, min_frequency=2, special_tokens=[eos_token], initial_alphabet=alphabet, show_progress=False
        )
        backend.train_from_iterator(_at_most(texts, MOST_TRAINING_CHARACTERS), trainer)
        config = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "eos_token": eos_token,
            "clean_up_tokenization_spaces": False,
            "model_max_length": 10**30,
        }
        return Tokenizer({TOKENIZER: backend.to_str(pretty=True).encode(), CONFIG: (json.dumps(config, indent=2) + "\n").encode()})

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        """Token ids; with `add_special_tokens`, those that the tokenizer's template puts around a text (for example a first token)."""
        ids: list[int] = self.backend.encode(text, add_special_tokens=add_special_tokens).ids
        return ids

    def decode(self, ids: Sequence[int], skip_special_tokens: bool = True) -> str:
        text: str = self.backend.decode([int(id) for id in ids], skip_special_tokens=skip_special_tokens)
        return text

    def encode_plain(self, texts: Sequence[str]) -> list[list[int]]:
        """Each text as ordinary text: nothing in it becomes a special token, nothing is put around it."""
        self.backend.encode_special_tokens = True
        try:
            return [encoding.ids for encoding in self.backend.encode_batch_fast(list(texts), add_special_tokens=False)]
        finally:
            self.backend.encode_special_tokens = False

    def first_ids(self) -> list[int]:
        """What the template puts in front of a text: the beginning-of-text token of models that were trained with one."""
        bare, whole = self.encode("a", add_special_tokens=False), self.encode("a")
        for i in range(len(whole) - len(bare) + 1):
            if whole[i : i + len(bare)] == bare:
                return whole[:i]
        return []

    def cuts_after_lines(self) -> bool:
        """Whether a text may be cut before a line that begins with no white space, and encoded in parts, without changing a token."""
        layout = json.loads(self.files[TOKENIZER])
        return not layout.get("normalizer") and "ByteLevel" in json.dumps(layout.get("pre_tokenizer"))

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Writes the tokenizer's files, byte for byte as they were read."""
        for name, content in self.files.items():
            write_durably(os.path.join(folder, name), content)


def _read(file: Path) -> bytes:
    try:
        if file.stat().st_size > LARGEST_FILE:
            raise UserError(f"{file}: expected at most {LARGEST_FILE} bytes, found {file.stat().st_size}")
        return file.read_bytes()
    except OSError as error:
        raise UserError(f"{file}: cannot be read: {error.strerror}") from None


def _at_most(texts: Iterable[str], characters: int) -> Iterator[str]:
    for text in texts:
        yield text
        characters -= len(text)
        if characters <= 0:
            return


def _end_token(files: dict[str, bytes], source: str, vocab: dict[str, int], asked: str | None) -> str | None:
    """The end-of-text token: as asked, as the configuration says, or one of the usual names."""
    if asked is not None:
        if asked not in vocab:
            raise UserError(f"{source}: expected the token {asked!r} in the vocabulary, found none of that name")
        return asked
    for name in (CONFIG, "special_tokens_map.json"):
        try:
            config = json.loads(files.get(name, b"{}"))
        except ValueError as error:
            raise UserError(f"{os.path.join(os.path.dirname(source), name)}: expected JSON, found {error}") from None
        token = config.get("eos_token") if isinstance(config, dict) else None
        if isinstance(token, dict):
            token = token.get("content")
        if isinstance(token, str) and token in vocab:
            return token
    return next((token for token in USUAL_ENDS if token in vocab), None)
