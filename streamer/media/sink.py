"""A viewer's own queue: bounded, and never anybody else's trouble."""

import asyncio
import enum
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Generic, Protocol, Self, TypeVar


class Timed(Protocol):
    """What can be queued: something that is shown at a tick and may be a place to start decoding at."""

    @property
    def keyframe(self) -> bool: ...

    @property
    def tick(self) -> int: ...


Item = TypeVar("Item", bound=Timed)


class _State(enum.Enum):
    STALLED = enum.auto()  # nobody reads: not yet, or no longer fast enough
    WAITING = enum.auto()  # somebody reads, and can't decode before the next keyframe
    FLOWING = enum.auto()


class Sink(Generic[Item]):
    """An async iterator over what the hub makes, from a keyframe on.

    Nothing is queued before the first item is asked for, so a viewer that took its time to connect starts live.
    A reader that falls behind by `capacity` items loses what is queued and goes on at the next keyframe, which is
    asked for only when it reads again: one that has stopped reading costs the others nothing. Iteration ends when
    the sink is closed, by its owner or with the hub. For one reader, in the event loop.
    """

    def __init__(self, capacity: int, ask_keyframe: Callable[[], None]) -> None:
        self.closed = asyncio.Event()
        self.started = False
        """Whether anything has been asked for yet."""
        self.skipped = 0
        """Pictures that this reader has lost by being slow."""
        self.on_skip: list[Callable[[], None]] = []
        """Called when a skip begins."""
        self.on_close: list[Callable[[], None]] = []
        self._queue: deque[Item] = deque()
        self._capacity = capacity
        self._ask_keyframe = ask_keyframe
        self._state = _State.STALLED
        self._joined = False
        self._wake = asyncio.Event()

    def offer(self, item: Item) -> None:
        """Take the next item, or leave it out and count it; never blocks."""
        if self._state is _State.FLOWING and len(self._queue) >= self._capacity:
            self.skipped += len(self._queue)
            self._queue.clear()
            self._state = _State.STALLED
            for callback in self.on_skip:
                callback()
        if self._state is _State.WAITING and item.keyframe:
            self._state = _State.FLOWING
            self._joined = True
        if self._state is _State.FLOWING:
            self._queue.append(item)
            self._wake.set()
        elif self._joined:
            self.skipped += 1

    def close(self) -> None:
        """End the iteration, after what is queued. May be called again."""
        if not self.closed.is_set():
            self.closed.set()
            self._wake.set()
            for callback in self.on_close:
                callback()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Item:
        self.started = True
        while not self._queue:
            if self.closed.is_set():
                raise StopAsyncIteration
            if self._state is _State.STALLED:
                self._state = _State.WAITING
                self._ask_keyframe()
            self._wake.clear()
            await self._wake.wait()
        return self._queue.popleft()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
