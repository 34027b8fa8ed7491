"""Generation against the model's own logits: greedy and sampled, alone and in company, streamed and stopped."""

from __future__ import annotations

import warnings

import meshwright as mw
import numpy as np
import pytest
from meshwright.data import Tokenizer
from tiny_models import VOCAB, make_batches, make_model, make_trainer

PROMPTS = [[5, 7, 9], [1], [100, 3, 64, 2, 2, 90, 11], [8, 8]]


@pytest.fixture(scope="module")
def model():
    # Large heads make the distributions uneven, so that choices differ.
    model = make_model(seed=2)
    model._session.write_tensor("lm_head.weight", model.state_dict()["lm_head.weight"].gather() * 40)
    return model


@pytest.fixture(scope="module")
def generator(model):
    return mw.Generator(model)


@pytest.fixture(scope="module")
def writer():
    """A model with a tokenizer, so with texts."""
    lines = [
        "the quick brown fox jumps over the lazy dog\n",
        "naïve café über straße, 日本語 and emoji 🙂🙃\n",
        "def f(x):\n    return x + 1\n",
    ]
    tokenizer = Tokenizer.train(lines * 20, vocab=320)
    model = make_model(seed=4, vocab_size=tokenizer.vocab_size)
    model._session.write_tensor("lm_head.weight", model.state_dict()["lm_head.weight"].gather() * 20)
    model.tokenizer = tokenizer
    return mw.Generator(model)


def log_softmax(logits):
    shifted = logits.astype(np.float64) - logits.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def expected_greedy(model, prompt, count):
    ids = list(prompt)
    for _ in range(count):
        ids.append(int(model(np.array([ids]))[0, -1].argmax()))
    return ids[len(prompt) :]


def test_greedy_follows_the_logits(model, generator):
    answers = generator.generate(PROMPTS, max_new_tokens=12)
    assert answers == [expected_greedy(model, prompt, 12) for prompt in PROMPTS]
    array = generator.generate(np.array([PROMPTS[0], [1, 2, 3]]), max_new_tokens=4)
    assert array.shape == (2, 4) and array.dtype == np.int64 and array[0].tolist() == answers[0][:4]


def test_logprobs_are_those_of_the_model(model, generator):
    for options in ({}, dict(do_sample=True, temperature=1.7, top_k=9, seed=3)):
        for prompt, answer in zip(PROMPTS, generator.generate(PROMPTS, max_new_tokens=9, return_details=True, **options), strict=True):
            rows = log_softmax(model(np.array([prompt + answer.token_ids]))[0])[len(prompt) - 1 : -1]
            expected = rows[np.arange(9), answer.token_ids]
            assert np.allclose(answer.logprobs, expected, atol=1e-4)
            assert answer.finish_reason == "length" and answer.text is None


def test_seeds(generator):
    def sample(seed, prompts=PROMPTS):
        return generator.generate(prompts, max_new_tokens=10, do_sample=True, temperature=1.5, seed=seed)

    assert sample(1) == sample(1) != sample(2)
    copies = sample(5, [[3, 4]] * 6)
    assert len({tuple(copy) for copy in copies}) > 1  # the same prompt several times: several samples
    assert sample(5, [[3, 4]] * 3) == copies[:3]
    assert generator.generate(PROMPTS, max_new_tokens=10, do_sample=True, temperature=0) == generator.generate(PROMPTS, max_new_tokens=10)
    assert generator.generate(PROMPTS, max_new_tokens=10, do_sample=True, top_k=1) == generator.generate(PROMPTS, max_new_tokens=10)


@pytest.mark.parametrize("options", [{}, dict(do_sample=True, temperature=1.3, top_p=0.95, seed=11)])
def test_company_does_not_change_an_answer(generator, options):
    rng = np.random.default_rng(0)
    prompts = [rng.integers(0, VOCAB, size).tolist() for size in rng.integers(1, 30, 37)]  # more than there are slots
    together = generator.generate(prompts, max_new_tokens=7, **options)
    for index in (0, 5, 36):
        assert generator.generate([prompts[index]], max_new_tokens=7, **options) == [together[index]]
    order = rng.permutation(len(prompts))
    assert generator.generate([prompts[i] for i in order], max_new_tokens=7, **options) == [together[i] for i in order]


def filtered(probabilities, top_k=0, top_p=1.0, min_p=0.0):
    order = np.argsort(-probabilities, kind="stable")
    kept = np.zeros(len(order), bool)
    kept[order[: top_k or len(order)]] = True
    p = np.where(kept, probabilities, 0)
    p /= p.sum()
    reached = np.cumsum(p[order])
    kept[order[np.searchsorted(reached, top_p * (1 - 1e-12)) + 1 :]] = False
    kept &= p >= min_p * p.max()
    p = np.where(kept, p, 0)
    return p / p.sum()


@pytest.mark.parametrize(
    "options",
    [
        dict(),
        dict(temperature=0.6),
        dict(top_k=5),
        dict(top_p=0.7),
        dict(min_p=0.2),
        dict(temperature=1.8, top_k=20, top_p=0.9, min_p=0.05),
    ],
)
def test_distribution_of_samples(model, generator, options):
    prompt, samples = [17, 4, 30], 3000
    temperature = options.get("temperature", 1.0)
    cuts = {name: value for name, value in options.items() if name != "temperature"}
    expected = filtered(np.exp(log_softmax(model(np.array([prompt]))[0, -1] / temperature)), **cuts)
    drawn = generator.generate([prompt] * samples, max_new_tokens=1, do_sample=True, seed=1, **options)
    counts = np.bincount([token for (token,) in drawn], minlength=VOCAB)
    assert not counts[expected == 0].any()
    spread = np.sqrt(expected * (1 - expected) * samples)
    assert (np.abs(counts - expected * samples) <= 4.5 * spread + 1).all()
    assert (counts > 0).sum() >= min(4, (expected > 0.005).sum())


def test_nothing_to_write(generator):
    assert generator.generate(PROMPTS, max_new_tokens=0) == [[], [], [], []]
    details = generator.generate([[1], [2]], max_new_tokens=0, return_details=True)
    assert [(d.token_ids, d.logprobs, d.finish_reason) for d in details] == [([], [], "length")] * 2
    assert generator.generate(np.ones((3, 2), np.int64), max_new_tokens=0).shape == (3, 0)


def test_end_of_text(model, generator):
    free = generator.generate([PROMPTS[0]], max_new_tokens=12)[0]
    token = free[3]
    first = free.index(token) + 1
    for eos in (token, [token, 9999 % VOCAB], np.int64(token)):
        (answer,) = generator.generate([PROMPTS[0]], max_new_tokens=12, eos_token_id=eos, return_details=True)
        assert answer.token_ids[-1] == token or answer.token_ids[-1] == 9999 % VOCAB
        assert len(answer.token_ids) <= first and answer.finish_reason == "eos"
    assert generator.generate([PROMPTS[0]], max_new_tokens=12, eos_token_id=None) == [free]
    ended = mw.Generator(with_eos(model, token))
    assert ended.generate([PROMPTS[0]], max_new_tokens=12) == [free[:first]]
    assert ended.generate([PROMPTS[0]], max_new_tokens=12, eos_token_id=None) == [free]
    padded = ended.generate(np.array([PROMPTS[0], [1, 2, 3]]), max_new_tokens=12, pad_token_id=77)
    assert padded[0].tolist() == (free[:first] + [77] * 12)[: padded.shape[1]]


def with_eos(model, token):
    other = make_model(seed=2, eos_token_id=token)
    other.load_state_dict({name: weight.gather() for name, weight in model.state_dict().items()})
    return other


# With the window the caches are rings of 384 rows, and the longest prompt goes round.
@pytest.mark.parametrize("changes", [{}, {"family": "mistral", "sliding_window": 40}])
def test_long_prompts_go_through_in_chunks(changes):
    model = make_model(max_position_embeddings=1024, **changes)
    rng = np.random.default_rng(1)
    prompts = [rng.integers(0, VOCAB, size).tolist() for size in (700, 255, 256, 257, 3)]
    details = mw.Generator(model).generate(prompts, max_new_tokens=3, return_details=True)
    for prompt, answer in zip(prompts, details, strict=True):
        rows = log_softmax(model(np.array([prompt + answer.token_ids]))[0])[len(prompt) - 1 : -1]
        assert np.allclose(answer.logprobs, rows.max(-1), atol=1e-4)
        assert np.allclose(answer.logprobs, rows[np.arange(3), answer.token_ids], atol=1e-4)


def test_two_generators_share_a_model(model):
    one, two = mw.Generator(model), mw.Generator(model)
    a = one.generate([[1, 2]], max_new_tokens=5)
    b = two.generate(PROMPTS * 3, max_new_tokens=40)
    assert one.generate([[1, 2]], max_new_tokens=5) == a and two.generate(PROMPTS * 3, max_new_tokens=40) == b
    assert two.generate([[1, 2]], max_new_tokens=5) == a


@pytest.mark.parametrize("arguments", [dict(), dict(dtype="bfloat16"), dict(mesh={"fsdp": 2}), dict(mesh={"tensor": 2})])
def test_generation_between_steps_sees_the_new_weights(arguments):
    model = make_model()
    generator = mw.Generator(model)
    generator.generate([[1, 2, 3, 4]], max_new_tokens=4)
    trainer = make_trainer(model, optimizer=mw.AdamW(lr=0.05), **arguments)
    batches = make_batches(1)
    for _ in range(3):
        trainer.step(batches[0])
        (answer,) = generator.generate([[1, 2, 3, 4]], max_new_tokens=4, return_details=True)
        rows = log_softmax(model(np.array([[1, 2, 3, 4, *answer.token_ids]] * 2))[0])[3:-1]
        assert np.allclose(answer.logprobs, rows[np.arange(4), answer.token_ids], atol=1e-4 if "dtype" not in arguments else 0.1)


# ---- texts ----


def test_texts_are_the_decoded_tokens(writer):
    texts = writer.generate(["the quick", ""], max_new_tokens=20, do_sample=True, seed=2)
    details = writer.generate(["the quick", ""], max_new_tokens=20, do_sample=True, seed=2, return_details=True)
    for text, detail in zip(texts, details, strict=True):
        assert text == detail.text == writer.model.tokenizer.decode(detail.token_ids) and text


@pytest.mark.parametrize("seed", range(6))
def test_streamed_pieces_make_the_text(writer, seed):
    pieces = {0: "", 1: "", 2: ""}
    ended = []

    def take(index, text):
        assert text and index not in ended
        pieces[index] += text

    prompts = ["the", "naïve café", "def"]
    texts = writer.generate(
        prompts,
        max_new_tokens=30,
        do_sample=True,
        temperature=1.5,
        seed=seed,
        on_text=take,
        on_end=ended.append,
        stop_strings=["\n\n", "zz"],
    )
    assert list(pieces.values()) == texts and sorted(ended) == [0, 1, 2]
    assert all("\n\n" not in text for text in texts)


def test_stop_strings_across_tokens(writer):
    options = dict(max_new_tokens=30, do_sample=True, temperature=1.2, eos_token_id=None, seed=8)
    (full,) = writer.generate(["the quick"], **options)
    assert len(full) >= 12
    crossed = 0
    for start in range(2, 9):
        stop = full[start : start + 3]
        if "�" in stop:
            continue
        pieces = []

        def take(index, text, pieces=pieces):
            pieces.append(text)

        stops = ["never there", stop]
        (answer,) = writer.generate(["the quick"], **options, stop_strings=stops, return_details=True, on_text=take)
        assert answer.text == full[: full.index(stop)] == "".join(pieces) and answer.finish_reason == "stop"
        tokens = [writer.model.tokenizer.decode([token]) for token in answer.token_ids]
        crossed += not any(stop in token for token in tokens)
    assert crossed > 0
    assert writer.generate(["the quick"], **options, stop_strings=full[4:7]) == [full[: full.index(full[4:7])]]


@pytest.mark.parametrize("eos", [None, "model"])
def test_every_answer_ends_once(writer, eos):
    ended = []
    for count in (0, 1, 20):
        writer.generate(["the", "fox", "def"], max_new_tokens=count, eos_token_id=eos, on_end=ended.append)
        assert sorted(ended) == [0, 1, 2]
        ended.clear()


def test_a_callback_that_raises_comes_back_as_it_is(writer):
    def fail(index, text):
        raise ValueError("mine")

    for _ in range(2):
        with pytest.raises(ValueError, match="mine"):
            writer.generate(["the"], max_new_tokens=5, on_text=fail)
    assert writer.generate(["the"], max_new_tokens=0) == [""]


def test_a_prompt_that_ends_in_a_space_is_warned_of(writer):
    with pytest.warns(UserWarning, match="the prompt 'the ' ends in a space"):
        writer.generate(["the ", "fox"], max_new_tokens=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        writer.generate(["the", "fox\n"], max_new_tokens=1)
