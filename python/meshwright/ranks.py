"""The processes that mpirun started, of which each is a rank."""

from __future__ import annotations

import atexit
import os
import socket
import sys
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from meshwright import _core
from meshwright._core import UserError
from meshwright.machine import memory_bytes

HEAD_START = 1.0
"""Seconds that rank 0 is given to report an error that all ranks have: its end ends the others."""

PATIENCE = 3.0
"""Seconds until a file that one host has made must be seen by the others."""


class Ranks:
    """This process among those that mpirun started; without mpirun, one on its own, for whom the questions below cost nothing."""

    def __init__(self) -> None:
        self.size = max(1, _core.mpirun_size())
        self.rank = _core.mpirun_rank() if self.size > 1 else 0
        if self.size > 1 and not _core.ranks_joined():
            _core.join_ranks()
            atexit.register(_core.leave_ranks)
            _end_together()

    @property
    def is_first(self) -> bool:
        """Whether this is the rank that speaks and writes for all."""
        return self.rank == 0

    def any(self, mine: bool) -> bool:
        """Whether it is true on any rank; all ranks ask together."""
        return bool(_core.any_rank(mine)) if self.size > 1 else mine

    def barrier(self) -> None:
        """Waits until all ranks are here."""
        if self.size > 1:
            _core.ranks_barrier()

    def gather(self, mine: str) -> list[str]:
        """Everyone's text, by rank; all ranks ask together."""
        return _core.gather_texts(mine) if self.size > 1 else [mine]

    def memory_share(self, ranks: int) -> int:
        """Bytes that each of `ranks` ranks may use: of the threads of this process, or of the processes on the fullest host. All ranks
        ask together and get the same answer."""
        if self.size == 1:
            return memory_bytes() // ranks
        hosts = [entry.split("\n") for entry in self.gather(f"{socket.gethostname()}\n{memory_bytes()}")]
        together = Counter(name for name, _ in hosts)
        return min(int(available) // together[name] for name, available in hosts)

    def check_shared(self, folder: Path) -> None:
        """UserError on every rank unless all of them see this folder, which is made where there is none; it names those that do not."""
        if self.size == 1:
            return
        mark, problem = folder / f".seen-by-all-{os.getpid()}", ""
        if self.is_first:
            try:
                folder.mkdir(parents=True, exist_ok=True)
                mark.touch()
            except OSError as error:
                problem = f"{os.fspath(folder)!r}: {error.strerror}"
        name, problem = self.gather(f"{mark.name}\n{problem}")[0].split("\n", 1)
        if problem:
            raise UserError(problem)
        deadline = time.monotonic() + PATIENCE
        while not (seen := (folder / name).is_file()) and time.monotonic() < deadline:
            time.sleep(0.05)
        hosts = self.gather(("" if seen else "!") + socket.gethostname())
        if self.is_first:
            mark.unlink(missing_ok=True)
        if blind := [f"rank {rank} (host {host[1:]})" for rank, host in enumerate(hosts) if host.startswith("!")]:
            raise UserError(
                f"output {os.fspath(folder)!r}: rank 0 (host {hosts[0]}) has it, but {', '.join(blind)} "
                f"{'does' if len(blind) == 1 else 'do'} not see it; expected a folder that all ranks share (on a network file system)"
            )

    def agree(self, facts: Mapping[str, Any], what: str) -> None:
        """UserError on every rank, `what` and the keys that differ, unless all ranks were told the same."""
        if self.size > 1:
            _core.check_agreement(dict(flattened(facts)), what)


def flattened(facts: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """`{"optimizer": {"lr": 0.1}}` as `[("optimizer.lr", "0.1")]`."""
    rows = []
    for key, value in facts.items():
        if isinstance(value, Mapping) and value:
            rows += flattened(value, f"{prefix}{key}.")
        else:
            rows.append((f"{prefix}{key}", str(value)))
    return rows


def speaks() -> bool:
    """Whether this process prints what all of them would: not a later rank of mpirun's."""
    return not _core.mpirun_rank()


def report_failure() -> str:
    """Called before the message of an error is printed: lets rank 0 go first, and names this rank."""
    if _core.mpirun_size() < 2:
        return ""
    if not speaks():
        time.sleep(HEAD_START)
    return f"rank {_core.mpirun_rank()}: "


def _end_together() -> None:
    """An error that nobody catches ends all ranks: those that wait for this one would wait for ever."""
    before = sys.excepthook

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        name = report_failure()
        sys.stdout.flush()
        print(f"{name}this rank fails, which ends the run:", file=sys.stderr)
        before(kind, error, trace)
        sys.stderr.flush()
        _core.abort_ranks(1)

    sys.excepthook = hook
