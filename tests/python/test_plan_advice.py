"""A plan that does not fit says by how much and names three changes; each is planned again here and must fit."""

import json

import meshwright as mw
import pytest
from meshwright.cli.main import main

RUNS = {
    "one chip": dict(model="llama3-8b", seq=8192, batch=1, hardware="h100"),
    "copies": dict(model="llama3-8b", mesh=dict(data=8, fsdp=2), seq=8192, batch=64, hardware="h100", remat="minimal"),
    "far away": dict(model="llama3-70b", mesh=dict(fsdp=4), seq=8192, batch=16, hardware="h100"),
    "stages": dict(model="mixtral-8x7b", mesh=dict(stage=2, expert=4), seq=4096, batch=64, microbatches=4, hardware="a100"),
    "no hardware": dict(model="tiny", seq=64, batch=16, memory=2_000_000),
}


@pytest.mark.parametrize("run", RUNS)
def test_every_change_makes_it_fit(run):
    settings = RUNS[run]
    report = mw.plan(**settings)
    assert not report.fits and len(report.advice) == 3
    assert len({row["text"] for row in report.advice}) == 3
    for row in report.advice:
        changed = mw.plan(**{**settings, **row["change"]})
        assert changed.fits and changed.needed_bytes == row["peak_bytes"] <= changed.available_bytes
        assert changed.step_seconds == row["step_seconds"] and changed.num_ranks == row["chips"]
        assert row["text"] in report.table()
    chips = [row["chips"] for row in report.advice]
    assert chips == sorted(chips)  # no more chips first
    assert json.loads(report.to_json())["advice"] == report.advice


def test_what_fits_needs_no_advice():
    report = mw.plan("tiny", seq=64, batch=16)
    assert report.fits and report.advice == [] and "would make it fit" not in report.table()


def test_recompute_and_microbatches_are_offered():
    report = mw.plan("llama3-8b", mesh=dict(fsdp=8), seq=8192, batch=32, hardware="h100")
    changes = [row["change"] for row in report.advice]
    assert {"microbatches": 4} in changes and any(set(change) == {"remat"} for change in changes)


def test_command_line(capsys):
    line = ["plan", "llama3-8b", "seq=8192", "batch=1", "hardware=h100", "dtype=bfloat16"]
    assert main(line) == 0
    shown = capsys.readouterr().out
    over = mw.plan("llama3-8b", seq=8192, batch=1, hardware="h100")
    assert f"{(over.needed_bytes - over.available_bytes) / 2**30:.1f} GiB too much" in shown and "DOES NOT FIT into" in shown
    lines = shown.splitlines()
    at = lines.index("changes that would make it fit, each planned")
    assert len(lines) == at + 4 and all("peak" in row and "step" in row for row in lines[at + 1 :])
    words = lines[at + 2].split("peak")[0].split()
    assert main([*(word for word in line if word.split("=")[0] not in [w.split("=")[0] for w in words]), *words]) == 0
    assert "DOES NOT FIT" not in capsys.readouterr().out
