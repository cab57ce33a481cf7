"""How a conversation over a WebSocket ends, how many there may be, what is remembered of callers. No server."""

from __future__ import annotations

import asyncio
import gc
import weakref
from types import SimpleNamespace
from typing import Any, cast

import pytest
from fastapi import FastAPI
from starlette.requests import Request
from starlette.testclient import TestClient, WebSocketDenialResponse
from starlette.types import Message
from starlette.websockets import WebSocket

from streamer.api import events
from streamer.api.bodies import StreamBody
from streamer.api.idempotency import Idempotency
from streamer.api.rates import BURST, KEPT_CALLERS, STEERS_HZ, SteerRates
from streamer.api.sockets import ENDED, MAX_REASON_BYTES, converse
from streamer.session import events as stream_events
from streamer.session.errors import TooMany


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


def test_only_so_many_follow_the_events_of_a_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream_events, "MAX_FOLLOWERS", 1)
    session = SimpleNamespace(id="str_1", reason=None, check_running=lambda: None)
    session.events = stream_events.EventLog("str_1", lambda: (0, 0))
    app = FastAPI()
    app.state.streamer = SimpleNamespace(sessions=SimpleNamespace(get=lambda id: session))
    app.include_router(events.router)
    session.events.publish("clock")
    with TestClient(app) as client:
        with client.websocket_connect("/streams/main/events?after=0") as first:
            assert first.receive_json()["type"] == "clock"
            with pytest.raises(WebSocketDenialResponse) as refused, client.websocket_connect("/streams/main/events"):
                pass
            client.portal.call(session.events.close)
            assert first.receive()["code"] == ENDED
        problem = refused.value.json()
        assert (refused.value.status_code, problem["code"], problem["limit"]) == (429, "too-many", 1)
        with client.websocket_connect("/streams/main/events?after=0") as next_one:  # the place is free again
            assert next_one.receive_json()["type"] == "clock"


def test_a_caller_who_steers_too_often_is_told_when_to_come_again() -> None:
    now_s = 100.0
    rates, stream = SteerRates(lambda: now_s), cast(Any, SimpleNamespace(id="str_1"))

    def ask(host: str) -> None:
        rates.count(Request({"type": "http", "headers": [], "client": (host, 1)}), stream)

    for _ in range(BURST):
        ask("10.0.0.1")
    with pytest.raises(TooMany) as refused:
        ask("10.0.0.1")
    assert (refused.value.status, refused.value.limit) == (429, STEERS_HZ)
    ask("10.0.0.2")  # another one is free to
    now_s += 0.001 + (refused.value.retry_after_s or 0)
    ask("10.0.0.1")
    with pytest.raises(TooMany):
        ask("10.0.0.1")
    for number in range(KEPT_CALLERS + 9):
        ask(f"host {number}")
    assert len(rates._left) == KEPT_CALLERS


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
