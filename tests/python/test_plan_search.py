"""mesh=auto and sweeps: every mesh is looked at, the quick judgement is what planning says, and the choice is that of planning all."""

import itertools
import json
import math
import time

import meshwright as mw
import pytest
from meshwright.cli.main import main
from meshwright.packaged import configs_folder
from meshwright.plan_search import AXES, Judge, counts_of_microbatches, meshes
from meshwright.planning import _question

H100 = dict(hardware="h100", dtype="bfloat16")


def fields_of(name, **changed):
    return json.loads((configs_folder() / "models" / f"{name}.json").read_text()) | changed


def test_every_factorization_is_a_candidate():
    question = _question("mixtral-8x7b", dict(chips=24, hardware="tpu-v5p", seq=32768, batch=24))
    found = {tuple(mesh.get(axis, 1) for axis in AXES) for mesh in meshes(question)}
    wanted = set()
    for sizes in itertools.product((1, 2, 3, 4, 6, 8, 12, 24), repeat=len(AXES)):
        data, stage, fsdp, expert, context, tensor = sizes
        divides = 24 % (data * fsdp * expert) == 0 and 8 % expert == 0 and 32 % tensor == 0 and 32768 % (2 * context) == 0
        if math.prod(sizes) == 24 and divides and stage <= 32 and 32768 // context >= 4096:
            wanted.add(sizes)
    assert found == wanted and len(found) > 100
    inside = _question("mixtral-8x7b", dict(chips=24, hardware="h100", seq=2048, batch=24))
    assert max(mesh.get("tensor", 1) for mesh in meshes(inside)) == 8  # one NVLink domain
    assert not any("context" in mesh for mesh in meshes(inside))


@pytest.mark.parametrize(
    ("model", "mesh", "microbatches"),
    [
        ("llama3-70b", {"fsdp": 8, "tensor": 8}, 1),
        ("llama3-70b", {"data": 2, "stage": 4, "fsdp": 2, "tensor": 4}, 8),
        ("deepseek2-16b", {"data": 4, "expert": 16}, 1),
        ("gpt-oss-20b", {"fsdp": 64}, 1),
        ("llama4-17b-16e", {"fsdp": 4, "expert": 16}, 1),
        ("gemma3-27b", {"fsdp": 16, "tensor": 4}, 1),
    ],
)
def test_two_small_models_tell_what_the_whole_plan_says(model, mesh, microbatches):
    settings = dict(seq=4096, batch=64, remat="full", **H100)
    judge = Judge(_question(model, dict(chips=64, **settings)))
    quick = judge.judge(mesh, microbatches, "full")
    whole = mw.plan(model, mesh=mesh, microbatches=microbatches, **settings)
    assert not quick.exact and quick.step_seconds == pytest.approx(whole.step_seconds, rel=0.02)
    assert quick.needed_bytes == pytest.approx(whole.needed_bytes, rel=0.03) and quick.mfu == pytest.approx(whole.mfu, rel=0.02)


def test_auto_is_the_best_of_all_plans():
    model = fields_of("qwen3-0.6b", num_layers=4)
    settings = dict(seq=1024, batch=16, remat="minimal", **H100)
    best = mw.plan(model, mesh="auto", chips=8, **settings)
    question = _question(model, dict(chips=8, **settings))
    tried = []
    for mesh in meshes(question):
        for count in counts_of_microbatches(question, mesh):
            report = mw.plan(model, mesh=mesh, microbatches=count, **settings)
            tried.append((report.step_seconds, report.fits))
    assert best.fits and best.step_seconds <= 1.0005 * min(seconds for seconds, fits in tried if fits)
    assert best.settings["mesh_asked"].startswith("auto: the best of")
    again = mw.plan(model, mesh="auto", chips=8, **settings)
    assert again.settings == best.settings
    assert mw.plan(model, mesh=best.settings["mesh"], microbatches=best.settings["microbatches"], **settings).peak_bytes == best.peak_bytes


def test_memory_decides():
    settings = dict(chips=8, seq=4096, batch=8, **H100)
    report = mw.sweep("llama3-8b", remat="none", **settings)
    for row in report.rows:
        assert row["fits"] == (row["over_bytes"] == 0) == (row["needed_bytes"] <= report.best.available_bytes)
    fitting = [row["fits"] for row in report.rows]
    assert fitting == sorted(fitting, reverse=True) and 0 < sum(fitting) < len(fitting)
    seconds = [row["step_seconds"] for row in report.rows if row["fits"]]
    assert seconds == pytest.approx(sorted(seconds), rel=1e-3)
    assert "too much" in report.table(most=len(fitting)) and report.rows[0]["exact"]
    assert report.best.settings["mesh"] == report.rows[0]["mesh"]
    fixed = mw.sweep("llama3-8b", mesh={"tensor": 4}, remat="none", **settings)
    assert {row["mesh"].get("tensor") for row in fixed.rows} == {4} and len(fixed.rows) < len(fitting)
    # The least recompute that fits, mesh by mesh.
    auto = mw.plan(fields_of("llama3-8b", num_layers=8), mesh="auto", remat="auto", **{**settings, "chips": 4})
    assert auto.fits and auto.settings["remat"] != "auto"
    nowhere = mw.plan("llama3.1-405b", mesh="auto", chips=16, seq=4096, batch=16, **H100)
    assert not nowhere.fits and nowhere.num_ranks == 16


def test_512_chips_in_seconds():
    start = time.process_time()
    report = mw.plan("llama3.1-405b", mesh="auto", chips=512, hardware="h200", seq=8192, batch=512, remat="full")
    assert time.process_time() - start < 20
    by_hand = mw.plan("llama3.1-405b", mesh=dict(fsdp=64, tensor=8), hardware="h200", seq=8192, batch=512, remat="full")
    assert report.fits and report.step_seconds < by_hand.step_seconds


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (dict(mesh="auto", chips=8), "needs hardware: what every rank is"),
        (dict(mesh="auto", hardware="h100"), "needs chips"),
        (dict(mesh={"fsdp": 4, "tensor": 2}, chips=16, batch=16), r"8 ranks, but chips=16; .* product is 16, such as fsdp=8, or mesh=auto"),
        (dict(mesh={"tensor": 3}, chips=16), r"the mesh has 3 ranks, but chips=16; .* product is 16, or mesh=auto"),
        (dict(mesh={"tensor": 3}, hardware="h100"), "does not divide dim 'seq' of size 64; nearest sizes that work: 63 or 66"),
        (
            dict(mesh={"stage": 200}, hardware="h100"),
            "cannot be cut into 200 parts .*; expected at most 4, with the embedding and the head in parts of their own",
        ),
        (dict(mesh="best", chips=8), "expected a Mesh, a dict such as .* or 'auto', found 'best'"),
        (dict(mesh="auto", chips=7, batch=8, hardware="h100"), "no mesh of 7 ranks that divides a batch of 8 sequences of 64 tokens"),
        (dict(mesh="auto", chips=8, hardware="h100", remat="fulll"), "did you mean 'full'"),
        (dict(mesh="auto", chips=8, hardware="h10"), "did you mean 'h100'"),
    ],
)
def test_messages(settings, message):
    with pytest.raises(mw.UserError, match=message):
        mw.plan("tiny", seq=64, **settings)


def test_axes_that_leave_no_mesh():
    with pytest.raises(mw.UserError, match="no mesh of 16 ranks with tensor=3 that divides a batch of 16 sequences of 64 tokens"):
        mw.sweep("tiny", chips=16, mesh={"tensor": 3}, batch=16, seq=64, hardware="h100")


def test_command_line(capsys):
    line = ["plan", "model=qwen3-0.6b", "chips=16", "hardware=h100", "seq=2048", "batch=32", "dtype=bfloat16"]
    assert main([*line, "mesh=auto"]) == 0
    chosen = capsys.readouterr().out
    assert "mesh=auto: the best of" in chosen and "MFU" in chosen
    assert main([*line, "--sweep", "json=true"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert all(math.prod(row["mesh"].values()) == 16 for row in facts["meshes"])
    assert facts["best"]["settings"]["mesh"] == facts["meshes"][0]["mesh"]
    assert main([*line, "--sweep", "mesh.tensor=2"]) == 0
    table = capsys.readouterr().out.splitlines()
    assert " meshes, " in table[0] and all("tensor=2" in row for row in table[2:] if "..." not in row)
    assert main([*line, "mesh=auto", "mesh.tensor=2"]) == 2
    assert "chooses every axis, but mesh.tensor=2 is given" in capsys.readouterr().err
