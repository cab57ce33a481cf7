"""The worker's main loop: take messages, run the most urgent step, send what came of it."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from typing import TypeVar

import psutil
from torch import Tensor

from model.chain import advance
from streamer.engine import worker_loras
from streamer.engine.link import Link
from streamer.engine.protocol import (
    ClipCredit,
    Close,
    Credit,
    DropLora,
    Failed,
    LoadLora,
    Message,
    Open,
    OpenClip,
    Opened,
    Ready,
    Reschedule,
    Stats,
    TakeSnapshot,
    ToWorker,
)
from streamer.engine.scheduler import Costs, Decode, Passes, Prime, Unit, account, next_job
from streamer.engine.worker_clip import WorkerClip
from streamer.engine.worker_models import Models, StreamError
from streamer.engine.worker_stream import WorkerStream, first_steer
from streamer.engine.worker_warmup import synchronize

logger = logging.getLogger(__name__)

STATS_EVERY_S = 1.0
SMOOTHING = 0.1
"""Weight of the newest time in the running means."""
T = TypeVar("T")


class WorkerLoop:
    """Runs all streams, and a clip where they leave time for one, in one thread until the socket closes.

    Args:
        link: Messages in and out.
        models: Loaded and warm.
        ready: What the warm-up measured.
        bucket: Rows of a transformer pass; a stream's bits depend on it, so it never changes.
        text_s: What encoding a prompt takes.
    """

    def __init__(self, link: Link, models: Models, ready: Ready, bucket: int, text_s: float) -> None:
        self._link = link
        self._models = models
        self._slots = ready.slots
        self._bucket = bucket
        self._text_s = text_s
        self._costs = Costs(ready.timings.pass_s, ready.timings.decode_s)
        self._streams: dict[str, WorkerStream] = {}
        self._clip: WorkerClip | None = None
        self._device = models.checkpoint.transformer.device
        self._process = psutil.Process()
        self._busy_s = 0.0
        self._stats_s = self._accounted_s = time.monotonic()

    def run(self) -> None:
        """Work until the server closes the socket."""
        while not self._link.closed:
            worked = self._work()
            due_s = self._stats_s + STATS_EVERY_S - time.monotonic()
            if due_s <= 0:
                self._send_stats()
            message = self._link.receive(0.0 if worked else max(0.0, due_s))
            while message is not None:
                self._handle(message)
                message = self._link.receive(0.0)

    # Messages

    def _handle(self, message: ToWorker) -> None:
        if isinstance(message, Open):
            self._open(message)
            return
        if isinstance(message, OpenClip):
            self._open_clip(message)
            return
        if isinstance(message, LoadLora):
            worker_loras.handle(self._models, message, self._link.send)
            return
        if isinstance(message, DropLora):
            self._models.adapters.pop(message.sha256, None)
            return
        if self._clip is not None and message.stream == self._clip.id:
            match message:
                case ClipCredit():
                    self._clip.credit(message.pictures_until)
                case Close():
                    self._drop_clip()
            return
        stream = self._streams.get(message.stream)
        if stream is None:
            return  # it failed while the message was on its way
        match message:
            case Reschedule():
                self._reply(self._guard(stream, lambda: stream.reschedule(message)))
            case Credit():
                stream.credit(message, time.monotonic())
            case TakeSnapshot():
                self._reply(self._guard(stream, lambda: stream.snapshot(message.at_most)))
            case Close():
                self._drop(stream)

    def _open(self, message: Open) -> None:
        if message.stream in self._streams:
            self._drop(self._streams[message.stream])
        try:
            if self._models.checkpoint.no_streams is not None:
                raise StreamError(f"clips only: {self._models.checkpoint.no_streams}")
            taken = sum(stream.frontier.rows for stream in self._streams.values())
            if taken + self._models.rows(first_steer(message)) > self._slots:
                raise StreamError(f"all {self._slots} slots are taken")
            self._streams[message.stream] = WorkerStream(self._models, message)
        except Exception as error:
            self._fail(message.stream, message.epoch, error)
        else:
            self._reply(Opened(stream=message.stream, epoch=message.epoch))

    def _open_clip(self, message: OpenClip) -> None:
        if self._clip is not None and self._clip.id != message.stream:
            self._fail(message.stream, message.epoch, StreamError("the worker makes another clip"))
            return
        self._drop_clip()
        self._clip = WorkerClip(self._models, message, self._costs, self._text_s)
        self._reply(self._clip.progress())

    # Work

    def _work(self) -> bool:
        """Run one job; False when there is none."""
        start_s = time.monotonic()
        frontiers = [stream.frontier for stream in self._streams.values()]
        unit = self._clip.unit() if self._clip is not None else None
        job = next_job(frontiers, start_s, self._costs, self._bucket, unit)
        match job:
            case None:
                return False
            case Passes():
                self._pass([self._streams[stream] for stream in job.streams])
            case Decode():
                stream = self._streams[job.stream]
                first = stream.frontier.decode_next == 0
                took_s, pictures = _timed(lambda: self._guard(stream, stream.decode))
                self._reply(pictures)
                if not first:  # latent frame 0 is one picture instead of four
                    self._costs = Costs(self._costs.pass_s, _smooth(self._costs.decode_s, took_s))
            case Prime():
                stream = self._streams[job.stream]
                self._guard(stream, stream.prime)
            case Unit():
                self._unit()
        end_s = time.monotonic()
        self._busy_s += end_s - start_s
        account(frontiers, job, end_s - start_s, end_s - self._accounted_s)
        self._accounted_s = end_s
        return True

    def _pass(self, streams: list[WorkerStream]) -> None:
        streams = [stream for stream in streams if self._begin(stream)]
        if not streams:
            return
        given = not any(stream.frontier.passes_left for stream in streams)  # a picture to start from costs no pass
        start_s = time.monotonic()
        try:
            blocks = advance([stream.latents for stream in streams], bucket=self._bucket)
            synchronize(self._device)
        except Exception as error:
            if len(streams) == 1:
                self._fail_stream(streams[0], error)
                return
            # Whose fault was it? Each runs this block again, alone.
            logger.exception("a pass of %d streams failed", len(streams))
            for stream in streams:
                self._guard(stream, stream.restart_block)
            return
        took_s = time.monotonic() - start_s
        if not given:
            passes = math.ceil(sum(stream.frontier.rows for stream in streams) / self._bucket)
            self._costs = Costs(_smooth(self._costs.pass_s, took_s / passes), self._costs.decode_s)
        for stream, block in zip(streams, blocks, strict=True):
            self._end(stream, block, took_s)

    def _unit(self) -> None:
        clip = self._clip
        assert clip is not None
        try:
            for message in clip.step(lambda: synchronize(self._device)):
                self._reply(message)
        except Exception as error:
            self._drop_clip()
            self._fail(clip.id, clip.epoch, error)
        else:
            if clip.finished:
                self._drop_clip()

    def _begin(self, stream: WorkerStream) -> bool:
        self._guard(stream, stream.begin_pass)
        return stream.id in self._streams

    def _end(self, stream: WorkerStream, block: Tensor | None, took_s: float) -> None:
        self._reply(self._guard(stream, lambda: stream.end_pass(block, took_s)))

    def _guard(self, stream: WorkerStream, work: Callable[[], T]) -> T | None:
        """Run `work`; if it raises, that stream fails and the result is None."""
        try:
            return work()
        except Exception as error:
            self._fail_stream(stream, error)
            return None

    def _fail_stream(self, stream: WorkerStream, error: Exception) -> None:
        self._drop(stream)
        self._fail(stream.id, stream.epoch, error)

    def _fail(self, stream: str, epoch: int, error: Exception) -> None:
        if isinstance(error, StreamError):
            reason = str(error)
        else:
            reason = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
            logger.error("stream %s failed", stream, exc_info=error)
        self._reply(Failed(stream=stream, epoch=epoch, reason=reason))

    def _drop(self, stream: WorkerStream) -> None:
        del self._streams[stream.id]
        stream.close()

    def _drop_clip(self) -> None:
        if self._clip is not None:
            self._clip.close()
            self._clip = None

    def _reply(self, message: Message | None) -> None:
        if message is not None:
            self._link.send(message)

    def _send_stats(self) -> None:
        now_s = time.monotonic()
        stats = Stats(
            streams=len(self._streams),
            pass_s=self._costs.pass_s,
            decode_s=self._costs.decode_s,
            busy=min(1.0, self._busy_s / (now_s - self._stats_s)),
            pool_bytes=sum(pool.nbytes for pool in self._models.pools.values())
            + sum(stream.nbytes for stream in self._streams.values()),
            rss_bytes=self._process.memory_info().rss,
        )
        self._link.send(stats)
        if self._clip is not None and self._clip.waited(self._stats_s):
            self._link.send(self._clip.progress(waiting=True))
        self._busy_s, self._stats_s = 0.0, now_s


def _smooth(mean: float, value: float) -> float:
    return mean + SMOOTHING * (value - mean)


def _timed(work: Callable[[], T]) -> tuple[float, T]:
    start_s = time.monotonic()
    result = work()
    return time.monotonic() - start_s, result
