"""A WebSocket viewer: an initialisation segment, then a fragment a picture, no further ahead than it acknowledges.

Knows nothing of WebSockets: the room above sends what this yields, and passes on the acknowledgements.
"""

import asyncio
import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from types import TracebackType
from typing import Self

from streamer.media.mp4 import Fragment, Muxer
from streamer.media.sink import Sink

UNACKNOWLEDGED_S = 2.0
"""Seconds of video that may be on their way to a viewer that acknowledges."""


@dataclass(frozen=True, slots=True)
class Start:
    """What a viewer must know before the first byte: the media's type and the tick of its first picture.

    The picture of tick k is shown at media time k / rate_hz seconds on the time line of all viewers.
    """

    mime: str
    tick: int


class MseViewer:
    """An async iterator of bytes, one message each: the initialisation segment, then fragments from a keyframe on.

    `await start()` gives what the hello must say. A viewer that has once acknowledged gets no more than
    UNACKNOWLEDGED_S beyond its last acknowledgement; what it can't be given meanwhile it skips. Close it, or use
    it as a context manager. For one reader, in the event loop.
    """

    def __init__(self, fragments: Sink[Fragment], muxer: Muxer, rate_hz: Fraction) -> None:
        self._fragments = fragments
        self._muxer = muxer
        self._start: Start | None = None
        self._opening = deque[bytes]()
        self._acknowledges = False
        self._unacknowledged = deque[int](maxlen=math.ceil(UNACKNOWLEDGED_S * rate_hz))  # ticks
        self._wake = asyncio.Event()
        fragments.on_close.append(self._wake.set)

    async def start(self) -> Start:
        """Wait for the first picture. Raises EOFError if the stream ends before it."""
        if self._start is None:
            try:
                first = await anext(self._fragments)
            except StopAsyncIteration:
                raise EOFError("the stream ended before its first picture") from None
            assert self._muxer.init is not None  # both stand since the first fragment was muxed
            assert self._muxer.mime is not None
            self._start = Start(self._muxer.mime, first.tick)
            self._opening.extend((self._muxer.init, first.data))
            self._unacknowledged.append(first.tick)
        return self._start

    def acknowledge(self, tick: int) -> None:
        """The viewer has buffered all that it was sent up to `tick`."""
        self._acknowledges = True
        while self._unacknowledged and self._unacknowledged[0] <= tick:
            self._unacknowledged.popleft()
        self._wake.set()

    @property
    def skipped(self) -> int:
        """Pictures left out so far because the viewer was slow; there is a hole in its media time for them."""
        return self._fragments.skipped

    def on_skip(self, callback: Callable[[], None]) -> None:
        """Have `callback` called in the event loop whenever a skip begins."""
        self._fragments.on_skip.append(callback)

    def close(self) -> None:
        """Leave. May be called again."""
        self._fragments.close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        if self._start is None:
            try:
                await self.start()
            except EOFError:
                raise StopAsyncIteration from None
        if self._opening:
            return self._opening.popleft()
        await self._credit()
        fragment = await anext(self._fragments)
        self._unacknowledged.append(fragment.tick)
        return fragment.data

    async def _credit(self) -> None:
        while (
            self._acknowledges
            and len(self._unacknowledged) == self._unacknowledged.maxlen
            and not self._fragments.closed.is_set()
        ):
            self._wake.clear()
            await self._wake.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
