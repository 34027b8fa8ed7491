"""The layouts of configs/rules: each trains like one rank on a mesh of its axes, and sends what its name promises."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path

import meshwright as mw
import numpy as np
import pytest
from tiny_models import assert_same, make_batch, make_model, make_trainer, weights_of

FOLDER = Path(__file__).resolve().parents[2] / "configs" / "rules"
AXES = [field.name for field in fields(mw.Mesh)]
MESHES: dict[str, list[dict[str, int]]] = {
    "default": [{"data": 2, "tensor": 2}],
    "ddp": [{"data": 4}],
    "zero1": [{"data": 2}, {"data": 2, "tensor": 2}],
    "zero2": [{"data": 4}],
    "zero3": [{"data": 2, "fsdp": 2}],
    "fsdp": [{"fsdp": 4}],
    "hsdp": [{"data": 2, "fsdp": 2}],
    "tp": [{"tensor": 4}, {"data": 2, "tensor": 2}],
    "tp_sp": [{"tensor": 4}, {"data": 2, "tensor": 2}],
    "ep": [{"fsdp": 2, "expert": 2}],
    "cp": [{"fsdp": 2, "context": 2}],
    "3d": [{"data": 2, "stage": 2, "tensor": 2}, {"fsdp": 2, "tensor": 2}],
    "4d": [{"fsdp": 2, "stage": 2, "context": 2}, {"context": 2, "tensor": 2}],
}
CASES = [(name, mesh) for name, meshes in MESHES.items() for mesh in meshes]
IDS = [f"{name}-{'-'.join(f'{axis}{size}' for axis, size in mesh.items())}" for name, mesh in CASES]


def test_every_layout_is_here() -> None:
    assert set(MESHES) == {"default", *(path.stem for path in FOLDER.glob("*.json"))}


@pytest.mark.parametrize(("name", "mesh"), CASES, ids=IDS)
def test_training_follows_one_rank(name, mesh) -> None:
    alone = make_trainer(make_model(), optimizer=mw.SGD(lr=0.5, momentum=0.9))
    rows = [] if name == "default" else [row for table in _tables(name).values() for row in table]
    if unbuilt := {*mesh, *(row.split(":")[1].split()[0] for row in rows)} - {*AXES}:
        with pytest.raises(mw.UserError, match=f"there is no mesh axis '({'|'.join(unbuilt)})'"):
            make_trainer(make_model(), optimizer=mw.SGD(lr=0.5), mesh=mesh, rules=name)
        return
    together = make_trainer(make_model(), optimizer=mw.SGD(lr=0.5, momentum=0.9), mesh=mesh, rules=name)
    for step in range(2):
        a, b = alone.step(make_batch(seed=step)), together.step(make_batch(seed=step))
        assert abs(a.loss - b.loss) <= 1e-5 * a.loss
    assert_same(weights_of(together.model), weights_of(alone.model), 1e-5)


def _tables(name: str) -> dict[str, list[str]]:
    content = json.loads((FOLDER / f"{name}.json").read_text())
    return {table: content[table] for table in ("compute", "parameters", "gradients", "optimizer")}


def collectives(name: str, mesh: dict[str, int]) -> set[tuple[str, str, str]]:
    """(piece, collective, axes) of those that move more than a number per token."""
    report = mw.plan(make_model(), batch=4, seq=16, mesh=mesh, rules=name, dtype="float32")
    return {(c["piece"].split()[0], c["collective"], c["axes"]) for c in report.collectives if c["bytes"] > 512}


def test_what_a_name_promises() -> None:
    assert collectives("ddp", {"data": 2}) == {("backward", "all_reduce", "data")}
    assert collectives("zero1", {"data": 2}) == {("backward", "reduce_scatter", "data"), ("update", "all_gather", "data")}
    assert collectives("fsdp", {"fsdp": 2}) == {
        ("forward", "all_gather", "fsdp"),
        ("backward", "all_gather", "fsdp"),
        ("backward", "reduce_scatter", "fsdp"),
    }
    # What flows between layers is whole: sums only. With sequence parallelism they come apart.
    assert collectives("tp", {"tensor": 2}) == {("forward", "all_reduce", "tensor"), ("backward", "all_reduce", "tensor")}
    assert {op for piece, op, _ in collectives("tp_sp", {"tensor": 2}) if piece == "forward"} == {"all_gather", "reduce_scatter"}


def test_a_file_of_ones_own(tmp_path) -> None:
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(_tables("hsdp")))
    by_path, by_name = (mw.plan("tiny", batch=8, mesh={"data": 2, "fsdp": 2}, rules=rules) for rules in (path, "hsdp"))
    assert by_path.collectives == by_name.collectives
    assert by_path.settings["rules"] == str(path)


def test_a_failed_trainer_leaves_the_model_whole() -> None:
    model = make_model()
    before = weights_of(model)
    for arguments, message in (
        (dict(mesh={"fsdp": 2, "tensor": 2}, rules="fsdp"), "shard nothing over the mesh axis 'tensor' of size 2"),
        (dict(mesh={"tensor": 64}), "does not divide dim"),
        (dict(rules="fsddp"), "there are no rules 'fsddp'.*did you mean 'fsdp'"),
        (dict(rules={**_tables("fsdp"), "optimizer": ["embd:fsdp"]}), "there is no dim 'embd'.*did you mean 'embed'"),
    ):
        with pytest.raises(mw.UserError, match=message):
            make_trainer(model, **arguments)
    after = weights_of(model)
    assert all(np.array_equal(after[name], values) for name, values in before.items())
