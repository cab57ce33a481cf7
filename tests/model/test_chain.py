"""Clips in a row: each equals the pipelines' clip, pictures meet at the seams, snapshots and steers at borders."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from model import VideoStream
from model.adapted import Adapter, Factors, adapter_set
from model.chain import ChainStream, advance
from model.chain_vae import ChainVAE
from model.checkpoint import Checkpoint, load_checkpoint
from model.clip import Clip, ClipSpec, checked, maker_of
from model.snapshot import pack, unpack
from model.weights import Kind

FIRST, BLOCK = 4, 3


@pytest.fixture(scope="module")
def checkpoint(tiny_model: Path) -> Checkpoint:
    loaded = load_checkpoint(tiny_model, dtype=torch.float32)
    config = dataclasses.replace(
        loaded.config, block_latent_frames=(BLOCK,), first_block_latent_frames=FIRST, guidance_scale=3.0
    )
    return dataclasses.replace(loaded, kind=Kind.CLIP, config=config)


@pytest.fixture
def vae(checkpoint: Checkpoint) -> ChainVAE:
    return ChainVAE(checkpoint.vae, BLOCK)


def texts(checkpoint: Checkpoint, prompt: str) -> dict[str, Tensor]:
    text, mask = checkpoint.text.encode(prompt)
    negative, negative_mask = checkpoint.text.encode_negative()
    return {"text": text, "text_mask": mask, "negative_text": negative, "negative_mask": negative_mask}


def chain(checkpoint: Checkpoint, prompt: str = "the sea", **options: Any) -> ChainStream:
    return ChainStream(
        checkpoint.transformer,
        checkpoint.vae,
        checkpoint.scheduler,
        height=8,
        width=8,
        config=checkpoint.config,
        **(texts(checkpoint, prompt) | {"seed": 3} | options),
    )


def pictures(vae: ChainVAE, blocks: list[Tensor], state: Any = None) -> Tensor:
    state = vae.new_state() if state is None else state
    frames = torch.cat(blocks, dim=2).split(1, dim=2)
    return torch.cat([vae.decode(frame, state) for frame in frames])


def clip(checkpoint: Checkpoint, seed: int, latents: int, image: Tensor | None = None) -> Tensor:
    made = Clip(
        checkpoint,
        ClipSpec(prompt="the sea", seed=seed, frames=4 * latents - 3, steps=2, guidance_scale=3.0, image=image),
    )
    while not made.finished:
        made.step()
    return torch.cat(list(made.pictures()))


def test_every_clip_is_the_pipelines_and_follows_on_the_last(checkpoint: Checkpoint, vae: ChainVAE) -> None:
    stream = chain(checkpoint)
    shown = pictures(vae, [next(stream) for _ in range(3)])
    expected = clip(checkpoint, 3, FIRST)
    for number in (1, 2):
        following = clip(checkpoint, 3 + number, BLOCK + 1, expected[-1])
        expected = torch.cat([expected, following[1:]])
    assert shown.shape == expected.shape == (13 + 12 + 12, 64, 64, 3)
    assert (shown.int() - expected.int()).abs().max() <= 1
    assert stream.next_frame == FIRST + 2 * BLOCK


def test_a_chain_from_a_picture(checkpoint: Checkpoint, vae: ChainVAE) -> None:
    picture = torch.randint(0, 256, (64, 64, 3), dtype=torch.uint8)
    stream = chain(checkpoint, image=checkpoint.vae.encode(picture[None]))
    assert (stream.next_block, stream.passes_ahead) == (1, 0)
    shown = pictures(vae, [next(stream), next(stream)])
    expected = clip(checkpoint, 4, BLOCK + 1, picture)
    assert (shown.int() - expected.int()).abs().max() <= 1


def test_steps_are_counted(checkpoint: Checkpoint) -> None:
    stream = chain(checkpoint)
    for passes in (2, 3, 3):  # later clips begin with the link
        assert (stream.at_boundary, stream.passes_ahead) == (True, passes)
        for left in range(passes - 1, 0, -1):
            assert advance([stream]) == [None]
            assert (stream.at_boundary, stream.passes_ahead) == (False, left)
        (block,) = advance([stream])
        assert block is not None
    stream.release()
    with pytest.raises(RuntimeError, match="released"):
        next(stream)


def test_a_steer_takes_effect_at_the_next_clip(checkpoint: Checkpoint) -> None:
    plain, steered = chain(checkpoint), chain(checkpoint)
    steered.step()
    steered.steer(**texts(checkpoint, "snowy mountains"))
    assert torch.equal(next(plain), next(steered))
    assert not torch.equal(next(plain), next(steered))
    unguided = chain(checkpoint, guidance_scale=1.0)
    assert not torch.equal(next(unguided), next(chain(checkpoint)))


@pytest.mark.parametrize("clips", [0, 1, 2])
def test_a_restored_chain_goes_on_alike(checkpoint: Checkpoint, clips: int) -> None:
    stream = chain(checkpoint)
    for _ in range(clips):
        next(stream)
    data = pack(stream.snapshot())
    expected = next(stream)
    other = chain(checkpoint, "snowy mountains", seed=9)
    other.step()
    with pytest.raises(RuntimeError, match="between clips"):
        other.snapshot()
    other.restore(unpack(data))
    assert torch.equal(next(other), expected)
    with pytest.raises(ValueError, match="not a snapshot"):
        other.restore({"format": 0})


def test_adapters_change_at_a_border_and_are_found_again(checkpoint: Checkpoint) -> None:
    generator = torch.Generator().manual_seed(1)
    factors = Factors(torch.randn(2, 48, generator=generator), torch.randn(48, 2, generator=generator), 1.0)
    adapter = Adapter("look", "f00d", {"transformer_blocks.0.attn1.to_q": factors}, 2)
    loras = adapter_set([(adapter, 1.0)])
    plain, steered, adapted = chain(checkpoint), chain(checkpoint), chain(checkpoint, loras=loras)
    first = next(plain)
    steered.steer(**texts(checkpoint, "the sea"), loras=loras)
    assert not torch.equal(next(adapted), first)
    wanted = ClipSpec(prompt="the sea", seed=3, frames=4 * FIRST - 3, steps=2)
    maker = maker_of(checkpoint, checked(checkpoint, wanted), loras=loras)
    maker.step()
    assert torch.equal(maker.step(), next(steered)[:, :16])
    snapshot = steered.snapshot()
    with pytest.raises(ValueError, match=r"adapter look .* is not loaded"):
        plain.restore(snapshot)
    other = chain(checkpoint, adapters={"f00d": adapter})
    other.restore(snapshot)
    assert torch.equal(next(other), next(steered))


@pytest.mark.parametrize("start", range(1, FIRST + 2 * BLOCK))
def test_priming_is_exact(checkpoint: Checkpoint, vae: ChainVAE, start: int) -> None:
    stream = chain(checkpoint, guidance_scale=1.0)
    latents = torch.cat([next(stream) for _ in range(3)], dim=2)
    whole, primed = vae.new_state(), vae.new_state()
    pictures(vae, [latents[:, :, :start]], whole)
    first = max(0, start - vae.memory_latent_frames)
    vae.prime(latents[:, :, first:start], primed, first)
    assert primed.position == whole.position == start
    rest = latents[:, :, start:]
    assert (pictures(vae, [rest], primed).int() - pictures(vae, [rest], whole).int()).abs().max() <= 1


def test_a_bidirectional_checkpoint_streams_so(tiny_model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "SANA-Video"
    shutil.copytree(tiny_model, folder, ignore=shutil.ignore_patterns("stream.json"))
    loaded = load_checkpoint(folder, dtype=torch.float32)
    config = loaded.config
    assert (config.height, config.width) == (128, 224)  # of sample_size 8, as 30 is of 480x832
    assert (config.first_block_latent_frames, config.block, len(config.timesteps)) == (21, 20, 50)
    assert (config.guidance_scale, config.shift) == (6.0, 3.0)
    small = dataclasses.replace(config, block_latent_frames=(2,), first_block_latent_frames=3, timesteps=(999.0,))
    options: dict[str, Any] = {"prompt": "the sea", "height": 32, "width": 32}
    stream = VideoStream(dataclasses.replace(loaded, config=small), **options)
    shown = [next(stream) for _ in range(6)]
    assert [len(part) for part in shown] == [1, 4, 4, 4, 4, 4]
    before = stream.snapshot()
    expected = next(stream)
    stream.restore(before)
    assert (next(stream).int() - expected.int()).abs().max() <= 1
