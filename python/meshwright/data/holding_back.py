"""Which documents, or which parts of them, are the validation split."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from meshwright.data.documents import Document

TRAIN, VALIDATION = "train", "validation"
# With fewer documents than make this many validation documents on average, their ends are held back instead.
FEWEST_HELD_BACK = 10

Part = tuple[str, Iterator[str]]  # split, pieces of text
Rule = Callable[[Document], Iterator[Part]]


def whole_documents(is_validation: Callable[[str], bool]) -> Rule:
    """Each document goes to one split, by its name."""

    def parts(document: Document) -> Iterator[Part]:
        yield (VALIDATION if is_validation(document.name) else TRAIN), document.open()

    return parts


def share_of_names(share: float, seed: int) -> Callable[[str], bool]:
    """Whether the SHA-256 of a name (behind the seed, unless that is 0) lies in the lowest `share` of all values."""
    limit = int(share * 2**64)

    def is_validation(name: str) -> bool:
        text = name if seed == 0 else f"{seed}:{name}"
        return int.from_bytes(hashlib.sha256(text.encode(errors="surrogateescape")).digest()[:8], "big") < limit

    return is_validation


@dataclass
class Ends:
    """The last `share` of every document, from a line's beginning where there is one: for corpora of a few long documents."""

    share: float

    def __call__(self, document: Document) -> Iterator[Part]:
        cut = int((1 - self.share) * sum(len(piece) for piece in document.open()))
        pieces = document.open()
        rest: list[str] = []

        def before() -> Iterator[str]:
            done = 0
            for piece in pieces:
                if done + len(piece) < cut:
                    done += len(piece)
                    yield piece
                    continue
                at = cut - done
                line = piece.find("\n", at) + 1
                at = line if 0 < line < len(piece) else at
                rest.append(piece[at:])
                yield piece[:at]
                return

        def after() -> Iterator[str]:
            yield from rest
            yield from pieces

        yield TRAIN, before()
        yield VALIDATION, after()
