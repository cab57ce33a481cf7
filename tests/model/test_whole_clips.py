"""The 720p form: clips by steps equal diffusers' pipelines, whole; it can't stream, and says why."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import diffusers
import pytest
import torch
from torch import Tensor

from model import SanaVideoPipeline, VideoStream
from model.checkpoint import Checkpoint, CheckpointError, load_checkpoint
from model.clip import Clip, ClipSpec, checked, maker_of
from model.schedule import clip_config
from model.text import TextEncoder
from model.weights import Kind
from model.whole_vae import WholeVAE, _Held

CALL: dict[str, Any] = {
    "prompt": "the sea motion score: 30.",
    "negative_prompt": "snow",
    "num_inference_steps": 3,
    "guidance_scale": 4.0,
    "height": 64,
    "width": 96,
    "use_resolution_binning": False,
    "complex_human_instruction": None,
    "max_sequence_length": 24,
}


@pytest.fixture(scope="module")
def checkpoint(tiny_720p: Path) -> Checkpoint:
    """Without the long instruction, which the tiny text encoder has no room for."""
    loaded = load_checkpoint(tiny_720p, dtype=torch.float32)
    config = dataclasses.replace(loaded.config, complex_human_instruction=False, max_tokens=24)
    text = TextEncoder(loaded.text.tokenizer, loaded.text.encoder, config)
    return dataclasses.replace(loaded, config=config, text=text)


def spec(**fields: Any) -> ClipSpec:
    own = {"prompt": "the sea", "negative_prompt": "snow", "seed": 3, "height": 64, "width": 96, "steps": 3}
    return ClipSpec(**own | {"frames": 17, "guidance_scale": 4.0, "motion_score": 30} | fields)


def run(clip: Clip) -> list[Tensor]:
    parts: list[Tensor] = []
    while not clip.finished:
        clip.step()
        parts += clip.pictures()
    return parts


@pytest.mark.parametrize("given", [{"precision": "reference"}, {"window": 3}, {"window": "none"}])
def test_what_only_streams_have_is_refused(tiny_720p: Path, given: dict[str, Any]) -> None:
    with pytest.raises(CheckpointError, match=f"^{next(iter(given))}.* is made for whole clips"):
        load_checkpoint(tiny_720p, **given)


def test_what_it_is(checkpoint: Checkpoint) -> None:
    assert checkpoint.kind is Kind.CLIP
    assert isinstance(checkpoint.vae, WholeVAE)
    assert (checkpoint.vae.spatial_factor, checkpoint.vae.temporal_factor) == (32, 8)
    assert (checkpoint.config.height, checkpoint.config.width) == (64, 128)
    assert checkpoint.config.first_block_latent_frames == 11
    assert (checkpoint.config.lowercase, checkpoint.config.motion_score) == (True, 30)
    published = SimpleNamespace(sample_size=22, patch_size=(1, 1, 1))
    config = clip_config(checkpoint.config, checkpoint.scheduler, published, 32, 8)
    assert (config.height, config.width) == (704, 1280)


@pytest.mark.parametrize("image", [False, True])
def test_a_clip_equals_diffusers_pipeline(checkpoint: Checkpoint, tiny_720p: Path, image: bool) -> None:
    kind = diffusers.SanaImageToVideoPipeline if image else diffusers.SanaVideoPipeline
    pipeline = kind.from_pretrained(tiny_720p)
    pipeline.set_progress_bar_config(disable=True)
    picture = torch.randint(0, 256, (64, 96, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    options: dict[str, Any] = {"image": picture.permute(2, 0, 1)[None] / 255} if image else {}

    def theirs(output: str) -> Tensor:
        generator = torch.Generator().manual_seed(3)
        return pipeline(**CALL, **options, frames=17, generator=generator, output_type=output).frames

    wanted = spec(image=picture if image else None)
    maker = maker_of(checkpoint, checked(checkpoint, wanted))
    *_, latents = (maker.step() for _ in range(3))
    expected = theirs("latent")
    assert latents is not None
    assert (latents - expected).norm() < 1e-4 * expected.norm()
    clip = Clip(checkpoint, wanted)
    assert clip.total == 3 + 3
    parts = run(clip)
    assert [len(part) for part in parts] == [1, 8, 8]
    pictures = torch.cat(parts).permute(0, 3, 1, 2) / 255
    assert (pictures - theirs("pt")[0]).abs().max() < 0.6 / 255 + 1e-4


def test_any_number_of_pictures(checkpoint: Checkpoint) -> None:
    assert [len(part) for part in run(Clip(checkpoint, spec(frames=12, steps=1)))] == [1, 8, 3]
    assert [len(part) for part in run(Clip(checkpoint, spec(frames=1, steps=1)))] == [1]
    with pytest.raises(ValueError, match="height: 48 is not allowed, must be a multiple of 32"):
        Clip(checkpoint, spec(height=48))


def test_what_decoding_takes_is_known_before(checkpoint: Checkpoint) -> None:
    vae = checkpoint.vae
    assert isinstance(vae, WholeVAE)
    with _Held() as held:
        vae.vae.decode(torch.zeros(1, 128, 3, 2, 4))
    assert vae.decode_nbytes(3, 2, 4) == held.most
    small, large = vae.decode_nbytes(5, 4, 4), vae.decode_nbytes(11, 22, 40)
    assert large > 40 * small


def test_it_cannot_stream(checkpoint: Checkpoint, tiny_720p: Path, tmp_path: Path) -> None:
    assert checkpoint.no_streams is not None
    with pytest.raises(ValueError, match=r"clips only: its VAE .* is not causal"):
        VideoStream(checkpoint, prompt="the sea")
    folder = tmp_path / "LongSANA_720p"
    folder.symlink_to(tiny_720p)
    with pytest.raises(CheckpointError, match=r"streams block by block, but its VAE .* whole clips only"):
        load_checkpoint(folder)


def test_pipelines_share_its_parts(checkpoint: Checkpoint) -> None:
    pipeline = SanaVideoPipeline.from_checkpoint(checkpoint)
    pipeline.set_progress_bar_config(disable=True)
    call = CALL | {"num_inference_steps": 1}
    assert pipeline(**call, frames=9, output_type="np").frames.shape == (1, 9, 64, 96, 3)
