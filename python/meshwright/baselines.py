"""Count-based language models to hold a trained one against: unigram, bigram and trigram with absolute discounting (d = 0.75).

    p(w)       = max(c(w) - d, 0) / N  +  d * K / N * 1 / V                                   N tokens, K kinds of tokens seen
    p(w | v)   = max(c(v w) - d, 0) / c(v .)  +  d * k(v) / c(v .) * p_cont(w)                k(v) kinds of tokens seen after v
    p(w | u v) = max(c(u v w) - d, 0) / c(u v .)  +  d * k(u v) / c(u v .) * p_cont(w | v)
    p_cont     = as p, with counts of the kinds of tokens that came before (Kneser-Ney continuation counts)

and the shorter context alone where the longer one was never followed by anything. Contexts never cross a document boundary; before a
document's first token stands one more kind of token.
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
class _Follower:
    """p(w | context) from counts, interpolated with what a shorter context says; pairs are context * vocab + w, sorted."""

    vocab: int
    pairs: NDArray[np.int64]
    pair_counts: NDArray[np.int64]
    contexts: NDArray[np.int64]  # sorted
    totals: NDArray[np.int64]
    kinds: NDArray[np.int64]

    @staticmethod
    def fit(context: NDArray[np.int64], word: NDArray[np.int64], vocab: int) -> _Follower:
        pairs, counts = np.unique(context * vocab + word, return_counts=True)
        contexts, first, kinds = np.unique(pairs // vocab, return_index=True, return_counts=True)
        totals = np.add.reduceat(counts, first) if pairs.size else counts
        return _Follower(vocab, pairs, counts.astype(np.int64), contexts, totals.astype(np.int64), kinds.astype(np.int64))

    def probability(self, context: NDArray[np.int64], word: NDArray[np.int64], shorter: NDArray[np.float64]) -> NDArray[np.float64]:
        """`shorter`: what the shorter context gives each word."""
        count = _look_up(self.pairs, self.pair_counts, context * self.vocab + word)
        total, kinds = (_look_up(self.contexts, values, context) for values in (self.totals, self.kinds))
        seen = np.maximum(total, 1)
        back_off = np.where(total > 0, DISCOUNT * kinds / seen, 1.0)
        probability: NDArray[np.float64] = np.maximum(count - DISCOUNT, 0.0) / seen + back_off * shorter
        return probability


def _look_up(keys: NDArray[np.int64], values: NDArray[np.int64], asked: NDArray[np.int64]) -> NDArray[np.int64]:
    """The values of the keys asked for; 0 where there is no such key."""
    if keys.size == 0:
        return np.zeros(asked.size, dtype=np.int64)
    at = np.minimum(np.searchsorted(keys, asked), keys.size - 1)
    return np.where(keys[at] == asked, values[at], 0)


def _targets(ids: NDArray[np.int64], starts: ArrayLike | None) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """The places of the tokens that have a predecessor in their document, and whether that has one too."""
    inside = _has_predecessor(ids.size, starts)
    places = np.flatnonzero(inside) + 1
    return places, np.concatenate([[False], inside])[places - 1] if places.size else np.zeros(0, dtype=np.bool_)


def _mean_loss(probability: NDArray[np.float64]) -> float:
    if probability.size == 0:
        raise UserError("expected validation documents of at least two tokens, found none")
    return float(-np.log(probability).mean())


@dataclass(frozen=True)
class Bigram:
    """A token's frequency after the token before it."""

    follower: _Follower
    continuation: NDArray[np.float64]

    @staticmethod
    def fit(tokens: ArrayLike, vocab: int, starts: ArrayLike | None = None) -> Bigram:
        ids = _tokens(tokens, vocab)
        places, _ = _targets(ids, starts)
        follower = _Follower.fit(ids[places - 1], ids[places], vocab)
        return Bigram(follower, _discounted(np.bincount(follower.pairs % vocab, minlength=vocab)))

    def nats_per_token(self, validation: ArrayLike, starts: ArrayLike | None = None) -> float:
        """Mean -log p(w | v) over every token that has a predecessor in its document."""
        ids = _tokens(validation, self.continuation.size)
        places, _ = _targets(ids, starts)
        target = ids[places]
        return _mean_loss(self.follower.probability(ids[places - 1], target, self.continuation[target]))


@dataclass(frozen=True)
class Trigram:
    """A token's frequency after the two tokens before it."""

    follower: _Follower
    shorter: _Follower  # of continuation counts
    continuation: NDArray[np.float64]

    @staticmethod
    def fit(tokens: ArrayLike, vocab: int, starts: ArrayLike | None = None) -> Trigram:
        ids = _tokens(tokens, vocab)
        places, _ = _targets(ids, starts)
        follower = _Follower.fit(Trigram._context(ids, starts, vocab), ids[places], vocab)
        kinds = follower.pairs % (vocab * vocab)  # of (v, w), one for each kind of u
        shorter = _Follower.fit(kinds // vocab, kinds % vocab, vocab)
        return Trigram(follower, shorter, _discounted(np.bincount(shorter.pairs % vocab, minlength=vocab)))

    def nats_per_token(self, validation: ArrayLike, starts: ArrayLike | None = None) -> float:
        """Mean -log p(w | u v) over every token that has a predecessor in its document."""
        vocab = self.continuation.size
        ids = _tokens(validation, vocab)
        places, _ = _targets(ids, starts)
        target = ids[places]
        shorter = self.shorter.probability(ids[places - 1], target, self.continuation[target])
        return _mean_loss(self.follower.probability(self._context(ids, starts, vocab), target, shorter))

    @staticmethod
    def _context(ids: NDArray[np.int64], starts: ArrayLike | None, vocab: int) -> NDArray[np.int64]:
        """(u, v) in front of each target as one number; u is `vocab` where a document begins with v."""
        places, has_two = _targets(ids, starts)
        return np.where(has_two, ids[places - 2], vocab) * vocab + ids[places - 1]
