"""A stream's steers: what is in force, what waits for its boundary, what became of the others."""

from __future__ import annotations

import bisect
import secrets
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from streamer.engine import protocol
from streamer.engine.info import Lora
from streamer.engine.protocol import first_picture
from streamer.session import loras
from streamer.session.errors import SteerLocked, SteerUnknown, TooMany
from streamer.session.events import rfc3339

MAX_PENDING = 64
MAX_LOCKED = 20_000
"""Steers that are kept. The whole schedule opens a stream anew, so it is bounded."""
KEPT_STEERS = 256
"""Steers that can still be listed."""
FROM_LOG = "log"
"""The actor of steers that come with the log a stream was created from."""


class SteerStatus(StrEnum):
    QUEUED = "queued"
    LOCKED = "locked"
    RELEASED = "released"
    SUPERSEDED = "superseded"
    CANCELLED = "cancelled"
    FAILED = "failed"


@dataclass(eq=False)
class Steer:
    """One change of the prompt. Clocks (`asked_s`, `sent_s`, `clean_s`) are the event loop's, in seconds."""

    prompt: str
    actor: str
    at_latent: int
    motion_score: int | None = None
    negative_prompt: str | None = None
    guidance_scale: float | None = None
    loras: tuple[Lora, ...] = ()
    id: str = field(default_factory=lambda: f"ste_{secrets.token_hex(16)}")
    status: SteerStatus = SteerStatus.QUEUED
    created_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    asked_s: float = 0.0
    urgent: bool = False
    """Asked for `now`: its block is being waited for."""
    eta_s: float | None = None
    """Seconds from asking to the first picture, as estimated then; None while the stream stands still."""
    sent_s: float | None = None
    """When the worker was told."""
    clean_s: float | None = None
    """When the steer's first block was denoised."""
    latency_s: float | None = None
    """Seconds from asking to the first picture's release."""
    reason: str | None = None
    warnings: list[str] = field(default_factory=list)
    """What was said to no effect."""

    @property
    def at_picture(self) -> int:
        """First picture made under this prompt."""
        return first_picture(self.at_latent)

    def message(self) -> protocol.Steer:
        """As the worker is told."""
        return protocol.Steer(
            at_latent=self.at_latent,
            prompt=self.prompt,
            motion_score=self.motion_score,
            negative_prompt=self.negative_prompt,
            guidance_scale=self.guidance_scale,
            loras=self.loras,
        )

    def info(self) -> dict[str, Any]:
        """As the API shows it."""
        shown: dict[str, Any] = {
            "id": self.id,
            "status": str(self.status),
            "prompt": self.prompt,
            "actor": self.actor,
            "at_picture": self.at_picture,
            "eta_s": None if self.eta_s is None else round(self.eta_s, 3),
            "created_at": rfc3339(self.created_at),
        }
        for name in ("motion_score", "negative_prompt", "guidance_scale", "latency_s", "reason"):
            if getattr(self, name) is not None:
                shown[name] = getattr(self, name)
        if self.warnings:
            shown["warnings"] = self.warnings
        if self.loras:
            shown["loras"] = loras.shown(self.loras)
        return shown


class SteerBook:
    """All steers of one stream, by the latent frame that they take effect at.

    `first` is what the stream starts with; it stands at latent frame 0 and is no steer that anybody asked for.
    `places` is kept: where all others stand, rising.
    """

    def __init__(self, first: Steer, places: list[int] | None = None) -> None:
        first.status = SteerStatus.RELEASED
        self._locked = [first]
        self._pending: dict[int, Steer] = {}
        self._places = [] if places is None else places
        self._unreleased: deque[Steer] = deque()
        self._known: dict[str, Steer] = {}

    def __iter__(self) -> Iterator[Steer]:
        """Steers that were asked for, oldest first, as far as they are kept."""
        return iter(self._known.values())

    @property
    def pending(self) -> list[Steer]:
        """Steers that are not locked, by position."""
        return [self._pending[latent] for latent in self._places[len(self._locked) - 1 :]]

    @property
    def locked(self) -> list[Steer]:
        """Steers that can't change any more, by position, the first prompt included."""
        return self._locked

    def add(self, steer: Steer) -> Steer | None:
        """Put a steer in its place; gives the one that it replaces.

        Raises:
            TooMany: too many wait, or the log is full.
        """
        replaced = self._pending.get(steer.at_latent)
        from_log = steer.actor == FROM_LOG
        if replaced is None and not from_log and self._asked >= MAX_PENDING:
            raise TooMany(f"{MAX_PENDING} steers wait already", field="at", limit=MAX_PENDING, retry_after_s=1.0)
        if self.full:
            raise TooMany(
                f"a stream takes at most {MAX_LOCKED} steers", code="log-full", status=409, limit=MAX_LOCKED
            )
        if replaced is None:
            bisect.insort(self._places, steer.at_latent)
        else:
            replaced.status = SteerStatus.SUPERSEDED
        self._pending[steer.at_latent] = steer
        if not from_log or len(self._known) < KEPT_STEERS:  # of a long log only the next ones are listed
            self._known[steer.id] = steer
        while len(self._known) > KEPT_STEERS:
            del self._known[self._oldest_done()]
        return replaced

    @property
    def full(self) -> bool:
        """Whether no other steer is taken."""
        return len(self._locked) + len(self._pending) >= MAX_LOCKED

    def forget(self) -> None:
        """Drop the older half of the locked steers, whose pictures were shown long ago; the first prompt stays."""
        gone = len(self._locked) // 2
        del self._locked[1 : gone + 1]
        del self._places[:gone]

    def get(self, id: str) -> Steer:
        """Raises: SteerUnknown."""
        if id not in self._known:
            raise SteerUnknown(f"no steer {id!r} in this stream", field="id")
        return self._known[id]

    def cancel(self, id: str) -> Steer:
        """Take back a steer that waits.

        Raises:
            SteerUnknown: there is none.
            SteerLocked: it is locked, or over.
        """
        steer = self.get(id)
        if steer.status is not SteerStatus.QUEUED:
            raise SteerLocked(f"steer {id} is {steer.status} already", field="id")
        del self._pending[steer.at_latent]
        self._places.remove(steer.at_latent)
        steer.status = SteerStatus.CANCELLED
        return steer

    def lock(self, below: int) -> list[Steer]:
        """Lock the steers below a latent frame; gives them in order."""
        count = bisect.bisect_left(self._places, below)
        locked = [self._pending.pop(latent) for latent in self._places[len(self._locked) - 1 : count]]
        for steer in locked:
            steer.status = SteerStatus.LOCKED
            self._locked.append(steer)
            self._unreleased.append(steer)
        return locked

    def release(self, picture: int) -> list[Steer]:
        """The locked steers whose first picture is at or below the one just released."""
        released = []
        while self._unreleased and self._unreleased[0].at_picture <= picture:
            steer = self._unreleased.popleft()
            steer.status = SteerStatus.RELEASED
            released.append(steer)
        return released

    def fail(self, reason: str) -> list[Steer]:
        """The stream is over: whatever was not released won't be."""
        failed = [*self._unreleased, *self.pending]
        self._unreleased.clear()
        self._pending.clear()
        del self._places[len(self._locked) - 1 :]
        for steer in failed:
            steer.status, steer.reason = SteerStatus.FAILED, reason
        return failed

    def in_force(self, latent: int) -> Steer:
        """The steer that the block beginning at `latent` is made under."""
        index = bisect.bisect_right(self._places, latent)
        return self._locked[index] if index < len(self._locked) else self._pending[self._places[index - 1]]

    def from_(self, latent: int) -> list[Steer]:
        """The steer that is in force at a latent frame, and all later ones."""
        index = bisect.bisect_right(self._places, latent)
        later = [self._pending[place] for place in self._places[max(index, len(self._locked) - 1) :]]
        return [self.in_force(latent), *self._locked[index + 1 :], *later]

    def schedule(self, from_latent: int = 0) -> list[protocol.Steer]:
        """Steers at or past a latent frame, as the worker is told."""
        return [steer.message() for steer in (*self._locked, *self.pending) if steer.at_latent >= from_latent]

    @property
    def _asked(self) -> int:
        """Steers that wait and were asked for, not read from a log."""
        return sum(waiting.actor != FROM_LOG for waiting in self._pending.values())

    def _oldest_done(self) -> str:
        active = (SteerStatus.QUEUED, SteerStatus.LOCKED)
        return next((id for id, steer in self._known.items() if steer.status not in active), next(iter(self._known)))
