"""A viewer that goes without a word, and one that only looks like it."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import httpx
import pytest
from streamer_client import Client
from websockets.asyncio.client import ClientConnection, connect

from streamer import cli
from streamer.settings import Settings

UPGRADE = (
    "GET /v1/streams/main/video HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


@pytest.fixture
async def port(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> AsyncIterator[int]:
    """Of a server in this process, which pings often, waits a second for an answer (or as told), buffers little."""
    monkeypatch.setattr(cli, "PING_INTERVAL_S", 0.1)
    monkeypatch.setattr(cli, "PONG_TIMEOUT_S", getattr(request, "param", 1.0))
    monkeypatch.setattr(cli, "SEND_BUFFER_BYTES", 4096)
    listener = cli.listen("127.0.0.1", 0)
    number = listener.getsockname()[1]
    settings = Settings(model=str(tiny_model), threads=1, rate_hz=16, seed=1)
    serving = asyncio.create_task(cli.serve_on(listener, settings))
    async with asyncio.timeout(90), httpx.AsyncClient(base_url=f"http://127.0.0.1:{number}") as http:
        while (await http.get("/v1/streams/main")).status_code != 200:  # noqa: ASYNC110 - no event tells
            await asyncio.sleep(0.1)
    yield number
    serving.cancel()
    await asyncio.gather(serving, return_exceptions=True)


async def following(events: ClientConnection, kind: str) -> dict[str, Any]:
    """The data of the next event of this kind."""
    while (event := json.loads(await events.recv()))["type"] != kind:
        pass
    return dict(event["data"])


@pytest.mark.parametrize("port", [1.0, 4.0], indirect=True, ids=["all was sent", "the buffers are full"])
async def test_a_websocket_that_answers_no_ping_is_no_viewer(port: int) -> None:
    async with connect(f"ws://127.0.0.1:{port}/v1/streams/main/events?after=0") as events, asyncio.timeout(15):
        while (await following(events, "stream.status"))["status"] != "paused":
            pass  # its first pictures are not here yet
        with socket.socket() as viewer:
            viewer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
            viewer.connect(("127.0.0.1", port))
            viewer.sendall(UPGRADE.encode())
            for count in (1, 0):
                while (await following(events, "stream.status"))["viewers"] != count:
                    pass


async def test_who_takes_pictures_slowly_stays_a_viewer(port: int) -> None:
    async with (
        Client(f"http://127.0.0.1:{port}") as client,
        connect(f"ws://127.0.0.1:{port}/v1/streams/main/events") as events,
        aclosing((await client.streams.get("main")).pictures()) as pictures,
        asyncio.timeout(60),
    ):
        await anext(pictures)  # and is not done with it for long
        for _ in range(11):  # seconds of video, of which 2 may be under way and 8 would fit the client's queue
            assert (await following(events, "clock"))["viewers"] == 1
        await anext(pictures)
