"""Profiles of ranks that are processes: gathered by rank 0, on one clock."""

from __future__ import annotations

import json
from collections import defaultdict

import meshwright as mw
import numpy as np
import pytest
from distributed.ranks_program import PROFILED, batch, make_model
from distributed.test_processes import run_case
from meshwright import profiler
from meshwright.profiling import BEGIN, Profile, Records


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    output = tmp_path_factory.mktemp("profiled")
    done = run_case(2, "profiled", output)
    assert done.returncode == 0, done.stderr
    return output


@pytest.mark.parametrize("name", PROFILED)
def test_rank_0_writes_what_all_ranks_did(name, runs) -> None:
    events = json.loads((runs / name / "trace.json").read_text())["traceEvents"]
    assert [e["args"]["name"] for e in events if e["name"] == "process_name"] == [f"rank 0 ({name}=0)", f"rank 1 ({name}=1)"]
    steps = defaultdict(list)
    for event in events:
        if event.get("cat") == "step":
            steps[event["name"]].append((event["ts"], event["ts"] + event["dur"]))
    assert list(steps) == ["step 2", "step 3"]
    for (begin, end), (other_begin, other_end) in steps.values():  # ranks of one step work at the same time
        assert min(end, other_end) - max(begin, other_begin) > 0.5 * min(end - begin, other_end - other_begin)
    written = json.loads((runs / name / "profile.json").read_text())
    assert written["num_ranks"] == 2 and written["steps"] == [2, 3]
    profile = mw.Trainer(make_model("dense"), mw.AdamW(lr=1e-3), show=False, **PROFILED[name]).profile(batch(0), steps=2)
    compute = [
        {(row["piece"], row["scope"], row["op"]): row["calls"] for row in rows if row["use"] == "compute"}
        for rows in (written["rows"], profile.rows)
    ]
    assert compute[0] == compute[1]  # of threads


def test_letters_between_processes_are_arrows_forward_in_time(runs) -> None:
    events = json.loads((runs / "stage" / "trace.json").read_text())["traceEvents"]
    starts, ends = ({e["id"]: e for e in events if e["ph"] == phase} for phase in "sf")
    assert len(starts) == len(ends) == 2 * 4 * 2
    waits = [(e["pid"], e["ts"], e["ts"] + e["dur"]) for e in events if e.get("cat") == "wait"]
    for number, end in ends.items():
        assert starts[number]["pid"] != end["pid"] and starts[number]["ts"] <= end["ts"]
        # A letter arrives after it was sent: only one clock for both shows it so.
        assert any(rank == end["pid"] and begin <= end["ts"] <= stop for rank, begin, stop in waits)


def test_clocks_of_other_machines_are_set_to_that_of_rank_0(monkeypatch) -> None:
    """Another host whose clock is 5 s ahead, played by a second copy of this process' records."""
    trainer = mw.Trainer(make_model("dense"), mw.AdamW(lr=1e-3), show=False)
    records = trainer.profile(batch(0), steps=1).records
    texts: list[str] = []

    class TwoHosts:
        size, rank, is_first = 2, 0, True

        def barrier(self) -> None: ...

        def gather(self, mine: str) -> list[str]:
            if not texts:
                texts.append(mine)
                return ["a", "b"]
            other = json.loads(mine)
            other["readings"] = [reading + 5_000_000_000 for reading in other["readings"]]
            other["slices"] = [[*row[:1], 1, *row[2:5], row[5] + 5_000_000_000, row[6] + 5_000_000_000] for row in other["slices"]]
            other["places"] = {"1": "data=1"}
            return [mine, json.dumps(other)]

    monkeypatch.setattr(profiler._core, "measure_read_bandwidth", lambda threads, size: 1e10)
    profile = profiler.Profiler(1, trainer._step, TwoHosts())._gathered(records, 1)  # type: ignore[arg-type]
    assert isinstance(profile, Profile) and profile.ranks == [0, 1] and profile.records.places[1] == "data=1"
    first, second = (profile.records.slices[profile.records.slices[:, 1] == rank] for rank in (0, 1))
    assert np.array_equal(first[:, BEGIN:], second[:, BEGIN:])
    assert second[:, 0].min() == len(records.work)
    assert isinstance(Records.joined([records]), Records)
