"""One change of the prompt, from the asking to the picture."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from streamer_client.errors import StreamerError
from streamer_client.events import Event

_ORDER = ("queued", "locked", "released")


class SteerFailed(StreamerError):
    """The steer was superseded by a later one, cancelled, or failed: see `outcome`."""

    def __init__(self, outcome: str, detail: str) -> None:
        self.outcome = outcome
        super().__init__(f"steer {outcome}: {detail}")


class Steer:
    """A steer that was asked for. Each of `queued`, `locked` and `released` can be awaited, in any order.

    `queued`: the server took it (its id and place are known); `locked`: it can't be taken back; `released`: its
    first picture went to the encoder. Awaiting one that can't come any more raises `SteerFailed` (or `Problem`).

    Attributes:
        latency_s: from the asking to `released` as this process saw it; None until then.
        at_picture: first picture made under the prompt, as far as known.
    """

    def __init__(self, prompt: str) -> None:
        self.prompt = prompt
        self.id: str | None = None
        self.at_picture: int | None = None
        self.latency_s: float | None = None
        self._asked = time.monotonic()
        loop = asyncio.get_running_loop()
        self._stages: dict[str, asyncio.Future[Steer]] = {name: loop.create_future() for name in _ORDER}
        for future in self._stages.values():
            # Whoever awaits only one stage is not told of the others' failure by the garbage collector.
            future.add_done_callback(lambda done: done.cancelled() or done.exception())

    @property
    def queued(self) -> asyncio.Future[Steer]:
        return self._stages["queued"]

    @property
    def locked(self) -> asyncio.Future[Steer]:
        return self._stages["locked"]

    @property
    def released(self) -> asyncio.Future[Steer]:
        return self._stages["released"]

    def accepted(self, body: dict[str, Any]) -> None:
        """The server's 202."""
        self.id = str(body["id"])
        self.at_picture = body.get("at_picture")
        self._reach("queued")

    def see(self, event: Event) -> None:
        """Take in an event about this steer."""
        name = event.type.removeprefix("steer.")
        if event.data.get("at_picture") is not None:
            self.at_picture = int(event.data["at_picture"])
        if name in _ORDER:
            if name == "released" and self.latency_s is None:
                self.latency_s = time.monotonic() - self._asked
            self._reach(name)
        elif name in ("superseded", "cancelled", "failed"):
            self.fail(SteerFailed(name, str(event.data.get("reason") or self.prompt)))

    def fail(self, error: Exception) -> None:
        """No stage that is not reached yet will be."""
        for future in self._stages.values():
            if not future.done():
                future.set_exception(error)

    def _reach(self, name: str) -> None:
        for earlier in _ORDER[: _ORDER.index(name) + 1]:
            if not self._stages[earlier].done():
                self._stages[earlier].set_result(self)
