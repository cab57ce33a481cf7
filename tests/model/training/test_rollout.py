"""The self-made past of training: enough rounds of it are the stream, few stay near the render."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from words import Words

from model.sampler import Denoise, renoise, sigma_of
from model.stream import LatentStream
from model.training.flow import PLAIN_TIMESTEPS, SHIFT, WINDOW_BLOCKS, Batch, Net
from model.training.rollout import RollOut
from model.transformer import SanaVideoTransformer3DModel

HEIGHT, WIDTH, TOKENS, CAPTION = 4, 6, 5, 16
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def net() -> Net:
    """A tiny net with random weights in every parameter."""
    torch.manual_seed(0)
    transformer = SanaVideoTransformer3DModel(
        num_attention_heads=2, attention_head_dim=12, num_layers=3, num_cross_attention_heads=2,
        cross_attention_head_dim=12, cross_attention_dim=24, caption_channels=CAPTION,
    )  # fmt: skip
    for parameter in transformer.parameters():
        nn.init.normal_(parameter, std=0.2)
    return Net(transformer.eval(), Words(), compiled=False).requires_grad_(False)


def _batch(lengths: list[list[int]]) -> Batch:
    clips, blocks, frames = len(lengths), len(lengths[0]), sum(lengths[0])
    latents = torch.randn(clips, 16, frames, HEIGHT, WIDTH)
    return Batch(
        latents,
        torch.randn(clips, blocks, TOKENS, CAPTION),
        torch.ones(clips, blocks, TOKENS).long(),
        torch.tensor(lengths),
    )


def _streamed(net: Net, batch: Batch, clip: int, noise: Tensor) -> Tensor:
    """What a stream draws from `noise` `(frames, z, h, w)`, its first block led to the clip's after a pass."""
    truth, lengths = batch.frames[clip], batch.lengths[clip].tolist()
    second = sigma_of(PLAIN_TIMESTEPS[1], SHIFT)
    stream = LatentStream(
        net.transformer, text=batch.text[clip, :1], text_mask=batch.mask[clip, :1], height=HEIGHT, width=WIDTH,
        first_block=lengths[0], timesteps=PLAIN_TIMESTEPS, shift=SHIFT, sampler="adams-bashforth",
        window=WINDOW_BLOCKS, noise=lambda frame, _: noise[frame],
    )  # fmt: skip

    def led(step: Denoise, latents: Tensor) -> Tensor:
        if stream.block_index or step.index:
            return latents
        start = truth[: lengths[0]], noise[: lengths[0]]
        return renoise(*start, second).transpose(0, 1)[None]

    stream.on_pass = led
    blocks = []
    for i, length in enumerate(lengths[:-1]):
        stream.block = length
        if i:
            stream.steer(batch.text[clip, i : i + 1], batch.mask[clip, i : i + 1])
        blocks.append(next(stream)[0].transpose(0, 1))
    return torch.cat(blocks)


def test_as_many_rounds_as_blocks_are_the_stream(net: Net, monkeypatch: pytest.MonkeyPatch) -> None:
    lengths = [[1, 2, 3, 2, 1, 1, 2, 1, 2, 1], [3, 1, 1, 2, 1, 2, 1, 2, 1, 2]]
    torch.manual_seed(3)
    batch = _batch(lengths)
    noise = torch.randn(28, 16, HEIGHT, WIDTH)
    given = torch.cat([noise[:15], noise[:14]])  # both clips are asked for the same numbers, frame by frame
    monkeypatch.setattr(torch, "randn_like", lambda like, **_: given if len(like) == 29 else torch.zeros_like(like))
    made = RollOut(net, 32, CPU, anchored=0.0)(batch, rounds=9)
    for clip in range(2):
        expected = _streamed(net, batch, clip, noise)
        assert (made[clip, : len(expected)] - expected).abs().max() < 1e-4 * expected.std()
        last = lengths[clip][-1]
        assert torch.equal(made[clip, -last:], batch.frames[clip, -last:]), "nobody reads the last block"


def test_each_round_reads_what_the_one_before_made(net: Net) -> None:
    batch = _batch([[2, 2, 2, 2]])

    def made(rounds: int) -> Tensor:
        torch.manual_seed(4)
        return RollOut(net, 8, CPU)(batch, rounds)

    once, twice, thrice = made(1), made(2), made(3)
    assert torch.equal(once[:, :2], twice[:, :2]), "the first block reads nothing"
    assert not torch.allclose(once[:, 2:4], twice[:, 2:4])
    assert torch.equal(twice[:, :4], thrice[:, :4]), "after two rounds the second block reads what it always will"
    assert not torch.allclose(twice[:, 4:6], thrice[:, 4:6])


def test_led_blocks_stay_nearer_to_the_render(net: Net) -> None:
    batch = _batch([[2, 2, 2, 2, 2]] * 4)

    def distance(anchored: float) -> float:
        torch.manual_seed(5)
        made = RollOut(net, 32, CPU, anchored)(batch, 1)
        return float((made - batch.frames)[:, 2:8].square().mean())

    assert distance(1.0) < distance(0.0)
