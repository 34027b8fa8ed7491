"""Planning for named hardware: files, predicted time, memory over it, and what a user is told."""

import json

import meshwright as mw
import pytest
from meshwright.cli.main import main
from meshwright.hardware import find_hardware, hardware_names
from meshwright.packaged import configs_folder

STEP = dict(seq=8192, batch=16, remat="full", dtype="bfloat16")


def test_names():
    assert hardware_names() == ["a100", "b200", "cpu", "h100", "h200", "h800", "mi300x", "tpu-v4", "tpu-v5e", "tpu-v5p", "tpu-v6e"]
    with pytest.raises(mw.UserError, match="there is no hardware 'h10'; did you mean 'h100'"):
        mw.plan("tiny", hardware="h10")


@pytest.mark.parametrize("name", ["a100", "b200", "h100", "h200", "h800", "mi300x", "tpu-v4", "tpu-v5e", "tpu-v5p", "tpu-v6e"])
def test_a_step_on_every_chip(name):
    plan = mw.plan("llama3-8b", mesh={"fsdp": 8}, hardware=name, **STEP)
    estimate = plan.estimate
    assert 0.1 < plan.mfu < 0.8 and plan.step_seconds == pytest.approx(sum(estimate.seconds.values()))
    assert plan.tokens_per_second == pytest.approx(16 * 8192 / plan.step_seconds)
    chip = find_hardware(name)
    fields = json.loads((configs_folder() / "hardware" / f"{name}.json").read_text(encoding="utf-8"))
    assert ". Source: " in fields["note"] and len(fields["network"]) >= 2  # links of a domain or slice, and those beyond
    assert plan.mfu == pytest.approx(plan.model_flops / plan.step_seconds / 8 / chip.peak_flops["bfloat16"])
    assert plan.available_bytes == int(chip.memory_bytes)
    assert estimate.assumptions["flops_efficiency"] == chip.flops_efficiency


def test_what_makes_a_step_longer():
    plan = mw.plan("llama3-8b", mesh={"fsdp": 8}, hardware="h100", **STEP)
    waiting = mw.plan("llama3-8b", mesh={"fsdp": 8}, hardware="h100", overlap=False, **STEP)
    assert waiting.step_seconds > plan.step_seconds and waiting.estimate.exposed["fsdp"] > plan.estimate.exposed["fsdp"]
    assert waiting.needed_bytes == waiting.peak_bytes < plan.needed_bytes  # the next layer's weights are gathered early
    slow = mw.plan("llama3-8b", mesh={"fsdp": 8}, hardware="h800", **STEP)
    assert slow.estimate.transfer_seconds > 2 * plan.estimate.transfer_seconds and slow.model_flops == plan.model_flops
    links = [dict(name="wire", chips=0, bandwidth=1e9, latency=1e-3)]
    wire = mw.plan("llama3-8b", mesh={"fsdp": 8}, hardware="h100", network=links, **STEP)
    assert wire.estimate.exposed["fsdp"] > 10 * plan.estimate.exposed["fsdp"]
    narrow = mw.plan("llama3-8b", mesh={"fsdp": 8}, hardware="h100", dot_dtype="float8", **STEP)
    assert 0.5 < narrow.estimate.seconds["flops"] / plan.estimate.seconds["flops"] < 0.65  # attention stays in bfloat16


def test_memory_over_time():
    plan = mw.plan("tiny", mesh={"fsdp": 2}, hardware="h100", seq=64, batch=4)
    for piece in plan.memory_over_time:
        assert [s["seconds"] for s in piece["samples"]] == sorted(s["seconds"] for s in piece["samples"])
        assert all(sample["scratch"] <= plan.memory["scratch"] for sample in piece["samples"])
    forward, backward = plan.memory_over_time[:2]
    assert forward["samples"][-1]["carried"] == max(s["carried"] for s in backward["samples"]) <= plan.memory["activations"]
    assert sum(row["bytes"] for row in backward["fullest"]) > 0.5 * plan.memory["scratch"]


def test_uneven_experts_take_longer():
    step = dict(mesh={"expert": 4}, seq=512, batch=8, hardware="h100")
    even, uneven = (mw.plan("mixtral-8x7b", expert_imbalance=factor, **step) for factor in (1.0, 2.0))
    assert uneven.step_seconds > even.step_seconds and uneven.peak_bytes == even.peak_bytes
    more_room = mw.plan("mixtral-8x7b", expert_rows_factor=3.0, **step)
    # Room is not work.
    assert more_room.executed_flops == pytest.approx(even.executed_flops, rel=1e-3) and more_room.peak_bytes > even.peak_bytes
    with pytest.raises(mw.UserError, match="expert_imbalance is 0.5; expected at least 1"):
        mw.plan("mixtral-8x7b", expert_imbalance=0.5, **step)


def test_this_machine():
    plan = mw.plan("small", hardware="cpu", seq=256, batch=8, dtype="float32")
    assert plan.settings["overlap"] is False and 0.05 < plan.step_seconds < 60 and 0.1 < plan.mfu <= 1
    assert plan.peak_bytes == mw.plan("small", seq=256, batch=8, dtype="float32").peak_bytes  # our own kernels


def test_messages(tmp_path):
    with pytest.raises(mw.UserError, match="the mesh has 2 ranks, but chips=8"):
        mw.plan("tiny", mesh={"data": 2}, hardware="h100", chips=8)
    with pytest.raises(mw.UserError, match="network belongs to hardware"):
        mw.plan("tiny", network=[])
    with pytest.raises(mw.UserError, match="hardware a100 has no peak for float8; it has bfloat16, float32, int8|did you mean"):
        mw.plan("tiny", hardware="a100", dot_dtype="float8")
    file = tmp_path / "mine.json"
    file.write_text('{"name": "mine"}')
    with pytest.raises(mw.UserError, match="mine.json: the key 'peak_flops' is missing"):
        mw.plan("tiny", hardware=str(file))
    file.write_text("{")
    with pytest.raises(mw.UserError, match="mine.json: not JSON"):
        mw.plan("tiny", hardware=str(file))
    small = mw.plan("llama3-8b", seq=8192, batch=1, hardware="h100")
    assert not small.fits and any("GiB of a h100" in warning for warning in small.warnings)


def test_51200_chips_plan_like_512():
    import time

    def seconds(fsdp, data):
        start = time.process_time()
        mw.plan("llama3-8b", mesh=dict(data=data, fsdp=fsdp), hardware="h100", seq=4096, batch=data * fsdp, remat="full")
        return time.process_time() - start

    seconds(64, 8)
    few, many = (min(seconds(64, data) for _ in range(3)) for data in (8, 800))
    assert many < 1.5 * few + 0.05


def test_command_line(capsys):
    line = ["plan", "model=llama3-8b", "mesh.fsdp=64", "mesh.tensor=8", "hardware=h200", "seq=8192", "batch=256", "dtype=bfloat16"]
    assert main([*line, "remat=full"]) == 0
    shown = capsys.readouterr().out
    assert "time of one step on h200 (flops_efficiency=" in shown and "MFU" in shown and "waiting for" in shown
    assert main([*line, "remat=full", "json=true"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["estimate"]["mfu"] > 0.1 and facts["memory_over_time"][0]["samples"]
