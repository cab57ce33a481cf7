"""The video WebSocket: a JSON hello, the MP4 initialisation segment, then one fragment a picture."""

from __future__ import annotations

import contextlib

from fastapi import APIRouter, WebSocket, WebSocketDisconnect

from streamer.api.problems import Problem
from streamer.api.sockets import converse, parse, session_at, tell
from streamer.media.hub import HubClosedError, HubFullError
from streamer.media.mse import MseViewer
from streamer.session.session import Session

router = APIRouter(prefix="/streams/{stream}/video")


@router.websocket("")
async def video(socket: WebSocket, stream: str) -> None:
    """A viewer. It may send `{"type": "ack", "tick": n}` for what it has buffered."""
    session = await session_at(socket, stream)
    if session is None:
        return
    try:
        viewer = session.hub.fragments()
    except HubFullError as error:
        problem = Problem(503, "viewers-full", str(error), limit=error.limit, retry_after_s=5.0)
        await socket.send_denial_response(problem.response(None))
        return
    except HubClosedError as error:
        await socket.send_denial_response(Problem(410, "stream-ended", str(error)).response(None))
        return
    with viewer:
        await socket.accept()
        await converse(socket, session, _listen(socket, viewer), _send(socket, session, viewer))


async def _send(socket: WebSocket, session: Session, viewer: MseViewer) -> None:
    try:
        start = await viewer.start()
    except EOFError:
        return
    hello = {
        "type": "hello",
        "mime": start.mime,
        "rate_hz": float(session.rate_hz),
        "tick": start.tick,
        "picture": session.picture_at(start.tick),
        "width": session.width,
        "height": session.height,
    }
    with contextlib.suppress(WebSocketDisconnect, RuntimeError):
        await tell(socket, hello)
        skipped = viewer.skipped
        async for data in viewer:
            if viewer.skipped != skipped:
                skipped = viewer.skipped
                tick, picture = session.tick, session.picture
                told = {"type": "viewer.skipped", "tick": tick, "picture": picture, "data": {"pictures": skipped}}
                await tell(socket, told)
            await socket.send_bytes(data)


async def _listen(socket: WebSocket, viewer: MseViewer) -> None:
    with contextlib.suppress(WebSocketDisconnect, RuntimeError):
        while True:
            try:
                message = parse(await socket.receive_text())
            except Problem as problem:
                await tell(socket, {"type": "error", "data": problem.body(None)})
                continue
            except KeyError:  # a binary message
                continue
            tick = message.get("tick")
            if message["type"] == "ack" and isinstance(tick, int):
                viewer.acknowledge(tick)
