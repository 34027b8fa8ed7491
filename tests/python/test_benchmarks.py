"""The parts of benchmarks/compare.py and benchmarks/self.py that measure nothing: bounds, ratios, agreement of losses, records."""

import importlib
import json

import pytest
from peers import report
from peers.cases import MOE, Case, cases_of, save_weights, settings_of, step_flops
from peers.table import disagreements, loss_gap, regressions, row_of, rows_of, tolerance, verdict
from peers.turns import Result, others_share, ticks_of

SMALL = Case("small", 8, 256, "float32")


def result(seconds, losses=(10.0, 9.5, 9.0, 8.5), peak=100, first=1.0):
    return Result(first_step_seconds=first, seconds=list(seconds), values=list(losses), others=[0.1, 0.3, 0.2], peak_bytes=peak)


def test_arguments_choose_cases():
    settings = settings_of(["model=small,moe", "batch=8x256,2x1024"], {"model": "base", "batch": "8x256", "dtype": "float32"})
    assert [str(case) for case in cases_of(settings)] == ["small 8x256 float32", "small 2x1024 float32", "moe 8x256 float32"]
    with pytest.raises(SystemExit, match="sise=3: expected key=value with one of the keys model, batch"):
        settings_of(["sise=3"], {"model": "base", "batch": "8x256"})
    with pytest.raises(SystemExit, match="model=large batch=8x256 dtype=float32: expected small|base|moe"):
        cases_of({"model": "large", "batch": "8x256", "dtype": "float32"})


@pytest.mark.parametrize("model", ["small", "moe"])
def test_flops_are_those_of_the_matrix_products(model, tmp_path):
    save_weights(model, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    d, f, layers, vocab = (config[key] for key in ("hidden_size", "intermediate_size", "num_hidden_layers", "vocab_size"))
    heads, kv_heads, size = (config[key] for key in ("num_attention_heads", "num_key_value_heads", "head_dim"))
    batch, seq = 8, 256
    mlp = 3 * d * f if model == "small" else 2 * 3 * d * f + d * MOE["moe"]["num_experts"]
    products = layers * (d * (2 * heads + 2 * kv_heads) * size + mlp) + d * vocab
    pairs = seq * seq / 2  # docs/flops.md; with the diagonal's other halves, seq (seq + 1) / 2
    attention = layers * 4 * pairs * heads * size
    expected = 3 * batch * (2 * products * seq + attention)
    assert step_flops(tmp_path, Case(model, batch, seq, "float32")) == pytest.approx(expected, rel=1e-9)


def test_rows_compare_best_with_best_and_median_with_median():
    results = {"ours": result([0.5, 1.0, 2.0], peak=80, first=0.5), "a": result([1.5, 3.0, 4.0]), "b": result([1.0, 9.0, 9.0], peak=200)}
    rows = rows_of(results, flops=1e12, tokens=2048, peaks=[2e12, 4e12, 3e12])
    ours = rows["ours"]
    assert (ours["tokens_per_second"], ours["tflops"]) == (4096, 2.0)
    assert ours["share_of_bound"] == pytest.approx(0.25 / 0.5) and ours["median_share_of_bound"] == pytest.approx((1 / 3) / 1.0)
    assert (rows["a"]["ours_faster"], rows["b"]["ours_faster"], rows["b"]["ours_faster_median"]) == (3.0, 2.0, 9.0)
    assert (ours["others_share"], ours["steps"], rows["a"]["loss_gap"]) == (0.2, 3, 0.0)
    assert verdict(rows) == {"faster": 2.0, "memory": 0.8, "start": 0.5}
    assert verdict({"ours": ours}) is None and "ours_faster" not in row_of(results["a"], 1e12, 2048, [1e12])


def test_losses_must_agree_and_fall():
    good, largest = [10.0, 9.5, 9.0, 8.5, 8.0], tolerance(SMALL)
    assert disagreements({"ours": good, "jax": [loss * (1 + largest / 2) for loss in good]}, largest) == []
    assert disagreements({"ours": good, "jax": [*good[:4], 7.0]}, largest) == []  # later ones are not compared
    (line,) = disagreements({"ours": good, "jax": [10.0, 9.5, 9.01, 8.5]}, largest)
    assert line.startswith("jax: losses 10.000000, 9.500000, 9.010000, 8.500000, but ours has 10.000000, 9.5")
    assert loss_gap([float("nan")] * 4, good) == float("inf")
    assert disagreements({"ours": [10.0] * 4}, largest) == ["ours: the loss does not fall from 10.000000"]
    with pytest.raises(ValueError):
        loss_gap([10.0], good)  # too few steps to tell
    dtypes = [tolerance(Case(model, 8, 256, dtype)) for model, dtype in (("small", "float32"), ("small", "bfloat16"), ("moe", "bfloat16"))]
    assert dtypes == sorted(dtypes)


def test_share_of_others():
    before, after = ticks_of("cpu  100 0 50 800 10 1 2 7 0 0\ncpu0 1"), ticks_of("cpu  180 0 70 900 10 1 2 7 0 0\n")
    assert before == (160, 970) and after == (260, 1170)
    assert others_share(before, after, 40) == pytest.approx(0.3)
    assert others_share(before, after, 120) == 0.0  # ticks are coarse


def test_regressions_name_what_fell():
    known = {"small": 0.8, "base": 0.8, "gone": 0.5}
    found = regressions(known, {"small": 0.77, "base": 0.7, "new": 0.1}, margin=0.05)
    assert found == {"base": "base: 0.700, but 0.800 is recorded (-12.5%, at most -5%)"}


def test_report_replaces_the_cases_of_a_run(tmp_path):
    results = {"ours": result([0.5]), "jax": result([1.0])}
    rows = {name: {"title": name.upper(), **row} for name, row in rows_of(results, 1e11, 2048, [5e11]).items()}
    case = {"date": "2026-01-01 00:00", "rounds": 1, "steps": 1, "peak_flops": 5e11, "median_peak_flops": 4e11, "versions": {"jax": "1"}}
    report.write("chip", {"small 8x256 float32": {**case, "rows": rows}, "base 8x256 float32": {**case, "rows": rows}}, tmp_path)
    page = report.write("chip", {"small 8x256 float32": {**case, "date": "2026-02-02 00:00", "rows": rows}}, tmp_path)
    text = page.read_text()
    assert text.count("2026-02-02") == 1 and text.count("2026-01-01") == 1
    assert "| JAX | 1.000 | 2,048 | 0.100 | 20.0% | 20.0% | 0 | 1.0 | 2.00x | 20% |" in text
    assert "Against the best peer: 2.00x, 1.00 of the memory, 1.00 of the start." in text
    assert sorted(file.suffix for file in tmp_path.iterdir()) == [".json", ".md", ".png"]
    assert list(report.recorded(tmp_path / "peers-chip.json")) == ["small 8x256 float32", "base 8x256 float32"]
    assert report.recorded(tmp_path / "none.json") == {}


def test_what_is_too_slow_is_measured_again():
    runs = {"slow": iter([0.4, 0.3, 0.5]), "late": iter([0.5, 0.9]), "fine": iter([0.8])}
    jobs = [lambda name=name: ({name: next(runs[name])}, 0.01) for name in runs]
    measure = importlib.import_module("self").measure
    best, others = measure(jobs, {"slow": 0.8, "late": 0.9, "fine": 0.8}, margin=0.05, tries=3)
    assert best == {"slow": 0.5, "late": 0.9, "fine": 0.8} and others == 0.01
