"""`Idempotency-Key`: the same POST, sent twice, happens once (draft-ietf-httpapi-idempotency-key-header)."""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.requests import Request

from streamer.api.problems import Problem

KEPT_KEYS = 1024
MAX_KEY_CHARS = 128


class Idempotency:
    """Remembers the answers of the last `KEPT_KEYS` keyed POSTs."""

    def __init__(self) -> None:
        self._answers: OrderedDict[tuple[str, ...], tuple[bytes, asyncio.Future[dict[str, Any]]]] = OrderedDict()

    async def once(
        self, request: Request, body: object, act: Callable[[], Awaitable[dict[str, Any]]]
    ) -> dict[str, Any]:
        """`act()`'s answer; for a key that was seen, the first call's answer (or its error).

        Bodies are the same if their `repr` is.

        Raises:
            Problem: the key is over-long, or was used with another body.
        """
        key = request.headers.get("idempotency-key")
        if key is None:
            return await act()
        if not 0 < len(key) <= MAX_KEY_CHARS:
            message = f"Idempotency-Key has 1 to {MAX_KEY_CHARS} characters"
            raise Problem(422, "key-invalid", message, field="Idempotency-Key", limit=MAX_KEY_CHARS)
        # A key is its caller's own: another's must not be given this one's answer, which may hold a control token.
        caller = (request.client.host if request.client else "", request.headers.get("authorization", ""))
        place, digest = (request.url.path, key, *caller), hashlib.sha256(repr(body).encode(errors="replace")).digest()
        if place in self._answers:
            first, answer = self._answers[place]
            if first != digest:
                raise Problem(422, "key-reused", "this key came with another body before", field="Idempotency-Key")
            return await asyncio.shield(answer)
        answer = asyncio.ensure_future(act())
        self._answers[place] = (digest, answer)  # of a body only its hash: it may be megabytes
        while len(self._answers) > KEPT_KEYS:
            self._answers.popitem(last=False)
        try:
            return await asyncio.shield(answer)
        except Exception:
            # A refusal may turn into a success when it is tried again.
            self._answers.pop(place, None)
            raise
