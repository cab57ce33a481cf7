"""How a conversation over a WebSocket ends, and what is remembered of keyed requests. No server."""

from __future__ import annotations

import asyncio
import gc
import weakref
from types import SimpleNamespace
from typing import Any, cast

import pytest
from starlette.requests import Request
from starlette.types import Message
from starlette.websockets import WebSocket

from streamer.api.bodies import StreamBody
from streamer.api.idempotency import Idempotency
from streamer.api.sockets import ENDED, MAX_REASON_BYTES, converse


@pytest.mark.parametrize("reason", ["the worker died", "é" * 400])
async def test_the_reason_fits_a_close_frame_and_the_other_part_ends_too(reason: str) -> None:
    sent, ended = list[Message](), asyncio.Event()

    async def receive() -> Message:
        return {"type": "websocket.connect"}

    async def send(message: Message) -> None:
        sent.append(message)

    async def forever() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    socket = WebSocket({"type": "websocket", "path": "/", "headers": []}, receive, send)
    await socket.accept()
    await converse(socket, cast(Any, SimpleNamespace(id="str_1", reason=reason)), forever(), asyncio.sleep(0))
    assert ended.is_set()
    assert sent[-1]["code"] == ENDED
    said = sent[-1]["reason"]
    assert reason.startswith(said)
    assert min(len(reason.encode()), MAX_REASON_BYTES - 1) <= len(said.encode()) <= MAX_REASON_BYTES


async def test_of_a_keyed_body_nothing_but_a_hash_is_kept() -> None:
    headers = [(b"idempotency-key", b"k")]
    request = Request(
        {"type": "http", "method": "POST", "path": "/v1/streams", "query_string": b"", "headers": headers}
    )
    keys, body = Idempotency(), StreamBody(log="x" * 1000)

    async def act() -> dict[str, Any]:
        return {"id": "str_1"}

    assert await keys.once(request, body, act) == {"id": "str_1"}
    gone = weakref.ref(body)
    del body
    gc.collect()
    assert gone() is None
    assert await keys.once(request, StreamBody(log="x" * 1000), act) == {"id": "str_1"}
