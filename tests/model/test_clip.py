"""Clips in steps: what a live stream would have shown, or what diffusers' pipelines make, picture by picture."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from torch import Tensor

from model import VideoStream
from model.checkpoint import Checkpoint, load_checkpoint
from model.clip import Clip, ClipSpec, checked, longsana_first_block, maker_of
from model.schedule import clip_config
from model.weights import Kind

SCHEDULERS = {
    "dpm": diffusers.DPMSolverMultistepScheduler(
        flow_shift=8.0, use_flow_sigmas=True, prediction_type="flow_prediction"
    ),
    "euler": diffusers.FlowMatchEulerDiscreteScheduler(shift=8.0),
}


@pytest.fixture(scope="module")
def streaming(tiny_model: Path) -> Checkpoint:
    return load_checkpoint(tiny_model, dtype=torch.float32)


@pytest.fixture(scope="module")
def bidirectional(streaming: Checkpoint) -> Checkpoint:
    config = clip_config(streaming.config, streaming.scheduler, streaming.transformer.config, 8)
    return dataclasses.replace(streaming, kind=Kind.CLIP, config=dataclasses.replace(config, height=64, width=64))


def spec(**fields: Any) -> ClipSpec:
    return ClipSpec(**{"prompt": "the sea", "seed": 3, "frames": 9} | fields)


def run(clip: Clip) -> Tensor:
    pictures = []
    while not clip.finished:
        before = clip.done
        clip.step()
        assert clip.done == before + 1
        pictures += list(clip.pictures())
    assert clip.done == clip.total
    return torch.cat(pictures)


def latents_of(checkpoint: Checkpoint, wanted: ClipSpec) -> Tensor:
    maker = maker_of(checkpoint, checked(checkpoint, wanted))
    parts = [maker.step() for _ in range(maker.passes_left)]
    assert maker.passes_left == 0
    maker.close()
    return torch.cat([part for part in parts if part is not None], dim=2)


@pytest.mark.parametrize("frames", [1, 2, 22])
def test_a_clip_is_what_a_stream_shows_first(streaming: Checkpoint, frames: int) -> None:
    stream = VideoStream(streaming, prompt="the sea", seed=3)
    expected = torch.cat([next(stream) for _ in range(8)])[:frames]
    assert torch.equal(run(Clip(streaming, spec(frames=frames))), expected)


def test_a_clip_from_a_picture_begins_with_it(streaming: Checkpoint) -> None:
    picture = run(Clip(streaming, spec(frames=1)))[0]
    stream = VideoStream(streaming, prompt="the sea", seed=3, image=picture)
    expected = torch.cat([next(stream) for _ in range(5)])
    assert torch.equal(run(Clip(streaming, spec(frames=17, image=picture))), expected)


def test_guidance_and_steps_of_a_streaming_checkpoint(streaming: Checkpoint) -> None:
    plain = latents_of(streaming, spec())
    assert not torch.equal(plain, latents_of(streaming, spec(steps=3)))
    guided = latents_of(streaming, spec(guidance_scale=3.0))
    assert not torch.equal(plain, guided)
    assert not torch.equal(guided, latents_of(streaming, spec(guidance_scale=3.0, negative_prompt="snow")))


@pytest.mark.parametrize(("latents", "first"), [(3, 3), (10, 10), (19, 19), (20, 10), (21, 11), (41, 11)])
def test_longsana_clips_waste_no_latent_frame(latents: int, first: int) -> None:
    assert longsana_first_block(latents, 10) == first


def test_a_longsana_clip_ends_with_its_last_block(streaming: Checkpoint) -> None:
    longsana = dataclasses.replace(
        streaming,
        kind=Kind.LONGSANA,
        config=dataclasses.replace(streaming.config, first_block_timesteps=None),
    )
    clip = Clip(longsana, spec(frames=25))  # 7 latent frames in blocks of 4 and 3, of 2 passes
    assert clip.total == 2 + 3 + 7
    assert len(run(clip)) == 25


@pytest.mark.parametrize("name", SCHEDULERS)
@pytest.mark.parametrize("image", [False, True])
def test_a_whole_clip_equals_diffusers_pipeline(
    bidirectional: Checkpoint, tiny_model: Path, name: str, image: bool
) -> None:
    checkpoint = dataclasses.replace(bidirectional, scheduler=SCHEDULERS[name])
    kind = diffusers.SanaImageToVideoPipeline if image else diffusers.SanaVideoPipeline
    pipeline = kind.from_pretrained(tiny_model, scheduler=SCHEDULERS[name])
    pipeline.set_progress_bar_config(disable=True)
    picture = torch.randint(0, 256, (64, 96, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    options: dict[str, Any] = {"image": picture.permute(2, 0, 1)[None] / 255} if image else {}
    expected = pipeline(
        prompt="the sea motion score: 30.",
        negative_prompt="snow",
        num_inference_steps=3,
        guidance_scale=4.0,
        height=64,
        width=96,
        frames=9,
        generator=torch.Generator().manual_seed(3),
        use_resolution_binning=False,
        complex_human_instruction=None,
        max_sequence_length=24,
        output_type="latent",
        **options,
    ).frames
    wanted = spec(
        negative_prompt="snow",
        steps=3,
        guidance_scale=4.0,
        height=64,
        width=96,
        motion_score=30,
        image=picture if image else None,
    )
    latents = latents_of(checkpoint, wanted)
    assert (latents - expected).norm() < 1e-4 * expected.norm()
    assert run(Clip(checkpoint, wanted)).shape == (9, 64, 96, 3)


def test_a_whole_clip_defaults_to_what_was_published(bidirectional: Checkpoint) -> None:
    clip = Clip(bidirectional, spec())
    assert clip.total == 50 + 3
    assert clip.unit == "pass"
    clip.close()


def test_closing_early_ends_it(streaming: Checkpoint) -> None:
    clip = Clip(streaming, spec())
    for _ in range(5):
        clip.step()
    assert clip.unit == "decode"
    clip.close()
    clip.close()
    assert clip.finished
    assert not list(clip.pictures())
    with pytest.raises(RuntimeError, match="finished"):
        clip.step()


@pytest.mark.parametrize(
    ("field", "value", "limit"),
    [
        ("height", 40, "multiple of 16"),
        ("width", 0, "multiple of 16"),
        ("frames", 0, "at least 1"),
        ("steps", 0, "1 to 1000"),
        ("guidance_scale", float("nan"), "0 to 50"),
        ("motion_score", 1001, "0 to 1000"),
        ("seed", -1, "0 to"),
        ("prompt", " ", "empty"),
        ("image", torch.zeros(64, 64, 3), r"uint8 \(64, 64, 3\)"),
        ("image", torch.zeros(32, 64, 3, dtype=torch.uint8), r"uint8 \(64, 64, 3\)"),
    ],
)
def test_what_cannot_be_made_is_named(streaming: Checkpoint, field: str, value: Any, limit: str) -> None:
    with pytest.raises(ValueError, match=f"^{field}: .*{limit}"):
        Clip(streaming, spec(**{field: value}))
