"""One encode a stream, whoever watches: takes each tick's picture, fans packets out to the viewers."""

import asyncio
import functools
import io
import logging
import math
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, TypeVar

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace

from streamer.media.encoder import Encoder, Packet
from streamer.media.mp4 import Fragment, Muxer
from streamer.media.mse import MseViewer
from streamer.media.sink import Item, Sink

logger = logging.getLogger(__name__)

Result = TypeVar("Result")

KEYFRAME_INTERVAL_S = 0.5
"""Keyframes on demand come no closer together than this."""
QUEUE_S = 2.0
"""Seconds of video that a viewer may be behind before it skips."""
PENDING_PICTURES = 4
"""Pictures that may wait for the encoder."""


class HubFullError(Exception):
    """All places at this stream are taken; `limit` says how many there are."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"all {limit} viewers' places at this stream are taken")
        self.limit = limit


class HubClosedError(Exception):
    """The stream has ended; nobody can join it."""


@dataclass(slots=True)
class HubStats:
    """Counters since the hub was opened."""

    encoded: int = 0
    keyframes: int = 0
    dropped: int = 0
    """Pictures that found the encoder's queue full."""
    skips: int = 0
    """Times that a slow viewer lost pictures."""
    bytes: int = 0
    encode_s: float = 0.0
    """Seconds spent encoding, in all."""

    @property
    def encode_ms(self) -> float:
        """Mean milliseconds an encode."""
        return 1e3 * self.encode_s / self.encoded if self.encoded else 0.0


class Hub:
    """The encoder of one stream and its viewers. To be made and used in a running event loop.

    on_viewers(count) is called when somebody joins or leaves, on_failure(reason) once if the encoder breaks
    (the viewers' iterations then end). Nothing is encoded while nobody watches. Raises ValueError for sizes
    that 4:2:0 can't have.
    """

    def __init__(
        self,
        width: int,
        height: int,
        rate_hz: float | Fraction,
        on_viewers: Callable[[int], None] | None = None,
        *,
        on_failure: Callable[[str], None] | None = None,
        max_viewers: int = 64,
    ) -> None:
        self.width, self.height = width, height
        self.rate_hz = Fraction(rate_hz).limit_denominator(1001)
        self.stats = HubStats()
        self.failure: str | None = None
        self._on_viewers = on_viewers
        self._on_failure = on_failure
        self._max_viewers = max_viewers
        self._loop = asyncio.get_running_loop()
        self._encoder: Encoder | None = Encoder(width, height, self.rate_hz)
        self._muxer = Muxer(width, height, self.rate_hz)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="encoder")
        self._jobs: set[asyncio.Future[Any]] = set()
        self._pending = 0
        self._late = False
        self._packets: set[Sink[Packet]] = set()
        self._fragments: set[Sink[Fragment]] = set()
        self._capacity = math.ceil(QUEUE_S * self.rate_hz)
        self._latest: tuple[bytes, int] | None = None
        self._poster: tuple[int, asyncio.Future[bytes]] | None = None
        self._keyframe_wanted = True
        self._keyframe_ticks = math.ceil(KEYFRAME_INTERVAL_S * self.rate_hz)
        self._keyframe_tick: int | None = None
        self._closed = False

    @property
    def viewers(self) -> int:
        """How many watch."""
        return len(self._packets) + len(self._fragments)

    def release(self, i420: bytes, tick: int) -> None:
        """Show a picture: encode it and hand it to everybody who watches. Returns at once.

        i420: width·height·3/2 bytes, BT.709 limited range. tick: greater than the last one's. ValueError for
        either. A picture that comes while PENDING_PICTURES wait is dropped and counted.
        """
        if self._closed:
            return
        if len(i420) != self.width * self.height * 3 // 2:
            raise ValueError(f"{len(i420)} bytes are no I420 picture of {self.width}x{self.height}")
        if self._latest is not None and tick <= self._latest[1]:
            raise ValueError(f"tick {tick} comes after tick {self._latest[1]}")
        self._latest = (i420, tick)
        # Not for viewers that are still connecting: the keyframe that they missed would delay their own.
        if not any(sink.started for sink in self._sinks()):
            return
        if self._pending >= PENDING_PICTURES:
            self.stats.dropped += 1
            if not self._late:  # once for a run of them
                logger.warning("the encoder is late: pictures from tick %d on are dropped", tick)
            self._late = True
            return
        self._late = False
        self._pending += 1
        job = self._start(self._encode, i420, tick, self._keyframe_due(tick))
        job.add_done_callback(self._encoded)

    def keyframe(self) -> None:
        """Ask for a keyframe: the next picture, or the first one that KEYFRAME_INTERVAL_S allows."""
        self._keyframe_wanted = True

    def packets(self) -> Sink[Packet]:
        """Join: an async iterator over H.264 packets (Annex B), from a keyframe on. Close it to leave.

        Raises HubFullError, HubClosedError.
        """
        return self._join(self._packets)

    def fragments(self) -> MseViewer:
        """Join: an async iterator over MP4 segments, the same bytes for everybody. Close it to leave.

        Raises HubFullError, HubClosedError.
        """
        return MseViewer(self._join(self._fragments), self._muxer, self.rate_hz)

    async def poster(self) -> bytes | None:
        """The last picture shown, as a JPEG; None before the first and after the end."""
        if self._latest is None or self._closed:
            return None
        i420, tick = self._latest
        if self._poster is None or self._poster[0] != tick:
            self._poster = (tick, self._start(_jpeg, i420, self.width, self.height))
        return await asyncio.shield(self._poster[1])

    async def close(self) -> None:
        """Show what has been released, then end everybody's iteration and the encoder's thread.

        May be called again.
        """
        self._closed = True
        if self._jobs:
            await asyncio.wait(self._jobs)
        self._dismiss()
        self._thread.shutdown()  # has nothing to do by now: returns at once
        self._encoder = self._latest = self._poster = None  # megabytes; the stream's log is kept for an hour

    def _start(self, work: Callable[..., Result], *arguments: object) -> asyncio.Future[Result]:
        job = self._loop.run_in_executor(self._thread, functools.partial(work, *arguments))
        self._jobs.add(job)
        job.add_done_callback(self._jobs.discard)
        return job

    def _encode(self, i420: bytes, tick: int, keyframe: bool) -> tuple[Packet, float]:
        began = time.perf_counter()
        assert self._encoder is not None  # it goes when the last job is done
        packet = self._encoder.encode(i420, tick, keyframe=keyframe)
        return packet, time.perf_counter() - began

    def _encoded(self, job: asyncio.Future[tuple[Packet, float]]) -> None:
        self._pending -= 1
        if job.cancelled():
            return
        if (error := job.exception()) is not None:
            self._fail(f"the encoder failed: {error}")
            return
        packet, seconds = job.result()
        self.stats.encoded += 1
        self.stats.bytes += len(packet.data)
        self.stats.encode_s += seconds
        if packet.keyframe:
            self.stats.keyframes += 1
            self._keyframe_tick = packet.tick
        for sink in self._packets:
            sink.offer(packet)
        if self._fragments and (packet.keyframe or self._muxer.init is not None):
            fragment = self._muxer.mux(packet)
            for viewer in self._fragments:
                viewer.offer(fragment)

    def _keyframe_due(self, tick: int) -> bool:
        if not self._keyframe_wanted:
            return False
        if self._keyframe_tick is not None and tick - self._keyframe_tick < self._keyframe_ticks:
            return False
        self._keyframe_wanted, self._keyframe_tick = False, tick
        return True

    def _fail(self, reason: str) -> None:
        if self.failure is not None:
            return
        logger.error("%s", reason)
        self.failure, self._closed = reason, True
        self._dismiss()
        if self._on_failure is not None:
            self._on_failure(reason)

    def _dismiss(self) -> None:
        for sink in tuple(self._sinks()):
            sink.close()

    def _sinks(self) -> Iterator[Sink[Packet] | Sink[Fragment]]:
        yield from self._packets
        yield from self._fragments

    def _admit(self) -> None:
        if self._closed:
            raise HubClosedError(self.failure or "the stream has ended")
        if self.viewers >= self._max_viewers:
            raise HubFullError(self._max_viewers)

    def _join(self, sinks: set[Sink[Item]]) -> Sink[Item]:
        self._admit()
        sink = Sink[Item](self._capacity, self.keyframe)

        def leave() -> None:
            sinks.discard(sink)
            self._count_viewers()

        sink.on_close.append(leave)
        sink.on_skip.append(self._count_skip)
        sinks.add(sink)
        self._count_viewers()
        return sink

    def _count_viewers(self) -> None:
        if self._on_viewers is not None:
            self._on_viewers(self.viewers)

    def _count_skip(self) -> None:
        self.stats.skips += 1


def _jpeg(i420: bytes, width: int, height: int) -> bytes:
    frame = av.VideoFrame.from_ndarray(
        np.frombuffer(i420, np.uint8).reshape(height * 3 // 2, width), format="yuv420p"
    )
    image = frame.reformat(
        format="rgb24", src_colorspace=Colorspace.ITU709, src_color_range=ColorRange.MPEG
    ).to_image()
    out = io.BytesIO()
    image.save(out, "JPEG", quality=85)
    return out.getvalue()
