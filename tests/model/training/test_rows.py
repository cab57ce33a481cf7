"""The training pass equals diffusers' class for one block, and the stream for many."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from model.stream import LatentStream
from model.training.layout import clip_layout
from model.training.rows import Past, RowsPass
from model.transformer import SanaVideoTransformer3DModel

HEIGHT, WIDTH, TOKENS, CAPTION = 4, 6, 5, 16
CPU = torch.device("cpu")


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
    latents = torch.randn(2, 16, 3, HEIGHT, WIDTH)
    states, mask = _text(2)
    timestep = torch.tensor([731.0, 12.0])
    rows = RowsPass(transformer)
    layout = clip_layout([[3], [3]], 1, None).to(CPU)
    at = layout.clip
    ours, _ = rows(
        latents.transpose(1, 2).flatten(0, 1), timestep[at], rows.project_text(states)[at], mask[at], layout
    )
    expected = theirs(latents, states, timestep, encoder_attention_mask=mask, return_dict=False)[0]
    assert _close(ours.view(2, 3, 16, HEIGHT, WIDTH).transpose(1, 2), expected)


@pytest.mark.parametrize("window", [None, 2])
@pytest.mark.parametrize("lengths", [(3, 3, 3, 3, 3, 3), (1, 4, 2, 5, 3, 1)])
def test_many_blocks_equal_the_stream(transformer: Any, window: int | None, lengths: tuple[int, ...]) -> None:
    """One Euler step a block: clean = noise - v. The prompt changes at blocks 2 and 3, with recache."""
    torch.manual_seed(2)
    prompts = [0, 0, 1, 2, 2, 2]
    states, mask = _text(3)
    frames = sum(lengths)
    noise = torch.randn(frames, 16, HEIGHT, WIDTH)
    stream = LatentStream(
        transformer, text=states[:1], text_mask=mask[:1], height=HEIGHT, width=WIDTH, block=3, first_block=lengths[0],
        timesteps=(1000,), sampler="euler", window=window, noise=lambda frame, _: noise[frame],
    )  # fmt: skip
    streamed = []
    for block, prompt in enumerate(prompts):
        stream.block = lengths[block]
        if block and prompt != prompts[block - 1]:
            stream.steer(states[prompt : prompt + 1], mask[prompt : prompt + 1])
        streamed.append(next(stream)[0].transpose(0, 1))
    clean = torch.cat(streamed)

    rows = RowsPass(transformer)
    plain = clip_layout([lengths], 2, window)
    layout, count, used = plain.padded(60).to(CPU), plain.clean, plain.rows
    told = torch.cat([plain.block[:count] + 1, plain.block[count:]])
    prompt_of_row = F.pad(torch.tensor(prompts)[told], (0, 60 - used))
    text, row_mask = rows.project_text(states)[prompt_of_row], mask[prompt_of_row]
    filler = torch.zeros(60 - used, *noise.shape[1:])
    timestep = torch.full((60,), 1000.0)
    timestep[:count] = 0
    v, _ = rows(torch.cat([clean[:count], noise, noise, filler]), timestep, text, row_mask, layout)
    assert _close(noise - v[count : count + frames], clean)
    assert _close(v[count + frames : used], v[count : count + frames])

    zero = torch.zeros(count)
    _, kept = rows(clean[:count], zero, text[:count], row_mask[:count], plain.clean_part().to(CPU), keep=True)
    assert isinstance(kept, Past)
    part = plain.noisy_part().padded(40).to(CPU)
    index = torch.arange(count, count + 40)
    latents = torch.cat([noise, noise, filler])[:40]
    again, _ = rows(latents, timestep[index], text[index], row_mask[index], part, past=kept)
    assert _close(again[: used - count], v[count:used])


def test_kept_rows_read_and_neighbour_what_they_did() -> None:
    whole = clip_layout([[2, 1, 3], [1, 2, 3]], 2, None)
    kept = whole.kept((whole.copy < 1) | (whole.block == 0))
    assert kept.rows == whole.rows - 6 + 3 - 6
    again = clip_layout([[2, 1, 3], [1, 2, 3]], 1, None)
    assert torch.equal(kept.reads[: again.rows, : again.rows], again.reads)
    nothing = kept.reads.shape[1]
    assert kept.left[again.rows :].tolist() == [nothing, again.rows, nothing]
    assert kept.right[again.rows :].tolist() == [again.rows + 1, nothing, nothing]
