"""The property that the whole of distribution rests on: any small model on any mesh computes what one rank computes, and every rank sends
and holds what the plan said."""

from __future__ import annotations

import meshwright as mw
import numpy as np
import pytest
from distributed.random_runs import AXES, KINDS, Run, batch_with_margins, draw_run
from meshwright.batch import adapt

CASES = [(kind, seed) for kind in KINDS for seed in range(52)]
TOLERANCE = 1e-5
RAGGED = ("expert_dispatch", "expert_return")  # their bytes depend on the choices of the router


def assert_near(what: str, found: np.ndarray, expected: np.ndarray) -> None:
    error, largest = np.abs(found - expected).max(), np.abs(expected).max()
    assert error <= TOLERANCE * largest, f"{what}: {error / largest:.2e} of the largest entry"


def assert_as_planned(run: Run, trainer: mw.Trainer, metrics: mw.Metrics, batch: dict[str, np.ndarray]) -> None:
    fields = adapt(batch, run.sizes["vocab_size"]).arrays
    ranks = range(_ranks(run))
    planned = [trainer._step.planned_traffic(fields, rank) for rank in ranks]
    held = [trainer._step.peak_bytes(fields, rank) for rank in ranks]
    assert max(held) == metrics.peak_bytes
    host_bytes = None
    if metrics.terms.get("expert_reruns", 0) == 0:  # with room as it was planned ahead of time
        report = mw.plan(
            trainer.model, batch=run.rows, seq=run.seq, optimizer=trainer.optimizer, dtype="float32", clip=1.0, **run.placement()
        )
        host_bytes = report.host_bytes
        assert report.peak_bytes == metrics.peak_bytes
        assert report.traffic == planned[held.index(max(held))]
    for rank in ranks:
        assert trainer._step.bytes_in_use(rank) == held[rank]
        if host_bytes is not None and rank == held.index(max(held)):
            assert trainer._step.host_bytes_in_use(rank) == host_bytes
        counted = trainer._step.counted_traffic(fields, rank)
        assert [(row["collective"], row["axes"], row["calls"]) for row in counted] == [
            (row["collective"], row["axes"], row["calls"]) for row in planned[rank]
        ]
        for found, expected in zip(counted, planned[rank], strict=True):
            if found["collective"] in RAGGED:
                assert found["bytes"] <= expected["most_bytes"]
            else:
                assert found["bytes"] == pytest.approx(expected["bytes"])


def _ranks(run: Run) -> int:
    return int(np.prod(list(run.mesh.values()), dtype=int))


@pytest.mark.parametrize(("kind", "seed"), CASES)
def test_a_random_run_equals_one_rank(kind, seed) -> None:
    run = draw_run(kind, seed)
    single, model, again = run.model(), run.model(), run.model()
    alone, together = run.trainer(single, False), run.trainer(model, True)
    initial = {name: weight.gather() for name, weight in single.state_dict().items()}
    for name, weight in model.state_dict().items():
        assert np.array_equal(weight.gather(), initial[name]), name
    for step in range(3):
        batch = batch_with_margins(run, single, step)
        if step == 0:
            loss, gradients = single.loss_and_gradients(batch)
            run.trainer(again, True)
            mesh_loss, mesh_gradients = again.loss_and_gradients(batch)
            assert abs(mesh_loss - loss) <= TOLERANCE * abs(loss)
            assert mesh_gradients.keys() == gradients.keys()
            for name, gradient in gradients.items():
                assert_near(f"gradient of {name}", mesh_gradients[name], gradient)
        a, b = alone.step(batch), together.step(batch)
        assert abs(a.loss - b.loss) <= TOLERANCE * abs(a.loss)
        assert abs(a.grad_norm - b.grad_norm) <= TOLERANCE * a.grad_norm
    assert_as_planned(run, together, b, batch)
    for name, weight in single.state_dict().items():
        assert_near(name, model.state_dict()[name].gather(), weight.gather())


def test_the_cases_cover_every_axis_and_kind() -> None:
    runs = [draw_run(kind, seed) for kind, seed in CASES]
    assert len(runs) >= 200
    assert {run.base for run in runs} == {base for bases in KINDS.values() for base in bases}
    assert {_ranks(run) for run in runs} == set(range(1, 9))
    for axis in AXES:
        assert sum(axis in run.mesh for run in runs) >= 20, axis
        for kind in KINDS:
            assert any(axis in run.mesh for run in runs if run.base in KINDS[kind]), (axis, kind)
