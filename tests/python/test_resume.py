"""A run that was stopped and resumed is the run that was not, bit for bit."""

from __future__ import annotations

import os
import signal

import meshwright as mw
import numpy as np
import pytest
from tiny_models import (
    assert_same,
    make_batch,
    make_batches,
    make_model,
    make_trainer,
    numbers_of,
    states_of,
    weights_of,
    write_data,
)

STEPS, STOP = 9, 4


class StopAt:
    """Asks the run to stop after a step, as a cluster's scheduler does."""

    def __init__(self, step):
        self.step = step

    def __call__(self, trainer, step, metrics):
        if step == self.step:
            os.kill(os.getpid(), signal.SIGTERM)


@pytest.fixture(scope="module")
def data_folder(tmp_path_factory):
    return write_data(tmp_path_factory.mktemp("tokens") / "data", tokens=700)


def open_data(kind, data_folder):
    if kind == "dataset":  # 700 tokens: the run crosses ends of epochs
        return mw.TokenDataset(data_folder, seq=16, batch=8, seed=7)
    if kind == "unshuffled":
        return mw.TokenDataset(data_folder, seq=16, batch=8, shuffle=False)
    return make_batches(count=5, rows=8)


def run(output, data, stop=None, **arguments):
    trainer = make_trainer(
        schedule=mw.WarmupCosine(warmup=2, final=0.1), output=output, save_every=3, callbacks=[StopAt(stop)] if stop else [], **arguments
    )
    if stop:
        with pytest.raises(SystemExit) as left:
            trainer.fit(data, steps=STEPS)
        assert left.value.code == 143 and trainer.steps_done == stop
    else:
        trainer.fit(data, steps=STEPS)
    return trainer


@pytest.mark.parametrize(
    ("kind", "arguments"),
    [
        ("dataset", dict()),
        ("dataset", dict(dtype="bfloat16", microbatches=2)),
        ("unshuffled", dict(optimizer=mw.SGD(lr=0.1, momentum=0.9))),
        ("list", dict(microbatches=2)),
        ("list", dict(dtype="bfloat16")),
        ("dataset", dict(mesh={"fsdp": 2})),
        ("list", dict(mesh={"fsdp": 2}, dtype="bfloat16", microbatches=2)),
    ],
)
def test_bit_for_bit(tmp_path, data_folder, kind, arguments):
    whole = run(tmp_path / "whole", open_data(kind, data_folder), **arguments)
    for stop in (STOP, 7):
        run(tmp_path / "stopped", open_data(kind, data_folder), stop, **arguments)
    resumed = run(tmp_path / "stopped", open_data(kind, data_folder), **arguments)
    assert resumed.steps_done == STEPS
    assert_same(weights_of(resumed.model), weights_of(whole.model))
    assert_same(states_of(resumed), states_of(whole))
    assert numbers_of(tmp_path / "stopped") == numbers_of(tmp_path / "whole")
    for name in ("model-00001-of-00001.safetensors", "trainer/state-00001-of-00001.safetensors"):
        last = f"step-{STEPS:08d}/{name}"
        if (tmp_path / "whole" / last).exists():
            assert (tmp_path / "whole" / last).read_bytes() == (tmp_path / "stopped" / last).read_bytes()


def test_another_mesh_follows_to_rounding(tmp_path, data_folder):
    whole = run(tmp_path / "whole", open_data("dataset", data_folder))
    run(tmp_path / "moved", open_data("dataset", data_folder), STOP, mesh={"fsdp": 2})
    moved = run(tmp_path / "moved", open_data("dataset", data_folder), mesh={"data": 2, "tensor": 2})
    assert_same(weights_of(moved.model), weights_of(whole.model), 1e-3)
    for a, b in zip(numbers_of(tmp_path / "moved"), numbers_of(tmp_path / "whole"), strict=True):
        assert a[:2] == b[:2] and np.allclose(a[2:], b[2:], rtol=1e-4)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_restore_on_another_mesh_holds_the_same_numbers(tmp_path, dtype):
    trainer = make_trainer(mesh={"fsdp": 2}, dtype=dtype)
    for batch in make_batches(3):
        trainer.step(batch)
    trainer.save(tmp_path / "saved")
    restored = mw.Trainer.restore(tmp_path / "saved", mesh=mw.Mesh(tensor=2), show=False)
    assert restored.steps_done == 3 and restored.settings == trainer.settings
    assert_same(weights_of(restored.model), weights_of(trainer.model))
    assert_same(states_of(restored), states_of(trainer))
    a, b = restored.step(make_batch(seed=9)), trainer.step(make_batch(seed=9))
    assert abs(a.loss - b.loss) <= (1e-5 if dtype == "float32" else 2e-2) * b.loss and a.tokens == b.tokens


@pytest.mark.parametrize("kind", ["dataset", "list"])
def test_restore_goes_on_with_the_data_where_it_stood(tmp_path, data_folder, kind):
    whole = make_trainer()
    whole.fit(open_data(kind, data_folder), steps=7)
    first = make_trainer()
    first.fit(open_data(kind, data_folder), steps=3)
    first.save(tmp_path / "saved")
    restored = mw.Trainer.restore(tmp_path / "saved", show=False)
    restored.save(tmp_path / "again")  # before any step: nothing of the state is lost
    restored = mw.Trainer.restore(tmp_path / "again", show=False)
    data = open_data(kind, data_folder)
    restored.fit(data, steps=5)
    if kind == "dataset":
        restored.fit(data, steps=7)  # goes on with the data; it does not go back to the checkpoint's place
    else:
        restored.save(tmp_path / "third")
        restored = mw.Trainer.restore(tmp_path / "third", show=False)
        restored.fit(data, steps=7)
    assert_same(weights_of(restored.model), weights_of(whole.model))


def test_other_data_than_the_run_had(tmp_path, data_folder):
    run(tmp_path / "a", open_data("dataset", data_folder), STOP)
    with pytest.raises(mw.UserError, match="saved with data that has a state .* found list"):
        run(tmp_path / "a", open_data("list", data_folder))
    with pytest.raises(mw.UserError, match="rows of the same length"):
        run(tmp_path / "a", mw.TokenDataset(data_folder, seq=12, batch=8, seed=7))
    run(tmp_path / "b", open_data("list", data_folder), STOP)
    with pytest.raises(mw.UserError, match="data state: expected the keys"):
        run(tmp_path / "b", open_data("dataset", data_folder))


def test_other_settings_are_listed(tmp_path):
    make_trainer(output=tmp_path / "a").fit(make_batches(), steps=2)
    with pytest.raises(mw.UserError, match=r"other settings(.|\n)*clip: 1.0 there, 0.5 here(.|\n)*seed: 0 there, 1 here"):
        make_trainer(output=tmp_path / "a", clip=0.5, seed=1)
    with pytest.raises(mw.UserError, match="microbatches: 1 there, 2 here"):
        make_trainer(output=tmp_path / "a", microbatches=2)
    with pytest.raises(mw.UserError, match='"mlp_dim": 64.* there, .*"mlp_dim": 96.* here'):
        make_trainer(make_model(mlp_dim=96), output=tmp_path / "a")
    trainer = make_trainer(output=tmp_path / "a", mesh={"fsdp": 2}, remat="full", log_every=3, save_every=7)
    assert trainer.steps_done == 2


def test_another_length_changes_the_schedule(tmp_path):
    arguments = dict(schedule=mw.WarmupCosine(warmup=2), output=tmp_path / "a", callbacks=[StopAt(2)])
    with pytest.raises(SystemExit):
        make_trainer(**arguments).fit(make_batches(), steps=8)
    with pytest.raises(mw.UserError, match="planned for steps=8, found steps=9"):
        make_trainer(**arguments).fit(make_batches(), steps=9)


def test_reset_optimizer_takes_changed_weights(tmp_path):
    """New weights in a checkpoint: an error that offers the way, and masters made from them."""
    trainer = make_trainer(output=tmp_path / "a", dtype="bfloat16")
    trainer.fit(make_batches(), steps=2)
    folder = tmp_path / "a" / "step-00000002"
    other = make_model(seed=77)
    other.save_pretrained(tmp_path / "other", dtype="bfloat16")
    for file in folder.glob("model-*.safetensors"):
        file.write_bytes((tmp_path / "other" / file.name).read_bytes())
    with pytest.raises(mw.UserError, match="not the weight file that the optimizer's state belongs to.*reset_optimizer=true"):
        mw.Trainer.restore(folder, show=False)
    fresh = mw.Trainer.restore(folder, reset_optimizer=True, show=False)
    expected = {name: weight.gather() for name, weight in mw.Model.from_pretrained(tmp_path / "other").state_dict().items()}
    assert_same(weights_of(fresh.model), expected)
    states = states_of(fresh)
    assert all(not values.any() for name, values in states.items() if "moment" in name)


def test_a_damaged_newest_checkpoint_is_passed_over(tmp_path, capsys):
    whole = make_trainer(output=tmp_path / "whole")
    whole.fit(make_batches(), steps=6)
    make_trainer(output=tmp_path / "a", save_every=2).fit(make_batches(), steps=4)
    state = next((tmp_path / "a" / "step-00000004" / "trainer").glob("state-*.safetensors"))
    damaged = bytearray(state.read_bytes())
    damaged[-5] ^= 1
    state.write_bytes(damaged)
    with pytest.raises(mw.UserError, match="state-.*damaged"):
        mw.Trainer.restore(tmp_path / "a" / "step-00000004", show=False)
    resumed = make_trainer(output=tmp_path / "a", save_every=2)
    assert resumed.steps_done == 2 and "not a whole checkpoint" in capsys.readouterr().err
    resumed.fit(make_batches(), steps=6)
    assert_same(weights_of(resumed.model), weights_of(whole.model))


def test_another_optimizer_state(tmp_path):
    make_trainer(optimizer=mw.SGD(lr=0.1)).save(tmp_path / "sgd")
    text = (tmp_path / "sgd" / "trainer" / "trainer.json").read_text()
    (tmp_path / "sgd" / "trainer" / "trainer.json").write_text(text.replace('"settings"', '"other"'))
    with pytest.raises(mw.UserError, match="expected the settings model, optimizer"):
        mw.Trainer.restore(tmp_path / "sgd")
    make_model().save_pretrained(tmp_path / "model")
    with pytest.raises(mw.UserError, match="a model without a training run"):
        mw.Trainer.restore(tmp_path / "model")
    with pytest.raises(mw.UserError, match="holds no whole checkpoint: none was saved there"):
        mw.Trainer.restore(tmp_path / "nothing")
