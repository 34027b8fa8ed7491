"""Merges of a BPE vocabulary that stores none: SentencePiece files give a score per piece, tiktoken files a rank per token."""

from __future__ import annotations

from collections.abc import Mapping
from typing import AnyStr

from meshwright._core import UserError

MOST_WORK = 1 << 27  # sum of squared lengths; the largest published vocabularies take about a tenth

# The characters that stand for the 256 bytes in byte-level vocabularies (Radford et al. 2019): printable ones for themselves.
_PRINTABLE = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
_OTHERS = [byte for byte in range(256) if byte not in set(_PRINTABLE)]
BYTE_CHARACTERS = {byte: chr(byte) for byte in _PRINTABLE} | {byte: chr(256 + i) for i, byte in enumerate(_OTHERS)}
_AS_LATIN1 = str.maketrans({chr(byte): character for byte, character in BYTE_CHARACTERS.items()})


def byte_level(token: bytes) -> str:
    """The name of a token in a byte-level vocabulary."""
    return token.decode("latin-1").translate(_AS_LATIN1)


def merges_of(cost: Mapping[AnyStr, float], source: str) -> list[tuple[AnyStr, AnyStr]]:
    """For each token of `cost`, in order of rising cost, the two parts that it is merged from last, where merging can make it at all.

    Encoders merge the adjacent pair whose joined text has the least cost, the leftmost of equals. A token's text is merged in the same
    order wherever it stands, as long as nothing outside joins in, so one merge per token describes the encoder exactly.
    """
    if sum(len(token) ** 2 for token in cost) > MOST_WORK:
        raise UserError(f"{source}: expected tokens of some characters each, found so many long ones that their merges cannot be found")
    merges = []
    for token in sorted(cost, key=cost.__getitem__):
        at = _last_cut(token, cost)
        if at is not None:
            merges.append((token[:at], token[at:]))
    return merges


def _last_cut(token: AnyStr, cost: Mapping[AnyStr, float]) -> int | None:
    halves = [at for at in range(1, len(token)) if token[:at] in cost and token[at:] in cost]
    if len(halves) < 2:
        return halves[0] if halves else None
    bounds = list(range(len(token) + 1))
    while len(bounds) > 3:
        best, least = 0, float("inf")
        for i in range(len(bounds) - 2):
            found = cost.get(token[bounds[i] : bounds[i + 2]])
            if found is not None and found < least:
                best, least = i + 1, found
        if best == 0:
            return None
        del bounds[best]
    return bounds[1] if bounds[1] in halves else None
