"""One simulated hour of a stream: flat memory, finite numbers, and the same video after a restore in the middle."""

from __future__ import annotations

import gc

import torch
from reference import TEXT_CHANNELS
from torch import Tensor

from model.noise import philox_normal
from model.snapshot import pack, unpack
from model.stream import LatentStream, advance
from model.transformer import SanaVideoTransformer3DModel

BLOCK = 10
BLOCKS = 3600 * 16 // (4 * BLOCK)  # an hour at 16 pictures a second, 4 a latent frame
CHANNELS = 4


def make_stream(net: SanaVideoTransformer3DModel) -> LatentStream:
    table = philox_normal(1, 0, 0, (64, CHANNELS, 1, 1))
    return LatentStream(
        net,
        text=torch.ones(1, 2, TEXT_CHANNELS),
        text_mask=None,
        height=1,
        width=1,
        block=BLOCK,
        sampler="euler",
        timesteps=(1000,),
        window=6,
        noise=lambda frame, pass_: table[frame % 61],  # as good as any, and cheaper than a draw
    )


def live_tensors() -> int:
    gc.collect()
    return sum(issubclass(type(thing), Tensor) for thing in gc.get_objects())


def test_an_hour_of_blocks() -> None:
    torch.manual_seed(0)
    net = SanaVideoTransformer3DModel(
        in_channels=CHANNELS,
        out_channels=CHANNELS,
        num_attention_heads=1,
        attention_head_dim=12,
        num_layers=1,
        num_cross_attention_heads=1,
        cross_attention_head_dim=12,
        cross_attention_dim=12,
        caption_channels=TEXT_CHANNELS,
        patch_size=(1, 1, 1),
    ).eval().requires_grad_(False)  # fmt: skip
    stream = make_stream(net)
    size, middle, spans = 0, BLOCKS // 2, []
    early = -1
    for block in range(middle):
        latents = next(stream)
        assert latents.isfinite().all(), block
        if block == 300:  # caches of positions are full
            early, size = live_tensors(), len(pack(stream.snapshot()))
            spans.append(float(latents.std()))
    saved = pack(stream.snapshot())
    assert len(saved) - size < 64  # the digits of the position

    again = make_stream(net)
    again.restore(unpack(saved))
    for block in range(middle, BLOCKS):
        both: list[Tensor | None] = [None, None]
        while both[0] is None:
            both = advance([stream, again])
        assert both[0].isfinite().all(), block
        assert both[1] is not None
        assert torch.equal(both[0], both[1]), block
    spans.append(float(both[0].std()))
    assert stream.next_frame == BLOCKS * BLOCK
    assert stream.pool.nbytes == again.pool.nbytes
    assert 0.5 < spans[1] / spans[0] < 2
    again.release()
    del again, both
    assert live_tensors() <= early + 8
