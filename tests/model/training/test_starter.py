"""The shipped checkpoint: small, whole, and a diffusers folder."""

from __future__ import annotations

from pathlib import Path

import torch

from model.checkpoint import load_checkpoint
from model.training.export import LIMIT_BYTES
from model.training.world import vocabulary
from model.video import VideoStream

STARTER = Path(__file__).parents[3] / "model" / "starter"


def test_it_is_small_and_says_what_it_knows() -> None:
    assert sum(file.stat().st_size for file in STARTER.rglob("*") if file.is_file()) <= LIMIT_BYTES
    config = load_checkpoint(STARTER).config
    known = {bank: [entry.name for entry in entries] for bank, entries in config.vocabulary.items()}
    assert known == {bank: [entry["name"] for entry in entries] for bank, entries in vocabulary().items()}


def test_diffusers_opens_and_runs_it() -> None:
    from diffusers import SanaVideoPipeline

    pipeline = SanaVideoPipeline.from_pretrained(STARTER, torch_dtype=torch.float32)
    latents = pipeline(
        "a red balloon over the sea", height=64, width=96, frames=9, num_inference_steps=2, guidance_scale=1.0,
        complex_human_instruction=[], output_type="latent", use_resolution_binning=False,
    ).frames  # fmt: skip
    assert latents.shape == (1, 16, 3, 8, 12)
    assert latents.isfinite().all()


def test_day_is_brighter_than_night_and_a_steer_turns_it() -> None:
    stream = VideoStream.from_pretrained(STARTER, prompt="a green meadow by day, clear sky", seed=3)
    day = [next(stream) for _ in range(3)][-1].float().mean().item()
    stream.steer("the same meadow at night")
    night = [next(stream) for _ in range(6)][-1].float().mean().item()
    assert night < 0.7 * day
