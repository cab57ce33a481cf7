"""`reference` against LongSANA's released arithmetic, and windows that keep a stream within its training."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from reference import make_nets, make_text
from torch import Tensor

from model.checkpoint import load_config
from model.layers import LinearAttention, Past
from model.linear_attention import rotation
from model.precision import PrecisionError
from model.sampler import Denoise, block_steps
from model.source import CheckpointError, resolve
from model.state import StateLayout, StatePool
from model.stream import LatentStream
from model.stream_config import StreamConfig

BF16 = torch.bfloat16


def test_bfloat16_tells_other_timesteps_to_the_network_than_to_the_noise() -> None:
    steps = block_steps((1000, 960, 889, 727), 7.0, commit=False, rounded_to=BF16)
    exact = block_steps((1000, 960, 889, 727), 7.0, commit=False)
    assert all(isinstance(step, Denoise) for step in steps)
    assert [step.timestep for step in steps] == [1000, 960, 888, 728]
    assert [step.sigma for step in steps] == pytest.approx([1, 0.9599574, 0.88796, 0.72840], abs=5e-6)
    assert [step.next_sigma for step in steps] == [step.next_sigma for step in exact]
    assert [step.next_sigma for step in steps] == pytest.approx([0.9599574, 0.8891532, 0.7274097, 0], abs=5e-6)


def plain_reference(
    attention: LinearAttention, x: Tensor, turn: Tensor, before: tuple[Tensor, Tensor] | None
) -> tuple[Tensor, Tensor, Tensor]:
    """The authors' self-attention in bfloat16: its output before the projection, own vk and own k_sum."""

    def positive(layer: torch.nn.Module, norm: torch.nn.Module) -> Tensor:
        y = layer(x).float()
        y = y * torch.rsqrt(y.pow(2).mean(-1, keepdim=True) + 1e-5) * norm.weight.float()
        return y.to(BF16).relu().unflatten(-1, (attention.heads, -1)).permute(0, 2, 3, 1)  # (B, heads, head, tokens)

    def turned(y: Tensor) -> Tensor:
        pairs = torch.view_as_complex(y.transpose(2, 3).double().unflatten(-1, (-1, 2)).contiguous())
        return torch.view_as_real(pairs * turn.to(torch.complex128)).flatten(-2).transpose(2, 3).to(BF16).float()

    q, k = positive(attention.to_q, attention.norm_q), positive(attention.to_k, attention.norm_k)
    v = attention.to_v(x).unflatten(-1, (attention.heads, -1)).permute(0, 2, 3, 1).float()
    vk, k_sum = v @ turned(k).transpose(2, 3), k.sum(-1, keepdim=True).transpose(2, 3)
    own = vk, k_sum
    if before is not None:
        vk, k_sum = vk + before[0], k_sum + before[1]
    z = 1 / (k_sum @ q + 1e-8)
    assert (k_sum.dtype, z.dtype, vk.dtype) == (BF16, BF16, torch.float32)
    return ((vk @ turned(q)) * z).to(BF16).flatten(1, 2).transpose(1, 2), *own


def test_reference_attention_is_the_authors_in_bfloat16() -> None:
    torch.manual_seed(0)
    attention = LinearAttention(
        48, 2, 24, bias=False, qk_norm="rms_norm_across_heads", norm_eps=1e-5, dropout=0.0
    ).to(BF16).eval().requires_grad_(False)  # fmt: skip
    turn = rotation(7, 2, 3, 3, 24, torch.device("cpu"))
    attention.to_out[0].weight.copy_(torch.eye(48))
    attention.to_out[0].bias.zero_()
    before: tuple[Tensor, Tensor] | None = None
    sums = torch.zeros(1, 2, 25, 24)
    with torch.no_grad():
        for _ in range(3):
            x = torch.randn(1, 18, 48).to(BF16)
            past = Past(sums, torch.zeros(1, 9, 48), [0], BF16)
            ours = attention(x, turn[None, :, None], past, 1e-8)
            theirs, vk, k_sum = plain_reference(attention, x, turn, before)
            assert past.own is not None
            assert torch.allclose(past.own[:, :, :-1], vk, atol=1e-4)
            assert torch.equal(past.own[:, :, -1:], k_sum.float())
            assert torch.allclose(ours.float(), theirs.float(), rtol=2**-6, atol=1e-3)
            sums = sums + past.own
            before = (vk, k_sum) if before is None else (before[0] + vk, before[1] + k_sum)


def test_a_bfloat16_sum_of_keys_stalls_and_a_float32_one_does_not() -> None:
    own = torch.full((1, 1, 5, 4), 1.3)
    truth, shares = torch.zeros(1, 1, 5, 4, dtype=torch.float64), {}
    for dtype in (BF16, torch.float32):
        layout = StateLayout(layers=1, heads=1, head_dim=4, channels=4, tokens=1, key_dtype=dtype)
        pool = StatePool(layout, torch.float32, slab=1)
        slot, truth = pool.acquire(), torch.zeros_like(truth)
        plain = torch.zeros((), dtype=BF16)
        for block in range(600):
            pool.commit(slot, block, own, torch.zeros(1, 1, 4))
            truth, plain = truth + own, plain + own[0, 0, 0, 0].to(BF16)
        sums = pool.read(slot)["sums"].double() / truth
        shares[dtype] = float(sums[..., -1, :].mean())
        assert torch.allclose(sums[..., :-1, :], torch.ones_like(sums[..., :-1, :]), rtol=1e-5)
        if dtype == BF16:
            assert torch.equal(pool.read(slot)["sums"][0, 0, -1], plain.float().expand(4))
    assert shares[BF16] < 0.7
    assert shares[torch.float32] == pytest.approx(1, abs=1e-5)


def test_float32_reference_is_precise() -> None:
    _, net = make_nets(authors=True, layers=1)
    text, mask = make_text(0)
    both = [
        LatentStream(net, text=text, text_mask=mask, height=4, width=4, block=1, seed=3, precision=precision)
        for precision in ("precise", "reference")
    ]
    for _ in range(2):
        first, second = (next(stream) for stream in both)
        assert torch.equal(first, second)


def reference_stream(window: int | None = None, decay: float | None = None) -> LatentStream:
    _, net = make_nets(authors=True, layers=1)
    text, mask = make_text(0)
    return LatentStream(net.to(BF16), text=text, text_mask=mask, height=4, width=4, block=1, precision="reference",
                        window=window, decay=decay)  # fmt: skip


def test_reference_refuses_a_running_sum_past_200_blocks() -> None:
    for stream, goes_on in ((reference_stream(), False), (reference_stream(window=2), True)):
        latents = next(stream)
        assert torch.equal(latents, latents.to(BF16).float())
        stream.restore(stream.snapshot() | {"block_index": 199})
        assert next(stream).isfinite().all()
        if goes_on:
            assert next(stream).isfinite().all()
        else:
            with pytest.raises(PrecisionError, match="stalls past 200 blocks"):
                next(stream)


def test_an_endless_stream_has_a_window_as_long_as_its_training() -> None:
    config = StreamConfig().endless()
    assert (config.window_blocks, config.window_group) == (25, 5)  # and the block itself: 26 of 10, 261 latent frames
    assert config.endless() == config
    chosen = StreamConfig(window_blocks=6)
    assert chosen.endless() == chosen
    unknown = StreamConfig.from_dict({"block_latent_frames": [3]})
    assert (unknown.trained_latents, unknown.endless()) == (None, unknown)
    assert StreamConfig(trained_latents=10).endless().window_blocks == 1


def test_reference_without_a_window_is_refused_at_start(tiny_model: Path) -> None:
    assert StreamConfig(precision="reference").endless().window_blocks == 25
    for config in (
        StreamConfig(precision="reference", trained_latents=None),
        StreamConfig(precision="reference", window_blocks=201),
    ):
        with pytest.raises(PrecisionError):
            config.endless()
    source = resolve(tiny_model)
    assert load_config(source).window_blocks == 2
    assert load_config(source, "reference", 3).window_blocks == 3
    everything = load_config(source, window="none")
    assert (everything.window_blocks, everything.precision) == (None, "precise")
    with pytest.raises(CheckpointError, match=r"precision reference: .*window of at most 200 blocks"):
        load_config(source, "reference", "none")


def test_up_to_its_training_the_window_changes_nothing() -> None:
    _, net = make_nets(authors=True, layers=1)
    text, mask = make_text(0)
    open_ended = replace(StreamConfig(), block_latent_frames=(1,), first_block_latent_frames=1, trained_latents=12)
    config = open_ended.endless()
    assert (config.window_blocks, config.window_group) == (9, 3)
    streams = [
        LatentStream(net, text=text, text_mask=mask, height=4, width=4, seed=5, config=each)
        for each in (open_ended, config)
    ]
    for block in range(12):
        running, windowed = (next(stream) for stream in streams)
        same = float((running - windowed).abs().max()) < 1e-4
        assert same == (block < 10), block  # block 10 would read ten blocks, and the window holds nine


@pytest.mark.parametrize(("window", "group", "sink"), [(4, 2, 0), (6, 3, 1), (3, 1, 0)])
def test_a_ring_of_groups_forgets_a_group_at_once(window: int, group: int, sink: int) -> None:
    layout = StateLayout(layers=1, heads=1, head_dim=2, channels=2, tokens=1, window=window, window_group=group,
                         sink=sink, decay=0.5)  # fmt: skip
    pool = StatePool(layout, torch.float32, slab=1)
    slot = pool.acquire()
    owns = torch.randn(12, 1, 1, 3, 2, generator=torch.Generator().manual_seed(0))
    for block, own in enumerate(owns):
        pool.commit(slot, block, own, torch.zeros(1, 1, 2))
        first = max(sink, (block // group - window // group + 1) * group)
        kept = range(first, block + 1)
        true = owns[: min(sink, block + 1)].sum(0) + sum(0.5 ** (block - b) * owns[b] for b in kept)
        assert torch.allclose(pool.read(slot)["sums"], true, atol=1e-6), block
        assert block < window or window - group < len(kept) <= window
    assert pool.read(slot)["ring"].shape[0] == window // group
