"""Steers inside blocks, on real streams of a tiny model: whatever came when, the video is that of the log."""

from __future__ import annotations

import pytest
import torch
from tiny import save_tiny_model

from model.checkpoint import load_checkpoint
from model.stream import advance
from streamer.engine.protocol import Credit, Denoised, Open, Reschedule, Steer
from streamer.engine.worker_models import Models, StreamError
from streamer.engine.worker_stream import WorkerStream

AT_0 = Steer(at_latent=0, prompt="a red sailboat on the sea")


def night(at_latent: int) -> Steer:
    return Steer(at_latent=at_latent, prompt="snowy mountains at night")


def rain(at_latent: int) -> Steer:
    return Steer(at_latent=at_latent, prompt="a forest at dawn, rain")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    folder = tmp_path_factory.mktemp("cuts")
    cuts = {"block_latent_frames": [3, 1, 2], "steer_block_latent_frames": 2, "cut_blocks": True}
    return Models(load_checkpoint(save_tiny_model(folder, **cuts), dtype=torch.float32))


class Run:
    """One stream, driven by hand."""

    def __init__(self, models: Models, *steers: Steer, snapshot: bytes | None = None, decode_from: int = 0) -> None:
        message = Open(
            stream="a",
            epoch=1,
            seed=5,
            height=64,
            width=64,
            rate_hz=16.0,
            steers=[AT_0, *steers],
            snapshot=snapshot,
            decode_from=decode_from,
        )
        self.stream = WorkerStream(models, message)
        self.pictures: dict[int, list[bytes]] = {}
        self.blocks: list[tuple[int, int]] = []
        self.passes = 0

    def step(self) -> None:
        self.stream.begin_pass()
        (block,) = advance([self.stream.latents])
        self.passes += 1
        if (done := self.stream.end_pass(block, 0.01)) is not None:
            self.blocks.append((done.first_latent, done.latents))

    def denoise(self, until: int) -> Run:
        """Make the blocks that begin below a latent frame."""
        while self.stream.latents.next_frame < until:
            self.step()
        return self

    def decode(self, until: int) -> Run:
        """Make, and decode, the latent frames below this."""
        self.denoise(until)
        self.stream.credit(Credit(stream="a", epoch=1, denoise_until=0, decode_until=until, due_s=0.0), 0.0)
        if self.stream.frontier.can_prime:
            self.stream.prime()
        while self.stream.frontier.can_decode:
            made = self.stream.decode()
            self.pictures[made.latent] = made.i420
        return self

    def steer(self, from_latent: int, *steers: Steer) -> Denoised | None:
        epoch = self.stream.epoch + 1
        message = Reschedule(stream="a", epoch=epoch, from_latent=from_latent, steers=list(steers))
        return self.stream.reschedule(message)


@pytest.fixture(scope="module")
def plain(models: Models) -> dict[int, list[bytes]]:
    run = Run(models).decode(15)
    assert run.blocks == [(0, 3), (3, 3), (6, 3), (9, 3), (12, 3)]
    return run.pictures


@pytest.fixture(scope="module")
def steered(models: Models) -> dict[int, list[bytes]]:
    """What the log with a steer at latent frame 7 stands for."""
    run = Run(models, night(7)).decode(15)
    assert run.blocks == [(0, 3), (3, 3), (6, 1), (7, 2), (9, 3), (12, 3)]
    return run.pictures


def changed(one: dict[int, list[bytes]], other: dict[int, list[bytes]]) -> list[int]:
    return [latent for latent in one if one[latent] != other[latent]]


def test_a_cut_keeps_what_lies_before_it(plain: dict[int, list[bytes]], steered: dict[int, list[bytes]]) -> None:
    assert changed(plain, steered) == list(range(7, 15))


@pytest.mark.parametrize("clean", [9, 12, 15])
def test_a_clean_block_is_cut_without_a_pass(models: Models, steered: dict[int, list[bytes]], clean: int) -> None:
    run = Run(models).decode(4).denoise(clean)
    passes = run.passes
    told = run.steer(7, night(7))
    assert told is not None
    assert (told.block, told.first_latent, told.latents, told.compute_s, told.epoch) == (2, 6, 1, 0.0, 2)
    assert run.stream.frontier.block_start == 7
    assert run.stream.frontier.block_latents == 2
    run.denoise(9)
    assert run.passes - passes == 3  # the commit of one latent frame, and two passes for two
    assert run.decode(15).pictures == steered


@pytest.mark.parametrize("steps", range(6))
def test_a_block_under_way_ends_as_a_clean_one_does(
    models: Models, steered: dict[int, list[bytes]], steps: int
) -> None:
    run = Run(models).decode(6)
    for _ in range(steps):
        run.step()
    run.steer(7, night(7))
    assert run.decode(15).pictures == steered


def test_a_steer_taken_back_leaves_no_trace(models: Models, plain: dict[int, list[bytes]]) -> None:
    run = Run(models).decode(6).denoise(12)
    run.steer(7, night(7))
    run.denoise(9)
    passes = run.passes
    told = run.steer(7)
    assert told is not None
    assert (told.first_latent, told.latents) == (6, 3)
    assert run.passes == passes
    assert run.stream.frontier.block_start == 9
    assert run.decode(15).pictures == plain


def test_cuts_that_move(models: Models, steered: dict[int, list[bytes]]) -> None:
    run = Run(models).decode(6).denoise(12)
    run.steer(8, rain(8))
    run.denoise(14)
    run.steer(6, rain(6))  # at a block's beginning, which cuts nothing
    run.step()
    run.steer(6, night(7))
    assert run.decode(15).pictures == steered


def test_steers_one_after_the_other_cut_each_others_blocks(models: Models) -> None:
    steers = [night(4), rain(5), night(7), rain(12)]
    log = Run(models, *steers).decode(15)
    assert log.blocks == [(0, 3), (3, 1), (4, 1), (5, 2), (7, 2), (9, 3), (12, 2), (14, 3)]
    live = Run(models).decode(4).denoise(9)
    live.steer(4, night(4), rain(12))
    live.denoise(6)
    live.decode(5).steer(5, rain(5), rain(12))
    live.denoise(14)
    live.steer(7, *steers[2:])
    assert live.decode(15).pictures == log.pictures


def test_guidance_that_begins_and_ends_inside_blocks(models: Models) -> None:
    """The second slot comes and goes with it, also when it is taken back and in a snapshot."""
    guided = Steer(at_latent=4, prompt="rain", guidance_scale=3.0, negative_prompt="the sea")
    log = Run(models, guided, night(11)).decode(15)
    (pool,) = models.pools.values()
    live = Run(models).decode(4).denoise(9)
    held = pool.in_use
    live.steer(4, guided)
    assert live.stream.frontier.rows == 2
    live.denoise(9)
    assert pool.in_use == held + 1
    live.steer(4)
    live.denoise(6)
    assert (pool.in_use, live.stream.frontier.rows) == (held, 1)
    live.steer(4, guided)
    live.decode(9).denoise(12)
    live.steer(11, night(11))
    snapshot = live.stream.snapshot(at_most=9)
    assert live.decode(15).pictures == log.pictures
    assert (pool.in_use, live.stream.frontier.rows) == (held, 1)
    again = Run(models, guided, night(11), snapshot=snapshot.data, decode_from=9).decode(15)
    assert again.pictures == {latent: log.pictures[latent] for latent in range(9, 15)}


@pytest.mark.parametrize("kept", [True, False])
def test_a_snapshot_at_a_cut_serves_with_and_without_it(
    models: Models, plain: dict[int, list[bytes]], steered: dict[int, list[bytes]], kept: bool
) -> None:
    """It is taken while the steer may still be taken back: the log decides what it stands for."""
    run = Run(models).decode(7).denoise(12)
    run.steer(7, night(7))
    snapshot = run.denoise(9).stream.snapshot(at_most=7)
    assert snapshot.latent == 7
    for start in (7, 10):
        again = Run(models, *([night(7)] if kept else []), snapshot=snapshot.data, decode_from=start).decode(15)
        expected = steered if kept else plain
        assert again.pictures == {latent: expected[latent] for latent in range(start, 15)}


def test_what_is_locked_or_gone_cannot_be_cut(models: Models) -> None:
    run = Run(models).decode(7)
    with pytest.raises(StreamError, match="locked"):
        run.steer(6, night(6))
    run.stream.frontier.decode_until = 0  # even then: its beginning is forgotten
    run.stream.frontier.decode_next = 0
    with pytest.raises(StreamError, match="no block begins"):
        run.steer(2, night(2))


def test_what_a_stream_keeps_does_not_grow_with_cuts(models: Models) -> None:
    run = Run(models, *(night(at) if at % 2 else rain(at) for at in range(5, 120, 7)))
    held = []
    for latent in range(68, 111, 14):
        held.append(run.decode(latent).stream.nbytes)
    assert len(set(held)) == 1
