"""`Trainer(mesh="auto")`: the mesh of the ranks that there are, chosen by planning steps on this machine."""

from __future__ import annotations

import json
import os
from typing import Any

from meshwright import _core
from meshwright._core import UserError
from meshwright.hardware import this_machine
from meshwright.plan_search import divisors
from meshwright.planning import best_mesh
from meshwright.ranks import Ranks


def choose_mesh(model: Any, ranks: Ranks, batch_shape: tuple[int, int] | None, settings: dict[str, Any]) -> tuple[dict[str, int], str]:
    """The mesh with the fastest step that fits this machine's memory, and a line that says so. Under mpirun, of as many ranks as it has
    started: rank 0 chooses for all. Else the ranks are threads, and their number, up to that of the processors, is chosen too.

    batch_shape: sequences and tokens of a step's batch. settings: arguments of `plan`.

    Raises:
        UserError: no batch_shape; no mesh divides the model and the batch; none fits (naming the bytes).
    """
    sizes = batch_shape if isinstance(batch_shape, (tuple, list)) else ()
    if len(sizes) != 2 or not all(isinstance(size, int) and size >= 1 for size in sizes):
        raise UserError(f"mesh='auto' plans for a batch; expected batch_shape=(sequences, tokens), found {batch_shape!r}")
    answer = ""
    if ranks.is_first:
        try:
            answer = json.dumps(_choose(model, ranks, {**settings, "batch": sizes[0], "seq": sizes[1]}))
        except UserError as error:
            answer = json.dumps(str(error))
    found = json.loads(ranks.gather(answer)[0])
    if isinstance(found, str):
        raise UserError(found)
    mesh, line = found
    return mesh, line


def _choose(model: Any, ranks: Ranks, settings: dict[str, Any]) -> tuple[dict[str, int], str]:
    processors: int = _core.machine_facts()["usable_processors"]
    counts = [ranks.size] if ranks.size > 1 else divisors(processors)
    here = int(os.environ.get("OMPI_COMM_WORLD_LOCAL_SIZE", ranks.size))
    best, compared, refused = None, 0, None
    for count in counts:
        shared_by = here if ranks.size > 1 else count
        try:
            report, rows = best_mesh(model, {**settings, "chips": count, "hardware": this_machine(shared_by)})
        except UserError as error:
            refused = error
            continue
        compared += len(rows)
        if best is None or (not report.fits, report.step_seconds) < (not best.fits, 0.98 * (best.step_seconds or 0)):  # more ranks must pay
            best = report
    if best is None:
        raise refused or UserError("mesh='auto': there is no mesh")
    if not best.fits:
        raise UserError(f"mesh='auto': none of {compared} meshes fits; on the smallest {best.warnings[-1]}")
    shown = " ".join(f"{axis}={size}" for axis, size in best.settings["mesh"].items()) or "one rank"
    return best.settings["mesh"], f"mesh: {shown} (auto: the fastest of {compared} by planning)"
