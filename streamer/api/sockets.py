"""What the WebSockets share: problems as refusals and last words, the first message's token."""

from __future__ import annotations

import json
from typing import Any

from fastapi import WebSocket

from streamer.api.problems import Problem, from_session
from streamer.api.state import State, state_of
from streamer.session.errors import SessionError
from streamer.session.session import Session

GOING_AWAY = 1001
POLICY = 1008
ENDED = 4410
"""Close codes 4000 to 4999 are an application's own (RFC 6455, 7.4.2): 4000 + an HTTP status."""


async def session_at(socket: WebSocket, stream: str) -> Session | None:
    """The session, or None after the handshake was refused with the problem in its body."""
    state: State = state_of(socket)
    try:
        session = state.sessions.get(stream)
        session.check_running()
        return session
    except SessionError as error:
        await socket.send_denial_response(from_session(error).response(None))
        return None


def parse(text: str) -> dict[str, Any]:
    """A JSON object a viewer sent. Raises `Problem`."""
    try:
        message = json.loads(text)
    except ValueError:
        message = None
    if not isinstance(message, dict) or not isinstance(message.get("type"), str):
        raise Problem(400, "message-malformed", 'a message is a JSON object with a "type"')
    return message
