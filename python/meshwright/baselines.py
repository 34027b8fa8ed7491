"""Count-based language models to hold a trained one against: unigram and bigram with absolute discounting (d = 0.75).

    p(w)     = max(c(w) - d, 0) / N  +  d * K / N * 1 / V                                   N tokens, K kinds of tokens seen
    p(w | v) = max(c(v w) - d, 0) / c(v .)  +  d * k(v) / c(v .) * p_cont(w)                k(v) kinds of tokens seen after v
    p_cont   = as p, with c(w) = number of kinds of tokens that w was seen after            (Kneser-Ney continuation counts)

and p(w | v) = p_cont(w) after a v that was never followed by anything. Pairs never cross a document boundary.
Source: Ney, Essen, Kneser 1994; Chen and Goodman 1998, interpolated form.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from meshwright._core import UserError

DISCOUNT = 0.75


def _tokens(tokens: ArrayLike, vocab: int) -> NDArray[np.int64]:
    ids = np.asarray(tokens)
    if ids.ndim != 1 or ids.dtype.kind not in "iu":
        raise UserError(f"tokens must be one row of integers, found {ids.dtype} with shape {ids.shape}")
    if ids.size and (int(ids.min()) < 0 or int(ids.max()) >= vocab):
        raise UserError(f"token ids must lie in 0..{vocab - 1}, found {int(ids.min())}..{int(ids.max())}")
    return ids.astype(np.int64)


def _has_predecessor(size: int, starts: ArrayLike | None) -> NDArray[np.bool_]:
    """For tokens 1.. of the row: whether the token before stands in the same document. `starts`: index of each document's first token."""
    inside = np.ones(max(size - 1, 0), dtype=np.bool_)
    if starts is not None:
        first = np.asarray(starts, dtype=np.int64)
        inside[first[(first > 0) & (first < size)] - 1] = False
    return inside


def _discounted(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Absolute discounting of counts, backing off to the uniform distribution."""
    total, kinds, vocab = int(counts.sum()), int(np.count_nonzero(counts)), counts.size
    if total == 0:
        return np.full(vocab, 1.0 / vocab)
    smoothed: NDArray[np.float64] = np.maximum(counts - DISCOUNT, 0.0) / total + DISCOUNT * kinds / total / vocab
    return smoothed


@dataclass(frozen=True)
class Unigram:
    """A token's own frequency."""

    probability: NDArray[np.float64]

    @staticmethod
    def fit(tokens: ArrayLike, vocab: int) -> Unigram:
        ids = _tokens(tokens, vocab)
        return Unigram(_discounted(np.bincount(ids, minlength=vocab)))

    def nats_per_token(self, validation: ArrayLike, starts: ArrayLike | None = None) -> float:
        """Mean -log p over every token that has a predecessor in its document: what a trained model is asked to predict."""
        ids = _tokens(validation, self.probability.size)
        targets = ids[1:][_has_predecessor(ids.size, starts)]
        if targets.size == 0:
            raise UserError("expected validation documents of at least two tokens, found none")
        return float(-np.log(self.probability[targets]).mean())


@dataclass(frozen=True)
class Bigram:
    """A token's frequency after the token before it. Pairs are kept sorted as v * vocab + w."""

    pairs: NDArray[np.int64]
    pair_counts: NDArray[np.int64]
    context_counts: NDArray[np.int64]
    context_kinds: NDArray[np.int64]
    continuation: NDArray[np.float64]

    @staticmethod
    def fit(tokens: ArrayLike, vocab: int, starts: ArrayLike | None = None) -> Bigram:
        ids = _tokens(tokens, vocab)
        inside = _has_predecessor(ids.size, starts)
        pairs, counts = np.unique(ids[:-1][inside] * vocab + ids[1:][inside], return_counts=True)
        before, after = pairs // vocab, pairs % vocab
        context_counts = np.bincount(before, weights=counts, minlength=vocab).astype(np.int64)
        continuation = _discounted(np.bincount(after, minlength=vocab))
        return Bigram(pairs, counts.astype(np.int64), context_counts, np.bincount(before, minlength=vocab), continuation)

    def nats_per_token(self, validation: ArrayLike, starts: ArrayLike | None = None) -> float:
        """Mean -log p(w | v) over every token that has a predecessor in its document."""
        vocab = self.continuation.size
        ids = _tokens(validation, vocab)
        inside = _has_predecessor(ids.size, starts)
        before, target = ids[:-1][inside], ids[1:][inside]
        if target.size == 0:
            raise UserError("expected validation documents of at least two tokens, found none")
        counts = np.zeros(target.size, dtype=np.int64)
        if self.pairs.size:
            asked = before * vocab + target
            at = np.minimum(np.searchsorted(self.pairs, asked), self.pairs.size - 1)
            counts = np.where(self.pairs[at] == asked, self.pair_counts[at], 0)
        total, kinds = self.context_counts[before], self.context_kinds[before]
        seen = np.maximum(total, 1)
        back_off = np.where(total > 0, DISCOUNT * kinds / seen, 1.0)
        return float(-np.log(np.maximum(counts - DISCOUNT, 0.0) / seen + back_off * self.continuation[target]).mean())
