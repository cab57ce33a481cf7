"""A bound on request bodies, before anything reads them."""

from __future__ import annotations

from fastapi import HTTPException
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from streamer.api.problems import Problem

MAX_BODY_BYTES = 256 << 10
MAX_PICTURE_BODY_BYTES = 15 << 20
"""Where a picture may be in the body: 10 MiB, as base64 in a data URL. Or a log, of 8 MiB."""
PICTURE_PATHS = ("/v1/streams", "/v1/videos")


class TooLarge(Problem, HTTPException):
    """413. An HTTPException too, since FastAPI makes a 400 of whatever else the reading of a body raises."""

    def __init__(self, limit: int) -> None:
        super().__init__(413, code="body-too-large", detail=f"a body has at most {limit} bytes", limit=limit)
        self.status_code = self.status


class BodyLimit:
    """ASGI middleware: 413 for a body that is, or turns out to be, over the limit."""

    def __init__(self, app: ASGIApp, limit: int = MAX_BODY_BYTES) -> None:
        self._app = app
        self._limit = limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        limit = max(self._limit, MAX_PICTURE_BODY_BYTES) if scope["path"] in PICTURE_PATHS else self._limit
        length = Headers(scope=scope).get("content-length", "0")
        if length.isdigit() and int(length) > limit:
            too_large = TooLarge(limit).response(scope.get("state", {}).get("request_id"))
            await too_large(scope, receive, send)
            return
        read = 0

        async def counted() -> Message:
            nonlocal read
            message = await receive()
            if message["type"] == "http.request":
                read += len(message.get("body", b""))
                if read > limit:
                    raise TooLarge(limit)
            return message

        await self._app(scope, counted, send)
