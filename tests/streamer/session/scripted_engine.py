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
from dataclasses import dataclass
from typing import Any

from streamer.engine.info import ModelInfo, Timings
from streamer.engine.protocol import (
    Close,
    Credit,
    Denoised,
    Failed,
    Message,
    Open,
    Opened,
    Pictures,
    Ready,
    Reschedule,
    Snapshot,
    Stats,
    Steer,
    TakeSnapshot,
    first_picture,
)
from streamer.engine.scheduler import Costs, Frontier, Job, Passes, Prime, Unit, account, next_job
from streamer.session.timeline import blocks_of

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
    steer: int | None = None,
    steer_pass_s: float | None = None,
    cuts: bool = False,
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
        steer_block_latent_frames=steer,
        cut_blocks=cuts,
        sampler="euler",
        state_options={"timesteps": [1000, 900, 750, 500], "shift": 3.0, "window": 6},
        max_guidance_scale=20.0,
        max_prompt_chars=200,
        prompt="the sea",
        vocabulary=VOCABULARY,
    )
    timings = Timings(
        first_block_s=first_block_s,
        pass_s=pass_s,
        passes=passes,
        decode_s=decode_s,
        steer_pass_s=steer_pass_s,
    )
    return Ready(version=1, pid=1, model=model, timings=timings, slots=8, capacity=capacity, rate_hz=rate_hz)


def _state(before: bytes, what: str) -> bytes:
    return hashlib.sha1(before + what.encode()).digest()


def _made(before: bytes, prompt: str, latents: int) -> bytes:
    """A block of so many latent frames. What it leaves behind is its `_state` with those that are kept of it."""
    return _state(before, f"{latents} {prompt}")


def picture_bytes(state: bytes, picture: int) -> bytes:
    return f"{picture}:{state.hex()}".encode()


def video(log: list[str], count: int, info: Ready) -> list[bytes]:
    """The first `count` pictures that a log stands for."""
    blocks = blocks_of(info.model)
    header, *rest = [json.loads(line) for line in log]
    prompts = {0: header["prompt"], **{line["at_latent"]: line["prompt"] for line in rest}}
    blocks.places[:] = sorted(prompts)[1:]
    state, prompt, shown, latent = str(header["seed"]).encode(), "", list[bytes](), 0
    while len(shown) < count:
        prompt = prompts.pop(latent, prompt)
        block, end = _made(state, prompt, blocks.whole(latent) - latent), blocks.next(latent)
        shown += [picture_bytes(block, n) for n in range(first_picture(latent), first_picture(end))]
        state, latent = _state(block, str(end - latent)), end
    assert min(prompts, default=latent) >= latent, "a steer stands where no block begins"
    return shown[:count]


@dataclass
class _Block:
    start: int
    whole: int
    made: bytes


class _Stream:
    def __init__(self, message: Open, info: Ready) -> None:
        self.blocks = blocks_of(info.model)
        self.timings = info.timings
        self.first_passes = max(1, round(info.timings.first_block_s / info.timings.pass_s))
        self.epoch = message.epoch
        self.steers: dict[int, Steer] = {}
        self.plan(message.steers, 0)
        self.chain = [_Block(0, 0, str(message.seed).encode())]
        self.index = 0
        if message.snapshot is not None:
            kept = json.loads(message.snapshot)
            self.chain, self.index = (
                [_Block(kept["start"], kept["whole"], bytes.fromhex(kept["made"]))],
                kept["index"],
            )
        self.compute_s = 0.0
        self.frontier = Frontier(
            stream=message.stream,
            rate_hz=message.rate_hz,
            block_start=0,
            block_latents=0,
            passes_left=0,
            decode_next=message.decode_from,
            block_passes=info.timings.passes + 1,
            primed=message.decode_from == 0,
        )
        self.begin()

    def plan(self, steers: list[Steer], from_latent: int) -> None:
        """Replace the steers from a latent frame on."""
        kept = {at: steer for at, steer in self.steers.items() if at < from_latent}
        self.steers = kept | {steer.at_latent: steer for steer in steers}
        self.blocks.places[:] = sorted(self.steers.keys() - {0})

    def end(self, block: _Block) -> int:
        return self.blocks.cut(block.start, block.whole)

    def begin(self) -> None:
        """Stand at the end of the last block."""
        start = self.frontier.block_start = self.end(self.chain[-1])
        self.frontier.block_latents = self.blocks.whole(start) - start
        self.frontier.passes_left = self.first_passes if start == 0 else self.timings.passes + 1
        self.compute_s = 0.0

    @property
    def pass_s(self) -> float:
        steered = self.blocks.cuts and self.frontier.block_start in self.steers
        commit = self.frontier.passes_left > self.timings.passes
        pass_s, shorter_s = self.timings.pass_s, self.timings.steer_pass_s
        if shorter_s is not None and steered and not commit:
            pass_s = shorter_s
        scale = self.steers[max(at for at in self.steers if at <= self.frontier.block_start)].guidance_scale
        return pass_s if scale in (None, 1) else pass_s * self.timings.guided

    def make(self) -> None:
        """The block under way is clean."""
        start, last = self.frontier.block_start, self.chain[-1]
        before = _state(last.made, str(start - last.start)) if start else last.made
        whole = start + self.frontier.block_latents
        self.chain.append(_Block(start, whole, _made(before, self.prompt(start), whole - start)))
        self.index += 1

    def denoised(self) -> Denoised:
        """What there is to tell of the last block."""
        block = self.chain[-1]
        return Denoised(
            stream=self.frontier.stream,
            epoch=self.epoch,
            block=self.index - 1,
            first_latent=block.start,
            latents=self.end(block) - block.start,
            compute_s=self.compute_s,
        )

    def prune(self) -> None:
        while len(self.chain) > 1 and self.end(self.chain[1]) <= self.frontier.decode_next:
            del self.chain[0]

    def prompt(self, latent: int) -> str:
        return self.steers[max(at for at in self.steers if at <= latent)].prompt


class ScriptedEngine:
    """Drop-in for `Engine`. `jitter()` multiplies the seconds of each step.

    With `clip_s` it always has a clip to make as well, whose units take so long; `units` are those that are done.
    """

    def __init__(self, info: Ready, jitter: Callable[[], float] = lambda: 1.0) -> None:
        self.ready: Ready | None = info
        self.stats: Stats | None = None
        self.sent: list[Message] = []
        self.jitter = jitter
        self.info = info
        self._loop = asyncio.get_running_loop()
        self._inbox: list[Message] = []
        self._streams: dict[str, _Stream] = {}
        self._listeners: dict[str, Callable[[Message], None]] = {}
        self._down: list[Callable[[str], None]] = []
        self._up: list[Callable[[Ready], None]] = []
        self._job: asyncio.TimerHandle | None = None
        self._accounted_s = self._loop.time()
        self.clip_s: float | None = None
        self.units = 0
        self._idle = False

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
        if self._idle and self._job is not None:
            self._job.cancel()
            self._job = None
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
        self.ready = self.info
        for callback in self._up:
            callback(self.info)

    def lose(self, stream: str, reason: str = "lost") -> None:
        """The worker fails one stream."""
        self._fail(stream, reason)

    def of(self, kind: type[Any]) -> list[Any]:
        """Messages of a kind that were sent."""
        return [message for message in self.sent if isinstance(message, kind)]

    # The worker

    def tell(self, message: Any) -> None:
        """Say this to the server."""
        callback = self._listeners.get(message.stream)
        if callback is not None:
            callback(message)

    def _fail(self, stream: str, reason: str) -> None:
        lost = self._streams.pop(stream)
        self.tell(Failed(stream=stream, epoch=lost.epoch, reason=reason))

    def _next(self) -> None:
        """Between two steps: read what came, choose the next step."""
        while self._inbox:
            self._take(self._inbox.pop(0))
        self._job, self._idle = None, False
        timings = self.info.timings
        costs = Costs(pass_s=timings.pass_s, decode_s=timings.decode_s)
        frontiers = [stream.frontier for stream in self._streams.values()]
        unit = None if self.clip_s is None else Unit("vid", self.clip_s)
        job = next_job(frontiers, self._loop.time(), costs, idle=unit)
        if job is None:
            if unit is not None:
                self._idle = True
                self._job = self._loop.call_later(1.0, self._next)
            return
        if isinstance(job, Unit):
            nominal = job.cost_s
        elif isinstance(job, Passes):
            nominal = max(self._streams[id].pass_s for id in job.streams)
        else:
            nominal = PRIME_S if isinstance(job, Prime) else timings.decode_s
        took_s = nominal * self.jitter()
        self._job = self._loop.call_later(took_s, self._did, job, took_s)

    def _take(self, message: Any) -> None:
        if isinstance(message, Open):
            assert len(self._streams) < self.info.capacity, "more streams than slots"
            self._streams[message.stream] = _Stream(message, self.info)
            self.tell(Opened(stream=message.stream, epoch=message.epoch))
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
            start = message.from_latent
            remade = frontier.block_start >= start
            if remade:
                kept = next(block for block in reversed(stream.chain) if block.start < start or block.whole == 0)
                stream.index -= len(stream.chain) - 1 - stream.chain.index(kept)
                del stream.chain[stream.chain.index(kept) + 1 :]
                assert stream.blocks.cuts or kept.whole == start, "no block begins there"
                ended = stream.end(kept)
            stream.plan(message.steers, start)
            if remade:
                stream.begin()
                if stream.end(kept) != ended:
                    self.tell(stream.denoised())
        elif isinstance(message, TakeSnapshot):
            fitting = [block for block in stream.chain if stream.end(block) <= message.at_most]
            block = fitting[-1] if fitting else stream.chain[0]
            index = stream.index - (len(stream.chain) - 1 - stream.chain.index(block))
            fields = {"start": block.start, "whole": block.whole, "made": block.made.hex(), "index": index}
            data = json.dumps(fields).encode()
            self.tell(Snapshot(stream=message.stream, epoch=stream.epoch, latent=stream.end(block), data=data))
        elif isinstance(message, Close):
            del self._streams[message.stream]

    def _did(self, job: Job, took_s: float) -> None:
        now_s = self._loop.time()
        account([one.frontier for one in self._streams.values()], job, took_s, now_s - self._accounted_s)
        self._accounted_s = now_s
        if isinstance(job, Unit):
            self.units += 1
        elif isinstance(job, Passes):
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
        stream.make()
        self.tell(stream.denoised())
        stream.begin()

    def _decoded(self, stream: _Stream) -> None:
        frontier = stream.frontier
        latent = frontier.decode_next
        frontier.decode_next += 1
        (made,) = (block.made for block in stream.chain if block.start <= latent < stream.end(block))
        first, after = first_picture(latent), first_picture(latent + 1)
        stream.prune()
        self.tell(
            Pictures(
                stream=frontier.stream,
                epoch=stream.epoch,
                latent=latent,
                first_picture=first,
                i420=[picture_bytes(made, n) for n in range(first, after)],
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
