"""HEAD (RFC 9110, 9.3.2)."""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send

_ASKED = "streamer.asked"


class Head:
    """ASGI middleware: HEAD is answered as GET is; the server below leaves out the body."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == "HEAD":
            scope = {**scope, "method": "GET", _ASKED: "HEAD"}
        await self._app(scope, receive, send)


def as_asked(scope: Scope) -> Scope:
    """The scope with the method that was asked: what answers with a file then need not read it."""
    return {**scope, "method": scope[_ASKED]} if _ASKED in scope else scope
