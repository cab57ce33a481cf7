"""Live video as decoded pictures with their numbers."""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from streamer_client.errors import StreamerError
from streamer_client.events import Event
from streamer_client.video import VideoSocket, decoder, packets

if TYPE_CHECKING:
    from streamer_client.stream import Stream

_KEEP = 256


@dataclass(frozen=True)
class Picture:
    """One picture as it was shown at a tick.

    Attributes:
        rgb: (height, width, 3) uint8.
        tick: presentation time in ticks of the stream's rate.
        number: picture number n, as far as this client was told of repeats (a repeated picture keeps its number).
        steer: id of the newest steer in force, as far as this client was told; None for the first prompt.
    """

    rgb: npt.NDArray[np.uint8]
    tick: int
    number: int
    steer: str | None


class _Positions:
    """Tick to picture number and steer, from what the server says (each event names its tick and picture)."""

    def __init__(self, tick: int, picture: int) -> None:
        self._ticks = [tick]
        self._pictures = [picture]
        self._steers: list[tuple[int, str]] = []
        self._newest = 0

    def see(self, event: Event) -> None:
        if event.tick >= self._ticks[-1]:
            self._ticks.append(event.tick)
            self._pictures.append(event.picture)
            del self._ticks[:-_KEEP], self._pictures[:-_KEEP]
        if event.type == "steer.released":
            self._steers.append((int(event.data["at_picture"]), str(event.data["id"])))
            del self._steers[:-_KEEP]

    def picture(self, tick: int) -> int:
        # Between two events pictures are taken to follow ticks; a repeat that an event tells of later is no way back.
        index = max(bisect_right(self._ticks, tick) - 1, 0)
        self._newest = max(self._newest, self._pictures[index] + tick - self._ticks[index])
        return self._newest

    def steer(self, number: int) -> str | None:
        for at_picture, steer in reversed(self._steers):
            if at_picture <= number:
                return steer
        return None


async def decode(stream: Stream) -> AsyncGenerator[Picture, None]:
    """Pictures of the stream's live video until it ends."""
    # Events from before the first picture on, however late their connection stands.
    seq = int((await stream.refresh())["seq"])
    async with VideoSocket(stream.video_url, token=stream.token) as video:
        hello: dict[str, Any] = video.hello
        # Nothing was taken yet, but from the first acknowledgement on the server sends no more than 2 s ahead.
        await video.acknowledge(int(hello["tick"]) - 1)
        positions = _Positions(int(hello["tick"]), int(hello["picture"]))
        told = asyncio.create_task(_listen(stream, positions, seq))
        try:
            init = b""
            codec = None
            async with aclosing(video.messages()) as messages:
                async for message in messages:
                    if not init:
                        init = message
                        continue
                    codec = codec or decoder(init, message)
                    for packet in packets(init, message):
                        tick = round(packet.pts * packet.time_base * float(hello["rate_hz"]))
                        for frame in await asyncio.to_thread(codec.decode, packet):
                            number = positions.picture(tick)
                            yield Picture(frame.to_ndarray(format="rgb24"), tick, number, positions.steer(number))
                        await video.acknowledge(tick)
        finally:
            told.cancel()
            await asyncio.gather(told, return_exceptions=True)


async def _listen(stream: Stream, positions: _Positions, after: int) -> None:
    try:
        async for event in stream.events(after):
            positions.see(event)
    except StreamerError:
        # The video says the same by ending; without events the numbers just count on.
        return
