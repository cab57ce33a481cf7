"""What can go wrong, as exceptions."""

from __future__ import annotations

from typing import Any

import httpx


class StreamerError(Exception):
    """Base of this package's errors: no connection, a broken stream."""


class Problem(StreamerError):
    """The server refused: its problem+json (RFC 9457).

    Attributes are None where the server gave none.
    """

    def __init__(self, status: int, body: dict[str, Any]) -> None:
        self.status = status
        self.code: str = str(body.get("code", "error"))
        self.detail: str = str(body.get("detail") or body.get("title") or f"HTTP {status}")
        self.field: str | None = body.get("field")
        self.limit: Any = body.get("limit")
        self.retry_after_s: float | None = body.get("retry_after_s")
        self.request_id: str | None = body.get("request_id")
        self.body = body
        super().__init__(f"{self.detail} ({self.code})")


def raise_for_problem(response: httpx.Response) -> None:
    """Raise `Problem` for a 4xx or 5xx answer."""
    if response.is_success:
        return
    try:
        body = response.json()
    except ValueError:
        body = {}
    raise Problem(response.status_code, body if isinstance(body, dict) else {})
