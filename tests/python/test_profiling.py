"""The profiler: its slices against wall time, its work against the plan's, its trace against the rules of the format."""

from __future__ import annotations

import json
import time
from collections import Counter, defaultdict
from itertools import pairwise
from typing import Any

import meshwright as mw
import numpy as np
import pytest
from meshwright.cli.main import main
from meshwright.profiling import BEGIN, END, RANK, STEP, WORK, Profile, any_layer
from tiny_models import CONFIG, make_batch, make_batches, make_model, make_trainer, write_data

MESHES: dict[str, dict[str, Any]] = {
    "one rank": dict(),
    "fsdp": dict(mesh={"fsdp": 2}, microbatches=2),
    "fsdp, overlap": dict(mesh={"fsdp": 2}, microbatches=2, overlap=True),
    "tensor": dict(mesh={"tensor": 2}),
    "1f1b": dict(mesh={"stage": 2}, microbatches=4),
    "zero_bubble": dict(mesh={"stage": 2, "fsdp": 2}, microbatches=2, pipeline="zero_bubble"),
}
every_mesh = pytest.mark.parametrize("settings", MESHES.values(), ids=MESHES.keys())


def profiled(steps: int = 2, rows: int = 8, **settings: Any) -> Profile:
    return make_trainer(**settings).profile(make_batch(rows), steps)


def long_model() -> mw.Model:
    """Whose steps are long beside what surrounds them."""
    return make_model(0, embedding_dim=256, mlp_dim=1024, num_layers=6)


def of_ops(profile: Profile) -> Any:
    """Slices but for those in flight, which lie beside the others."""
    kinds = np.array([work["kind"] for work in profile.records.work])
    return profile.records.slices[kinds[profile.records.slices[:, WORK]] != "in flight"]


# ---- against wall time ----


@every_mesh
def test_slices_fill_a_step_without_gaps(settings) -> None:
    profile = profiled(**settings)
    assert profile.steps == [2, 3] and profile.num_ranks == max(1, int(np.prod(list(settings.get("mesh", {}).values()))))
    slices = of_ops(profile)
    assert (slices[:, END] > slices[:, BEGIN]).all()
    for rank in profile.ranks:
        for step in profile.steps:
            rows = slices[(slices[:, RANK] == rank) & (slices[:, STEP] == step)]
            assert len(rows) > 50 and (rows[1:, BEGIN] == rows[:-1, END]).all()
    assert sum(profile.shares.values()) == pytest.approx(1)
    assert sum(row["seconds"] for row in profile.rows if row["use"] != "in flight") == pytest.approx(profile.step_seconds)
    assert sum(row["share"] for row in profile.scopes if row["use"] != "in flight") == pytest.approx(1)


def test_a_step_takes_what_the_clock_on_the_wall_says() -> None:
    trainer, batch = make_trainer(long_model(), profile=4), make_batch(16, 64)
    trainer.step(batch)
    start = time.perf_counter()
    seconds = [trainer.step(batch).step_seconds for _ in range(4)]
    assert trainer.profiled is not None
    assert trainer.profiled.step_seconds <= np.mean(seconds) <= time.perf_counter() - start
    assert trainer.profiled.step_seconds >= 0.9 * np.mean(seconds)


def test_waiting_for_stages_is_the_bubble_that_the_engine_measures() -> None:
    trainer = make_trainer(long_model(), mesh={"stage": 2}, microbatches=4, profile=1)
    trainer.step(make_batch(16, 64))
    metrics = trainer.step(make_batch(16, 64))
    profile = trainer.profiled
    assert profile is not None and metrics.bubble is not None
    waited, before_update = defaultdict(int), defaultdict(int)
    for row in of_ops(profile).tolist():
        work = profile.records.work[row[WORK]]
        if work["piece"] == "update" or work["name"] in ("begin", "agree", "end"):
            continue
        before_update[row[RANK]] += row[END] - row[BEGIN]
        waited[row[RANK]] += (row[END] - row[BEGIN]) * (work["kind"] == "wait")
    shares = [waited[rank] / before_update[rank] for rank in profile.ranks]
    assert np.mean(shares) == pytest.approx(metrics.bubble, abs=0.03) and "waiting for stages" in profile.shares


# ---- against the plan ----


@every_mesh
def test_flops_and_bytes_sent_are_the_plans(settings) -> None:
    trainer = make_trainer(**settings)
    batch = make_batch(8)
    profile = trainer.profile(batch, steps=2)
    flops, sent = 0.0, Counter()
    for row in profile.records.slices.tolist():
        work = profile.records.work[row[WORK]]
        flops += work["flops"] if work["kind"] == "compute" else 0
        if row[RANK] == 0 and work["kind"] in ("collective", "in flight", "mail"):
            sent["send" if work["kind"] == "mail" else work["name"]] += work["sent"]
    plan = mw.plan(CONFIG, seq=16, batch=8, optimizer="adamw", clip=True, dtype="float32", **settings)
    assert flops / len(profile.steps) == pytest.approx(plan.executed_flops, rel=1e-9)
    fields = mw.batch.adapt(batch, CONFIG["vocab_size"]).arrays
    planned: Counter[str] = Counter()
    for traffic in trainer._step.planned_traffic(fields, 0):
        planned[traffic["collective"]] += traffic["bytes"]
    assert {name: count / len(profile.steps) for name, count in sent.items() if count} == pytest.approx(
        {name: count for name, count in planned.items() if count}
    )


def test_a_row_by_hand() -> None:
    profile = profiled()
    (row,) = (row for row in profile.rows if (row["piece"], row["scope"], row["op"]) == ("forward", "layers.*.mlp.gate", "dot"))
    flops, bytes_moved = 2 * 8 * 16 * 32 * 64, 4 * (8 * 16 * 32 + 64 * 32 + 8 * 16 * 64)
    bound = max(flops / profile.peaks["float32"], bytes_moved / profile.peaks["read_bytes"])
    assert row["calls"] == CONFIG["num_layers"] and row["use"] == "compute"
    assert row["flops_per_second"] == pytest.approx(row["calls"] * flops / row["seconds"])
    assert row["bytes_per_second"] == pytest.approx(row["calls"] * bytes_moved / row["seconds"])
    assert row["of_bound"] == pytest.approx(row["calls"] * bound / row["seconds"])
    assert row["share"] == pytest.approx(row["seconds"] / profile.step_seconds)
    assert [any_layer(scope) for scope in ("layers.3.mlp.gate", "layers.12", "head2.x", "7")] == [
        "layers.*.mlp.gate",
        "layers.*",
        "head2.x",
        "*",
    ]


# ---- the trace, by the rules of the format ----

NEEDED = {"X": {"name", "cat", "ts", "dur", "pid", "tid"}, "M": {"name", "pid", "args"}, "s": {"id", "name", "cat", "ts", "pid", "tid"}}
NEEDED["f"] = NEEDED["s"] | {"bp"}


def tracks(trace: dict[str, Any]) -> dict[tuple[int, int], list[tuple[int, int, str]]]:
    """(process, thread) -> begin and end in nanoseconds and category, outer slices first."""
    found = defaultdict(list)
    for event in trace["traceEvents"]:
        if event["ph"] == "X":
            # As readers do: some add in floating-point microseconds, others in whole nanoseconds.
            begin, end = event["ts"] * 1000, (event["ts"] + event["dur"]) * 1000
            assert begin == int(begin) and end == int(begin) + int(event["dur"] * 1000) and event["dur"] > 0
            found[event["pid"], event["tid"]].append((int(begin), int(end), event["cat"]))
    return {
        track: sorted(rows, key=lambda row: (row[0], -row[1], ["step", "piece"].index(row[2]) if row[2] in ("step", "piece") else 2))
        for track, rows in found.items()
    }


@every_mesh
def test_trace_nests_and_names_its_tracks(settings, tmp_path) -> None:
    profile = profiled(**settings)
    paths = profile.save(tmp_path)
    assert [path.name for path in paths] == ["profile.txt", "profile.json", "trace.json"]
    trace = json.loads((tmp_path / "trace.json").read_text())
    for event in trace["traceEvents"]:
        assert NEEDED[event["ph"]] <= event.keys(), event
    names = {(e["name"], e["pid"], e["tid"]): e["args"] for e in trace["traceEvents"] if e["ph"] == "M"}
    assert names["process_name", 0, 0]["name"].startswith("rank 0")
    for (rank, thread), slices in tracks(trace).items():
        assert names["thread_name", rank, thread]["name"].startswith("ops" if thread == 0 else "collectives in flight")
        open_until: list[int] = []
        for begin, end, category in slices:
            while open_until and open_until[-1] <= begin:
                open_until.pop()
            depth = {"step": 0, "piece": 1}.get(category)
            assert not open_until or end <= open_until[-1], "overlaps its neighbour"
            assert thread != 0 or depth is None or len(open_until) == depth
            assert thread == 0 or not open_until
            open_until.append(end)
    recorded = of_ops(profile)
    steps = [row for slices in tracks(trace).values() for row in slices if row[2] == "step"]
    assert len(steps) == 2 * profile.num_ranks
    inside = sum(
        end - begin for slices in tracks(trace).values() for begin, end, kind in slices if kind not in ("step", "piece", "in flight")
    )
    assert (
        inside
        == pytest.approx(sum(end - begin for begin, end, _ in steps), abs=1)
        == pytest.approx((recorded[:, END] - recorded[:, BEGIN]).sum(), rel=1e-3)
    )


def test_trace_tells_what_an_op_does() -> None:
    trace = profiled().trace()
    (event, *_) = (e for e in trace["traceEvents"] if e["name"] == "dot layers.1.mlp.gate" and e["args"]["microbatch"] == 0)
    assert event["args"]["types"] == "f32[batch=8, seq=16, embed=32], f32[mlp=64, embed=32] -> f32[batch=8, seq=16, mlp=64]"
    assert event["args"]["source"].startswith("cpp/layers/gated_mlp.cpp:") and event["args"]["pass"] == "trace"
    assert event["args"]["FLOPs"] == 2 * 8 * 16 * 32 * 64 and event["args"]["bytes"] > 0 and "gemm" in event["args"]["kernel"]


def test_letters_are_arrows_and_waiting_for_them_has_slices() -> None:
    profile = profiled(mesh={"stage": 2}, microbatches=4)
    events = profile.trace()["traceEvents"]
    starts = {e["id"]: e for e in events if e["ph"] == "s"}
    ends = {e["id"]: e for e in events if e["ph"] == "f"}
    assert len(starts) == len(ends) == len(profile.steps) * 4 * 2  # a value to the next stage and its gradient back, per microbatch
    slices = defaultdict(list)
    for e in events:
        if e["ph"] == "X" and e["cat"] in ("mail", "wait"):
            slices[e["pid"], e["cat"]].append((e["ts"], e["ts"] + e["dur"]))
    for number, start in starts.items():
        end = ends[number]
        assert {start["pid"], end["pid"]} == {0, 1} and end["ts"] >= start["ts"] and end["bp"] == "e"
        assert any(begin <= start["ts"] <= stop for begin, stop in slices[start["pid"], "mail"])
        assert any(begin <= end["ts"] <= stop for begin, stop in slices[end["pid"], "wait"])
    assert [e["args"]["name"] for e in events if e["name"] == "process_name"] == ["rank 0 (stage=0)", "rank 1 (stage=1)"]


def test_a_collective_in_flight_reaches_from_its_start_to_its_end() -> None:
    profile = profiled(mesh={"fsdp": 2}, microbatches=2, overlap=True)
    by_rank: dict[tuple[int, int, str], dict[str, list[tuple[int, int]]]] = defaultdict(lambda: defaultdict(list))
    for row in profile.records.slices.tolist():
        work = profile.records.work[row[WORK]]
        if work["kind"] in ("start", "finish", "in flight"):
            by_rank[row[RANK], row[STEP], f"{work['piece']} {work['name']} {work['scope']} {work['types']}"][work["kind"]].append(
                (row[BEGIN], row[END])
            )
    assert by_rank
    for kinds in by_rank.values():
        assert sorted(begin for begin, _ in kinds["start"]) == sorted(begin for begin, _ in kinds["in flight"])
        assert sorted(end for _, end in kinds["finish"]) == sorted(end for _, end in kinds["in flight"])
    trace = tracks(profile.trace())
    assert any(
        a[1] > b[0]
        for (rank, thread), rows in trace.items()
        if thread == 1
        for a in rows
        for b in trace[rank, 0]
        if b[2] == "compute" and b[0] > a[0]
    )


# ---- how it is asked for ----


@every_mesh
def test_recording_changes_no_bit(settings) -> None:
    def losses(**more: Any) -> list[float]:
        trainer = make_trainer(**settings, **more)
        return [trainer.step(make_batch(8, seed=seed)).loss for seed in range(4)]

    assert losses(profile=2) == losses()


@pytest.mark.parametrize(
    ("asked", "run", "expected"), [(3, 8, [2, 3, 4]), (3, 4, [2, 3, 4]), (3, 3, [1, 2, 3]), (5, 2, [1, 2]), (1, 1, [1])]
)
def test_fit_profiles_after_its_first_step(asked, run, expected, tmp_path) -> None:
    trainer = make_trainer(output=tmp_path / "run", profile=asked)
    trainer.fit(make_batches(), steps=run)
    assert trainer.profiled is not None and trainer.profiled.steps == expected
    written = json.loads((tmp_path / "run" / "profile.json").read_text())
    assert written["steps"] == expected and written["rows"] == trainer.profiled.rows
    assert (tmp_path / "run" / "profile.txt").read_text() == trainer.profiled.table() + "\n"
    assert {path.name for path in (tmp_path / "run").iterdir()} >= {"profile.txt", "profile.json", "trace.json"}


def test_a_resumed_run_profiles_its_own_steps(tmp_path) -> None:
    make_trainer(output=tmp_path / "run").fit(make_batches(), steps=4)
    trainer = make_trainer(output=tmp_path / "run", profile=2)
    trainer.fit(make_batches(), steps=8)
    assert trainer.profiled is not None and trainer.profiled.steps == [6, 7]


@pytest.mark.parametrize("steps", [0, -1, 2.5, True])
def test_a_number_of_steps_is_wanted(steps) -> None:
    with pytest.raises(mw.UserError, match=r"profile: expected a number of steps, at least 1, found"):
        make_trainer(profile=steps)
    with pytest.raises(mw.UserError, match="profile: expected a number of steps"):
        make_trainer().profile(make_batch(), steps)


def test_the_command_line_prints_the_table(tmp_path, capsys) -> None:
    data = write_data(tmp_path / "data")
    (tmp_path / "model.json").write_text(json.dumps(CONFIG))
    arguments = [
        f"model={tmp_path / 'model.json'}",
        f"data={data}",
        "seq=16",
        "batch=4",
        "steps=6",
        "eval_every=none",
        "mesh.fsdp=2",
        "profile=2",
    ]
    assert main(["train", *arguments, f"output={tmp_path / 'run'}"]) == 0
    shown = capsys.readouterr()
    assert "profile of steps 2 to 3 · 2 ranks" in shown.out and "layers.*.mlp.gate" in shown.out
    assert f"profile: {tmp_path / 'run' / 'profile.txt'}" in shown.err
    rows = (tmp_path / "run" / "profile.txt").read_text().splitlines()
    header = next(line for line in rows if line.startswith("piece"))
    assert header.split() == ["piece", "scope", "ops", "calls", "ms", "share", "GFLOP/s", "GB/s", "of", "bound", "by"]
    assert all(len(a) < 170 for a, _ in pairwise(rows))
