"""A stream as it plays: the three frontiers driven by the worker's messages and the player's ticks.

Everything happens in callbacks of the event loop; whatever may have moved a frontier ends with `advance`, which locks
what is due and tells the worker how far it may go. What becomes of the stream is its session's matter.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable
from typing import Protocol

import msgspec

from streamer.engine.protocol import Denoised, Failed, Message, Pictures, Ready, Snapshot
from streamer.session.link import WorkerLink
from streamer.session.pacing import Costs, Pacer
from streamer.session.player import Player, Tick
from streamer.session.ports import EngineLike
from streamer.session.reports import Reports
from streamer.session.spec import StreamSpec
from streamer.session.steering import Steering
from streamer.session.timeline import Timeline, blocks_of

logger = logging.getLogger(__name__)

SNAPSHOT_EVERY_S = 5.0
START_SLACK_S = 4.0
"""A stream that starts gives way to whatever is due before this: more than any lead."""
PAUSED_DUE_S = 5.0
"""A paused stream's lead is wanted as if it went on after this long."""


class Owner(Protocol):
    """Who is told; the session."""

    @property
    def viewers(self) -> int: ...
    def began(self) -> None:
        """The first pictures since `open` are here."""

    def kept(self) -> None:
        """A snapshot has arrived."""

    def admit_guidance(self) -> None:
        """Raises if there is no room for a second row."""

    def weighed(self) -> None:
        """It takes less of the machine than before."""

    def failed(self, reason: str) -> None:
        """The worker gave this stream up."""

    def fail(self, reason: str) -> None:
        """It can't go on."""


class Playback:
    """Plays one stream.

    Args:
        stream: Its id.
        wanted: The checked request.
        ready: The worker's measurements.
        engine: Where messages go.
        reports: Where events go.
        release: Takes each tick's picture.
        owner: Who is told of what is not routine.
        snapshots: Whether to take one every few seconds.
    """

    def __init__(
        self,
        stream: str,
        wanted: StreamSpec,
        ready: Ready,
        engine: EngineLike,
        reports: Reports,
        release: Callable[[bytes, int], None],
        owner: Owner,
        *,
        snapshots: bool,
    ) -> None:
        model, blocks = ready.model, blocks_of(ready.model, wanted.header.image is not None)
        self._stream = stream
        self._header = wanted.header
        self._loop = asyncio.get_running_loop()
        self._reports = reports
        self._owner = owner
        self._snapshots = snapshots
        self._snapshot: Snapshot | None = None
        self._snapshot_asked_s = -math.inf
        self._first_block_s = ready.timings.first_block_s
        self._fresh = False
        self._wanted_s = 0.0
        self.timeline = Timeline(blocks, self._header.rate_hz)
        self.pacer = Pacer(self.timeline, Costs(ready.timings, blocks, self._header.rate_hz))
        self.steering = Steering(wanted, model, self.pacer, reports, owner.admit_guidance, endless=snapshots)
        self.player = Player(self.timeline, release, self._ticked)
        self._link = WorkerLink(engine, stream, self._received)

    @property
    def is_open(self) -> bool:
        """Whether it holds a slot of the worker."""
        return self._link.open

    @property
    def kept_bytes(self) -> int:
        """Its snapshot and pictures, which also a stream without a slot keeps."""
        return self.player.bytes + (0 if self._snapshot is None else len(self._snapshot.data))

    @property
    def next_tick_s(self) -> float | None:
        """When the next picture is to be released (loop time); None while nothing plays."""
        return self.player.next_tick_s if self.player.running else None

    def open(self) -> None:
        """(Re)open the stream on the worker where it stands; the picture is held until the next one is here."""
        timeline, header = self.timeline, self._header
        self._fresh = True
        # Not shown yet: as soon as possible, but after those that are. Fixed, or these could put it off for ever.
        self._wanted_s = self._loop.time() + self._first_block_s + START_SLACK_S
        timeline.denoised = timeline.next_latent
        if timeline.locked == timeline.next_latent:
            # The next picture is waited for, so it has to be locked.
            timeline.locked = timeline.next_lock(timeline.locked)
        self.steering.lock()
        self.player.hold(math.inf)
        self._link.start(
            seed=header.seed,
            height=header.height,
            width=header.width,
            rate_hz=header.rate_hz,
            steers=self.steering.book.schedule(),
            image=header.png,
            snapshot=None if self._snapshot is None else self._snapshot.data,
            decode_from=timeline.next_latent,
        )
        self._send_credit()

    def play(self) -> None:
        """Tick, the first time at once."""
        self.player.start()
        self._send_credit()

    def close(self) -> None:
        """Give the slot back; the pictures that wait are kept, and so is the last snapshot."""
        self._link.close()
        self.player.hold(math.inf)

    def lost(self) -> None:
        """The worker holds the stream no more."""
        self._link.lost()
        self.player.hold(math.inf)

    def finish(self, reason: str) -> None:
        """Play no more, ever."""
        self.player.clear()
        self._link.stop()
        self.steering.fail(reason)
        self._snapshot = None

    def advance(self) -> None:
        """Lock what is due, and tell the worker if something was."""
        if self.player.running and self.pacer.lock(self._loop.time(), self.player.next_tick_s):
            self.steering.lock()
            self._send_credit()

    def reschedule(self, from_latent: int) -> None:
        """Let the worker throw away what it made past a boundary, and make it anew."""
        if self._link.open:
            self.timeline.denoised = min(self.timeline.denoised, from_latent)
            self.steering.sent(from_latent, self._loop.time())
            self._link.reschedule(from_latent, self.steering.book.schedule(from_latent))
            self._send_credit()

    def ask_snapshot(self) -> bool:
        """Ask for the newest boundary that the pictures have passed; False when that is the very beginning."""
        at_most = self.timeline.blocks.floor(self.timeline.next_latent)
        if at_most == 0 or not self._link.open:
            return False
        self._snapshot_asked_s = self._loop.time()
        self._link.ask_snapshot(at_most)
        return True

    def _ticked(self, shown: Tick) -> None:
        timeline = self.timeline
        if shown is Tick.PICTURE and self.steering.released(timeline.next_picture - 1, self._loop.time()):
            self._owner.weighed()
        each_second = timeline.tick % max(1, round(timeline.rate_hz)) == 0
        self._reports.ticked(shown, timeline.next_picture, each_second)
        self.advance()
        if each_second:
            self._each_second()

    def _each_second(self) -> None:
        if self._link.decode_s is not None:
            self.pacer.costs.saw_decode(self._link.decode_s)
        self._reports.clock(self.timeline, self.pacer.costs.lock_s, self._owner.viewers)
        self._send_credit()
        if self._snapshots and self._loop.time() - self._snapshot_asked_s >= SNAPSHOT_EVERY_S:
            self.ask_snapshot()

    def _received(self, message: Message) -> None:
        """A message of the worker about this stream, of this life of it."""
        try:
            self._take(message)
        except Exception as error:
            # Half of what the message means is done: better ended and told than standing still for ever.
            logger.exception("stream %s: a %s could not be taken", self._stream, type(message).__name__)
            self._owner.fail(f"a fault of the server: {error}")

    def _take(self, message: Message) -> None:
        match message:
            case Pictures() if self.player.take(message):
                self._took_pictures(message.latent)
            case Denoised():
                self._took_block(message)
            case Snapshot():
                self._snapshot = message
                self._owner.kept()
            case Failed():
                self._owner.failed(message.reason)
            case _:
                pass

    def _took_pictures(self, latent: int) -> None:
        if self._fresh:
            self._fresh = False
            self.player.hold(self._loop.time() + self.pacer.hold_s(latent))
            self._owner.began()
        self.advance()
        self._send_credit()

    def _took_block(self, block: Denoised) -> None:
        timeline = self.timeline
        # A steer that cut it may have been on its way when the worker told of it.
        end = min(block.first_latent + block.latents, timeline.blocks.next(block.first_latent))
        block = msgspec.structs.replace(block, latents=end - block.first_latent)
        timeline.denoised = max(timeline.denoised, end)
        length = timeline.blocks.whole(block.first_latent) - block.first_latent
        if block.block > 0 and length == timeline.blocks.default and block.compute_s > 0:
            self.pacer.costs.saw_block(block.compute_s, self.steering.is_guided(block.first_latent))
        steer = self.steering.clean(block, self._loop.time(), self.player.running)
        if end >= timeline.next_latent:
            self._reports.block(block, steer.prompt)

    def _send_credit(self) -> None:
        now_s, next_tick_s = self._loop.time(), self.player.next_tick_s
        if self._fresh:
            next_tick_s = self._wanted_s
        elif not self.player.running:
            next_tick_s = now_s + PAUSED_DUE_S
        self._link.credit(self.pacer.credit(now_s, next_tick_s))
