"""A worker without a model, for tests of timing: the engine's own scheduler, made-up pictures, a virtual clock.

A picture's bytes name its number and a hash of every prompt that led to it, so a test can compare what was shown with
what the log says (`video`), bit for bit.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
from collections.abc import Callable
from typing import Any

from streamer.engine.protocol import (
    Close,
    Credit,
    Denoised,
    Failed,
    Message,
    ModelInfo,
    Open,
    Opened,
    Pictures,
    Ready,
    Reschedule,
    Snapshot,
    Stats,
    Steer,
    TakeSnapshot,
    Timings,
    first_picture,
)
from streamer.engine.scheduler import Costs, Decode, Frontier, Passes, Prime, next_job
from streamer.session.timeline import Blocks

PRIME_S = 0.1
VOCABULARY = {"scene": [{"name": "sea", "prompt": "the sea", "synonyms": []}]}


def ready(
    *,
    capacity: int = 1,
    pass_s: float = 0.07,
    decode_s: float = 0.05,
    passes: int = 4,
    block: int = 3,
    first: int | None = None,
    rate_hz: float = 16.0,
    first_block_s: float = 1.5,
) -> Ready:
    """What a worker with these timings says of itself."""
    model = ModelInfo(
        name="scripted",
        weights_hash="w" * 16,
        device="none",
        dtype="bf16",
        height=16,
        width=32,
        rate_hz=16.0,
        block_latent_frames=[block],
        first_block_latent_frames=block if first is None else first,
        sampler="euler",
        state_options={"timesteps": [1000, 900, 750, 500], "shift": 3.0, "window": 6},
        max_guidance_scale=20.0,
        max_prompt_chars=200,
        prompt="the sea",
        vocabulary=VOCABULARY,
    )
    timings = Timings(first_block_s=first_block_s, pass_s=pass_s, passes=passes, decode_s=decode_s)
    return Ready(version=1, pid=1, model=model, timings=timings, slots=8, capacity=capacity, rate_hz=rate_hz)


def _state(before: bytes, prompt: str) -> bytes:
    return hashlib.sha1(before + prompt.encode()).digest()


def picture_bytes(state: bytes, picture: int) -> bytes:
    return f"{picture}:{state.hex()}".encode()


def video(log: list[str], count: int, blocks: Blocks) -> list[bytes]:
    """The first `count` pictures that a log stands for."""
    header, *rest = [json.loads(line) for line in log]
    prompts = {0: header["prompt"], **{line["at_latent"]: line["prompt"] for line in rest}}
    state, prompt, shown, latent = str(header["seed"]).encode(), "", list[bytes](), 0
    while len(shown) < count:
        prompt = prompts.get(latent, prompt)
        state, end = _state(state, prompt), blocks.next(latent)
        shown += [picture_bytes(state, n) for n in range(first_picture(latent), first_picture(end))]
        latent = end
    return shown[:count]


class _Stream:
    def __init__(self, message: Open, info: Ready) -> None:
        self.blocks = Blocks(info.model.first_block_latent_frames, info.model.block_latent_frames[0])
        self.first_passes = max(1, round(info.timings.first_block_s / info.timings.pass_s))
        self.passes = info.timings.passes + 1
        self.epoch = message.epoch
        self.steers: dict[int, Steer] = {steer.at_latent: steer for steer in message.steers}
        self.states: dict[int, bytes] = {0: str(message.seed).encode()}
        start = 0
        if message.snapshot is not None:
            kept = json.loads(message.snapshot)
            start = kept["latent"]
            self.states = {start: bytes.fromhex(kept["state"])}
        self.compute_s = 0.0
        self.frontier = Frontier(
            stream=message.stream,
            rate_hz=message.rate_hz,
            block_start=start,
            block_latents=0,
            passes_left=0,
            decode_next=message.decode_from,
            primed=message.decode_from == 0,
        )
        self.begin(start)

    def begin(self, latent: int) -> None:
        """Stand at the beginning of a block."""
        self.frontier.block_start = latent
        self.frontier.block_latents = self.blocks.next(latent) - latent
        self.frontier.passes_left = self.first_passes if latent == 0 else self.passes
        self.compute_s = 0.0

    def prompt(self, latent: int) -> str:
        return self.steers[max(at for at in self.steers if at <= latent)].prompt


class ScriptedEngine:
    """Drop-in for `Engine`. `jitter()` multiplies the seconds of each step."""

    def __init__(self, info: Ready, jitter: Callable[[], float] = lambda: 1.0) -> None:
        self.ready: Ready | None = info
        self.stats: Stats | None = None
        self.sent: list[Message] = []
        self.jitter = jitter
        self._info = info
        self._loop = asyncio.get_running_loop()
        self._inbox: list[Message] = []
        self._streams: dict[str, _Stream] = {}
        self._listeners: dict[str, Callable[[Message], None]] = {}
        self._down: list[Callable[[str], None]] = []
        self._up: list[Callable[[Ready], None]] = []
        self._job: asyncio.TimerHandle | None = None
        self._life = 0

    @property
    def open_streams(self) -> set[str]:
        return set(self._streams)

    def frontier(self, stream: str) -> Frontier:
        """How far an open stream is."""
        return self._streams[stream].frontier

    # What a session sees

    def send(self, message: Message) -> bool:
        if self.ready is None:
            return False
        self.sent.append(message)
        self._inbox.append(message)
        if self._job is None:
            self._job = self._loop.call_later(0, self._next)
        return True

    def listen(self, stream: str, callback: Callable[[Message], None]) -> Callable[[], None]:
        self._listeners[stream] = callback
        return lambda: self._listeners.pop(stream, None) and None

    def on_down(self, callback: Callable[[str], None]) -> None:
        self._down.append(callback)

    def on_up(self, callback: Callable[[Ready], None]) -> None:
        self._up.append(callback)

    # What a test does

    def kill(self, reason: str = "killed") -> None:
        """The worker dies with all its streams."""
        self.ready = None
        self._streams.clear()
        self._inbox.clear()
        if self._job is not None:
            self._job.cancel()
            self._job = None
        for callback in self._down:
            callback(reason)

    def revive(self) -> None:
        """A new worker is warm."""
        self.ready = self._info
        for callback in self._up:
            callback(self._info)

    def lose(self, stream: str, reason: str = "lost") -> None:
        """The worker fails one stream."""
        self._fail(stream, reason)

    def of(self, kind: type[Any]) -> list[Any]:
        """Messages of a kind that were sent."""
        return [message for message in self.sent if isinstance(message, kind)]

    # The worker

    def _tell(self, message: Any) -> None:
        callback = self._listeners.get(message.stream)
        if callback is not None:
            callback(message)

    def _fail(self, stream: str, reason: str) -> None:
        lost = self._streams.pop(stream)
        self._tell(Failed(stream=stream, epoch=lost.epoch, reason=reason))

    def _next(self) -> None:
        """Between two steps: read what came, choose the next step."""
        while self._inbox:
            self._take(self._inbox.pop(0))
        self._job = None
        timings = self._info.timings
        costs = Costs(pass_s=timings.pass_s, decode_s=timings.decode_s)
        frontiers = [stream.frontier for stream in self._streams.values()]
        job = next_job(frontiers, self._loop.time(), costs)
        if job is None:
            return
        nominal = (
            timings.pass_s if isinstance(job, Passes) else PRIME_S if isinstance(job, Prime) else timings.decode_s
        )
        took_s = nominal * self.jitter()
        self._job = self._loop.call_later(took_s, self._did, job, took_s)

    def _take(self, message: Any) -> None:
        if isinstance(message, Open):
            assert len(self._streams) < self._info.capacity, "more streams than slots"
            self._streams[message.stream] = _Stream(message, self._info)
            self._tell(Opened(stream=message.stream, epoch=message.epoch))
            return
        stream = self._streams.get(message.stream)
        if stream is None:
            return
        stream.epoch = max(stream.epoch, message.epoch)
        frontier = stream.frontier
        if isinstance(message, Credit):
            now_s = self._loop.time()
            frontier.credit(message.denoise_until, message.decode_until, now_s + message.due_s)
        elif isinstance(message, Reschedule):
            if message.from_latent < frontier.decode_until:
                self._fail(message.stream, "rescheduled below the decode credit")
                return
            kept = {at: steer for at, steer in stream.steers.items() if at < message.from_latent}
            stream.steers = kept | {steer.at_latent: steer for steer in message.steers}
            if frontier.block_start >= message.from_latent:
                stream.states = {at: state for at, state in stream.states.items() if at <= message.from_latent}
                stream.begin(message.from_latent)
        elif isinstance(message, TakeSnapshot):
            at = max((at for at in stream.states if at <= message.at_most), default=min(stream.states))
            data = json.dumps({"latent": at, "state": stream.states[at].hex()}).encode()
            self._tell(Snapshot(stream=message.stream, epoch=stream.epoch, latent=at, data=data))
        elif isinstance(message, Close):
            del self._streams[message.stream]

    def _did(self, job: Passes | Decode | Prime, took_s: float) -> None:
        if isinstance(job, Passes):
            for id in job.streams:
                if id in self._streams:
                    self._passed(self._streams[id], took_s)
        elif job.stream in self._streams:
            stream = self._streams[job.stream]
            if isinstance(job, Prime):
                stream.frontier.primed = True
            else:
                self._decoded(stream)
        self._next()

    def _passed(self, stream: _Stream, took_s: float) -> None:
        frontier = stream.frontier
        stream.compute_s += took_s
        frontier.passes_left -= 1
        if frontier.passes_left > 0:
            return
        start, end, compute_s = frontier.block_start, frontier.block_start + frontier.block_latents, stream.compute_s
        stream.states[end] = _state(stream.states[start], stream.prompt(start))
        stream.begin(end)
        self._tell(
            Denoised(
                stream=frontier.stream,
                epoch=stream.epoch,
                block=stream.blocks.block_of(start),
                first_latent=start,
                latents=end - start,
                compute_s=compute_s,
            )
        )

    def _decoded(self, stream: _Stream) -> None:
        frontier = stream.frontier
        latent = frontier.decode_next
        frontier.decode_next += 1
        state = stream.states[stream.blocks.next(latent)]
        first, after = first_picture(latent), first_picture(latent + 1)
        oldest = stream.blocks.floor(frontier.decode_next)
        stream.states = {at: kept for at, kept in stream.states.items() if at >= oldest}
        self._tell(
            Pictures(
                stream=frontier.stream,
                epoch=stream.epoch,
                latent=latent,
                first_picture=first,
                i420=[picture_bytes(state, n) for n in range(first, after)],
            )
        )


class ScriptedHub:
    """Drop-in for `Hub`: keeps what was released and when."""

    def __init__(
        self,
        width: int,
        height: int,
        rate_hz: float,
        on_viewers: Callable[[int], None],
        *,
        on_failure: Callable[[str], None],
    ) -> None:
        self.viewers = 0
        self.shown: list[bytes] = []
        self.at_s: list[float] = []
        self.ticks: list[int] = []
        self.closed = False
        self.fail = on_failure
        self._on_viewers = on_viewers
        self._loop = asyncio.get_running_loop()

    def join(self, count: int = 1) -> None:
        self.viewers += count
        self._on_viewers(self.viewers)

    def leave(self, count: int = 1) -> None:
        self.join(-count)

    def release(self, i420: bytes, tick: int) -> None:
        self.shown.append(i420)
        self.ticks.append(tick)
        self.at_s.append(self._loop.time())

    async def close(self) -> None:
        self.closed = True

    @property
    def pictures(self) -> list[bytes]:
        """What was shown, without repeats."""
        return [now for before, now in zip([b"", *self.shown], self.shown, strict=False) if now != before]


def uniform_jitter(seed: int, low: float, high: float) -> Callable[[], float]:
    random_of = random.Random(seed)
    return lambda: random_of.uniform(low, high)
