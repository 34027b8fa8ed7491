"""Trainer: what is logged, evaluated, kept and drawn."""

from __future__ import annotations

import json
import math

import meshwright as mw
import numpy as np
import pytest
from tiny_models import assert_same, make_batch, make_batches, make_model, make_trainer, weights_of, write_data

SCHEDULES = [mw.Constant(), mw.WarmupCosine(warmup=3, final=0.1), mw.WarmupStableDecay(warmup=2, decay=0.25), mw.Linear(warmup=0.2)]


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda schedule: schedule.kind)
def test_logged_rates_are_the_schedules(tmp_path, schedule):
    seen = []
    trainer = make_trainer(
        schedule=schedule, optimizer=mw.AdamW(lr=3e-3), output=tmp_path / "a", callbacks=[lambda t, step, m: seen.append((t, step, m))]
    )
    last = trainer.fit(make_batches(), steps=12)
    expected = [3e-3 * schedule.lr_at(step, 12) for step in range(12)]
    assert [metrics.lr for _, _, metrics in seen] == expected
    assert [row["lr"] for row in mw.run_log.read_history(tmp_path / "a").train] == expected
    assert [(t is trainer, step) for t, step, _ in seen] == [(True, step) for step in range(1, 13)] and seen[-1][2] is last


def test_single_steps_of_a_schedule():
    trainer = make_trainer(schedule=mw.WarmupCosine(warmup=2), optimizer=mw.AdamW(lr=1.0))
    assert [trainer.step(make_batch()).lr for _ in range(4)] == [0.0, 0.5, 1.0, 1.0]
    share = make_trainer(schedule=mw.WarmupCosine(warmup=0.1), optimizer=mw.AdamW(lr=1e-3))  # a share of an unknown length: none
    assert share.step(make_batch()).lr == pytest.approx(1e-3)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_accumulation_equals_the_big_batch(dtype):
    whole, parts = (
        make_trainer(optimizer=mw.SGD(lr=0.5), dtype=dtype),
        make_trainer(optimizer=mw.SGD(lr=0.5), dtype=dtype, gradient_accumulation=4),
    )
    tolerance = 1e-6 if dtype == "float32" else 1e-2
    for seed in range(3):
        a, b = whole.step(make_batch(8, seed=seed)), parts.step(make_batch(8, seed=seed))
        assert abs(a.loss - b.loss) <= tolerance * a.loss and abs(a.grad_norm - b.grad_norm) <= 5 * tolerance * a.grad_norm
    assert_same(weights_of(parts.model), weights_of(whole.model), 5 * tolerance)


def test_evaluate_is_the_mean_over_weighted_tokens():
    model = make_model()
    batches = [make_batch(3, 16, 1), make_batch(5, 10, 2), {"input_ids": make_batch(2, 30)["input_ids"]}]
    losses = [model.loss(batch) for batch in batches]
    # The last token of a row has no target; a weight belongs to the token that is predicted.
    weights = [batch["loss_weights"][:, 1:].sum() if "loss_weights" in batch else 2 * 29 for batch in batches]
    expected = float(np.dot(losses, weights) / np.sum(weights))
    before = weights_of(model)
    for arguments in (dict(), dict(mesh={"tensor": 2})):
        metrics = make_trainer(model, **arguments).evaluate(batches)
        assert metrics.loss == pytest.approx(expected, rel=1e-5) and metrics.perplexity == pytest.approx(math.exp(metrics.loss))
    assert_same(weights_of(model), before)


def test_loss_of_one_rank_is_the_cross_entropy_of_the_logits():
    model, batch = make_model(), make_batch()
    logits = model(batch["input_ids"]).astype(np.float64)[:, :-1]
    nll = np.log(np.exp(logits).sum(-1)) - np.take_along_axis(logits, batch["input_ids"][:, 1:, None], -1)[..., 0]
    weight = batch["loss_weights"][:, 1:]
    assert model.loss(batch) == pytest.approx((nll * weight).sum() / weight.sum(), rel=1e-5)


def test_what_a_run_leaves_behind(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    data = write_data(tmp_path / "data")
    train, validation = mw.TokenDataset(data, seq=16, batch=4), mw.TokenDataset(data, split="validation", seq=16, batch=4)
    trainer = make_trainer(output=tmp_path / "a", log_every=2, save_every=2, keep=2, eval_data=validation, eval_every=3)
    last = trainer.fit(train, steps=9)
    history = mw.run_log.read_history(tmp_path / "a")
    assert [row["step"] for row in history.train] == [2, 4, 6, 8, 9] and [row["step"] for row in history.validation] == [3, 6, 9]
    final = history.train[-1]
    for name in ("loss", "perplexity", "grad_norm", "lr", "tokens", "tokens_per_second", "tflops", "step_seconds", "peak_bytes"):
        assert final[name] == last[name], name
    assert last.tokens == 9 * 4 * 16 and last.peak_bytes > 0 and last.step_seconds > 0
    assert history.validation[-1]["loss"] == trainer.evaluate(validation).loss
    events = EventAccumulator(str(tmp_path / "a"))
    events.Reload()
    assert [(e.step, np.float32(e.value)) for e in events.Scalars("learning/loss")] == [
        (row["step"], np.float32(row["loss"])) for row in history.train
    ]
    assert [e.step for e in events.Scalars("eval/loss")] == [3, 6, 9]
    assert (tmp_path / "a" / "loss.png").read_bytes().startswith(b"\x89PNG")
    assert sorted(path.name for path in (tmp_path / "a").glob("step-*")) == ["step-00000008", "step-00000009"]
    state = json.loads((tmp_path / "a" / "step-00000009" / "trainer" / "trainer.json").read_text())
    assert state["step"] == 9 and state["run"]["tokens"] == last.tokens and state["data"] == train.state_dict()


def test_a_run_without_output_writes_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_trainer(save_every=1).fit(make_batches(), steps=2)
    assert list(tmp_path.iterdir()) == []


def test_a_finished_run_is_left_as_it_is(tmp_path):
    make_trainer(output=tmp_path / "a").fit(make_batches(), steps=2)
    again = make_trainer(output=tmp_path / "a")
    assert again.fit(make_batches(), steps=2) is None and again.steps_done == 2
    assert again.fit(make_batches(), steps=3).loss > 0


def test_masters_are_the_values_as_they_were():
    model = make_model()
    before = weights_of(model)
    make_trainer(model, dtype="bfloat16")
    assert_same(weights_of(model), before)
    stored = model._session.read_tensor("lm_head.weight", "float32", False)
    assert not np.array_equal(stored, before["lm_head.weight"]) and np.abs(stored - before["lm_head.weight"]).max() < 1e-3


def test_saved_weights_are_masters_or_what_was_asked(tmp_path):
    model = make_model()
    trainer = make_trainer(model, dtype="bfloat16")
    trainer.step(make_batch())
    model.save_pretrained(tmp_path / "masters")
    assert_same(weights_of(mw.Model.from_pretrained(tmp_path / "masters")), weights_of(model))
    model.save_pretrained(tmp_path / "stored", dtype="bfloat16")
    stored = {name: model._session.read_tensor(name, "float32", False) for name in model.state_dict()}
    assert_same(weights_of(mw.Model.from_pretrained(tmp_path / "stored")), stored)
