"""What the clips' room can refuse, in the session's form."""

from __future__ import annotations

from streamer.session.errors import SessionError


class VideoUnknown(SessionError):
    """No such clip: there never was one, it was deleted, or it has expired."""

    default_code, default_status = "video-unknown", 404


class VideoNotReady(SessionError):
    """The clip is not made yet."""

    default_code, default_status = "video-not-ready", 409


class VideoFailed(SessionError):
    """The clip could not be made; there is nothing to fetch."""

    default_code, default_status = "video-failed", 409


class VideosFull(SessionError):
    """As many clips wait as may."""

    default_code, default_status = "videos-full", 429


class DiskRefused(SessionError):
    """The disk takes nothing more."""

    default_code, default_status = "disk-refused", 507
