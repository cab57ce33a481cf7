"""A bound on request bodies, before anything reads them."""

from __future__ import annotations

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from streamer.api.problems import Problem

MAX_BODY_BYTES = 9 << 20


class BodyLimit:
    """ASGI middleware: 413 for a body that is, or turns out to be, over the limit."""

    def __init__(self, app: ASGIApp, limit: int = MAX_BODY_BYTES) -> None:
        self._app = app
        self._limit = limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        length = Headers(scope=scope).get("content-length", "0")
        if length.isdigit() and int(length) > self._limit:
            await self._problem(scope)(scope, receive, send)
            return
        read = 0

        async def counted() -> Message:
            nonlocal read
            message = await receive()
            if message["type"] == "http.request":
                read += len(message.get("body", b""))
                if read > self._limit:
                    raise Problem(413, "body-too-large", f"a body has at most {self._limit} bytes", limit=self._limit)
            return message

        await self._app(scope, counted, send)

    def _problem(self, scope: Scope) -> ASGIApp:
        problem = Problem(413, "body-too-large", f"a body has at most {self._limit} bytes", limit=self._limit)
        return problem.response(scope.get("state", {}).get("request_id"))
