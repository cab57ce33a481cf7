"""A viewer that goes without a word."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import httpx
import pytest
from websockets.asyncio.client import ClientConnection, connect

from streamer import cli
from streamer.settings import Settings

UPGRADE = (
    "GET /v1/streams/main/video HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


async def status(events: ClientConnection) -> tuple[str, int]:
    """The next status, and how many watch."""
    while (event := json.loads(await events.recv()))["type"] != "stream.status":
        pass
    return event["data"]["status"], event["data"]["viewers"]


async def test_a_websocket_that_answers_no_ping_is_no_viewer(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli, "PING_INTERVAL_S", 0.1)
    monkeypatch.setattr(cli, "PONG_TIMEOUT_S", 0.1)
    listener = cli.listen("127.0.0.1", 0)
    port = listener.getsockname()[1]
    serving = asyncio.create_task(cli.serve_on(listener, Settings(model=str(tiny_model), threads=1, rate_hz=8)))
    try:
        async with asyncio.timeout(90), httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http:
            while (await http.get("/v1/streams/main")).status_code != 200:
                pass
            # A follower that answers pings, which stays.
            async with connect(f"ws://127.0.0.1:{port}/v1/streams/main/events?after=0") as events:
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(UPGRADE.encode())
                assert b"101" in await reader.readline()
                async with asyncio.timeout(15):
                    for wanted in (("live", 1), ("paused", 0)):
                        while wanted != (await status(events)):
                            pass
                writer.close()
    finally:
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)
