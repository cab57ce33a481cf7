"""An event loop whose clock jumps to the next timer: hours of a stream in seconds, and the same each time."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class _Selector(selectors.SelectSelector):
    """Never waits: moves the clock by the time that it was told to wait."""

    now_s = 1000.0

    def select(self, timeout: float | None = None) -> Any:
        if timeout is None:
            raise RuntimeError("nothing is left to happen, and the test still waits")
        self.now_s += max(0.0, timeout)
        return super().select(0)


class VirtualLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._virtual = _Selector()
        super().__init__(self._virtual)
        # Timers that are equal but for rounding fire together, as with a real clock.
        self._clock_resolution = 1e-9

    def time(self) -> float:
        return self._virtual.now_s

    def advance(self, seconds: float) -> None:
        """Something keeps the loop busy for so long."""
        self._virtual.now_s += seconds


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a test on a virtual clock."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(coroutine)
