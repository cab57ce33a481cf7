"""The worker's loop in this process, where a pass that several streams share can be made to fail."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from model.checkpoint import load_checkpoint
from model.stream import LatentStream, advance
from streamer.engine import worker_loop
from streamer.engine.info import ModelInfo, Timings
from streamer.engine.protocol import (
    PROTOCOL_VERSION,
    Close,
    Credit,
    Failed,
    Message,
    Open,
    Pictures,
    Ready,
    Steer,
    ToWorker,
)
from streamer.engine.worker_loop import WorkerLoop
from streamer.engine.worker_models import Models
from streamer.engine.worker_stream import WorkerStream

INFO = ModelInfo(
    name="tiny",
    weights_hash="",
    device="cpu",
    dtype="float32",
    height=64,
    width=64,
    rate_hz=16.0,
    block_latent_frames=[3],
    first_block_latent_frames=3,
    sampler="euler",
    state_options={},
    max_guidance_scale=20.0,
    max_prompt_chars=100,
    prompt="the sea",
    vocabulary={},
)
READY = Ready(
    version=PROTOCOL_VERSION,
    pid=0,
    model=INFO,
    timings=Timings(first_block_s=0.1, pass_s=0.02, passes=2, decode_s=0.02),
    slots=2,
    capacity=2,
    rate_hz=16.0,
)


class ListLink:
    """A link whose messages were all there from the start; it closes when there is nothing more to do."""

    def __init__(self, messages: list[ToWorker]) -> None:
        self.messages = messages
        self.sent: list[Message] = []
        self.closed = False

    def receive(self, timeout_s: float) -> ToWorker | None:
        if self.messages:
            return self.messages.pop(0)
        if timeout_s > 0:  # the loop has nothing to do
            self.closed = True
        return None

    def send(self, message: Message) -> None:
        self.sent.append(message)

    def pictures(self, stream: str) -> dict[int, list[bytes]]:
        return {m.latent: m.i420 for m in self.sent if isinstance(m, Pictures) and m.stream == stream}

    def failures(self) -> dict[str, str]:
        return {m.stream: m.reason for m in self.sent if isinstance(m, Failed)}


@pytest.fixture(scope="module")
def models(tiny_model: Path) -> Models:
    return Models(load_checkpoint(tiny_model, dtype=torch.float32))


def run(models: Models, *streams: str, latents: int = 9) -> ListLink:
    """Run these streams at once; a stream's seed is its name's."""
    messages: list[ToWorker] = []
    for stream in streams:
        steers = [Steer(at_latent=0, prompt="the sea at night")]
        messages.append(
            Open(stream=stream, epoch=1, seed=ord(stream), height=64, width=64, rate_hz=16.0, steers=steers)
        )
        messages.append(Credit(stream=stream, epoch=1, denoise_until=latents, decode_until=latents, due_s=1.0))
    link = ListLink(messages)
    WorkerLoop(link, models, READY, bucket=2, text_s=0.01).run()  # type: ignore[arg-type]
    return link


def test_streams_share_passes_and_are_as_if_alone(models: Models, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []

    def counting(streams: list[LatentStream], bucket: int | None = None) -> object:
        sizes.append(len(streams))
        return advance(streams, bucket)

    monkeypatch.setattr(worker_loop, "advance", counting)
    together = run(models, "a", "b")
    assert sizes == [2] * (4 + 3 + 3)
    for stream in "ab":
        assert together.pictures(stream) == run(models, stream).pictures(stream)
        assert len(together.pictures(stream)) == 9


def test_a_shared_pass_that_fails_ends_only_the_stream_whose_fault_it_is(
    models: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(streams: list[LatentStream], bucket: int | None = None) -> object:
        blocks = advance(streams, bucket)  # what was written by the time it fails must not count twice
        if any(stream.seed == ord("b") and stream.block_index == 1 for stream in streams):
            raise RuntimeError("out of luck")
        return blocks

    alone = run(models, "a").pictures("a")
    monkeypatch.setattr(worker_loop, "advance", failing)
    together = run(models, "a", "b")
    assert together.failures() == {"b": "RuntimeError: out of luck"}
    assert together.pictures("a") == alone


def test_no_more_streams_than_slots(models: Models) -> None:
    link = run(models, "a", "b", "c", latents=3)
    assert link.failures() == {"c": "all 2 slots are taken"}
    assert len(link.pictures("a")) == len(link.pictures("b")) == 3


def test_closed_and_failed_streams_leave_no_slot_behind(models: Models) -> None:
    (pool,) = models.pools.values()
    before = pool.in_use
    link = run(models, "a", latents=3)
    assert pool.in_use == before + 1
    fields = {"height": 64, "width": 64, "rate_hz": 16.0}
    steers = [Steer(at_latent=0, prompt="rain")]
    link = ListLink(
        [
            Open(stream="b", epoch=1, seed=1, steers=steers, **fields),
            Open(stream="b", epoch=2, seed=1, steers=steers, **fields),
            Close(stream="b", epoch=2),
            Open(stream="c", epoch=1, seed=1, steers=steers, snapshot=b"nonsense", **fields),
        ]
    )
    WorkerLoop(link, models, READY, bucket=2, text_s=0.01).run()  # type: ignore[arg-type]
    assert list(link.failures()) == ["c"]
    assert pool.in_use == before + 1


def test_what_a_stream_keeps_does_not_grow(models: Models) -> None:
    steers = [Steer(at_latent=at, prompt=("rain", "the sea")[at % 2]) for at in range(0, 300, 21)]
    message = Open(stream="a", epoch=1, seed=1, height=64, width=64, rate_hz=16.0, steers=steers)
    stream = WorkerStream(models, message)
    credit = Credit(stream="a", epoch=1, denoise_until=10**6, decode_until=10**6, due_s=1.0)
    stream.credit(credit, now_s=0.0)
    held: dict[int, tuple[int, int]] = {}
    while stream.latents.block_index < 90:
        stream.begin_pass()
        (block,) = advance([stream.latents])
        if stream.end_pass(block, 0.01) is not None:
            while stream.frontier.can_decode:
                stream.decode()
            held[stream.latents.block_index] = (stream.nbytes, len(stream.snapshot(10**6).data))
    stream.close()
    kept, packed = zip(*(held[block] for block in range(30, 91, 10)), strict=True)
    assert len(set(kept)) == 1
    assert max(packed) - min(packed) <= 8  # the digits of its latent frame, padded
