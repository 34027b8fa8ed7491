"""The picture of a plan: what it shows adds up to the plan's own figures."""

import json

import meshwright as mw
import numpy as np
import pytest
from matplotlib.image import imread
from meshwright.cli.main import main
from meshwright.plan_picture import memory_layers, step_shares

STEP = dict(seq=4096, batch=16, dtype="bfloat16", remat="minimal", hardware="h100")
MESHES = [{"fsdp": 4, "tensor": 2}, {"data": 2, "stage": 4, "tensor": 2}]


@pytest.fixture(scope="module", params=range(2), ids=["fsdp and tensor", "stages"])
def plan(request):
    return mw.plan("llama3-8b", mesh=MESHES[request.param], microbatches=2, **STEP)


def test_shares_of_a_step_add_up(plan):
    shares = step_shares(plan)
    assert sum(shares.values()) == pytest.approx(plan.step_seconds, rel=1e-6)
    assert ("bubble" in shares) == (plan.settings["mesh"].get("stage", 1) > 1)
    assert shares["compute (FLOPs)"] == plan.estimate.seconds["flops"] and any(name.startswith("waiting for ") for name in shares)


def test_memory_stays_below_the_peak(plan):
    times, layers = memory_layers(plan)
    assert times == sorted(times) and all(len(counts) == len(times) for counts in layers.values())
    total = [sum(counts) for counts in zip(*layers.values(), strict=True)]
    assert 0.5 * plan.needed_bytes < max(total) <= plan.needed_bytes
    assert max(layers["activations"]) == plan.memory["activations"] and max(layers["scratch"]) <= plan.memory["scratch"]
    assert min(layers["activations"]) < max(layers["activations"])


def test_gradients_come_where_activations_go():
    one, two = (mw.plan("llama3-8b", mesh={"fsdp": 8}, microbatches=count, **STEP) for count in (1, 2))
    _, layers = memory_layers(one)
    total = [sum(counts) for counts in zip(*layers.values(), strict=True)]
    assert 0.5 * one.needed_bytes < max(total) <= one.needed_bytes
    gradients = two.memory["gradients"]
    assert layers["gradients"][0] == 0 and max(layers["gradients"]) == pytest.approx(gradients, rel=1e-3)
    assert one.memory["gradients"] < 0.1 * gradients


def test_transfers_lie_in_their_pieces(plan):
    moved = 0
    for piece in plan.estimate.pieces:
        busy = sum(transfer["end"] - transfer["start"] for transfer in piece["transfers"])
        assert busy == pytest.approx(piece["transfer_seconds"], rel=1e-6)
        # Every link ends before the piece does.
        assert all(0 <= t["start"] < t["end"] <= piece["seconds"] * (1 + 1e-9) for t in piece["transfers"])
        assert sum(piece["exposed"].values()) == pytest.approx(piece["exposed_seconds"], rel=1e-6, abs=1e-9)
        moved += len(piece["transfers"])
    axes = {transfer["axes"] for piece in plan.estimate.pieces for transfer in piece["transfers"]}
    assert moved > 32 and "tensor" in axes


def test_png(plan, tmp_path):
    picture = imread(plan.save_png(tmp_path / "plan.png"))
    assert picture.shape[0] > 800 and picture.shape[1] > 1000
    assert len(np.unique(picture[..., :3].reshape(-1, 3).round(2), axis=0)) > 10
    assert [file.name for file in tmp_path.iterdir()] == ["plan.png"]


def test_on_the_command_line(tmp_path, capsys):
    file = tmp_path / "plan.png"
    assert main(["plan", "tiny", "seq=64", "batch=4", "mesh.fsdp=2", "hardware=h100", f"picture={file}", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["fits"] and imread(file).size
    assert main(["plan", "tiny", "seq=64", "batch=4", f"picture={file}"]) == 2
    assert "a plan without hardware has no time to draw" in capsys.readouterr().err
    missing = tmp_path / "nowhere" / "plan.png"
    assert main(["plan", "tiny", "seq=64", "batch=4", "hardware=h100", f"picture={missing}"]) == 2
    assert "cannot be written: No such file or directory" in capsys.readouterr().err
