"""What the WebSockets share: problems as refusals and last words, the first message's token."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import Coroutine, Mapping
from typing import Any

from fastapi import WebSocket, WebSocketDisconnect

from streamer.api.problems import Problem, from_session
from streamer.api.state import State, state_of
from streamer.session.errors import SessionError
from streamer.session.session import Session

logger = logging.getLogger(__name__)

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


MAX_REASON_BYTES = 123
"""What a close frame holds beside its code (RFC 6455, 5.5)."""


async def converse(socket: WebSocket, session: Session, *parts: Coroutine[Any, Any, None]) -> None:
    """Run the parts of a conversation until one of them ends, then close with the stream's reason."""
    tasks = [asyncio.create_task(part) for part in parts]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        for result in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(result, Exception):
                logger.error("a WebSocket of stream %s failed", session.id, exc_info=result)
    reason = (session.reason or "the stream has ended").encode()[:MAX_REASON_BYTES].decode(errors="ignore")
    with contextlib.suppress(RuntimeError, WebSocketDisconnect):  # the viewer may have left first
        await socket.close(ENDED, reason)


async def tell(socket: WebSocket, message: Mapping[str, Any]) -> None:
    """Send JSON, in ASCII: what came from a viewer may hold lone surrogates, which UTF-8 can't."""
    await socket.send_text(json.dumps(message))


def parse(text: str) -> dict[str, Any]:
    """A JSON object a viewer sent. Raises `Problem`."""
    try:
        message = json.loads(text)
    except (ValueError, RecursionError):
        message = None
    if not isinstance(message, dict) or not isinstance(message.get("type"), str):
        raise Problem(400, "message-malformed", 'a message is a JSON object with a "type"')
    return message
