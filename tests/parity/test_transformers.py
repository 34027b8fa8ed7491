"""Logits, gradients, greedy text and files against transformers, for tiny random models of every class we have."""

from __future__ import annotations

import json

import meshwright as mw
import numpy as np
import pytest
import torch
import transformers
from parity.reference_models import CASES, COUNTS_PADDING, VOCAB, gradients, make_batch, make_model, make_padding, save_model

SHAPES = [(3, 24), (1, 37), (5, 2)]


@pytest.fixture(scope="module", params=sorted(CASES))
def pair(request, tmp_path_factory):
    """(case, folder, model of transformers, ours)"""
    folder = save_model(request.param, tmp_path_factory.mktemp("models"))
    return request.param, folder, make_model(request.param), mw.Model.from_pretrained(folder, dtype="float32")


def assert_close(ours, theirs, tolerance: float) -> None:
    theirs = np.asarray(theirs)
    scale = np.abs(theirs).max() if tolerance >= 1e-3 else max(1.0, float(np.abs(theirs).max()))
    assert np.abs(ours - theirs).max() <= tolerance * scale


@pytest.mark.parametrize("shape", SHAPES)
def test_logits(pair, shape) -> None:
    _, _, theirs, ours = pair
    ids = make_batch(*shape, seed=shape[1])
    with torch.no_grad():
        expected = theirs(ids).logits.numpy()
    logits = ours(ids)
    assert logits.shape == (*shape, VOCAB) and logits.dtype == np.float32
    assert_close(logits, expected, 1e-4)


@pytest.mark.parametrize("side", ["left", "right"])
def test_padded_batches(pair, side) -> None:
    case, _, theirs, ours = pair
    ids, mask = make_batch(), make_padding(side=side)
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    real = mask.bool().numpy()
    with torch.no_grad():
        if case in COUNTS_PADDING:
            rows = [theirs(row[keep][None]).logits[0].numpy() for row, keep in zip(ids, mask.bool(), strict=True)]
            expected = np.zeros((*ids.shape, VOCAB), np.float32)
            expected[real] = np.concatenate(rows)
        else:
            expected = theirs(ids, attention_mask=mask, position_ids=positions).logits.numpy()
    assert_close(ours(ids, attention_mask=mask)[real], expected[real], 1e-4)


def test_packed_segments_do_not_see_each_other(pair) -> None:
    _, _, _, ours = pair
    a, b = make_batch(1, 11, seed=1).numpy(), make_batch(1, 9, seed=2).numpy()
    segments = np.array([[0] * 11 + [1] * 9])
    packed = ours(np.concatenate([a, b], 1), segment_ids=segments)
    assert_close(packed[:, :11], ours(a), 1e-4)
    assert_close(packed[:, 11:], ours(b), 1e-4)


@pytest.mark.parametrize("padded", [False, True])
def test_loss_and_every_gradient(pair, padded) -> None:
    _, _, theirs, ours = pair
    ids = make_batch(seed=3)
    labels = ids.clone()
    labels[0, :5] = -100
    batch = {"input_ids": ids, "labels": labels}
    expected = dict(batch)
    if padded:
        mask = make_padding(side="right")
        labels[mask == 0] = -100
        batch["attention_mask"] = mask
        expected |= {"attention_mask": mask}
    loss, grads = ours.loss_and_gradients(batch)
    expected_loss, expected_grads = gradients(theirs, **expected)
    assert abs(loss - expected_loss) <= 1e-5 * abs(expected_loss)
    assert set(grads) == set(expected_grads)
    for name, expected_gradient in expected_grads.items():
        assert grads[name].shape == tuple(expected_gradient.shape), name
        difference = np.abs(grads[name] - expected_gradient.numpy()).max()
        assert difference <= 1e-3 * expected_gradient.abs().max(), (name, difference)


def test_greedy_text_is_the_same(pair) -> None:
    _, _, theirs, ours = pair
    prompts = [make_batch(1, n, seed=n)[0].tolist() for n in (3, 17, 9)]
    answers = mw.Generator(ours).generate(prompts, max_new_tokens=64, eos_token_id=None)
    for prompt, answer in zip(prompts, answers, strict=True):
        with torch.no_grad():
            expected = theirs.generate(torch.tensor([prompt]), max_new_tokens=64, do_sample=False, eos_token_id=None, pad_token_id=0)
        assert answer == expected[0, len(prompt) :].tolist()


def test_left_padded_array_gives_the_same_text(pair) -> None:
    _, _, _, ours = pair
    rows = [make_batch(1, n, seed=n)[0].tolist() for n in (4, 7)]
    array = np.array([[0] * 3 + rows[0], rows[1]])
    mask = np.array([[0] * 3 + [1] * 4, [1] * 7])
    generator = mw.Generator(ours)
    padded = generator.generate(array, attention_mask=mask, max_new_tokens=8, eos_token_id=None)
    assert padded.tolist() == generator.generate(rows, max_new_tokens=8, eos_token_id=None)


def test_saved_folder_opens_in_transformers_with_the_same_logits(pair, tmp_path) -> None:
    _, _, theirs, ours = pair
    ours.save_pretrained(tmp_path / "saved")
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "saved", dtype=torch.float32, attn_implementation="eager").eval()
    ids = make_batch()
    with torch.no_grad():
        assert torch.equal(again(ids).logits, theirs(ids).logits)


def test_files_round_trip_bit_for_bit(pair, tmp_path) -> None:
    case, folder, _, ours = pair
    ours.save_pretrained(tmp_path / "saved")
    from safetensors.torch import load_file

    before = load_file(folder / "model.safetensors")
    index = json.loads((tmp_path / "saved" / "model.safetensors.index.json").read_text())["weight_map"]
    after = {}
    for file in set(index.values()):
        after |= load_file(tmp_path / "saved" / file)
    assert set(before) == set(after), case
    for name, tensor in before.items():
        assert torch.equal(tensor, after[name]), name


def test_bfloat16_follows_transformers(pair) -> None:
    case, folder, _, _ = pair
    theirs = make_model(case, dtype=torch.bfloat16)
    ours = mw.Model.from_pretrained(folder, dtype="bfloat16")
    ids = make_batch()
    with torch.no_grad():
        expected = theirs(ids).logits.float().numpy()
        exact = make_model(case)(ids).logits.numpy()
    # Both round to bfloat16 in every layer: ours must not be further from exact than theirs by much. A token that goes to another expert
    # differs altogether, so with experts it is the mean that counts.
    size = np.mean if ours.config.moe is not None else np.max
    assert size(np.abs(ours(ids) - exact)) <= 2.0 * size(np.abs(expected - exact)) + 1e-2 * size(np.abs(exact))
