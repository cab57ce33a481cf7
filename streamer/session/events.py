"""A stream's events: numbered, kept in a bounded ring, followed by any number of readers at their own pace."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import msgspec

from streamer.session.errors import TooMany

KEPT_EVENTS = 512
"""A reader that lags further behind gets one `events.gap` and goes on with the oldest event kept."""

MAX_FOLLOWERS = 256
RETRY_AFTER_S = 5.0


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """One event as it goes to viewers. `tick` and `picture` are where the stream stood."""

    v: int = 1
    seq: int
    type: str
    stream: str
    time: str
    """RFC 3339, UTC."""
    tick: int
    picture: int
    data: dict[str, Any]


def rfc3339(moment: datetime) -> str:
    """A UTC time with milliseconds, e.g. `2026-11-24T11:00:00.000Z`."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class EventLog:
    """Events of one stream. `seq` is the number of the newest one, 0 before any.

    Args:
        stream: Id of the stream.
        position: Where it stands now: (tick, picture).
        kept: Size of the ring.
    """

    def __init__(self, stream: str, position: Callable[[], tuple[int, int]], kept: int = KEPT_EVENTS) -> None:
        self._stream = stream
        self._position = position
        self._ring: deque[Event] = deque(maxlen=kept)
        self._changed = asyncio.Event()
        self._closed = False
        self._followers = 0
        self.seq = 0

    def publish(self, type: str, data: dict[str, Any] | None = None) -> Event:
        """Number an event and hand it to all who follow."""
        self.seq += 1
        event = self._event(self.seq, type, data or {})
        self._ring.append(event)
        self._wake()
        return event

    def close(self) -> None:
        """No event follows: readers end once they have read what is kept."""
        self._closed = True
        self._wake()

    @contextmanager
    def follower(self) -> Iterator[None]:
        """Hold one of the places of those who follow.

        Raises:
            TooMany: all are taken.
        """
        if self._followers >= MAX_FOLLOWERS:
            message = f"{MAX_FOLLOWERS} follow the events of this stream already"
            raise TooMany(message, limit=MAX_FOLLOWERS, retry_after_s=RETRY_AFTER_S)
        self._followers += 1
        try:
            yield
        finally:
            self._followers -= 1

    async def follow(self, after: int | None = None) -> AsyncIterator[Event]:
        """Events past `after` (None: from now on), until the stream has ended.

        A number beyond the newest one (of another life of the server) counts as none at all: everything kept comes.
        """
        last = self.seq if after is None else after if 0 <= after <= self.seq else 0
        while True:
            changed = self._changed
            oldest = self._ring[0].seq if self._ring else self.seq + 1
            if last + 1 < oldest:
                missed = oldest - 1 - last
                last = oldest - 1
                yield self._event(last, "events.gap", {"missed": missed})
                continue
            while last < self.seq and self._ring and self._ring[0].seq <= last + 1:
                event = self._ring[last + 1 - self._ring[0].seq]
                last = event.seq
                yield event
            if last >= self.seq:
                if self._closed:
                    return
                await changed.wait()

    def _event(self, seq: int, type: str, data: dict[str, Any]) -> Event:
        tick, picture = self._position()
        now = rfc3339(datetime.now(UTC))
        return Event(seq=seq, type=type, stream=self._stream, time=now, tick=tick, picture=picture, data=data)

    def _wake(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()
