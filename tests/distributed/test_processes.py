"""Ranks that are processes of mpirun: the numbers of ranks that are threads, bit for bit; errors that name what differs; checkpoints."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import meshwright as mw
import numpy as np
import pytest
from distributed import ranks_program
from meshwright.cli.launch import mpirun_command

PROGRAM = Path(ranks_program.__file__)


def mpirun(ranks: int, *command: object) -> list[str]:
    """The command line, of any program."""
    head = mpirun_command([], ranks)
    return [*head[: head.index(sys.executable)], *map(str, command)]


def run_case(ranks: int, case: str, output: Path) -> subprocess.CompletedProcess[str]:
    command = mpirun(ranks, sys.executable, PROGRAM, case, output)
    return subprocess.run(command, capture_output=True, text=True, timeout=240)


@pytest.mark.parametrize("ranks", [2, 4, 8])
def test_processes_have_the_bits_of_threads(ranks, tmp_path) -> None:
    done = run_case(ranks, "equality", tmp_path / "results.json")
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "results.json").read_text())
    cases = ranks_program.CASES[ranks]
    assert len(results) == len(cases)
    for case, processes in zip(cases, results, strict=True):
        threads = ranks_program.train(case)
        assert processes == json.loads(json.dumps(threads)), case
        alone = ranks_program.train({**case, "mesh": {}, "rules": None})
        tolerance = 2e-2 if case.get("dtype") == "bfloat16" else 1e-5
        for a, b in zip(threads["steps"], alone["steps"], strict=True):
            assert float.fromhex(a[0]) == pytest.approx(float.fromhex(b[0]), rel=tolerance), case


@pytest.mark.parametrize(
    ("case", "messages"),
    [
        ("other_learning_rate", ["different settings", "optimizer.lr: 0.1 on rank 0, 0.2 on rank 1"]),
        ("other_weights", ["different settings", "weights: hash"]),
        ("other_batch", ["batch field 'input_ids'", "on rank 1"]),
        ("other_program", ["different programs", "program 'forward'"]),
        ("other_length", ["fit", "steps: 3 on rank 0, 4 on rank 1"]),
        ("wrong_mesh", ["mesh: 4 ranks (data=4), but mpirun started 2", "such as fsdp=2"]),
        ("own_folders", ["rank 0 made this checkpoint's folder, but rank 1 does not see it", "a folder that all ranks share"]),
        ("own_checkpoints", ["do not see the same checkpoints in '/proc/self/cwd/run'", "step-00000000 on rank 0, none on rank 1"]),
        ("one_fails", ["rank 1: this rank fails", "the second rank had enough"]),
    ],
)
def test_errors_name_what_differs_and_end_the_run(case, messages, tmp_path) -> None:
    start = time.monotonic()
    done = run_case(2, case, tmp_path)
    assert done.returncode not in (0, None)
    assert time.monotonic() - start < 60
    for message in messages:
        assert message in done.stderr, done.stderr


# ---- the command line ----


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    (folder / "book.txt").write_text(" ".join(f"word{i * i % 97}" for i in range(20000)))
    mw.prepare([folder / "book.txt"], folder / "tokens", tokenizer="train", vocab=300, validation=0.1)
    return folder / "tokens"


def train_arguments(data: Path, output: Path, *more: str) -> list[str]:
    sizes = ["model=tiny", f"data={data}", f"output={output}", "seq=32", "batch=4", "steps=6", "save_every=3", "log_every=1"]
    return ["train", *sizes, "mesh.fsdp=2", *more]


def meshwright(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "meshwright.cli.main", *arguments]


def finish(command: list[str]) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    return done


def tensor_files(checkpoint: Path) -> dict[str, bytes]:
    return {str(path.relative_to(checkpoint)): path.read_bytes() for path in sorted(checkpoint.rglob("*.safetensors"))}


def losses(output: Path) -> list[float]:
    rows = map(json.loads, (output / "metrics.jsonl").read_text().splitlines())
    return [row["loss"] for row in rows if row["kind"] == "train"]


def test_training_over_processes_writes_what_threads_write(data, tmp_path) -> None:
    finish(meshwright(*train_arguments(data, tmp_path / "threads")))
    done = finish(meshwright(*train_arguments(data, tmp_path / "launched", "ranks=2", "eval_every=3")))
    assert done.stdout.count("trained; the model is in") == 1  # only one rank speaks
    finish(mpirun(2, *meshwright(*train_arguments(data, tmp_path / "mpirun"))))
    expected = tensor_files(tmp_path / "threads" / "step-00000006")
    assert len(expected) == 2
    for name in ("launched", "mpirun"):
        assert tensor_files(tmp_path / name / "step-00000006") == expected
        assert losses(tmp_path / name) == losses(tmp_path / "threads")
        assert not [entry for entry in (tmp_path / name).iterdir() if entry.name.startswith(".")]
    # Every file has the one writer that the manifest's checks know nothing of: they must hold all the same.
    assert mw._core.checkpoint_problem(str(tmp_path / "launched" / "step-00000006")) is None


def test_a_run_resumes_on_threads_and_on_processes(data, tmp_path) -> None:
    finish(meshwright(*train_arguments(data, tmp_path / "whole", "ranks=2")))
    for name, more in {"processes": ["ranks=2"], "threads": []}.items():
        shutil.copytree(tmp_path / "whole", tmp_path / name)
        shutil.rmtree(tmp_path / name / "step-00000006")
        done = finish(meshwright(*train_arguments(data, tmp_path / name, *more)))
        assert "resumed from step 3" in done.stdout + done.stderr
        assert tensor_files(tmp_path / name / "step-00000006") == tensor_files(tmp_path / "whole" / "step-00000006")


def test_a_wrong_number_of_ranks_is_an_error(data, tmp_path) -> None:
    command = mpirun(2, *meshwright(*train_arguments(data, tmp_path / "run", "ranks=4")))
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert "mpirun started 2 processes, found ranks=4" in done.stderr


def test_a_model_saved_by_processes_is_whole(tmp_path) -> None:
    done = run_case(2, "save_pretrained", tmp_path / "model")
    assert done.returncode == 0, done.stderr
    saved, made = mw.Model.from_pretrained(tmp_path / "model").state_dict(), mw.Model(ranks_program.DENSE, seed=0).state_dict()
    for name, weight in made.items():
        assert np.array_equal(saved[name].gather(), weight.gather()), name


def test_a_killed_rank_stops_the_others_and_the_run_resumes(tmp_path) -> None:
    run = subprocess.Popen(
        mpirun(2, sys.executable, PROGRAM, "endless", tmp_path), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    newest = {"step": None}
    deadline = time.monotonic() + 120
    while (newest["step"] or 0) < 6 and time.monotonic() < deadline and run.poll() is None:
        time.sleep(0.1)
        newest = mw._core.newest_checkpoint(str(tmp_path / "run"))
    assert newest["step"], "nothing was saved"
    processes = [int((tmp_path / f"rank-{rank}").read_text()) for rank in range(2)]
    os.kill(processes[1], signal.SIGKILL)
    start = time.monotonic()
    output, _ = run.communicate(timeout=60)
    while Path(f"/proc/{processes[0]}").exists() and time.monotonic() - start < 10:
        time.sleep(0.05)
    assert time.monotonic() - start < 10
    assert run.returncode != 0
    assert "rank 1" in output and "signal 9" in output, output
    done = run_case(2, "resumed", tmp_path)
    assert done.returncode == 0, done.stderr
    assert mw._core.newest_checkpoint(str(tmp_path / "run"))["step"] >= newest["step"] + 2
