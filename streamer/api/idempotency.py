"""`Idempotency-Key`: the same POST, sent twice, happens once (draft-ietf-httpapi-idempotency-key-header)."""

from __future__ import annotations

import asyncio
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
        self._answers: OrderedDict[tuple[str, str], tuple[Any, asyncio.Future[Any]]] = OrderedDict()

    async def once(self, request: Request, body: Any, act: Callable[[], Awaitable[Any]]) -> Any:
        """`act()`'s result; for a key that was seen, the first call's result (or its error).

        Raises:
            Problem: the key is over-long, or was used with another body.
        """
        key = request.headers.get("idempotency-key")
        if key is None:
            return await act()
        if not 0 < len(key) <= MAX_KEY_CHARS:
            message = f"Idempotency-Key has 1 to {MAX_KEY_CHARS} characters"
            raise Problem(422, "key-invalid", message, field="Idempotency-Key", limit=MAX_KEY_CHARS)
        place = (request.url.path, key)
        if place in self._answers:
            first, answer = self._answers[place]
            if first != body:
                raise Problem(422, "key-reused", "this key came with another body before", field="Idempotency-Key")
            return await asyncio.shield(answer)
        answer = asyncio.ensure_future(act())
        self._answers[place] = (body, answer)
        while len(self._answers) > KEPT_KEYS:
            self._answers.popitem(last=False)
        try:
            return await asyncio.shield(answer)
        except Exception:
            # A refusal may turn into a success when it is tried again.
            self._answers.pop(place, None)
            raise
