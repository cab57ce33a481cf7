"""The events WebSocket: a stream's events, resumed by `?after=seq`; it also takes steers."""

from __future__ import annotations

import contextlib
import json

import msgspec
from fastapi import APIRouter, WebSocket, WebSocketDisconnect
from pydantic import ValidationError

from streamer.api.auth import bearer, may_control, refusal
from streamer.api.bodies import SteerBody
from streamer.api.problems import Problem, from_fault, from_session
from streamer.api.sockets import converse, parse, session_at, tell
from streamer.api.state import state_of
from streamer.api.steers import steer
from streamer.session.errors import SessionError, TooMany
from streamer.session.session import Session

router = APIRouter(prefix="/streams/{stream}/events")


@router.websocket("")
async def events(socket: WebSocket, stream: str, after: int | None = None) -> None:
    """A follower. A browser can't set headers here: `{"type": "auth", "token": …}` is its first message."""
    session = await session_at(socket, stream)
    if session is None:
        return
    try:
        with session.events.follower():
            await socket.accept()
            await converse(socket, session, _listen(socket, session), _send(socket, session, after))
    except TooMany as error:
        await socket.send_denial_response(from_session(error).response(None))


async def _send(socket: WebSocket, session: Session, after: int | None) -> None:
    with contextlib.suppress(WebSocketDisconnect, RuntimeError):
        async for event in session.events.follow(after=after):
            await socket.send_text(msgspec.json.encode(event).decode())


async def _listen(socket: WebSocket, session: Session) -> None:
    token = bearer(socket)
    with contextlib.suppress(WebSocketDisconnect, RuntimeError):
        while True:
            try:
                message = parse(await socket.receive_text())
                kind = message.pop("type")
                if kind == "auth":
                    token = str(message.get("token"))
                elif kind == "steer":
                    await _steer(socket, session, message, token)
                else:
                    raise Problem(400, "message-unknown", f"no message {kind!r} is taken here", field="type")
            except Problem as problem:
                await tell(socket, {"type": "error", "data": problem.body(None)})
            except KeyError:  # a binary message
                continue


async def _steer(socket: WebSocket, session: Session, message: dict[str, object], token: str | None) -> None:
    """Answer `{"type": "steer.accepted", "ref": …}`, or an error with the same `ref`."""
    ref = None
    try:
        ref = _ref(message)
        if not may_control(socket, state_of(socket).settings, session, token):
            raise refusal(token)
        state_of(socket).rates.count(socket, session)
        accepted = steer(session, SteerBody.model_validate(message), "socket")
        await tell(socket, {"type": "steer.accepted", "ref": ref, "data": accepted})
    except SessionError as error:
        await tell(socket, {"type": "error", "ref": ref, "data": from_session(error).body(None)})
    except Problem as problem:
        await tell(socket, {"type": "error", "ref": ref, "data": problem.body(None)})
    except ValidationError as error:
        fault = error.errors()[0]
        await tell(socket, {"type": "error", "ref": ref, "data": from_fault(fault, fault["loc"]).body(None)})


def _ref(message: dict[str, object]) -> object:
    """What the answer carries back. Raises `Problem` for what Python reads as JSON and no browser does."""
    ref = message.pop("ref", None)
    try:
        json.dumps(ref, allow_nan=False)
    except ValueError as error:
        raise Problem(
            422, "field-invalid", "ref: must be JSON, which has no NaN and no Infinity", field="ref"
        ) from error
    return ref
