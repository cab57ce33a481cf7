"""Who may do what: the Origin check, and control of a stream.

Any web page can reach a server on its visitor's own machine, so requests that change something, and WebSockets,
must come from this server's own page, from a configured origin, or from no page at all (a program).
"""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import Collection
from typing import Protocol
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Receive, Scope, Send

from streamer.api.problems import Problem
from streamer.settings import Settings

_SAFE_METHODS = {"GET", "HEAD", "OPTIONS"}


def is_loopback(name: str) -> bool:
    """Whether a name or address can only be this machine's."""
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return name == "localhost"


def host_name(headers: Headers) -> str:
    """The name in the Host header, without port and brackets; empty where there is none."""
    try:
        return urlsplit(f"//{headers.get('host', '')}").hostname or ""
    except ValueError:
        return ""


class HostCheck:
    """ASGI middleware: 400 for requests that call a loopback server by a name that isn't its own.

    A page that had its own name resolve to 127.0.0.1 would pass the Origin check.
    """

    def __init__(self, app: ASGIApp, names: Collection[str]) -> None:
        self._app = app
        self._names = {name.lower() for name in names}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        name = host_name(Headers(scope=scope)) if scope["type"] in ("http", "websocket") else "localhost"
        if is_loopback(name) or name in self._names:
            await self._app(scope, receive, send)
            return
        detail = f"this server is not called {name!r}; see --allow-host"
        problem = Problem(400, "host-refused", detail, field="Host")
        await problem.response(scope.get("state", {}).get("request_id"))(scope, receive, send)


def origin_allowed(headers: Headers, settings: Settings) -> bool:
    """Whether the page that sends this (if any) is this server's own or a configured one."""
    origin = headers.get("origin")
    if origin is None or origin in settings.origins:
        return True
    try:
        return urlsplit(origin).netloc == headers.get("host") and origin != "null"
    except ValueError:
        return False


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
    """Whether the caller sits on this machine, not behind a proxy on it, and calls the server by a loopback name.

    The name tells a program or our own page from another site's, whose name was made to resolve to this machine.
    """
    headers = connection.headers
    if connection.client is None or "x-forwarded-for" in headers or "forwarded" in headers:
        return False
    return is_loopback(connection.client.host) and is_loopback(host_name(headers))


def bearer(connection: HTTPConnection) -> str | None:
    """The token of the Authorization header (RFC 6750)."""
    scheme, _, token = connection.headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" and token.strip() else None


def _same(token: str | None, secret: str | None) -> bool:
    return token is not None and secret is not None and hmac.compare_digest(token.encode(), secret.encode())


def may_administer(connection: HTTPConnection, settings: Settings, token: str | None) -> bool:
    return (settings.trust_loopback and is_local(connection)) or _same(token, settings.admin_token)


class Controlled(Protocol):
    """What has a control token: a session, a clip."""

    @property
    def control_token(self) -> str: ...


def may_control(connection: HTTPConnection, settings: Settings, what: Controlled, token: str | None) -> bool:
    """Whether the caller may steer and end this stream, delete this clip."""
    return may_administer(connection, settings, token) or _same(token, what.control_token)


def require_control(connection: HTTPConnection, settings: Settings, what: Controlled) -> None:
    """Raises `Problem` 401 (no token) or 403 (another's)."""
    token = bearer(connection)
    if not may_control(connection, settings, what, token):
        raise refusal(token)


def require_admin(connection: HTTPConnection, settings: Settings) -> None:
    token = bearer(connection)
    if not may_administer(connection, settings, token):
        raise refusal(token)


def refusal(token: str | None) -> Problem:
    """What somebody without the right is told."""
    if token is None:
        return Problem(401, "token-missing", "this needs its control token, or the admin's", field="Authorization")
    return Problem(403, "scope-missing", "this token does not allow it", field="Authorization")
