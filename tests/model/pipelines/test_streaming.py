"""The pipelines on checkpoints that stream: block by block, as a stream makes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from calls import TWO, seeded
from torch import Tensor

from model import SanaImageToVideoPipeline, SanaVideoPipeline
from model.checkpoint import load_checkpoint
from model.stream import LatentStream


def stream_of(checkpoint: Any, count: int, **options: Any) -> Tensor:
    text, mask = checkpoint.text.encode("the sea")
    size = {"height": 8, "width": 8, "config": checkpoint.config}
    stream = LatentStream(checkpoint.transformer, text=text, text_mask=mask, **size, **options)
    return torch.cat([next(stream) for _ in range(count)], dim=2)


def test_a_streaming_checkpoint_makes_what_a_stream_shows(tiny_model: Path, streaming: SanaVideoPipeline) -> None:
    checkpoint = load_checkpoint(tiny_model, dtype=torch.float32)
    latents = streaming("the sea", frames=17, output_type="latent", generator=seeded(3)).frames
    torch.testing.assert_close(latents, stream_of(checkpoint, 2, seed=3)[:, :, :5], rtol=0, atol=1e-5)
    pictures = streaming("the sea", frames=17, output_type="np", generator=seeded(3)).frames
    assert pictures.shape == (1, 17, 64, 64, 3)


def test_seeds_of_a_streaming_call(streaming: SanaVideoPipeline) -> None:
    def latents(prompt: Any = "the sea", **options: Any) -> Tensor:
        return streaming(prompt, frames=1, output_type="latent", **options).frames

    generator = seeded(3)
    first, second = latents(generator=generator), latents(generator=generator)
    assert not torch.equal(first, second)
    assert torch.equal(latents(generator=seeded(3), num_videos_per_prompt=2)[:1], first)
    pair = latents(TWO, generator=[seeded(1), seeded(3)])
    assert torch.equal(latents(TWO[1], generator=seeded(3)), pair[1:])
    assert not torch.equal(latents(), latents())
    noise = torch.randn(1, 16, 1, 8, 8)
    assert not torch.equal(latents(latents=noise, generator=seeded(3)), first)
    with pytest.raises(ValueError, match=r"^generator: 1 given, must be one or 2"):
        latents(TWO, generator=[seeded()])
    with pytest.raises(ValueError, match=r"^latents: \(1, 16, 1, 8, 8\)"):
        latents(TWO, latents=noise)


def test_steps_guidance_and_callbacks_of_a_streaming_call(
    streaming: SanaVideoPipeline, caplog: pytest.LogCaptureFixture
) -> None:
    seen: list[tuple[int, float]] = []

    def look(pipeline: Any, step: int, timestep: Tensor, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        seen.append((step, float(timestep)))
        return {"latents": tensors["latents"] * 0}

    options: dict[str, Any] = {"frames": 17, "output_type": "latent", "guidance_scale": 3.0}
    latents = streaming("the sea", timesteps=[1000, 600], callback_on_step_end=look, **options).frames
    assert seen == [(0, 1000), (1, 600), (2, 1000), (3, 600)]
    assert not latents.any()
    caplog.clear()
    assert streaming("the sea", num_inference_steps=3, **options).frames.isfinite().all()
    assert caplog.messages == [
        "num_inference_steps=3: this checkpoint was trained for 2 passes a block",
        "guidance_scale=3: this checkpoint was trained for 1",
    ]
    with pytest.raises(ValueError, match=r"^sigmas: "):
        streaming("the sea", sigmas=[0.5])


def test_an_interrupted_call_gives_the_blocks_that_are_clean(streaming: SanaVideoPipeline) -> None:
    def stop(pipeline: Any, step: int, timestep: Tensor, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        pipeline._interrupt = float(timestep) == 500  # the last pass of the first block
        return {}

    latents = streaming(TWO, frames=33, output_type="latent", callback_on_step_end=stop).frames
    assert latents.shape == (1, 16, 3, 8, 8)


def test_an_image_is_the_first_block_of_a_streaming_call(tiny_model: Path, streaming: SanaVideoPipeline) -> None:
    checkpoint = load_checkpoint(tiny_model, dtype=torch.float32)
    pipeline = SanaImageToVideoPipeline.from_pipe(streaming)
    pipeline.set_progress_bar_config(disable=True)
    assert pipeline.stream_config == checkpoint.config
    picture = torch.randint(0, 256, (1, 64, 64, 3), dtype=torch.uint8)
    image = checkpoint.vae.encode(picture)
    options: dict[str, Any] = {"prompt": "the sea", "frames": 9, "generator": seeded(3), "output_type": "latent"}
    latents = pipeline(image=picture.permute(0, 3, 1, 2) / 255, **options).frames
    expected = stream_of(checkpoint, 2, seed=3, image=image)[:, :, :3]
    torch.testing.assert_close(latents, expected, rtol=0, atol=1e-3)
