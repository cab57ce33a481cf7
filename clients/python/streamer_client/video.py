"""The video WebSocket: a JSON hello, then fragmented MP4, one fragment a message, the init segment first."""

from __future__ import annotations

import io
import json
from collections.abc import AsyncGenerator, Iterator
from typing import Any

import av
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosedError, InvalidStatus, WebSocketException

from streamer_client.errors import StreamerError
from streamer_client.events import refused

QUEUE = 128
"""Messages that wait for who takes them. More than the 2 s of video that the server sends unacknowledged: a full
queue stops the reading, and then no ping is answered."""


class VideoSocket:
    """One viewer. Use as an asynchronous context manager, then iterate `messages()`.

    Attributes:
        hello: the server's first message: mime, rate_hz, tick and picture.
    """

    def __init__(self, url: str, *, token: str | None = None) -> None:
        self._url = url
        self._token = token
        self._socket: ClientConnection | None = None
        self.hello: dict[str, Any] = {}

    async def __aenter__(self) -> VideoSocket:
        try:
            socket = self._socket = await connect(self._url, max_size=8 << 20, compression=None, max_queue=QUEUE)
            if self._token is not None:
                await socket.send(json.dumps({"type": "auth", "token": self._token}))
            self.hello = json.loads(await socket.recv())
        except InvalidStatus as error:
            raise refused(error) from error
        except (OSError, WebSocketException, ValueError) as error:
            raise StreamerError(f"no video from {self._url}: {error}") from error
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._socket is not None:
            await self._socket.close()

    async def messages(self) -> AsyncGenerator[bytes, None]:
        assert self._socket is not None
        try:
            async for message in self._socket:
                # Text between the fragments tells of skips and of the stream's end; the fragments say it too.
                if isinstance(message, bytes):
                    yield message
        except ConnectionClosedError as error:
            raise StreamerError(f"the video broke off: {error}") from error

    async def acknowledge(self, tick: int) -> None:
        """Tell the server that everything up to `tick` was taken, so that it bounds what is under way."""
        assert self._socket is not None
        await self._socket.send(json.dumps({"type": "ack", "tick": tick}))


async def fragments(url: str, *, token: str | None = None) -> AsyncGenerator[bytes, None]:
    """The fragments of one viewer, the init segment first."""
    async with VideoSocket(url, token=token) as video:
        async for fragment in video.messages():
            yield fragment


def packets(init: bytes, fragment: bytes) -> Iterator[av.Packet]:
    """The encoded pictures of one fragment, with pts and time base."""
    with av.open(io.BytesIO(init + fragment), format="mp4") as container:
        for packet in container.demux(video=0):
            if packet.size:
                yield packet


def decoder(init: bytes, fragment: bytes) -> av.VideoCodecContext:
    """A decoder for the fragments that follow `init`."""
    with av.open(io.BytesIO(init + fragment), format="mp4") as container:
        source = container.streams.video[0].codec_context
        codec = av.CodecContext.create(source.name, "r")
        codec.extradata = source.extradata
        codec.thread_count = 1
        return codec
