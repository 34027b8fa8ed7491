"""The mesh of a run: how many ranks along each axis."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from meshwright import _core
from meshwright._core import UserError
from meshwright.packaged import configs_folder

RULE_TABLES = ("compute", "parameters", "gradients", "optimizer")


@dataclass(frozen=True)
class Mesh:
    """Sizes of the mesh axes, outermost first; ranks are threads of this process, or the processes that mpirun started.

    data: copies of the model on different rows; stage: layers dealt out to the stages of a pipeline, through which microbatches go;
    fsdp: weights and optimizer state sharded, gathered per layer; expert: experts of a mixture sharded, rows sent to them (other layers
    see one more `data`); context: the sequence sharded, in zigzag order, keys and values gathered for attention; tensor: heads, mlp and
    vocabulary sharded, the sequence elsewhere.
    """

    data: int = 1
    stage: int = 1
    fsdp: int = 1
    expert: int = 1
    context: int = 1
    tensor: int = 1

    @property
    def size(self) -> int:
        return math.prod(asdict(self).values())


AXES = tuple(field.name for field in fields(Mesh))


def mesh_axes(mesh: Mesh | Mapping[str, int] | str | None) -> dict[str, int]:
    """Axis -> size of the axes with more than one rank.

    Raises:
        UserError: an unknown axis, or a size below 1.
    """
    if mesh is None:
        return {}
    if isinstance(mesh, Mesh):
        return {axis: size for axis, size in asdict(mesh).items() if size != 1}
    if not isinstance(mesh, Mapping):
        raise UserError(f"mesh: expected a Mesh, a dict such as {{'fsdp': 2}} or 'auto', found {mesh!r}")
    for axis, size in mesh.items():
        if isinstance(size, bool) or not isinstance(size, int) or size < 1:
            raise UserError(f"mesh: expected a whole number of at least 1 as the size of {axis!r}, found {size!r}")
    return {str(axis): size for axis, size in mesh.items()}


def most_in_flight(overlap: bool, overlap_bytes: int | None) -> int:
    """The bound on the bytes of collectives beside compute, as the core takes it: -1 is what the layer with the most of them needs.

    Raises:
        UserError: a bound without overlap, or one below 1.
    """
    if overlap_bytes is None:
        return -1 if overlap else 0
    if not overlap:
        raise UserError(f"overlap_bytes: {overlap_bytes!r} bounds what runs beside compute, but overlap is off; expected overlap=True too")
    if isinstance(overlap_bytes, bool) or not isinstance(overlap_bytes, int) or overlap_bytes < 1:
        raise UserError(f"overlap_bytes: expected a whole number of at least 1, found {overlap_bytes!r}; without any it is overlap=False")
    return overlap_bytes


def rules(name: str | os.PathLike[str] = "default") -> dict[str, Any]:
    """The four tables of a layout of configs/rules or of a JSON file, to read or to change: `Trainer(..., rules=tables)`.

    Raises:
        UserError: as `core_rules`.
    """
    tables: dict[str, Any] = _core.find_rules(os.fspath(name), str(configs_folder() / "rules"))
    if tables["context_attention"] == "gather":
        del tables["context_attention"]
    return tables


def core_rules(rules: str | os.PathLike[str] | Mapping[str, Any] | None, context_attention: str | None = None) -> dict[str, Any]:
    """Rules as the core takes them: of a layout of configs/rules, a JSON file or a dict of the four tables; None: the default ones.

    context_attention: "gather" or "ring"; None: as the rules say, in the same key.

    Raises:
        UserError: a name that is no layout, naming the nearest; a file or dict of another form; another context_attention.
    """
    if context_attention not in (None, "gather", "ring"):
        raise UserError(f"context_attention: expected 'gather' or 'ring', found {context_attention!r}")
    chosen = {} if context_attention is None else {"context_attention": context_attention}
    if rules is None:
        return chosen
    if isinstance(rules, (str, os.PathLike)):
        return {**_core.find_rules(os.fspath(rules), str(configs_folder() / "rules")), **chosen}
    if not isinstance(rules, Mapping):
        raise UserError(f"rules: expected a name, a path or a dict of the tables {', '.join(RULE_TABLES)}, found {rules!r}")
    if {*rules} - {"context_attention"} != {*RULE_TABLES}:
        raise UserError(f"rules: expected the tables {', '.join(RULE_TABLES)}, found {', '.join(map(str, rules)) or 'none'}")
    return {**{table: list(rules[table]) for table in RULE_TABLES}, **core_rules(None, rules.get("context_attention")), **chosen}
