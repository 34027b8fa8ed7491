"""mw.doctor, mw.bench and the cache of measured peaks."""

import json
import os

import meshwright as mw
import numpy as np
import pytest
from meshwright import machine
from meshwright.cli.main import main
from meshwright.diagnostics import BENCH_OPS


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    machine.cached_peaks.cache_clear()
    monkeypatch.setattr(machine, "_measured_here", set())
    monkeypatch.setattr(machine, "_fastest", {})
    yield tmp_path / "meshwright" / "peaks.json"
    machine.cached_peaks.cache_clear()


def test_peaks_are_measured_once_and_remembered(own_cache, monkeypatch):
    assert machine.cached_peaks() is None and machine.peak_flops(None, "float32") is None
    peaks = machine.measured_peaks()
    assert peaks["float32"] > 1e9 and machine.cached_peaks() == peaks and "read_bytes" not in peaks
    stored = json.loads(own_cache.read_text())
    assert list(stored.values()) == [peaks] and [file.name for file in own_cache.parent.iterdir()] == ["peaks.json"]
    monkeypatch.setattr(machine._core, "measure_peak_flops", lambda threads: {"float32": 7.0, "bfloat16": 0.0})
    assert machine.measured_peaks() == peaks
    fresh = machine.measured_peaks(fresh=True)
    assert fresh["float32"] == 7 and machine.peak_flops(fresh, "bfloat16") == 7 and machine.cached_peaks() == fresh


@pytest.fixture
def scripted(monkeypatch):
    """A list of float32 peaks that measurements give, one after the other."""
    rates = []
    monkeypatch.setattr(machine._core, "measure_peak_flops", lambda threads: {"float32": rates.pop(0), "bfloat16": 0.0})
    return rates


def test_a_peak_of_a_busy_machine_is_corrected_by_the_next_process(scripted, monkeypatch):
    scripted += [5.0, 8.0, 6.0]
    assert machine.measured_peaks()["float32"] == 5 and machine.measured_peaks()["float32"] == 5
    for found in (8, 8):
        monkeypatch.setattr(machine, "_measured_here", set())
        assert machine.measured_peaks()["float32"] == found == machine.cached_peaks()["float32"]
    assert not scripted


def test_a_rate_above_the_peak_measures_it_again(scripted):
    assert machine.share_of_peak(1.0, "float32") is None
    scripted += [4.0]
    machine.measured_peaks()
    assert machine.share_of_peak(2.0, "float32") == 0.5
    scripted += [3.0]
    assert machine.share_of_peak(6.0, "float32") == 1.5  # nothing that a measurement does not say
    assert machine.share_of_peak(6.05, "float32") == 6.05 / 4 and not scripted  # the same again is no news
    scripted += [8.0]
    assert machine.share_of_peak(6.4, "bfloat16") == 0.8 and machine.cached_peaks()["float32"] == 8
    assert machine.share_of_peak(6.4, "float32") == 0.8 and not scripted


@pytest.mark.parametrize("text", ["", "[]", "{", '{"x": 3}', "null"])
def test_a_broken_cache_is_measured_anew(own_cache, text):
    own_cache.parent.mkdir()
    own_cache.write_text(text)
    assert machine.cached_peaks() is None
    assert machine.measured_peaks()["float32"] > 0 and machine.cached_peaks() is not None


def test_a_cache_that_cannot_be_written_is_no_error(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert machine.measured_peaks()["float32"] > 0 and machine.cached_peaks() is None


def test_doctor(own_cache, monkeypatch):
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Haswell")
    monkeypatch.setenv("MESHWRIGHT_ISA", "avx2")
    report = mw.doctor(threads=1)
    assert report["isa"] == "avx2" and report["threads"] == 1 and report["cores"] >= 1 and report["memory_bytes"] > 1 << 28
    assert report["peak_bfloat16_gflops"] == report["peak_float32_gflops"] > 1  # widened
    assert 0 < report["gemm_float32_share"] < 1.5 and report["memory_gbytes_per_second"] > 0.1
    assert report["kernels"]["dot"] == ["gemm bf16 avx2", "gemm f32 avx2"] and "attention" in report["kernels"]
    assert any("OPENBLAS_CORETYPE=Haswell" in warning for warning in report["warnings"])
    assert any("1 thread only" in warning for warning in report["warnings"])
    if report["available_isas"][-1] != "avx2":
        assert any("MESHWRIGHT_ISA=avx2 is set" in warning for warning in report["warnings"])
    assert os.environ["OPENBLAS_CORETYPE"] == "Haswell"
    json.dumps(report)


def test_doctor_command(capsys):
    assert main(["doctor", "threads=1"]) == 0
    shown = capsys.readouterr().out
    assert "peak float32 gflops" in shown and "attention_gradient" in shown
    assert main(["doctor", "threads=1", "--json", "fresh=true"]) == 0
    assert json.loads(capsys.readouterr().out)["threads"] == 1


SMALL = {"m": 64, "n": 96, "k": 32, "batch": 2, "seq": 16, "heads": 4, "kv_heads": 2, "head_dim": 16}


@pytest.mark.parametrize("op", BENCH_OPS)
def test_bench_times_each_op(op):
    for dtype in BENCH_OPS[op].dtypes:
        sizes = {name: SMALL[name] for name in BENCH_OPS[op].sizes}
        row = mw.bench(op, dtype=dtype, threads=1, **sizes)
        assert row["seconds"] > 0 and row["share_of_bound"] > 0 and row["kernel"] and row["bound"] in ("compute", "memory")
        assert row["gflops"] > 0 or op == "gather_rows"
    if op == "dot":
        assert row["gflops"] * 1e9 * row["seconds"] == pytest.approx(2 * 64 * 96 * 32)
        assert row["kernel"].startswith("gemm bf16")


def test_bench_errors_and_command(capsys):
    for call, message in [
        (lambda: mw.bench("dott"), "did you mean 'dot'"),
        (lambda: mw.bench("rms_norm", k=3), "rms_norm takes m, n; found k"),
        (lambda: mw.bench("adamw", dtype="bfloat16"), "adamw runs in float32, found 'bfloat16'"),
        (lambda: mw.bench("attention", heads=5, kv_heads=2), "heads=5 is no multiple of kv_heads=2"),
    ]:
        with pytest.raises(mw.UserError, match=message):
            call()
    assert main(["bench", "dot", "m=64", "n=64", "k=64", "threads=1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["m"] == 64
    assert main(["bench", "dot", "m=64", "n=64", "k=64", "threads=1"]) == 0
    assert "share of bound" in capsys.readouterr().out
    assert main(["bench", "dto"]) == 2


def test_fit_measures_the_peak_for_mfu():
    trainer = mw.Trainer(mw.Model("tiny"), mw.AdamW(), show=False)
    batch = {"input_ids": np.arange(64).reshape(2, 32)}
    assert trainer.step(batch).mfu is None
    metrics = trainer.fit([batch], steps=3)
    peak = machine.cached_peaks()["float32"]
    assert metrics.mfu == pytest.approx(metrics.tflops * 1e12 / peak)
