"""SentencePiece files (`tokenizer.model` of Llama 2, Mistral, Gemma): read strictly, and made into a `tokenizers` backend.

Format: the protocol buffer ModelProto of github.com/google/sentencepiece, src/sentencepiece_model.proto.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from meshwright._core import UserError
from meshwright.data.bpe_merges import merges_of

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
UNIGRAM, BPE = 1, 2
MODEL_TYPES = {UNIGRAM: "unigram", BPE: "BPE", 3: "word", 4: "char"}
SPACE = "\u2581"  # stands for a space in pieces
BYTE_PIECES = [f"<0x{byte:02X}>" for byte in range(256)]


@dataclass
class PieceModel:
    """A SentencePiece vocabulary with what decides how text is cut."""

    pieces: list[str]
    scores: list[float]
    types: list[int]
    model_type: int = UNIGRAM
    byte_fallback: bool = False
    dummy_prefix: bool = True
    """Whether a space is put in front of a text."""
    remove_extra_spaces: bool = True
    characters_map: bytes = b""
    """SentencePiece's compiled normalization; empty: none."""
    unk_id: int = 0
    bos_id: int = 1
    eos_id: int = 2
    pad_id: int = -1
    source: str = field(default="tokenizer.model", compare=False)

    def name(self, id: int) -> str | None:
        return self.pieces[id] if 0 <= id < len(self.pieces) else None


class _Message:
    """The fields of one protocol buffer message; every length is checked against the bytes that are there."""

    def __init__(self, data: bytes, begin: int, end: int, source: str) -> None:
        self.data, self.at, self.end, self.source = data, begin, end, source

    def error(self, expected: str) -> UserError:
        return UserError(f"{self.source}, byte {self.at}: expected a SentencePiece model, found a damaged one ({expected})")

    def fields(self) -> Iterator[tuple[int, Any]]:
        """(number, value): int for numbers, float for 32-bit ones, (begin, end) for bytes."""
        while self.at < self.end:
            key = self._varint()
            number, wire = key >> 3, key & 7
            if number == 0:
                raise self.error("a field has the number 0")
            if wire == 0:
                yield number, self._varint()
            elif wire == 2:
                length = self._varint()
                begin = self._skip(length)
                yield number, (begin, begin + length)
            elif wire == 5:
                begin = self._skip(4)
                yield number, struct.unpack_from("<f", self.data, begin)[0]
            elif wire == 1:
                self._skip(8)
            else:
                raise self.error(f"a field has the unknown wire type {wire}")

    def inside(self, value: Any) -> _Message:
        begin, end = self.extent(value)
        return _Message(self.data, begin, end, self.source)

    def text(self, value: Any) -> str:
        begin, end = self.extent(value)
        try:
            return self.data[begin:end].decode()
        except UnicodeDecodeError:
            raise self.error("a piece is not UTF-8") from None

    def content(self, value: Any) -> bytes:
        begin, end = self.extent(value)
        return self.data[begin:end]

    def extent(self, value: Any) -> tuple[int, int]:
        if not isinstance(value, tuple):
            raise self.error("a field has another type")
        return value

    def number(self, value: Any) -> int:
        if not isinstance(value, int):
            raise self.error("a field has another type")
        return value - (1 << 64) if value >> 63 else value  # int32 and enum fields are sign-extended to 64 bits

    def real(self, value: Any) -> float:
        if not isinstance(value, float) or value != value or value in (float("inf"), float("-inf")):
            raise self.error("a score is not a finite number")
        return value

    def _varint(self) -> int:
        value = shift = 0
        while True:
            if self.at >= self.end:
                raise self.error("it ends inside a field")
            byte = self.data[self.at]
            self.at += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                if value >> 64:
                    raise self.error("a number has more than 64 bits")
                return value
            shift += 7
            if shift > 63:
                raise self.error("a number has more than 64 bits")

    def _skip(self, length: int) -> int:
        if length > self.end - self.at:
            raise self.error(f"a field of {length} bytes where {self.end - self.at} are left")
        begin = self.at
        self.at += length
        return begin


def read_piece_model(data: bytes, source: str) -> PieceModel:
    """The model of a SentencePiece file's bytes; `source` names it in errors."""
    model = PieceModel([], [], [], source=source)
    message = _Message(data, 0, len(data), source)
    for number, value in message.fields():
        if number == 1:
            _read_piece(message.inside(value), model)
        elif number == 2:
            _read_trainer(message.inside(value), model)
        elif number == 3:
            _read_normalizer(message.inside(value), model)
    check_pieces(model)
    return model


def _read_piece(message: _Message, model: PieceModel) -> None:
    piece, score, kind = "", 0.0, NORMAL
    for number, value in message.fields():
        if number == 1:
            piece = message.text(value)
        elif number == 2:
            score = message.real(value)
        elif number == 3:
            kind = message.number(value)
    model.pieces.append(piece)
    model.scores.append(score)
    model.types.append(kind)


def _read_trainer(message: _Message, model: PieceModel) -> None:
    for number, value in message.fields():
        if number == 3:
            model.model_type = message.number(value)
        elif number == 24 and message.number(value):
            raise UserError(f"{message.source}: expected pieces that begin with their space, found a model with the space as a suffix")
        elif number == 35:
            model.byte_fallback = bool(message.number(value))
        elif number in (40, 41, 42, 43):
            setattr(model, {40: "unk_id", 41: "bos_id", 42: "eos_id", 43: "pad_id"}[number], message.number(value))


def _read_normalizer(message: _Message, model: PieceModel) -> None:
    for number, value in message.fields():
        if number == 2:
            model.characters_map = message.content(value)
        elif number == 3:
            model.dummy_prefix = bool(message.number(value))
        elif number == 4:
            model.remove_extra_spaces = bool(message.number(value))
        elif number == 5 and not message.number(value):
            raise UserError(f"{message.source}: expected spaces that are escaped as {SPACE!r}, found a model that keeps them")


def check_pieces(model: PieceModel) -> None:
    """UserError where the vocabulary contradicts itself."""
    source = model.source
    if model.model_type not in (UNIGRAM, BPE):
        found = MODEL_TYPES.get(model.model_type, f"the type {model.model_type}")
        raise UserError(f"{source}: expected a SentencePiece model of the type unigram or BPE, found {found}")
    if not model.pieces:
        raise UserError(f"{source}: expected a SentencePiece model, found no pieces")
    seen: dict[str, int] = {}
    for id, (piece, kind) in enumerate(zip(model.pieces, model.types, strict=True)):
        if not piece:
            raise UserError(f"{source}: expected pieces of at least one character, found an empty one at id {id}")
        if (first := seen.setdefault(piece, id)) != id:
            raise UserError(f"{source}: expected every piece once, found {piece!r} at the ids {first} and {id}")
        if kind not in (NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE):
            raise UserError(f"{source}: expected piece types 1 to 6, found {kind} at id {id}")
    unknown = [id for id, kind in enumerate(model.types) if kind == UNKNOWN]
    if unknown != [model.unk_id]:
        raise UserError(f"{source}: expected one unknown piece, at id {model.unk_id}, found {unknown or 'none'}")
    if model.byte_fallback:
        missing = [piece for piece in BYTE_PIECES if model.types[seen.get(piece, model.unk_id)] != BYTE]
        if missing:
            raise UserError(f"{source}: expected a piece for each of 256 bytes, found none for {', '.join(missing[:5])}")


def backend_of_pieces(model: PieceModel, prefix_every_chunk: bool) -> Any:
    """A `tokenizers.Tokenizer` that encodes as SentencePiece does; control pieces in a text become special tokens.

    `prefix_every_chunk`: whether the dummy prefix is put after special tokens too (transformers' `legacy`), or only at the beginning;
    models that remove extra spaces always do the first.
    """
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, normalizers, pre_tokenizers

    user_defined = [piece for piece, kind in zip(model.pieces, model.types, strict=True) if kind == USER_DEFINED]
    # User-defined pieces are never merged or cut. Without a prefix they are tokens that are found in the normalized text; with one
    # such a token would lose its prefix, so they are cut out after it: BPE then has to take a whole piece without merging it.
    cut_out = bool(user_defined) and (model.dummy_prefix or model.model_type == UNIGRAM)
    tokenizer = Tokenizer(_unigram(model) if model.model_type == UNIGRAM else _bpe(model, whole_pieces=cut_out))
    steps: list[Any] = [normalizers.Precompiled(model.characters_map)] if model.characters_map else []
    if model.remove_extra_spaces:
        steps += [normalizers.Replace(Regex(r"\A +| +\z"), ""), normalizers.Replace(Regex(" {2,}"), " ")]
    steps.append(normalizers.Replace(" ", SPACE))
    # Where spaces are removed, what is left of a text no longer tells where it began.
    prefix_every_chunk = prefix_every_chunk or model.remove_extra_spaces
    if model.dummy_prefix and prefix_every_chunk:
        steps.append(normalizers.Prepend(SPACE))
    tokenizer.normalizer = normalizers.Sequence(steps)
    cuts: list[Any] = []
    if model.dummy_prefix and not prefix_every_chunk:
        # Metaspace knows where a text begins, but puts nothing before the character it stands for: so first a plain space.
        cuts.append(pre_tokenizers.Metaspace(replacement=" ", prepend_scheme="first", split=False))
        cuts.append(pre_tokenizers.Metaspace(replacement=SPACE, prepend_scheme="never", split=False))
    if cut_out:
        longest_first = sorted(user_defined, key=len, reverse=True)
        cuts.append(pre_tokenizers.Split(Regex("|".join(map(re.escape, longest_first))), "isolated"))
    if cuts:
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(cuts)
    ends: list[Any] = [decoders.Replace(SPACE, " ")]
    if model.byte_fallback:
        ends.append(decoders.ByteFallback())
    ends.append(decoders.Fuse())
    if model.dummy_prefix:
        ends.append(decoders.Strip(" ", 1, 0))
    tokenizer.decoder = decoders.Sequence(ends)
    special = [piece for piece, kind in zip(model.pieces, model.types, strict=True) if kind in (UNKNOWN, CONTROL)]
    tokenizer.add_special_tokens([AddedToken(piece, normalized=False, special=True) for piece in special])
    if not cut_out:
        tokenizer.add_tokens([AddedToken(piece, normalized=True, special=False) for piece in user_defined])
    return tokenizer


def _unigram(model: PieceModel) -> Any:
    from tokenizers import models

    # Pieces that stand for no text must not be found in one.
    never = min(model.scores) - 1e4
    scores = [score if kind in (NORMAL, USER_DEFINED) else never for score, kind in zip(model.scores, model.types, strict=True)]
    return models.Unigram(list(zip(model.pieces, scores, strict=True)), unk_id=model.unk_id, byte_fallback=model.byte_fallback)


def _bpe(model: PieceModel, whole_pieces: bool) -> Any:
    from tokenizers import models

    kinds = list(zip(model.pieces, model.scores, model.types, strict=True))
    cost = {piece: -score for piece, score, kind in kinds if kind in (NORMAL, UNUSED)}
    unused = {piece for piece, _, kind in kinds if kind == UNUSED}
    merges = []
    for left, right in merges_of(cost, model.source):
        if left in unused or right in unused:
            raise UserError(f"{model.source}: expected unused pieces that are in no other piece, found {left + right!r}")
        if left + right not in unused:
            merges.append((left, right))
    return models.BPE(
        vocab={piece: id for id, piece in enumerate(model.pieces)},
        merges=merges,
        unk_token=model.pieces[model.unk_id],
        fuse_unk=True,
        byte_fallback=model.byte_fallback,
        ignore_merges=whole_pieces,
    )
