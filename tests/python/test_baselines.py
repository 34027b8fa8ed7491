import math
from collections import Counter

import numpy as np
import pytest
from meshwright import UserError
from meshwright.baselines import Bigram, Trigram, Unigram


def naive_discounted(counts, vocab, d=0.75):
    total = sum(counts.values())
    return [max(counts[w] - d, 0) / total + d * len(counts) / total / vocab for w in range(vocab)]


def naive_unigram(documents, validation, vocab):
    p = naive_discounted(Counter(w for document in documents for w in document), vocab)
    losses = [-math.log(p[w]) for document in validation for w in document[1:]]
    return sum(losses) / len(losses)


def naive_bigram(documents, validation, vocab, d=0.75):
    pairs = Counter(pair for document in documents for pair in zip(document, document[1:], strict=False))
    p_cont = naive_discounted(Counter(w for _, w in pairs), vocab)

    def probability(v, w):
        total = sum(count for (a, _), count in pairs.items() if a == v)
        kinds = sum(1 for a, _ in pairs if a == v)
        return p_cont[w] if total == 0 else max(pairs[v, w] - d, 0) / total + d * kinds / total * p_cont[w]

    assert all(abs(sum(probability(v, w) for w in range(vocab)) - 1) < 1e-12 for v in range(vocab))
    losses = [-math.log(probability(v, w)) for document in validation for v, w in zip(document, document[1:], strict=False)]
    return sum(losses) / len(losses)


def naive_trigram(documents, validation, vocab, d=0.75):
    start = vocab  # in front of each document

    def triples(document):
        return list(zip([start, *document], document, document[1:], strict=False))

    raw = Counter(triple for document in documents for triple in triples(document))
    pairs = Counter((v, w) for _, v, w in raw)
    p_cont = naive_discounted(Counter(w for _, w in pairs), vocab)

    def follower(counts, context, w, shorter):
        total = sum(count for (*before, _), count in counts.items() if tuple(before) == context)
        kinds = sum(1 for (*before, _) in counts if tuple(before) == context)
        return shorter if total == 0 else max(counts[(*context, w)] - d, 0) / total + d * kinds / total * shorter

    def probability(u, v, w):
        return follower(raw, (u, v), w, follower(pairs, (v,), w, p_cont[w]))

    assert all(abs(sum(probability(u, v, w) for w in range(vocab)) - 1) < 1e-12 for u in (0, 1, start) for v in range(vocab))
    losses = [-math.log(probability(*triple)) for document in validation for triple in triples(document)]
    return sum(losses) / len(losses)


def flat(documents):
    lengths = [len(document) for document in documents]
    return np.concatenate(documents).astype(np.uint16), np.cumsum([0, *lengths[:-1]])


def test_the_models_equal_the_naive_ones():
    vocab = 13
    random = np.random.default_rng(3)
    # Token 12 never occurs in training, token 11 only as the last of a document: contexts without followers.
    train = [list(np.minimum(random.geometric(0.3, size=n), 11) - 1) + [11] for n in (1, 2, 40, 7, 90)]
    held = [list(random.integers(0, vocab, size=n)) for n in (1, 30, 2, 25)]
    tokens, starts = flat(train)
    validation, validation_starts = flat(held)
    unigram = Unigram.fit(tokens, vocab).nats_per_token(validation, validation_starts)
    bigram = Bigram.fit(tokens, vocab, starts).nats_per_token(validation, validation_starts)
    assert unigram == pytest.approx(naive_unigram(train, held, vocab), rel=1e-12)
    assert bigram == pytest.approx(naive_bigram(train, held, vocab), rel=1e-12)
    trigram = Trigram.fit(tokens, vocab, starts).nats_per_token(validation, validation_starts)
    assert trigram == pytest.approx(naive_trigram(train, held, vocab), rel=1e-12)


def test_bigram_learns_what_a_unigram_cannot():
    tokens = np.tile(np.arange(8), 200)
    assert Unigram.fit(tokens, 8).nats_per_token(tokens) == pytest.approx(math.log(8), rel=1e-3)
    assert Bigram.fit(tokens, 8).nats_per_token(tokens) < 0.01


def test_a_trigram_learns_what_a_bigram_cannot():
    tokens = np.tile([0, 1, 2, 0, 2, 1], 200)  # what follows depends on two tokens
    assert Trigram.fit(tokens, 3).nats_per_token(tokens) < 0.01 < 0.5 < Bigram.fit(tokens, 3).nats_per_token(tokens)


def test_bad_tokens_are_errors():
    with pytest.raises(UserError, match=r"0\.\.3, found 0\.\.4"):
        Unigram.fit(np.array([0, 4]), 4)
    with pytest.raises(UserError, match="one row of integers"):
        Bigram.fit(np.zeros((2, 2), np.int64), 4)
    with pytest.raises(UserError, match="at least two tokens"):
        Unigram.fit(np.array([0, 1]), 4).nats_per_token(np.array([1, 2]), starts=[0, 1])
