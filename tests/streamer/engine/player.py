"""A stream as the server sees it, for tests: sends what the session would, collects what comes."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterable
from typing import Any, TypeVar

from streamer.engine import protocol
from streamer.engine.process import Engine
from streamer.engine.protocol import Denoised, Failed, Message, Pictures, Snapshot, Steer

PATIENCE_S = 60.0
SEA, NIGHT = "a red sailboat on the sea", "snowy mountains at night"
M = TypeVar("M", bound=Message)
_numbers = itertools.count()


class Player:
    """One stream of an engine; `received` holds everything in order, `pictures` the pictures by latent frame."""

    def __init__(self, engine: Engine) -> None:
        self.id = f"stream-{next(_numbers)}"
        self.engine = engine
        self.epoch = 0
        self.received: list[Message] = []
        self.pictures: dict[int, list[bytes]] = {}
        self._queue: asyncio.Queue[Message] = asyncio.Queue()
        engine.listen(self.id, self._queue.put_nowait)

    def open(self, *steers: Steer, seed: int = 5, **fields: Any) -> None:
        self.epoch += 1
        message = protocol.Open(
            stream=self.id,
            epoch=self.epoch,
            seed=seed,
            height=fields.pop("height", 64),
            width=fields.pop("width", 64),
            rate_hz=16.0,
            steers=list(steers) or [Steer(at_latent=0, prompt=SEA)],
            **fields,
        )
        assert self.engine.send(message)

    def credit(self, denoise_until: int, decode_until: int) -> None:
        message = protocol.Credit(
            stream=self.id,
            epoch=self.epoch,
            denoise_until=denoise_until,
            decode_until=decode_until,
            due_s=1.0,
        )
        assert self.engine.send(message)

    def reschedule(self, from_latent: int, *steers: Steer) -> None:
        self.epoch += 1
        message = protocol.Reschedule(stream=self.id, epoch=self.epoch, from_latent=from_latent, steers=list(steers))
        assert self.engine.send(message)

    def close(self) -> None:
        assert self.engine.send(protocol.Close(stream=self.id, epoch=self.epoch))

    async def next(self, kind: type[M]) -> M:
        """The next message of a kind; a `Failed` that was not asked for fails the test."""
        while True:
            message = await asyncio.wait_for(self._queue.get(), PATIENCE_S)
            self.received.append(message)
            if isinstance(message, Pictures):
                assert message.latent not in self.pictures, "sent twice"
                self.pictures[message.latent] = message.i420
            if isinstance(message, kind):
                return message
            assert not isinstance(message, Failed), message.reason

    async def decoded(self, last: int) -> dict[int, list[bytes]]:
        """All pictures, when those of a latent frame have come."""
        while last not in self.pictures:
            await self.next(Pictures)
        return self.pictures

    async def denoised(self, first_latent: int) -> Denoised:
        while True:
            message = await self.next(Denoised)
            if message.first_latent == first_latent:
                return message

    async def snapshot(self, at_most: int) -> Snapshot:
        assert self.engine.send(protocol.TakeSnapshot(stream=self.id, epoch=self.epoch, at_most=at_most))
        return await self.next(Snapshot)


async def run(engine: Engine, latents: Iterable[int], *steers: Steer, **fields: Any) -> dict[int, list[bytes]]:
    """The pictures of these latent frames (ascending), run alone from the beginning or a snapshot."""
    latents = list(latents)
    player = Player(engine)
    player.open(*steers, decode_from=latents[0], **fields)
    player.credit(latents[-1] + 1, latents[-1] + 1)
    pictures = await player.decoded(latents[-1])
    player.close()
    assert list(pictures) == latents
    return pictures
