"""docs/ops.md, made from the registry of ops: `python -m meshwright.cli.op_page > docs/ops.md`."""

from __future__ import annotations

from itertools import groupby
from typing import Any

from meshwright import _core

_INTRODUCTION = """\
# Ops

Made by `python -m meshwright.cli.op_page > docs/ops.md` from the registry in `cpp/ops`; change the op's `doc` there.

An op is one file with all its faces: type rule, role of each dim, gradient, cost, reference and, for a fused op, its decomposition
([CONTRIBUTING.md](../CONTRIBUTING.md)). A name without a count of operands takes a number of them that its type rule checks.

| word | meaning |
|---|---|
| gradient | `differentiate` can go through it |
| fused | it has a decomposition into simpler ops: the oracle of its tests, and what runs where a backend has no kernel for it |
| elementwise | a result at an index depends on the operands at that index only: it may join a chain |
| view | the result is the operand's bytes under other dims; nothing is computed |
| collective | it talks to other ranks, or depends on the rank |
| dims | it contracts dims or needs some of them whole; without the word every dim is mapped, so any of them may be sharded |
| linear | it can pass a partial sum on, so that the reduction over ranks comes later |
| in place N | the result may overwrite operand N |
"""


def _words(op: dict[str, Any]) -> str:
    words = [
        word
        for word, key in (
            ("gradient", "differentiable"),
            ("fused", "decomposes"),
            ("elementwise", "elementwise"),
            ("view", "view"),
            ("collective", "collective"),
            ("dims", "own_roles"),
            ("linear", "passes_partial_sums"),
        )
        if op[key]
    ]
    return ", ".join(words + [f"in place {operand}" for operand in op["in_place"]])


def op_page() -> str:
    """docs/ops.md."""
    lines = [_INTRODUCTION]
    for family, ops in groupby(_core.ops(), key=lambda op: str(op["family"])):
        lines += [f"## {family}", "", "| op | operands | is | what it computes |", "|---|---|---|---|"]
        for op in ops:
            operands = "" if op["num_operands"] is None else str(op["num_operands"])
            doc = str(op["doc"]).replace("|", "\\|").rstrip(".")
            lines.append(f"| `{op['name']}` | {operands} | {_words(op)} | {doc} |")
        lines.append("")
    return "\n".join(lines)


if __name__ == "__main__":
    print(op_page(), end="")
