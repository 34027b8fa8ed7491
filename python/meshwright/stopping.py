"""Stopping a run by a signal: SIGTERM and Ctrl-C ask, a second Ctrl-C insists."""

from __future__ import annotations

import signal
from types import FrameType
from typing import Any


class StopRequest:
    """For the time of a `with`, SIGINT and SIGTERM set `signal` instead of ending the process; the handlers before come back after it.

    A second Ctrl-C raises KeyboardInterrupt. Outside the main thread, which alone may set handlers, it does nothing.
    """

    def __init__(self) -> None:
        self.signal: int | None = None
        self._before: dict[int, Any] = {}

    def __bool__(self) -> bool:
        return self.signal is not None

    def leave(self) -> None:
        """What the signal would have done: KeyboardInterrupt, or SystemExit with 128 + its number; nothing when none came."""
        if self.signal == signal.SIGINT:
            raise KeyboardInterrupt
        if self.signal is not None:
            raise SystemExit(128 + self.signal)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.signal is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal = number

    def __enter__(self) -> StopRequest:
        self.signal = None
        for number in (signal.SIGINT, signal.SIGTERM):
            try:
                self._before[number] = signal.signal(number, self._ask)
            except ValueError:
                break
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()
