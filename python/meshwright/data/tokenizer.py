"""Tokenizers of the published models: loaded, trained, and kept beside the data and the checkpoints."""

from __future__ import annotations

import difflib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from meshwright._core import UserError, make_folders, write_durably
from meshwright.data.sentencepiece_model import BYTE_PIECES
from meshwright.data.tokenizer_files import (
    CONFIG,
    PIECES,
    TOKENIZER,
    chat_templates,
    generation_eos,
    model_type_of,
    read_companions,
    read_file,
    special_tokens,
)

END_OF_TEXT = "<|endoftext|>"
# Names of the end-of-text token, where no configuration says it.
USUAL_ENDS = (END_OF_TEXT, "<|end_of_text|>", "</s>", "<eos>", "<|eos|>", "[EOS]")
SMALLEST_VOCAB = 257  # all bytes and the end of text
MOST_TRAINING_CHARACTERS = 1 << 29
CONTEXT_TOKENS = 4  # in front of a continuation, to decode it as one


class Tokenizer:
    """Text to token ids and back, by the files that models ship with.

    tokenizer = Tokenizer.from_path("Llama-3.2-1B")      # a Hugging Face folder, a data folder or one of the files below
    ids = tokenizer.encode("Once")
    tokenizer.decode(ids)
    tokenizer.apply_chat_template([{"role": "user", "content": "Hello"}], add_generation_prompt=True)

    Files: tokenizer.json, SentencePiece and tiktoken (`tokenizer.model`, `*.tiktoken`); of several in a folder, the first of these.
    """

    def __init__(
        self,
        files: dict[str, bytes],
        source: str = "tokenizer.json",
        eos_token: str | None = None,
        eos_token_ids: Sequence[int] = (),
    ) -> None:
        """`files`: file name -> content, with at least tokenizer.json. `source` names it in errors.

        `eos_token_ids`: tokens that end a text beside `eos_token`, as a model's generation configuration lists them.
        """
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
        listed = [id for id in eos_token_ids if id < self.vocab_size] if eos_token is None else []
        self.eos_token_ids: list[int] = listed or ([] if self.eos_token_id is None else [self.eos_token_id])
        """Tokens that end a text: those of generation_config.json, else `eos_token_id`."""

    @staticmethod
    def from_path(path: str | os.PathLike[str], eos_token: str | None = None, encoding: str | None = None) -> Tokenizer:
        """A tokenizer's file or a folder with one; the files beside it that belong to it come along, byte for byte.

        encoding: which vocabulary a tiktoken file is ("llama3", "llama4", "o200k_harmony", "cl100k_base", "r50k_base"), where neither its
            name, its size nor the model beside it says so.
        """
        file = Path(path)
        if file.is_dir():
            found = _file_in(file)
            if found is None:
                raise UserError(
                    f"{os.fspath(path)}: expected a folder with {TOKENIZER}, {PIECES} (SentencePiece or tiktoken) or *.tiktoken, found none"
                )
            file = found
        if not file.is_file():
            raise UserError(
                f"tokenizer: expected 'train', a {TOKENIZER} or a folder with one, found {os.fspath(path)!r}, which does not exist"
            )
        files = read_companions(file.parent)
        if file.suffix == ".json":
            files[TOKENIZER] = read_file(file)
        else:
            from meshwright.data.tokenizer_conversion import with_tokenizer_json

            files[file.name] = read_file(file)
            files = with_tokenizer_json(files, file.name, str(file), model_type_of(file.parent), encoding)
        return Tokenizer(files, str(file), eos_token, generation_eos(file.parent))

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

    def decode_after(self, before: Sequence[int], ids: Sequence[int]) -> str:
        """The text that `ids` add to that of `before`: SentencePiece drops the space that begins a text, but not that of a continuation."""
        context = list(before[-CONTEXT_TOKENS:])
        head, whole = self.decode(context), self.decode([*context, *ids])
        return whole[len(head) :] if whole.startswith(head) else self.decode(ids)

    @cached_property
    def byte_fallback_ids(self) -> frozenset[int]:
        """The tokens <0x00> to <0xFF>. A run of them is decoded as a whole: one wrong byte makes every byte of its run a `�`."""
        return frozenset(id for piece in BYTE_PIECES if (id := self.backend.token_to_id(piece)) is not None)

    @cached_property
    def chat_templates(self) -> dict[str, str]:
        """Jinja templates by name; "default" is the one that has none."""
        return chat_templates(self.files, self.source)

    @cached_property
    def special_tokens(self) -> dict[str, str]:
        """`bos_token`, `eos_token`, `pad_token`, ... -> text."""
        tokens = special_tokens(self.files, self.source)
        return tokens if self.eos_token is None else {**tokens, "eos_token": self.eos_token}

    def apply_chat_template(
        self,
        messages: Sequence[Mapping[str, Any]],
        tools: Sequence[Mapping[str, Any]] | None = None,
        chat_template: str | None = None,
        add_generation_prompt: bool = False,
        tokenize: bool = True,
        **variables: Any,
    ) -> Any:
        """A chat as the model was trained to see it: token ids, or with `tokenize=False` the text.

        messages: dicts with `role` and `content`. chat_template: the name of one of `chat_templates`, or a template; None is the default,
        with `tools` the one called tool_use if there is one. add_generation_prompt: whether the text ends where an answer begins.
        Further arguments are variables of the template, as `enable_thinking=False`. A special token's name in a message becomes the token.
        Raises UserError: no template, messages that the template refuses, one that takes too long or too much memory.
        """
        from meshwright.data.chat_template import render

        template = self._chat_template(chat_template, tools)
        text = render(messages, template, tools, add_generation_prompt, **{**self.special_tokens, **variables})
        return self.encode(text, add_special_tokens=False) if tokenize else text

    def _chat_template(self, asked: str | None, tools: Any) -> str:
        templates = self.chat_templates
        if asked is not None and asked not in templates and ("{" in asked or not asked):
            return asked
        if not templates:
            raise UserError(
                f"{self.source}: expected a chat template (chat_template.jinja, or chat_template in {CONFIG}) beside the tokenizer, "
                "found none: the model may not be made for chats; pass chat_template="
            )
        name = asked if asked is not None else "tool_use" if tools and "tool_use" in templates else "default"
        if name not in templates:
            near = difflib.get_close_matches(name, templates, 1, 0)[0]
            raise UserError(f"chat_template: expected one of {', '.join(templates)}, found {name!r} (did you mean {near!r}?)")
        return templates[name]

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
        cuts = json.dumps(layout.get("pre_tokenizer"))
        joined_by_slash = json.dumps(r"[\r\n/]*")[1:-1]  # GPT-4o's pattern takes a slash that begins a line to the signs before it
        return not layout.get("normalizer") and "ByteLevel" in cuts and joined_by_slash not in cuts

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Writes the tokenizer's files, byte for byte as they were read."""
        for name, content in self.files.items():
            if "/" in name:
                make_folders(os.path.join(folder, os.path.dirname(name)))
            write_durably(os.path.join(folder, name), content)


def has_tokenizer(folder: Path) -> bool:
    return _file_in(folder) is not None


def _file_in(folder: Path) -> Path | None:
    """The tokenizer's file in a folder."""
    for name in (TOKENIZER, PIECES):
        if (folder / name).is_file():
            return folder / name
    ranks = sorted(folder.glob("*.tiktoken"))
    if len(ranks) > 1:
        raise UserError(f"{folder}: expected one *.tiktoken, found {', '.join(file.name for file in ranks)}; name the one to use")
    return ranks[0] if ranks else None


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
    token = special_tokens(files, source).get("eos_token")
    return token if token in vocab else next((token for token in USUAL_ENDS if token in vocab), None)
