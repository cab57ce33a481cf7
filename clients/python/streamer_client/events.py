"""The events of a stream, over its WebSocket, resumed by sequence number after a lost connection."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException

from streamer_client.errors import Problem, StreamerError

# Close codes 4000-4999 are the server's own words: it will not go on, so neither do we (RFC 6455, 7.4.2).
FINAL_CLOSE_CODES = range(4000, 5000)


@dataclass(frozen=True)
class Event:
    """One event. `seq` grows by one an event; `tick` and `picture` are where the stream stood."""

    seq: int
    type: str
    stream: str
    time: str
    tick: int
    picture: int
    data: dict[str, Any]

    @classmethod
    def parse(cls, text: str | bytes) -> Event:
        message = json.loads(text)
        return cls(
            seq=int(message["seq"]),
            type=str(message["type"]),
            stream=str(message["stream"]),
            time=str(message["time"]),
            tick=int(message["tick"]),
            picture=int(message["picture"]),
            data=dict(message.get("data") or {}),
        )


def refused(error: InvalidStatus) -> Problem:
    """The problem+json behind a refused WebSocket handshake."""
    try:
        body = json.loads(error.response.body or b"{}")
    except ValueError:
        body = {}
    return Problem(error.response.status_code, body if isinstance(body, dict) else {})


async def follow(
    url: str, *, token: str | None = None, after: int | None = None, retries: int = 8
) -> AsyncIterator[Event]:
    """Events past `after` (None: from now on), across up to `retries` lost connections in a row.

    Raises:
        Problem: the server refuses (unknown or ended stream, no scope).
        StreamerError: it can't be reached any more.
    """
    lost = 0
    while True:
        query = "" if after is None else f"?after={after}"
        try:
            async with connect(url + query, max_size=1 << 20, compression=None) as socket:
                if token is not None:
                    await socket.send(json.dumps({"type": "auth", "token": token}))
                async for text in socket:
                    lost = 0
                    message = json.loads(text)
                    if "seq" not in message:
                        continue
                    event = Event.parse(text)
                    after = event.seq
                    yield event
                return
        except InvalidStatus as error:
            raise refused(error) from error
        except ConnectionClosed as error:
            if error.rcvd is not None and error.rcvd.code in FINAL_CLOSE_CODES:
                return
            reason: Exception = error
        except (OSError, WebSocketException) as error:
            reason = error
        lost += 1
        if lost > retries:
            raise StreamerError(f"lost the events of {url}: {reason}") from reason
        await asyncio.sleep(min(0.25 * 2**lost, 5.0))
