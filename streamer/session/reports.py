"""A session's events, in the words of the API."""

from __future__ import annotations

from typing import Any

from streamer.engine.protocol import Denoised, first_picture
from streamer.session.events import EventLog
from streamer.session.player import Tick
from streamer.session.states import Status
from streamer.session.steers import Steer
from streamer.session.timeline import Timeline


class Reports:
    """Publishes what happens to a stream; counts its underruns."""

    def __init__(self, events: EventLog) -> None:
        self._events = events
        self._untold = 0
        self._stalled = False
        self.underruns = 0

    def status(self, status: Status, reason: str | None, viewers: int) -> None:
        self._events.publish("stream.status", {"status": str(status), "reason": reason, "viewers": viewers})

    def slower(self, rate_hz: float, model_rate_hz: float) -> None:
        """The stream runs below the rate that the checkpoint was made for."""
        data = {"rate_hz": rate_hz, "model_rate_hz": model_rate_hz, "reason": "slower machine"}
        self._events.publish("rate.changed", data)

    def steer(self, steer: Steer, **more: Any) -> None:
        """What has become of a steer."""
        self._events.publish(f"steer.{steer.status}", steer.info() | more)

    def block(self, block: Denoised, prompt: str) -> None:
        """A block is clean; a steer may still throw it away, and it is then announced again."""
        first = first_picture(block.first_latent)
        count = first_picture(block.first_latent + block.latents) - first
        data = {"block": block.block, "first_picture": first, "pictures": count, "prompt": prompt}
        self._events.publish("block.ready", data | {"compute_s": round(block.compute_s, 4)})

    def clock(self, timeline: Timeline, lock_s: float, viewers: int) -> None:
        """Where the stream stands; `media_time_s` is the presentation time of the last tick."""
        tick, rate_hz = timeline.tick - 1, timeline.rate_hz
        data = {
            "tick": tick,
            "picture": timeline.next_picture - 1,
            "media_time_s": tick / rate_hz,
            "rate_hz": rate_hz,
        }
        more = {"lead_s": round(timeline.lead_s, 3), "lock_s": round(lock_s, 3), "viewers": viewers}
        self._events.publish("clock", data | more)

    def ticked(self, shown: Tick, next_picture: int, each_second: bool) -> None:
        """Count a repeated picture. The first of a stall is told at once, the others once a second and at its end:
        their `repeated` add up to the `total`."""
        stalls = shown is Tick.UNDERRUN
        if stalls:
            self.underruns += 1
            self._untold += 1
        if self._untold and (each_second or not (stalls and self._stalled)):
            data = {"repeated": self._untold, "total": self.underruns, "next_picture": next_picture}
            self._events.publish("underrun", data)
            self._untold = 0
        self._stalled = stalls
