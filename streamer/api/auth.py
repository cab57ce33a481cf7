"""Who may do what: the Origin check, and control of a stream.

Any web page can reach a server on its visitor's own machine, so requests that change something, and WebSockets,
must come from this server's own page, from a configured origin, or from no page at all (a program).
"""

from __future__ import annotations

import hmac
import ipaddress
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Receive, Scope, Send

from streamer.api.problems import Problem
from streamer.session.session import Session
from streamer.settings import Settings

_SAFE_METHODS = {"GET", "HEAD", "OPTIONS"}


def origin_allowed(headers: Headers, settings: Settings) -> bool:
    """Whether the page that sends this (if any) is this server's own or a configured one."""
    origin = headers.get("origin")
    if origin is None or origin in settings.origins:
        return True
    return urlsplit(origin).netloc == headers.get("host") and origin != "null"


class OriginCheck:
    """ASGI middleware: 403 for changes and WebSockets that another site's page asks for."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app = app
        self._settings = settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        guarded = scope["type"] == "websocket" or (scope["type"] == "http" and scope["method"] not in _SAFE_METHODS)
        headers = Headers(scope=scope) if guarded else None
        if headers is None or origin_allowed(headers, self._settings):
            await self._app(scope, receive, send)
            return
        problem = Problem(
            403, "origin-refused", f"pages of {headers.get('origin')} may not use this server", field="Origin"
        )
        await problem.response(scope.get("state", {}).get("request_id"))(scope, receive, send)


def is_local(connection: HTTPConnection) -> bool:
    """Whether the caller sits on this machine, and not behind a proxy on it."""
    if connection.client is None or "x-forwarded-for" in connection.headers or "forwarded" in connection.headers:
        return False
    try:
        return ipaddress.ip_address(connection.client.host).is_loopback
    except ValueError:
        return False


def bearer(connection: HTTPConnection) -> str | None:
    """The token of the Authorization header (RFC 6750)."""
    scheme, _, token = connection.headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" and token.strip() else None


def _same(token: str | None, secret: str | None) -> bool:
    return token is not None and secret is not None and hmac.compare_digest(token.encode(), secret.encode())


def may_administer(connection: HTTPConnection, settings: Settings, token: str | None) -> bool:
    return (settings.trust_loopback and is_local(connection)) or _same(token, settings.admin_token)


def may_control(connection: HTTPConnection, settings: Settings, session: Session, token: str | None) -> bool:
    """Whether the caller may steer and end this stream."""
    return may_administer(connection, settings, token) or _same(token, session.control_token)


def require_control(connection: HTTPConnection, settings: Settings, session: Session) -> None:
    """Raises `Problem` 401 (no token) or 403 (another's)."""
    token = bearer(connection)
    if not may_control(connection, settings, session, token):
        raise refusal(token)


def require_admin(connection: HTTPConnection, settings: Settings) -> None:
    token = bearer(connection)
    if not may_administer(connection, settings, token):
        raise refusal(token)


def refusal(token: str | None) -> Problem:
    """What somebody without the right is told."""
    if token is None:
        return Problem(401, "token-missing", "this needs the stream's control token", field="Authorization")
    return Problem(403, "scope-missing", "this token does not allow it", field="Authorization")
