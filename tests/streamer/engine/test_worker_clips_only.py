"""The worker on a checkpoint that makes clips only: what it measures, what it refuses, how much memory it allows."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from msgspec.structs import replace
from test_worker_clip import Script, clip
from test_worker_loop import READY

from model.checkpoint import load_checkpoint
from streamer.cli import served
from streamer.clips.spec import CreateClip, clip_order
from streamer.engine import worker_warmup
from streamer.engine.protocol import ClipDone, ClipPictures, Failed, Open, Steer
from streamer.engine.worker_clip import clip_info
from streamer.engine.worker_models import Models
from streamer.engine.worker_warmup import most_clip_pixels, warm_up_clips
from streamer.session.errors import Invalid


@pytest.fixture(scope="module")
def models(tiny_720p: Path) -> Models:
    return Models(load_checkpoint(tiny_720p, dtype=torch.float32))


def test_it_is_warmed_up_by_a_tiny_clip(models: Models) -> None:
    said: list[str] = []
    measured = warm_up_clips(models, lambda share, what: said.append(what))
    assert said == ["making a tiny clip"]
    assert (measured.timings.passes, measured.stream_nbytes) == (50, 0)
    assert min(measured.timings.pass_s, measured.timings.decode_s, measured.text_s) > 0


def test_clips_keep_to_their_credit_and_streams_fail(models: Models) -> None:
    opened = Open(
        stream="a", epoch=1, seed=1, height=64, width=128, rate_hz=16.0, steers=[Steer(at_latent=0, prompt="the sea")]
    )
    link = Script(opened, clip(height=64, width=128, frames=20, steps=2, pictures_until=2)).run(models)
    (failed,) = link.of(Failed)
    assert (failed.stream, failed.reason.startswith("clips only: its VAE ")) == ("a", True)
    assert [len(message.rgb) for message in link.of(ClipPictures)] == [1, 8]  # it was asked for two
    assert not link.of(ClipDone)
    link = Script(clip(height=64, width=128, frames=20, steps=2, pictures_until=20)).run(models)
    assert [(message.first_picture, len(message.rgb)) for message in link.of(ClipPictures)] == [
        (0, 1),
        (1, 8),
        (9, 8),
        (17, 3),
    ]
    assert link.of(ClipDone)


def test_clips_that_memory_has_no_room_for_are_refused(models: Models, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = models.checkpoint
    assert most_clip_pixels(checkpoint) is None
    whole = checkpoint.vae.decode_nbytes(11, 2, 4)  # type: ignore[union-attr]
    monkeypatch.setattr(worker_warmup, "free_bytes", lambda device: whole)
    most = most_clip_pixels(checkpoint)
    assert most is not None
    assert 0.69 < most / (81 * 64 * 128) + 7 / 81 < 0.71
    ready = replace(READY, model=replace(READY.model, clips=clip_info(checkpoint, most)))
    assert clip_order(CreateClip(prompt="the sea"), ready).frames == 49  # nobody asked for more
    with pytest.raises(Invalid, match=r"64 pictures of 128x64 .* memory for: 128x64 for 3.06 s at most") as refused:
        clip_order(CreateClip(prompt="the sea", seconds=4), ready)
    assert (refused.value.code, refused.value.field) == ("clip-too-large", "seconds")
    assert clip_order(CreateClip(prompt="the sea", size="64x64"), ready).frames == 64
    ready = replace(ready, model=replace(ready.model, no_streams=checkpoint.no_streams))
    assert served(ready).endswith("make them, of 128x64 up to 3 s: memory has room for no more")
    monkeypatch.setattr(worker_warmup, "free_bytes", lambda device: 1000)
    ready = replace(ready, model=replace(ready.model, clips=clip_info(checkpoint, most_clip_pixels(checkpoint))))
    with pytest.raises(Invalid, match="a smaller size") as refused:
        clip_order(CreateClip(prompt="the sea"), ready)
    assert refused.value.field == "size"
