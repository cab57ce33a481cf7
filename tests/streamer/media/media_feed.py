"""Moving test pictures that carry their own number, so that what comes out can be told from what went in."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import numpy as np
from numpy.typing import NDArray

from streamer.media.hub import Hub

WIDTH, HEIGHT, RATE_HZ = 256, 144, 16
_BITS, _CELL = 16, 16  # a row of black and white squares at the top: the number, its lowest bit first


def picture(number: int, width: int = WIDTH, height: int = HEIGHT) -> bytes:
    """I420 picture `number`: the coded row, and waves below it that move with the number."""
    x, y = np.arange(width)[None, :], np.arange(height)[:, None]
    luma = 126 + 50 * np.sin((x + 3 * number) / 9) + 40 * np.cos((y - 2 * number) / 7)
    for bit in range(_BITS):
        luma[:_CELL, bit * _CELL : (bit + 1) * _CELL] = 235 if number >> bit & 1 else 16
    u = np.full((height // 2, width // 2), 90 + number % 60, np.uint8)
    v = np.full((height // 2, width // 2), 140, np.uint8)
    return luma.astype(np.uint8).tobytes() + u.tobytes() + v.tobytes()


def number_of(luma: NDArray[np.uint8]) -> int:
    """The number that a decoded picture carries. luma: (height, width)."""
    middle = luma[_CELL // 2, _CELL // 2 : _BITS * _CELL : _CELL]
    return sum(int(value > 126) << bit for bit, value in enumerate(middle))


class Feed:
    """Releases numbered pictures, picture n at tick n, and knows when they are encoded."""

    def __init__(self, hub: Hub, tick: int = 0) -> None:
        self.hub, self.tick = hub, tick

    async def pictures(self, count: int) -> None:
        """As fast as the encoder takes them, none dropped."""
        for _ in range(count):
            self.hub.release(picture(self.tick), self.tick)
            self.tick += 1
            if self.hub._jobs:
                await asyncio.wait(self.hub._jobs)
            await asyncio.sleep(0)  # readers take what they were woken for

    @asynccontextmanager
    async def live(self, rate_hz: float = RATE_HZ) -> AsyncIterator[None]:
        """In the background, one a tick, as a session does."""

        async def run() -> None:
            while True:
                await self.pictures(1)
                await asyncio.sleep(1 / rate_hz)

        task = asyncio.create_task(run())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait([task])
