import io
import json
import math
import os
import signal
import subprocess
import sys

import pytest
from meshwright import UserError
from meshwright.run_log import History, Metrics, RunRecorder, plot_run, read_history, read_settings, remember_settings
from meshwright.run_log.event_file import EventFile, crc32c


def metrics(loss, tokens=0, **more):
    return Metrics(loss=loss, perplexity=math.exp(loss), tokens=tokens, **more)


def test_metrics_by_attribute_and_by_name():
    m = metrics(2.0, tokens=7, lr=0.1)
    assert m["loss"] == m.loss == 2.0 and m["grad_norm"] is None
    assert m.to_dict() == {"loss": 2.0, "perplexity": math.exp(2.0), "tokens": 7, "lr": 0.1}
    assert dict(m)["tokens"] == 7
    with pytest.raises(KeyError, match="did you mean 'perplexity'"):
        m["perplexiti"]


def test_resume_cuts_entries_beyond_the_step_and_half_lines(tmp_path):
    history = History(tmp_path)
    history.describe("mini")
    history.baseline("bigram", 4.16)
    for step in range(1, 7):
        history.append("train", step, metrics(1.0 / step, tokens=step * 10))
    history.append("validation", 6, metrics(0.5, tokens=60))
    history.close()
    with open(history.path, "ab") as file:
        file.write(
            b'[]\n{"kind": "train", "step": "x"}\n{"kind": "baseline"}\n' + b"[" * 100000 + b'\n\xff\n{"kind": "train", "step": 7, "lo'
        )
    assert [row["step"] for row in read_history(tmp_path).train] == [1, 2, 3, 4, 5, 6]

    history = History(tmp_path, resume_step=4)
    history.describe("mini")
    history.baseline("bigram", 4.16)
    history.append("train", 5, metrics(0.7, tokens=50))
    history.close()
    read = read_history(tmp_path)
    assert [row["step"] for row in read.train] == [1, 2, 3, 4, 5] and read.train[-1]["loss"] == 0.7
    assert read.validation == [] and read.model == "mini" and read.baselines == {"bigram": 4.16}
    assert history.path.read_bytes().count(b'"kind": "run"') == 1


def test_a_fresh_run_starts_an_empty_history(tmp_path):
    for _ in range(2):
        history = History(tmp_path)
        history.append("train", 1, metrics(1.0))
        history.close()
    assert len(read_history(tmp_path).train) == 1


def test_every_line_before_a_kill_is_readable(tmp_path):
    code = (
        "import sys; from meshwright.run_log import History, Metrics; h = History(sys.argv[1])\n"
        "for step in range(1, 10**9):\n"
        "    h.append('train', step, Metrics(loss=1.0, perplexity=2.7, tokens=step))\n"
        "    if step == 500: print('ready', flush=True)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"ready\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    steps = [row["step"] for row in read_history(tmp_path).train]
    assert len(steps) >= 500 and steps == list(range(1, len(steps) + 1))


def test_numbers_that_are_not_finite_stay_valid_json(tmp_path):
    history = History(tmp_path)
    history.append("train", 1, Metrics(loss=math.nan, perplexity=math.inf))
    history.close()
    row = json.loads(history.path.read_text(), parse_constant=lambda name: pytest.fail(name))
    assert row["loss"] is None and row["perplexity"] is None


def test_crc32c_of_the_rfc_examples():
    assert crc32c(b"123456789") == 0xE3069283
    assert crc32c(bytes(32)) == 0x8A9136AA
    assert crc32c(bytes(range(32))) == 0x46DD794E


def test_tensorboard_reads_our_event_files(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    first = EventFile(tmp_path)
    for step in (1, 2, 3, 300):
        first.add_scalars(step, {"learning/loss": 8.0 / step, "perf/mfu": 0.5})
    first.add_scalars(301, {"learning/loss": 1e300})
    first.close()
    second = EventFile(tmp_path, resume_step=2)
    second.add_scalars(3, {"learning/loss": 2.5})
    second.close()
    assert second.path.name > first.path.name

    single = EventAccumulator(str(first.path)).Reload()
    assert single.Tags()["scalars"] == ["learning/loss", "perf/mfu"]
    assert [(e.step, e.value) for e in single.Scalars("learning/loss")][:4] == [
        (1, 8.0),
        (2, 4.0),
        (3, pytest.approx(8 / 3)),
        (300, pytest.approx(8 / 300)),
    ]
    assert single.Scalars("learning/loss")[4].value == math.inf
    assert abs(single.Scalars("learning/loss")[0].wall_time - os.stat(first.path).st_mtime) < 60
    both = EventAccumulator(str(tmp_path)).Reload()
    assert [(e.step, e.value) for e in both.Scalars("learning/loss")] == [(1, 8.0), (2, 4.0), (3, 2.5)]
    third = EventFile(tmp_path)  # the run was started again before its first checkpoint
    third.add_scalars(1, {"learning/loss": 9.0})
    third.close()
    assert [(e.step, e.value) for e in EventAccumulator(str(tmp_path)).Reload().Scalars("learning/loss")] == [(1, 9.0)]


def test_recorder_writes_history_events_and_picture(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    screen = io.StringIO()
    with RunRecorder(tmp_path / "run", model="mini", total_steps=5, log_every=2, stream=screen) as recorder:
        recorder.history.baseline("unigram", 6.2)
        for step in range(1, 6):
            recorder.step(
                step, metrics(5.0 / step, tokens=step * 10, lr=1e-3, grad_norm=1.0, mfu=0.451, step_seconds=0.5, tokens_per_second=20.0)
            )
        recorder.validation(5, metrics(1.5, tokens=50))
    assert [row["step"] for row in read_history(tmp_path / "run").train] == [2, 4, 5]
    assert (tmp_path / "run" / "loss.png").read_bytes().startswith(b"\x89PNG")
    lines = screen.getvalue().splitlines()
    assert len(lines) == 4 and lines[0].startswith("step 2/5 · loss 2.5000") and "45.1 % of peak" in lines[0]
    assert "validation loss 1.5000" in lines[3]
    events = EventAccumulator(str(tmp_path / "run")).Reload()
    assert events.Scalars("eval/loss")[0].value == 1.5 and [e.step for e in events.Scalars("perf/mfu")] == [2, 4, 5]


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_terminal_gets_a_live_line(monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.setenv("TERM", "xterm")
    screen = Terminal()
    with RunRecorder(None, model="tiny", total_steps=4, log_every=2, stream=screen) as recorder:
        for step in range(1, 5):
            recorder.step(step, metrics(4.0 / step))
        recorder.note("saved [bold]runs/a[/bold]")
    shown = screen.getvalue()
    assert "\x1b[" in shown and "step 4/4 · loss 1.0000" in shown and "saved [bold]runs/a[/bold]" in shown


def test_recorder_without_output_only_shows():
    screen = io.StringIO()
    with RunRecorder(None, model="tiny", total_steps=1, stream=screen) as recorder:
        recorder.step(1, metrics(1.0))
    assert screen.getvalue().startswith("step 1/1 · loss 1.0000")


def test_picture_has_labels_title_and_baselines(tmp_path, monkeypatch):
    from matplotlib.figure import Figure

    history = History(tmp_path)
    history.describe("mini")
    history.baseline("unigram", 6.25)
    for step in (1, 2):
        history.append("train", step, metrics(5.0, tokens=step))
    history.append("train", 3, Metrics(loss=math.nan, perplexity=math.nan, tokens=3))
    history.append("validation", 2, metrics(5.5, tokens=2))
    history.close()
    drawn = []
    save = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda self, *a, **k: (drawn.append(self.axes[0]), save(self, *a, **k))[1])
    path = plot_run(tmp_path, baselines={"bigram": 4.16})
    assert path == tmp_path / "loss.png" and path.stat().st_size > 5000
    axes = drawn[0]
    assert (axes.get_xlabel(), axes.get_ylabel(), axes.get_title()) == ("tokens", "loss (nats per token)", "mini")
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert labels == ["training loss", "validation loss", "unigram (6.25)", "bigram (4.16)"]
    assert list(axes.lines[0].get_xdata()) == [1.0, 2.0]


def test_picture_of_a_folder_without_losses_is_an_error(tmp_path):
    with pytest.raises(UserError, match="metrics.jsonl"):
        plot_run(tmp_path)
    History(tmp_path).close()
    with pytest.raises(UserError, match="no losses"):
        plot_run(tmp_path)


def test_settings_of_a_resumed_run_must_agree(tmp_path):
    folder = tmp_path / "runs" / "a"
    assert read_settings(folder) == {}
    remember_settings(folder, {"lr": 0.1, "seq": 64, "save_every": 10, "betas": (0.9, 0.95)})
    remember_settings(folder, {"lr": 0.1, "seq": 64, "save_every": 20, "betas": (0.9, 0.95)}, free=["save_every"])
    assert read_settings(folder) == {"lr": 0.1, "seq": 64, "save_every": 20, "betas": [0.9, 0.95]}
    with pytest.raises(UserError) as error:
        remember_settings(folder, {"lr": 0.2, "save_every": 20, "betas": (0.9, 0.95)}, free=["save_every"])
    for part in ("runs/a", "other settings", "lr: 0.1 there, 0.2 here", "seq: 64 there, null here"):
        assert part in str(error.value)
    assert "betas" not in str(error.value) and read_settings(folder)["lr"] == 0.1
    (folder / "run.json").write_text("{")
    with pytest.raises(UserError, match="not valid JSON"):
        read_settings(folder)
