"""mw.plan, mw.count_parameters, `meshwright plan` and `meshwright models`: figures by hand, messages, memory of the planning itself."""

import json
import subprocess
import sys
from pathlib import Path

import meshwright as mw
import pytest
from meshwright._core import model_names
from meshwright.cli.main import main
from meshwright.packaged import configs_folder

ROOT = Path(__file__).resolve().parents[2]

# Parameters of the published models, from their own tensors (reference/models.json of the project's notes).
PARAMETERS = {
    "llama2-7b": 6_738_415_616,
    "llama2-13b": 13_015_864_320,
    "llama2-70b": 68_976_648_192,
    "llama3-8b": 8_030_261_248,
    "llama3-70b": 70_553_706_496,
    "llama3.1-405b": 405_853_388_800,
    "mistral-7b": 7_241_732_096,
    "mistral-7b-v0.3": 7_248_023_552,
    "qwen3-0.6b": 596_049_920,
    "qwen3-1.7b": 1_720_574_976,
    "qwen3-4b": 4_022_468_096,
    "qwen3-8b": 8_190_735_360,
    "qwen3-14b": 14_768_307_200,
    "qwen3-32b": 32_762_123_264,
    "small": 23_900_000,
    "base": 124_700_000,
}


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameters(name):
    tolerance = 50_000 if name in ("small", "base") else 0
    assert abs(mw.count_parameters(name) - PARAMETERS[name]) <= tolerance


def test_costs_of_a_token():
    # Llama 3 8B, 8,192 tokens: d 4096, 32 layers, 32 / 8 heads of 128, mlp 14336, vocabulary 128256.
    layer = 2 * 4096 * (32 + 16) * 128 + 2 * 4096 * 32 * 128 + 2 * 8192 * 32 * 128 + 3 * 2 * 4096 * 14336
    costs = mw.model_costs("llama3-8b", seq=8192)
    assert costs["forward_flops_per_token"] == 32 * layer + 2 * 4096 * 128256
    assert costs["training_flops_per_token"] == 3 * costs["forward_flops_per_token"]
    assert costs["kv_cache_bytes_per_token"] == 2 * 32 * 8 * 128 * 2


def test_memory_of_one_rank():
    plan = mw.plan("tiny", seq=32, batch=4, dtype="float32")
    assert plan.peak_bytes == sum(plan.memory.values()) and plan.fits and plan.warnings == []
    weights = 4 * plan.num_parameters
    assert weights <= plan.memory["parameters"] <= weights * 1.1  # buffers are padded to 64 bytes
    assert weights * 2 <= plan.memory["optimizer_state"] <= weights * 2.2
    assert plan.memory["activations"] == sum(a["bytes"] for a in plan.activations) and plan.traffic == []
    bf16 = mw.plan("tiny", seq=32, batch=4, dtype="bfloat16")
    assert bf16.memory["parameters"] < plan.memory["parameters"] * 0.6
    assert bf16.memory["optimizer_state"] >= weights * 3  # with FP32 masters
    assert mw.plan("tiny", seq=32, batch=4, optimizer=mw.SGD(0.1), dtype="float32").memory["optimizer_state"] == 0


def test_remat_and_microbatches_change_activations():
    none, full = (mw.plan("tiny", seq=64, batch=8, remat=policy) for policy in ("none", "full"))
    assert full.memory["activations"] < none.memory["activations"] / 3
    assert full.executed_flops > none.executed_flops and full.model_flops == none.model_flops
    parts = mw.plan("tiny", seq=64, batch=8, gradient_accumulation=4)
    assert parts.memory["activations"] * 3.9 < none.memory["activations"] and parts.model_flops == none.model_flops
    assert none.executed_flops > 0.9 * none.model_flops


def test_sharding_divides_storage_and_is_paid_in_traffic():
    one, four = mw.plan("tiny", seq=32, batch=4), mw.plan("tiny", mesh=mw.Mesh(fsdp=4), seq=32, batch=4)
    assert four.memory["parameters"] <= one.memory["parameters"] / 4 * 1.1
    assert four.memory["optimizer_state"] <= one.memory["optimizer_state"] / 4 * 1.1
    kinds = {(row["collective"], row["axes"]) for row in four.traffic}
    assert ("all_gather", "fsdp") in kinds and ("reduce_scatter", "fsdp") in kinds
    total = sum(row["bytes"] * row["calls"] for row in four.collectives)
    assert total == pytest.approx(sum(row["bytes"] for row in four.traffic))
    places = [row for row in four.collectives if row["scope"].startswith("layers.1.")]
    assert places and all(row["source"].startswith("cpp/") for row in places)


def test_data_parallel_ranks_reduce_each_gradient_once():
    plan = mw.plan("tiny", mesh={"data": 2}, seq=32, batch=8, microbatches=4, dtype="float32")
    sent = sum(row["bytes"] for row in plan.traffic if row["axes"] == "data")
    # A ring over 2 ranks sends 2 (n-1)/n of the 4 bytes of each gradient.
    assert 4 * plan.num_parameters <= sent < 4.1 * plan.num_parameters


def test_warnings_and_fit():
    long = mw.plan("tiny", seq=100_000, batch=1, remat="full")
    assert any("longer than the model allows: max_position_embeddings=" in warning for warning in long.warnings)
    small = mw.plan("tiny", seq=32, batch=4, memory=1000)
    assert not small.fits and any("more than the 1000 B given" in warning for warning in small.warnings)
    assert "DOES NOT FIT" in small.table() and json.loads(small.to_json())["fits"] is False


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(batch=6, mesh={"data": 4}), "does not divide"),
        (dict(batch=6, microbatches=4), "nearest that does: 4 or 8"),
        (dict(mesh={"fdsp": 2}), "did you mean 'fsdp'"),
        (dict(remat="fulll"), "did you mean 'full'"),
        (dict(rules="zero4"), "zero"),
        (dict(dtype="int32"), "expected float32 or bfloat16"),
        (dict(seq=0), "seq must be a whole number of at least 1, found 0"),
        (dict(microbatches=2, gradient_accumulation=4), "two names of one count"),
        (dict(optimizer="adam"), "optimizer kind must be one of adamw, sgd"),
    ],
)
def test_errors(arguments, message):
    with pytest.raises(mw.UserError, match="(?s)" + message.replace("(", r"\(")):
        mw.plan("tiny", **{"seq": 32, "batch": 8, **arguments})


def test_explain():
    plan = mw.plan("tiny", mesh={"tensor": 2}, seq=32, batch=2)
    assert "// forward" in plan.explain() and "all_gather" in plan.explain(after="partition")
    assert "all_gather" not in plan.explain(after="before partition")
    assert "reduce_scatter" in plan.explain(after="collectives") and "peak" in plan.explain(after="memory")
    with pytest.raises(mw.UserError, match="there is no pass 'partitoin'.*did you mean 'partition'"):
        plan.explain(after="partitoin")


def test_plan_of_a_model_or_a_dict():
    fields = dict(embedding_dim=64, mlp_dim=128, num_layers=2, num_query_heads=4, num_kv_heads=2, head_dim=16, vocab_size=100)
    fields |= json.loads((configs_folder() / "models" / "tiny.json").read_text()) | fields
    assert mw.plan({"family": "llama", **fields}, seq=16).num_parameters == mw.count_parameters({"family": "llama", **fields})


def test_command_line(capsys):
    assert main(["plan", "model=tiny", "seq=32", "batch=4", "mesh.data=2"]) == 0
    assert "collectives of one step" in capsys.readouterr().out
    assert main(["plan", "tiny", "seq=32", "json=true"]) == 0
    assert json.loads(capsys.readouterr().out)["settings"]["model"] == "tiny"
    assert main(["plan", "tiny", "seq=32", "explain=cut"]) == 0
    assert "program forward" in capsys.readouterr().out
    assert main(["models", "qwen3-0.6b", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert row["parameters"] == PARAMETERS["qwen3-0.6b"] and row["kv_bytes_per_token"] == 2 * 28 * 8 * 128 * 2
    assert row["training_flops_per_token"] == mw.model_costs("qwen3-0.6b", seq=4096)["training_flops_per_token"]
    assert main(["models", "deepseek3"]) == 0
    table = capsys.readouterr().out
    assert "37,552,282,624" in table and "11,610,067,968" in table and "vision" not in table
    assert main(["models", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert len(rows) == 48 and all(0 < row["active"] <= row["parameters"] for row in rows)


@pytest.mark.parametrize("mesh", [[], ["mesh.fsdp=8", "batch=8", "remat=full"]], ids=["one rank", "fsdp=8"])
def test_planning_8b_takes_little_memory_and_time(mesh):
    # VmHWM and not ru_maxrss, which a child inherits from the process that started it.
    code = (
        "import re, sys, time; start = time.perf_counter()\n"
        "from meshwright.cli.main import main\n"
        "assert main(sys.argv[1:]) == 0\n"
        "most = re.search(r'VmHWM:\\s+(\\d+) kB', open('/proc/self/status').read()).group(1)\n"
        "print(time.perf_counter() - start, most, file=sys.stderr)"
    )
    line = ["plan", "model=llama3-8b", "seq=8192", *mesh]
    shown = subprocess.run([sys.executable, "-c", code, *line], capture_output=True, text=True, check=True).stderr.split()
    assert float(shown[-2]) < 10 and int(shown[-1]) < 300 * 1024


@pytest.mark.parametrize("name", model_names(str(configs_folder() / "models")))
def test_a_step_of_every_configuration_can_be_planned(name):
    report = mw.plan(name, mesh={"fsdp": 2}, seq=64, batch=2, remat="full")
    assert report.peak_bytes > 8 * mw.count_parameters(name) / 2  # masters and moments alone are 12 bytes per parameter
    assert 0 < report.model_flops


@pytest.mark.parametrize("model", ["tiny", "gpt3-52k", "deepseek3-671b", "gpt-oss-20b", "llama4-17b-16e", "gemma3-12b"])
def test_every_collective_has_its_bytes_axes_scope_and_source(model):
    """One row for each that the text lists, none without a place in the model's own terms."""
    axes = {} if model in ("tiny", "gemma3-12b") else {"expert": 2}
    plan = mw.plan(model, mesh={"data": 2, "fsdp": 2, "tensor": 2, **axes}, rules="zero1", remat="full", seq=64, batch=8)
    lines = plan.explain(after="collectives").splitlines()
    assert len(lines) == len(plan.collectives) > 50
    for row, line in zip(plan.collectives, lines, strict=True):
        assert row["bytes"] > 0 and row["axes"] and row["scope"], row
        file, number = row["source"].split(":")
        assert file.startswith("cpp/") and (ROOT / file).is_file() and int(number) > 0
        for part in (row["piece"], row["collective"], row["type"], row["scope"], row["source"]):
            assert part in line
        assert ("recomputed" in line) == row["recomputed"]


def test_the_hash_of_a_plan():
    sizes = dict(seq=16, batch=4)
    plan = mw.plan("tiny", mesh={"fsdp": 2}, **sizes)
    assert plan.program_hash == mw.plan("tiny", mesh={"fsdp": 2}, **sizes).program_hash
    assert len(plan.program_hash) == 16
    others = [dict(mesh={"data": 2}), dict(mesh={"fsdp": 2}, remat="full"), dict(mesh={"fsdp": 2}, clip=1.0), dict(mesh={"tensor": 2})]
    assert len({plan.program_hash, *(mw.plan("tiny", **sizes, **other).program_hash for other in others)}) == 1 + len(others)
    # A row for an axis of one rank changes nothing.
    assert mw.plan("tiny", mesh={"fsdp": 2}, rules="zero1", **sizes).program_hash == plan.program_hash
