"""Releases a stream's pictures: exactly one a tick, on a schedule that does not drift."""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable
from enum import Enum

from streamer.engine.protocol import Pictures
from streamer.session.timeline import Timeline

LATE_TICKS = 2
"""A loop that was held up catches up this many ticks at once; beyond that the schedule moves (PTS stay gapless)."""


class Tick(Enum):
    """What a tick showed."""

    PICTURE = "picture"
    HELD = "held"
    """The last picture again, on purpose: the stream (re)starts."""
    UNDERRUN = "underrun"
    """The last picture again, for want of the next one."""


class Player:
    """Pictures that arrived, and the ticker that shows them. Moves `next_picture` and `tick` of the timeline.

    Args:
        timeline: The frontiers.
        release: Takes each tick's picture and the tick's number; must not block.
        after_tick: Called after each.
    """

    def __init__(
        self, timeline: Timeline, release: Callable[[bytes, int], None], after_tick: Callable[[Tick], None]
    ) -> None:
        self._timeline = timeline
        self._release = release
        self._after_tick = after_tick
        self._loop = asyncio.get_running_loop()
        self._period_s = 1.0 / timeline.rate_hz
        self._waiting: deque[bytes] = deque()
        self._shown: bytes | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._origin_s = 0.0
        self._ticks = 0
        self.held_until_s = 0.0

    @property
    def running(self) -> bool:
        return self._timer is not None

    @property
    def has_picture(self) -> bool:
        """Whether there is anything to show."""
        return self._shown is not None or bool(self._waiting)

    @property
    def bytes(self) -> int:
        """What is kept: the pictures that wait and the one on show."""
        return sum(map(len, self._waiting)) + len(self._shown or b"")

    @property
    def next_tick_s(self) -> float:
        """When the next picture is to be released (loop time); inf while it is held for an unknown time."""
        tick_s = self._origin_s + self._ticks * self._period_s if self.running else self._loop.time()
        held_s = self.held_until_s - tick_s
        if held_s <= 0 or math.isinf(held_s):
            return max(tick_s, self.held_until_s)
        return tick_s + math.ceil(held_s / self._period_s) * self._period_s

    def take(self, pictures: Pictures) -> bool:
        """Keep the pictures of the next latent frame; False when it is another one."""
        if pictures.latent != self._timeline.next_latent:
            return False
        self._waiting.extend(pictures.i420)
        self._timeline.took(pictures.latent)
        return True

    def hold(self, until_s: float) -> None:
        """Show the same picture until then (loop time, inf: until told otherwise)."""
        self.held_until_s = until_s

    def start(self) -> None:
        """Tick, the first time at once."""
        if self._timer is None:
            self._origin_s, self._ticks = self._loop.time(), 0
            self._timer = self._loop.call_at(self._origin_s, self._tick)

    def stop(self) -> None:
        """Tick no more; what waits is kept."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def clear(self) -> None:
        """Stop, and keep nothing."""
        self.stop()
        self._waiting.clear()
        self._shown = None

    def _tick(self) -> None:
        shown = self._show()
        if self._timer is None:  # stopped by whoever took the picture
            return
        self._ticks += 1
        now_s = self._loop.time()
        at_s = self._origin_s + self._ticks * self._period_s
        if now_s - at_s > LATE_TICKS * self._period_s:
            self._origin_s, self._ticks, at_s = now_s, 0, now_s
        self._timer = self._loop.call_at(at_s, self._tick)
        if shown is not None:
            self._after_tick(shown)

    def _show(self) -> Tick | None:
        """Release a picture; None when there never was one."""
        held = self.held_until_s > self._origin_s + self._ticks * self._period_s
        if self._waiting and not (held and self._shown is not None):
            self._shown = self._waiting.popleft()
            shown = Tick.PICTURE
        elif self._shown is None:
            return None
        else:
            shown = Tick.HELD if held else Tick.UNDERRUN
        self._release(self._shown, self._timeline.ticked(shown is Tick.PICTURE))
        return shown
