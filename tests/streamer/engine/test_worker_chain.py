"""A bidirectional checkpoint in the worker: its streams are clips in a row, and it says so."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import pytest
import torch
from torch import Tensor

from model import VideoStream
from model.chain import advance
from model.checkpoint import load_checkpoint
from model.weights import Kind
from streamer.engine.protocol import Credit, Open, Pictures, Reschedule, Steer
from streamer.engine.worker_models import Models, StreamError
from streamer.engine.worker_stream import WorkerStream
from streamer.engine.worker_warmup import warm_up

SEA, NIGHT = Steer(at_latent=0, prompt="the sea"), Steer(at_latent=5, prompt="snowy mountains at night")
FIRST, BLOCK = 3, 2


@pytest.fixture(scope="module")
def models(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Models:
    """Loaded as bidirectional; its clips of 3 and 2 latent frames in 2 passes, so that they are cheap."""
    folder = tmp_path_factory.mktemp("clips") / "SANA-Video"
    shutil.copytree(tiny_model, folder, ignore=shutil.ignore_patterns("stream.json"))
    loaded = load_checkpoint(folder, dtype=torch.float32)
    assert loaded.kind is Kind.CLIP
    config = dataclasses.replace(
        loaded.config,
        height=64,
        width=64,
        block_latent_frames=(BLOCK,),
        first_block_latent_frames=FIRST,
        timesteps=loaded.config.timesteps[:2],
    )
    return Models(dataclasses.replace(loaded, config=config))


def opened(models: Models, *steers: Steer, until: int = 9, **fields: object) -> WorkerStream:
    options = {"seed": 3, "height": 64, "width": 64, "rate_hz": 16.0, "steers": list(steers) or [SEA], **fields}
    stream = WorkerStream(models, Open(stream="a", epoch=1, **options))
    stream.credit(Credit(stream="a", epoch=1, denoise_until=until, decode_until=until, due_s=1.0), now_s=0.0)
    return stream


def run(stream: WorkerStream, until: int) -> dict[int, list[bytes]]:
    """Pictures by latent frame, up to `until`."""
    shown: dict[int, list[bytes]] = {}
    while stream.frontier.decode_next < until:
        if not stream.frontier.primed and stream.frontier.can_prime:
            stream.prime()
        if stream.frontier.can_decode:
            pictures = stream.decode()
            assert isinstance(pictures, Pictures)
            shown[pictures.latent] = pictures.i420
        else:
            stream.begin_pass()
            (block,) = advance([stream.latents])
            stream.end_pass(block, 0.01)
    return shown


def luma(pictures: list[bytes]) -> Tensor:
    return torch.stack([torch.frombuffer(bytearray(p[: 64 * 64]), dtype=torch.uint8) for p in pictures]).int()


def test_clips_in_a_row_are_shown_as_the_model_makes_them(models: Models) -> None:
    shown = run(opened(models), 7)
    assert [len(shown[latent]) for latent in range(7)] == [1, 4, 4, 4, 4, 4, 4]
    alone = VideoStream(models.checkpoint, prompt="the sea", seed=3)
    for latent in range(7):
        red, green, blue = next(alone).float().flatten(1, 2).unbind(-1)
        expected = 16 + 219 / 255 * (0.2126 * red + 0.7152 * green + 0.0722 * blue)
        assert (luma(shown[latent]) - expected).abs().max() < 2


def test_a_steer_waits_for_the_next_clip(models: Models) -> None:
    plain, steered = run(opened(models), 7), run(opened(models, SEA, NIGHT), 7)
    same = [plain[latent] == steered[latent] for latent in range(7)]
    assert same == [True] * 5 + [False] * 2
    later = opened(models, until=5)
    early = run(later, 5)
    later.reschedule(Reschedule(stream="a", epoch=2, from_latent=5, steers=[NIGHT]))
    later.credit(Credit(stream="a", epoch=2, denoise_until=9, decode_until=9, due_s=1.0), now_s=0.0)
    assert early | run(later, 7) == steered


def test_a_snapshot_of_a_chain_is_taken_up(models: Models) -> None:
    stream = opened(models)
    expected = run(stream, 6)
    snapshot = stream.snapshot(5)
    assert snapshot.latent == 5
    expected |= run(stream, 7)
    again = run(opened(models, snapshot=snapshot.data, decode_from=4), 7)
    assert sorted(again) == [4, 5, 6]
    for latent, pictures in again.items():
        assert (luma(pictures) - luma(expected[latent])).abs().max() <= 1


def test_sizes_of_whole_patches_only(models: Models) -> None:
    with pytest.raises(StreamError, match="64x40 is no size for this checkpoint"):
        opened(models, height=40)


def test_a_chain_is_warmed_up(models: Models) -> None:
    measured = warm_up(models, None, lambda share, what: None)
    assert measured.timings.passes == 2
    assert measured.timings.pass_s > 0
    assert not models.pools  # clips keep no state
