"""One stream and its states: who watches, whether it holds a slot, how it ends. Never waits for anything."""

from __future__ import annotations

import asyncio
import secrets
from datetime import UTC, datetime, timedelta

import msgspec

from streamer.engine.protocol import Ready
from streamer.session import states
from streamer.session.capacity import Share, share
from streamer.session.errors import StreamEnded
from streamer.session.events import EventLog
from streamer.session.loras import Wanted
from streamer.session.playback import Playback
from streamer.session.ports import EngineLike, MakeHub, Slots
from streamer.session.reports import Reports
from streamer.session.spec import StreamSpec
from streamer.session.states import Status
from streamer.session.steers import Steer, SteerBook
from streamer.session.timeline import latent_of
from streamer.session.timers import Timers

PARK_AFTER_S = 5.0
"""A stream that nobody watches yields its slot after this long."""
PARK_PATIENCE_S = 3.0
"""The worker has this long for the snapshot of a stream that is being parked; then an older one has to do."""
RESTARTS, RESTARTS_WITHIN_S = 3, 60.0
"""A stream that goes on after failures does so at most this often in this time."""


class Session:
    """A stream. Made by `Sessions.create`, which also asks for its slot.

    Args:
        wanted: The checked request.
        ready: The worker's measurements.
        engine: Where messages go.
        make_hub: Makes the hub.
        slots: Who gives slots.
        keeps_on: Whether it goes on from its last snapshot when the worker dies, instead of failing.
    """

    def __init__(
        self,
        wanted: StreamSpec,
        ready: Ready,
        engine: EngineLike,
        make_hub: MakeHub,
        slots: Slots,
        *,
        keeps_on: bool = False,
    ) -> None:
        header = wanted.header
        self.id = f"str_{secrets.token_hex(16)}"
        self.control_token = f"tok_{secrets.token_hex(16)}"
        self.created_at = datetime.now(UTC)
        self.spec = msgspec.structs.replace(wanted, log=None)  # the steers of a log are the book's
        self.status = Status.STARTING
        self.reason: str | None = None
        self.seed = header.seed
        self.height, self.width, self.rate_hz = header.height, header.width, header.rate_hz
        self._keeps_on = keeps_on
        self._ready = ready
        self._loop = asyncio.get_running_loop()
        self._slots = slots
        self.events = EventLog(self.id, lambda: (self.tick, self.picture))
        self._reports = Reports(self.events)
        self.hub = make_hub(self.width, self.height, self.rate_hz, self._viewers_changed, on_failure=self.fail)
        self._playback = Playback(
            self.id, wanted, ready, engine, self._reports, self._release, self, snapshots=keeps_on
        )
        self._parking = False
        self._evicted = False
        self._restarts_s: list[float] = []
        self._timers = Timers()
        self._created_s = self._loop.time()
        self.unwatched_since_s: float | None = self._created_s
        self._closing: asyncio.Task[None] | None = None
        self._timers.arm("idle", wanted.idle_timeout_s, lambda: self.finish(Status.ENDED, "nobody watched"))
        self._timers.arm("duration", wanted.max_duration_s, lambda: self.finish(Status.ENDED, "its time was over"))
        self._reports.status(self.status, None, 0)
        if self.rate_hz < ready.model.rate_hz:
            self._reports.slower(self.rate_hz, ready.model.rate_hz)

    # What there is to see

    @property
    def picture(self) -> int:
        """Number of the last picture released; -1 before the first."""
        return self._playback.timeline.next_picture - 1

    @property
    def tick(self) -> int:
        """Number of the last tick; -1 before the first."""
        return self._playback.timeline.tick - 1

    def picture_at(self, tick: int) -> int:
        """Number of the picture that a recent tick showed; -1 before the first."""
        return self._playback.timeline.picture_at(tick)

    @property
    def viewers(self) -> int:
        return int(self.hub.viewers)

    @property
    def lead_s(self) -> float:
        """Seconds of video that exist beyond the picture on show."""
        return self._playback.timeline.lead_s

    @property
    def lock_s(self) -> float:
        """C: from a steer to its first decoded picture, with margin."""
        return self._playback.pacer.costs.lock_s

    @property
    def in_force(self) -> Steer:
        """What the picture on show was made under."""
        return self.steers.in_force(latent_of(max(0, self.picture)))

    @property
    def prompt(self) -> str:
        """The prompt that the picture on show was made under."""
        return self.in_force.prompt

    @property
    def steers(self) -> SteerBook:
        """Steers that were asked for, oldest first."""
        return self._playback.steering.book

    @property
    def underruns(self) -> int:
        """Ticks that repeated a picture for want of the next."""
        return self._reports.underruns

    @property
    def expires_at(self) -> datetime | None:
        """When it ends if nobody comes or goes; None: not by itself."""
        ends_s = self._timers.first_s("idle", "duration")
        return None if ends_s is None else self.created_at + timedelta(seconds=ends_s - self._created_s)

    @property
    def over(self) -> bool:
        return self.status in states.FINAL

    @property
    def leaving(self) -> bool:
        """Whether it is about to yield its slot."""
        return self._parking

    @property
    def kept_bytes(self) -> int:
        """Its snapshot and pictures, which also a parked stream keeps."""
        return self._playback.kept_bytes

    @property
    def share(self) -> Share:
        """What it takes of the machine."""
        return share(self._playback.steering.guided, self.rate_hz, self._ready)

    def log_lines(self) -> list[str]:
        """The recipe so far, one JSON document a line: the header, then every steer that is locked.

        Raises:
            LogCut: `main` had more steers than are kept.
        """
        return list(self._playback.steering.log)

    @property
    def log_bytes(self) -> int:
        """What the recipe takes, which is kept when the stream is over."""
        return self._playback.steering.log_bytes

    # Steering

    def steer(
        self,
        prompt: str,
        at: object = "now",
        *,
        actor: str = "api",
        motion_score: int | None = None,
        negative_prompt: str | None = None,
        guidance_scale: float | None = None,
        loras: Wanted | None = None,
    ) -> Steer:
        """Change the prompt from the first boundary that isn't locked (or the first one after `at`).

        What isn't said stays as it is.

        Args:
            prompt: The whole new prompt.
            at: `"now"` or `{"in_s": seconds}`.
            actor: Whom events name.
            motion_score, negative_prompt, guidance_scale: As for a stream.
            loras: The whole set of adapters, `[{"name": …, "weight": …}]`.

        Raises:
            StreamEnded: the stream is over.
            Invalid: names the field and its limit.
            TooMany: too many steers wait.
        """
        self.check_running()
        self._playback.advance()
        steer = self._playback.steering.ask(
            prompt,
            at,
            actor,
            self._loop.time(),
            self._playback.next_tick_s,
            motion_score=motion_score,
            negative_prompt=negative_prompt,
            guidance_scale=guidance_scale,
            adapters=loras,
        )
        self._playback.reschedule(steer.at_latent)
        self._slots.left(self)
        return steer

    def cancel_steer(self, id: str, actor: str = "api") -> Steer:
        """Take back a steer that waits.

        Raises:
            StreamEnded, SteerUnknown, SteerLocked.
        """
        self.check_running()
        self._playback.advance()
        steer = self._playback.steering.cancel(id, actor)
        self._playback.reschedule(steer.at_latent)
        self._slots.left(self)
        return steer

    def check_running(self) -> None:
        """Raises: StreamEnded."""
        if self.over:
            raise StreamEnded(f"the stream has {self.status}: {self.reason}")

    # The worker

    def open(self) -> None:
        """There is a slot: (re)open the stream on the worker. Called by whoever gives slots."""
        self._parking = self._evicted = False
        self._playback.open()
        if not self._wanted:
            self._timers.arm("park", PARK_AFTER_S, self.park)
        elif self.status is Status.PAUSED and self._playback.player.has_picture:
            self._go_live()

    def began(self) -> None:
        """The first pictures since `open` are here."""
        if self._parking:
            return
        if self.status is not Status.LIVE and self._wanted:
            self._go_live()
        elif self.status is Status.STARTING:
            self._pause()

    def kept(self) -> None:
        """A snapshot has arrived."""
        self._parked()

    def failed(self, reason: str) -> None:
        """The worker gave this stream up, and holds it no more."""
        self._playback.lost()
        self._slots.release(self)
        self.lost(reason)

    def lost(self, reason: str) -> None:
        """The worker is gone or lost this stream: go on from the last snapshot, or fail."""
        now_s = self._loop.time()
        self._parking = False
        self._playback.lost()
        self._restarts_s = [at_s for at_s in self._restarts_s if now_s - at_s < RESTARTS_WITHIN_S]
        if not self._keeps_on or len(self._restarts_s) >= RESTARTS:
            self.fail(reason)
            return
        self._restarts_s.append(now_s)
        self._timers.drop("park")
        if self.status is Status.PAUSED and not self._wanted:
            self._set(Status.PARKED, reason)
            return
        if self.status is not Status.STARTING:
            self._set(Status.STARTING, reason)
        self._slots.request(self)

    def admit_guidance(self) -> None:
        """Whether it may take a second row. Raises `GuidanceTooCostly`, `CapacityFull`."""
        self._slots.admit_guidance(self)

    def weighed(self) -> None:
        """It takes less of the machine than before."""
        self._slots.left(self)

    # Viewers, pauses, the end

    @property
    def watched(self) -> bool:
        return self.unwatched_since_s is None

    @property
    def _wanted(self) -> bool:
        """Whether it should run."""
        return self.watched or self.spec.idle == "run"

    def _viewers_changed(self, count: int) -> None:
        if self.over or (count > 0) is self.watched:
            return
        if count > 0:
            self._somebody_came()
        else:
            self._everybody_left()

    def _somebody_came(self) -> None:
        self.unwatched_since_s = None
        self._parking &= self._evicted  # too late only if another stream gets the slot
        self._timers.drop("idle", "park")
        if self.status is Status.PARKED:
            self._set(Status.PAUSED, "waits for a slot")
            self._slots.request(self)
        elif (
            self.status is Status.PAUSED
            and self._playback.is_open
            and not self._evicted
            and self._playback.player.has_picture
        ):
            self._go_live()
        elif self.status is Status.STARTING and self._playback.player.has_picture:
            self._playback.play()

    def _everybody_left(self) -> None:
        self.unwatched_since_s = self._loop.time()
        self._timers.arm("idle", self.spec.idle_timeout_s, lambda: self.finish(Status.ENDED, "nobody watched"))
        if self._wanted:
            return
        if self.status is Status.LIVE:
            self._pause()
        elif self.status is Status.PAUSED and not self._playback.is_open:
            self._slots.release(self)
            self._set(Status.PARKED, "nobody watches")
        else:
            self._playback.player.stop()
            self._timers.arm("park", PARK_AFTER_S, self.park)
        self._slots.left(self)

    def _go_live(self) -> None:
        self._timers.drop("park")
        self._set(Status.LIVE)
        self._playback.play()

    def _pause(self) -> None:
        self._playback.player.stop()
        self._set(Status.PAUSED, "nobody watches")
        self._timers.arm("park", PARK_AFTER_S, self.park)

    def park(self, evicted: bool = False) -> None:
        """Yield the slot, keeping a snapshot. `evicted`: another stream needs it, so a viewer now comes too late."""
        if self.over or self._parking:
            self._evicted |= evicted
            return
        self._evicted = evicted
        self._timers.drop("park")
        if self.status is Status.LIVE:
            self._pause()
            self._timers.drop("park")
        self._parking = True
        if self._playback.ask_snapshot():
            self._timers.arm("parking", PARK_PATIENCE_S, self._parked)
        else:
            self._parked()

    def _parked(self) -> None:
        if not self._parking:
            return
        self._timers.drop("parking", "park")
        self._parking = False
        self._playback.close()
        self._set(Status.PARKED, "another stream needed the slot" if self._evicted else "nobody watches")
        self._slots.release(self)
        if self._wanted:
            self._set(Status.PAUSED, "waits for a slot")
            self._slots.request(self)

    def fail(self, reason: str) -> None:
        """The stream is lost; its log is kept."""
        self.finish(Status.FAILED, reason)

    async def end(self, reason: str = "ended") -> None:
        """End the stream for everybody and wait until its viewers are told."""
        self.finish(Status.ENDED, reason)
        if self._closing is not None:
            await self._closing

    def finish(self, status: Status, reason: str) -> None:
        """End or fail the stream. Does nothing when it is over already."""
        if self.over:
            return
        self._timers.clear()
        self._playback.finish(f"the stream has {status}")
        self._set(status, reason)
        self.events.close()
        self._slots.release(self)
        self._closing = self._loop.create_task(self.hub.close())

    # Small parts

    def _release(self, i420: bytes, tick: int) -> None:
        """Hand a picture to the hub; what it can't take fails this stream, and no other."""
        try:
            self.hub.release(i420, tick)
        except ValueError as error:
            self.fail(f"a picture could not be shown: {error}")

    def _set(self, status: Status, reason: str | None = None) -> None:
        states.check(self.status, status)
        self.status, self.reason = status, reason
        self._reports.status(status, reason, self.viewers)
