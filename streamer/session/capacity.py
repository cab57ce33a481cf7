"""What a stream takes of the machine: a place, slots of memory, and work. Guidance takes two of the latter. Pure.

The unit of work is a stream without guidance at the machine's own rate (with guidance, where the checkpoint has that
by default, for then it was measured so). A lower rate makes a guided stream cheaper; none counts as less than one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from streamer.engine.info import ModelInfo
from streamer.engine.protocol import Ready
from streamer.session.errors import GuidanceTooCostly

ROWS = 2
"""Rows of a pass, and slots, that guidance takes: with the prompt, and with the negative one."""
LOWEST_HZ = 1.0
_ROUNDING = 1e-6


def is_guided(scale: float | None, model: ModelInfo) -> bool:
    """Whether a guidance scale, None for the checkpoint's own, takes a second row."""
    return (model.guidance_scale if scale is None else scale) != 1


@dataclass(frozen=True)
class Share:
    """What one stream takes."""

    slots: int
    work: float


def share(guided: bool, rate_hz: float, ready: Ready) -> Share:
    """What a stream takes at its rate."""
    rows = ROWS if guided and not is_guided(None, ready.model) else 1
    return Share(rows, max(1.0, rows * rate_hz / ready.rate_hz))


def fits(shares: Sequence[Share], ready: Ready, max_streams: int | None) -> bool:
    """Whether the machine holds these streams; one without guidance it always does."""
    if len(shares) > 1 and max_streams is not None and len(shares) > max_streams:
        return False
    slots, work = sum(one.slots for one in shares), sum(one.work for one in shares)
    return slots <= max(1, ready.slots) and work <= max(1, ready.capacity) + _ROUNDING


def guided_rate_hz(ready: Ready) -> float | None:
    """The highest rate at which the machine holds a guided stream alone; None where it holds none."""
    rows = share(True, ready.rate_hz, ready).slots
    rate_hz = min(ready.rate_hz, ready.rate_hz * max(1, ready.capacity) / rows)
    return None if rows > max(1, ready.slots) or rate_hz < LOWEST_HZ else rate_hz


def guidance_too_costly(ready: Ready) -> GuidanceTooCostly:
    """Says why, and what would do."""
    rate_hz = guided_rate_hz(ready)
    if rate_hz is None:
        message = "guidance takes two slots, and this machine's memory holds one"
    else:
        message = f"guidance takes two rows a pass: this machine holds that at a rate_hz of at most {rate_hz:g}"
    return GuidanceTooCostly(message, field="guidance_scale", limit=1.0, rate_hz=rate_hz)
