"""What a session can refuse, as the API tells it: a stable code, an HTTP status, the field and the limit."""

from __future__ import annotations

from typing import Any, ClassVar


class SessionError(Exception):
    """Base of everything that a session refuses.

    Attributes:
        code: Stable word for programs, e.g. `prompt-too-long`.
        status: HTTP status.
        field: Field of the request at fault, if one is.
        limit: What the field may be at most (or which values it may take).
        retry_after_s: Seconds after which the same request may succeed.
        extra: Further members of the problem, e.g. `streams` that one may join instead.
    """

    default_code: ClassVar[str] = "invalid"
    default_status: ClassVar[int] = 422

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        field: str | None = None,
        limit: object = None,
        status: int | None = None,
        retry_after_s: float | None = None,
        **extra: Any,
    ) -> None:
        super().__init__(message)
        self.code = code or self.default_code
        self.status = status or self.default_status
        self.field = field
        self.limit = limit
        self.retry_after_s = retry_after_s
        self.extra = extra


class Invalid(SessionError):
    """A value that the model or the server can't take."""


class LogError(SessionError):
    """A log that is malformed (`log-malformed`) or was made by other weights (`log-other-weights`)."""

    default_code = "log-malformed"


class LogCut(SessionError):
    """The stream had more steers than a log holds."""

    default_code, default_status = "log-cut", 409


class StreamUnknown(SessionError):
    default_code, default_status = "stream-unknown", 404


class StreamEnded(SessionError):
    default_code, default_status = "stream-ended", 410


class SteerUnknown(SessionError):
    default_code, default_status = "steer-unknown", 404


class SteerLocked(SessionError):
    """The steer's block can't change any more."""

    default_code, default_status = "steer-locked", 409


class TooMany(SessionError):
    """A bounded list is full (pending steers, log entries, followers), or a caller steers too often."""

    default_code, default_status = "too-many", 429


class NotReady(SessionError):
    """The model is still loading or its worker is being restarted."""

    default_code, default_status = "not-ready", 503


class ClipsOnly(SessionError):
    """The checkpoint makes clips, no streams."""

    default_code, default_status = "clips-only", 409


class GuidanceTooCostly(SessionError):
    """The machine has no room for guidance's second row at this rate, whoever else is there or not."""

    default_code, default_status = "guidance-too-costly", 409


class CapacityFull(SessionError):
    """Streams that somebody watches leave no room."""

    default_code, default_status = "capacity-full", 503
