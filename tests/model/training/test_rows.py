"""The training pass equals diffusers' class for one block, and the stream for many."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from model.stream import LatentStream
from model.training.rows import Past, RowsPass, clip_layout
from model.transformer import SanaVideoTransformer3DModel

FRAMES, HEIGHT, WIDTH, TOKENS, CAPTION = 3, 4, 6, 5, 16


@pytest.fixture(scope="module")
def transformer() -> Any:
    """A tiny net with random weights in every parameter."""
    torch.manual_seed(0)
    net = SanaVideoTransformer3DModel(
        num_attention_heads=2, attention_head_dim=12, num_layers=3, num_cross_attention_heads=2,
        cross_attention_head_dim=12, cross_attention_dim=24, caption_channels=CAPTION,
    )  # fmt: skip
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return net.eval().requires_grad_(False)


def _text(count: int) -> tuple[Tensor, Tensor]:
    mask = torch.ones(count, TOKENS)
    mask[:, -2:] = 0
    return torch.randn(count, TOKENS, CAPTION), mask


def _close(a: Tensor, b: Tensor) -> bool:
    return bool((a - b).abs().max() < 1e-4 * b.std())


def test_one_block_equals_diffusers(transformer: Any) -> None:
    from diffusers import SanaVideoTransformer3DModel as Diffusers

    config = {k: v for k, v in transformer.config.items() if not k.startswith("_") and "eps" not in k}
    theirs = Diffusers(**config).eval().requires_grad_(False)
    shapes = {name: tensor.shape for name, tensor in theirs.state_dict().items()}
    theirs.load_state_dict({n: t.reshape(shapes[n]) for n, t in transformer.state_dict().items()})
    torch.manual_seed(1)
    latents = torch.randn(2, 16, FRAMES, HEIGHT, WIDTH)
    states, mask = _text(2)
    timestep = torch.tensor([731.0, 12.0])
    rows = RowsPass(transformer)
    layout = clip_layout(2, 1, 1, FRAMES, None)
    ours, _ = rows(latents, timestep, rows.project_text(states), mask, layout)
    expected = theirs(latents, states, timestep, encoder_attention_mask=mask, return_dict=False)[0]
    assert _close(ours, expected)


@pytest.mark.parametrize("window", [None, 2])
def test_many_blocks_equal_the_stream(transformer: Any, window: int | None) -> None:
    """One Euler step a block: clean = noise - v. The prompt changes at blocks 2 and 3, with recache."""
    torch.manual_seed(2)
    blocks, prompts = 6, [0, 0, 1, 2, 2, 2]
    states, mask = _text(3)
    noise = torch.randn(blocks, 16, FRAMES, HEIGHT, WIDTH)
    stream = LatentStream(
        transformer, text=states[:1], text_mask=mask[:1], height=HEIGHT, width=WIDTH, block=FRAMES,
        timesteps=(1000,), sampler="euler", window=window,
        noise=lambda frame, _: noise[frame // FRAMES, :, frame % FRAMES],
    )  # fmt: skip
    streamed = []
    for block, prompt in enumerate(prompts):
        if block and prompt != prompts[block - 1]:
            stream.steer(states[prompt : prompt + 1], mask[prompt : prompt + 1])
        streamed.append(next(stream)[0])
    clean = torch.stack(streamed)

    rows = RowsPass(transformer)
    layout = clip_layout(1, blocks, 2, FRAMES, window).padded(20)
    used, count = 3 * blocks - 1, layout.clean
    told = torch.cat([layout.block[:count] + 1, layout.block[count:]])
    prompt_of_row = torch.tensor(prompts)[told]
    text, row_mask = rows.project_text(states)[prompt_of_row], mask[prompt_of_row]
    filler = torch.zeros(20 - used, *noise.shape[1:])
    timestep = torch.full((20,), 1000.0)
    timestep[:count] = 0
    v, kept = rows(torch.cat([clean[:-1], noise, noise, filler]), timestep, text, row_mask, layout, keep=True)
    assert _close(noise - v[count : count + blocks], clean)
    assert _close(v[count + blocks : used], v[count : count + blocks])

    assert isinstance(kept, Past)
    part = layout.part(count, used)
    again, _ = rows(
        torch.cat([noise, noise]), timestep[count:used], text[count:used], row_mask[count:used], part, past=kept
    )
    assert _close(again, v[count:used])
