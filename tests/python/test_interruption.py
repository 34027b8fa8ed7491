"""Signals, kill -9 at any moment, and losses that are not finite."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import meshwright as mw
import numpy as np
import pytest
from tiny_models import assert_same, make_batch, make_batches, make_model, make_trainer, numbers_of, states_of, weights_of, write_data

STEPS = 30
KILLS, KILLS_WHILE_SAVING = 20, 5


def send(number):
    os.kill(os.getpid(), number)


@pytest.mark.parametrize(("number", "error"), [(signal.SIGTERM, SystemExit), (signal.SIGINT, KeyboardInterrupt)])
def test_a_signal_saves_and_leaves(tmp_path, number, error):
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    trainer = make_trainer(output=tmp_path / "a", callbacks=[lambda trainer, step, metrics: step == 3 and send(number)])
    with pytest.raises(error) as left:
        trainer.fit(make_batches(), steps=10)
    if error is SystemExit:
        assert left.value.code == 143
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
    assert [path.name for path in (tmp_path / "a").glob("step-*")] == ["step-00000003"]
    assert make_trainer(output=tmp_path / "a").steps_done == 3


def test_handlers_come_back_after_fit_and_after_an_error():
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    seen = []
    trainer = make_trainer(callbacks=[lambda *_: seen.append(signal.getsignal(signal.SIGTERM))])
    trainer.fit(make_batches(), steps=1)
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before and seen != [before[1]]
    with pytest.raises(mw.UserError, match="gave no batch"):
        trainer.fit([], steps=2)
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_a_second_interrupt_does_not_wait(tmp_path):
    def twice(trainer, step, metrics):
        send(signal.SIGINT)
        send(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        make_trainer(output=tmp_path / "a", callbacks=[twice]).fit(make_batches(), steps=10)
    assert not list((tmp_path / "a").glob("step-*"))


def train_command(data: Path, output: Path, steps: int = STEPS) -> list[str]:
    return [
        *(sys.executable, "-m", "meshwright.cli.main", "train"),
        *(f"model={Path(__file__).parent.parent.parent / 'configs' / 'models' / 'tiny.json'}", f"data={data}", f"output={output}"),
        *("seq=16", "batch=4", f"steps={steps}", "save_every=2", "keep=2", "log_every=1", "eval_every=11", "lr=0.01", "seed=3"),
    ]


def start(command: list[str]) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def wait_for_step(process: subprocess.Popen[str]) -> None:
    """Returns when the run has made a step (or has ended)."""
    for line in process.stderr:
        if line.startswith("step "):
            return


def is_saving(output: Path) -> bool:
    return any(name.startswith(".saving-") for name in os.listdir(output)) if output.is_dir() else False


def end(process: subprocess.Popen[str]) -> tuple[int, str]:
    _, errors = process.communicate(timeout=120)
    return process.returncode, errors


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_exit_status_of_the_command(tmp_path, number, status):
    data, output = write_data(tmp_path / "data", vocab=256), tmp_path / "run"
    process = start(train_command(data, output, steps=100_000))
    wait_for_step(process)
    process.send_signal(number)
    code, errors = end(process)
    assert code == status and "Traceback" not in errors
    newest = mw._core.newest_checkpoint(str(output))
    assert newest["path"] is not None and newest["skipped"] == [] and not is_saving(output)


@pytest.mark.slow
def test_kill_at_any_moment(tmp_path):
    data = write_data(tmp_path / "data", vocab=256)
    code, errors = end(start(train_command(data, tmp_path / "whole")))
    assert code == 0, errors
    whole = mw.Trainer.restore(tmp_path / "whole", show=False)
    rng = random.Random(0)
    kills = while_saving = finished = 0
    deadline = time.monotonic() + 300
    while kills < KILLS or while_saving < KILLS_WHILE_SAVING:
        assert time.monotonic() < deadline, (kills, while_saving)
        output = tmp_path / f"run{finished}"
        process = start(train_command(data, output))
        aim_at_save = while_saving < KILLS_WHILE_SAVING and rng.random() < 0.6
        if aim_at_save:
            while process.poll() is None and not is_saving(output):
                pass
        else:
            wait_for_step(process)
            time.sleep(rng.random() * 0.2)
        alive = process.poll() is None
        process.kill()
        process.communicate()
        if alive and process.returncode == -signal.SIGKILL:
            kills += 1
            while_saving += is_saving(output)  # what the killed save left
            continue
        assert process.returncode == 0
        check_equal(output, whole)
        finished += 1
    code, errors = end(start(train_command(data, output)))
    assert code == 0, errors
    check_equal(output, whole)
    assert not is_saving(output) and len(list(output.glob("step-*"))) == 2


def check_equal(output: Path, whole: mw.Trainer) -> None:
    resumed = mw.Trainer.restore(output, show=False)
    assert resumed.steps_done == STEPS
    assert_same(weights_of(resumed.model), weights_of(whole.model))
    assert_same(states_of(resumed), states_of(whole))
    assert numbers_of(output) == numbers_of(output.parent / "whole")


def test_a_loss_that_is_not_finite_names_the_op_and_leaves_all_as_it_was(tmp_path):
    model = make_model()
    trainer = make_trainer(model, output=tmp_path / "a", save_every=1)
    trainer.fit(make_batches(), steps=2)
    name = "model.layers.1.mlp.up_proj.weight"
    poisoned = weights_of(model)[name]
    poisoned[3, 5] = np.inf
    model._session.write_tensor(name, poisoned)
    weights, states = weights_of(model), states_of(trainer)
    with pytest.raises(FloatingPointError, match=r"step 3: the loss is (nan|inf|-inf); dot at layers\.1\.mlp\.up .* made") as error:
        trainer.fit(make_batches(), steps=5)
    assert "Weights are as before this step; the last checkpoint in" in str(error.value)
    assert trainer.steps_done == 2
    assert_same(weights_of(model), weights)
    assert_same(states_of(trainer), states)
    assert make_trainer(output=tmp_path / "a").steps_done == 2


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_rate_that_explodes_keeps_the_last_whole_checkpoint(tmp_path, dtype):
    trainer = make_trainer(output=tmp_path / "a", optimizer=mw.SGD(lr=1e30), dtype=dtype, clip=None, save_every=1)
    with pytest.raises(FloatingPointError, match="step .: the loss is"):
        trainer.fit(make_batches(), steps=50)
    restored = mw.Trainer.restore(tmp_path / "a", show=False)
    assert 1 <= restored.steps_done <= trainer.steps_done
    assert all(np.isfinite(values).all() for values in weights_of(restored.model).values())


def test_a_gradient_that_is_not_finite_is_never_saved(tmp_path):
    trainer = make_trainer(output=tmp_path / "a", clip=None)
    trainer.fit(make_batches(), steps=1)

    class Spoiled:
        def __getattr__(self, name):
            return getattr(step, name)

        def run(self, *arguments):
            loss, _, finite, more = step.run(*arguments)
            return loss, float("inf"), finite, more

    step, trainer._step = trainer._step, Spoiled()
    with pytest.raises(FloatingPointError, match="step 2: the loss is .*, but the norm of its gradient is inf.*the last checkpoint in"):
        trainer.fit(make_batches(), steps=4)
    assert [path.name for path in (tmp_path / "a").glob("step-*")] == ["step-00000001"]
    for act in (lambda: trainer.save(tmp_path / "b"), lambda: trainer.step(make_batch()), lambda: trainer.fit(make_batches(), steps=4)):
        with pytest.raises(mw.UserError, match="has spoiled the weights in memory"):
            act()
