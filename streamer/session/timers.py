"""What happens to a stream later, unless something comes before."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Timers:
    """Delays by name, one at a time of each. Made in the event loop that they run in."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._handles: dict[str, asyncio.TimerHandle] = {}

    def arm(self, name: str, delay_s: float | None, callback: Callable[[], None]) -> None:
        """Call `callback` after `delay_s`, and not when this name was to; None: never."""
        self.drop(name)
        if delay_s is not None:
            self._handles[name] = self._loop.call_later(delay_s, callback)

    def drop(self, *names: str) -> None:
        """These do not happen. Those that are not armed, or have happened, do no harm."""
        for name in names:
            handle = self._handles.pop(name, None)
            if handle is not None:
                handle.cancel()

    def clear(self) -> None:
        """Nothing happens any more."""
        self.drop(*self._handles)

    def first_s(self, *names: str) -> float | None:
        """The loop's time at which the first of these happens; None if none is armed."""
        return min((self._handles[name].when() for name in names if name in self._handles), default=None)
