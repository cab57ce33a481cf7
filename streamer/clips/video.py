"""A clip job as the server keeps it: what it says of itself, and who waits for it."""

from __future__ import annotations

import asyncio
import secrets
from enum import StrEnum

import msgspec

from streamer.clips.spec import ClipOrder


class VideoStatus(StrEnum):
    """OpenAI's words."""

    QUEUED = "queued"
    IN_PROGRESS = "in_progress"
    COMPLETED = "completed"
    FAILED = "failed"


FINAL = frozenset({VideoStatus.COMPLETED, VideoStatus.FAILED})


class VideoError(msgspec.Struct, frozen=True, kw_only=True):
    """Why a clip could not be made."""

    code: str
    message: str


class Record(msgspec.Struct, kw_only=True):
    """What is kept of a clip on disk, beside its file. Times are Unix seconds."""

    id: str
    control_token: str
    order: ClipOrder
    """Without its picture."""
    created_at: float
    status: VideoStatus = VideoStatus.QUEUED
    completed_at: float | None = None
    expires_at: float | None = None
    bytes: int = 0
    """Length of the file."""
    restarts: int = 0
    """How often it was begun anew, because its worker was gone."""
    error: VideoError | None = None


class Video:
    """A clip job. Only its manager changes it.

    Args:
        record: What is kept of it.
        order: What is to be made; None once it is over.
    """

    def __init__(self, record: Record, order: ClipOrder | None = None) -> None:
        self.record = record
        self.order = order
        self.progress = 100 if record.status is VideoStatus.COMPLETED else 0
        """Percent."""
        self.reason: str | None = None
        """Why it doesn't go on, if it doesn't."""
        self._changed = asyncio.Event()

    @classmethod
    def new(cls, order: ClipOrder, now_s: float) -> Video:
        record = Record(
            id=f"vid_{secrets.token_hex(16)}",
            control_token=f"tok_{secrets.token_hex(16)}",
            order=msgspec.structs.replace(order, image=None),
            created_at=now_s,
        )
        return cls(record, order)

    @property
    def id(self) -> str:
        return self.record.id

    @property
    def control_token(self) -> str:
        """Deletes it."""
        return self.record.control_token

    @property
    def status(self) -> VideoStatus:
        return self.record.status

    @property
    def over(self) -> bool:
        """Whether it is made, or never will be."""
        return self.record.status in FINAL

    def touch(self) -> None:
        """It has changed: whoever waits for that is woken."""
        self._changed.set()
        self._changed = asyncio.Event()

    async def change(self, within_s: float) -> None:
        """Wait until it changes, at most so long; not at all once it is over."""
        if not self.over:
            try:
                async with asyncio.timeout(within_s):
                    await self._changed.wait()
            except TimeoutError:
                pass  # who waited looks at how it stands either way
