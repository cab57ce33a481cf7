"""The states of a stream and the ways between them."""

from __future__ import annotations

from enum import StrEnum


class Status(StrEnum):
    STARTING = "starting"
    """Waits for a slot, for the worker, or for its first picture."""
    LIVE = "live"
    """A picture a tick."""
    PAUSED = "paused"
    """Nobody watches: no ticks; it still holds its slot (or is just getting it back)."""
    PARKED = "parked"
    """Holds no slot; a snapshot and its log are kept."""
    ENDED = "ended"
    FAILED = "failed"


TRANSITIONS: dict[Status, frozenset[Status]] = {
    Status.STARTING: frozenset({Status.LIVE, Status.PAUSED, Status.PARKED, Status.ENDED, Status.FAILED}),
    Status.LIVE: frozenset({Status.PAUSED, Status.STARTING, Status.ENDED, Status.FAILED}),
    Status.PAUSED: frozenset({Status.LIVE, Status.PARKED, Status.STARTING, Status.ENDED, Status.FAILED}),
    Status.PARKED: frozenset({Status.PAUSED, Status.ENDED, Status.FAILED}),
    Status.ENDED: frozenset(),
    Status.FAILED: frozenset(),
}
"""Back to `starting`: the worker died and the stream goes on from its last snapshot."""

FINAL = frozenset({Status.ENDED, Status.FAILED})


def check(old: Status, new: Status) -> None:
    """Raises:
    RuntimeError: no way leads from `old` to `new`: a fault of this program.
    """
    if new not in TRANSITIONS[old]:
        raise RuntimeError(f"no way from {old} to {new}")
