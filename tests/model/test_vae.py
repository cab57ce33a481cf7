"""The streaming decoder against diffusers' own decode of the whole clip, for every form of the architecture."""

from __future__ import annotations

import itertools
from typing import Any

import av
import numpy as np
import pytest
import torch
from diffusers import AutoencoderKLWan
from torch import Tensor

from model.vae import DecodeState, StreamingVAE
from model.vae_decoder import Norm, StreamDecoder

Form = dict[str, Any]
PATCH_2: Form = {"in_channels": 12, "out_channels": 12, "patch_size": 2}
PATCH_4: Form = {"in_channels": 48, "out_channels": 48, "patch_size": 4}
STARTER: Form = {
    "base_dim": 8,
    "dim_mult": [1, 2, 2],
    "num_res_blocks": 1,
    "temperal_downsample": [True, True],
    "is_residual": True,
    **PATCH_2,
}
WAN_2_1: Form = {
    "base_dim": 8,
    "dim_mult": [1, 2, 4, 4],
    "num_res_blocks": 2,
    "temperal_downsample": [False, True, True],
}
WAN_2_2: Form = {**WAN_2_1, "decoder_base_dim": 16, "is_residual": True, **PATCH_2}
SHALLOW: Form = {"base_dim": 8, "dim_mult": [1, 2, 2], "num_res_blocks": 0, "temperal_downsample": [True, False]}
# The shortcut of this one spreads channels over time and space, not one to one.
WIDENING: Form = {**STARTER, "dim_mult": [1, 4, 2], "temperal_downsample": [False, True], **PATCH_4}
FORMS = {"starter": STARTER, "wan2.1": WAN_2_1, "wan2.2": WAN_2_2, "shallow": SHALLOW, "widening": WIDENING}


def make_vae(form: Form, channels: int = 4, seed: int = 0) -> AutoencoderKLWan:
    """A VAE with random values in every parameter, pictures mostly inside [-1, 1]."""
    torch.manual_seed(seed)
    mean, std = torch.randn(channels).tolist(), (torch.rand(channels) + 0.5).tolist()
    vae = AutoencoderKLWan(**form, z_dim=channels, latents_mean=mean, latents_std=std).eval().requires_grad_(False)
    for name, parameter in vae.named_parameters():
        if name.endswith("gamma"):
            parameter.uniform_(0.5, 1.5)
        elif name.endswith("bias"):
            parameter.normal_(0, 0.1)
    vae.decoder.conv_out.weight *= 0.7
    return vae


@pytest.fixture(params=list(FORMS))
def vae(request: pytest.FixtureRequest) -> AutoencoderKLWan:
    return make_vae(FORMS[request.param])


def latents_of(frames: int, channels: int = 4, size: tuple[int, int] = (2, 3), seed: int = 1) -> Tensor:
    return torch.randn(1, channels, frames, *size, generator=torch.Generator().manual_seed(seed))


def whole(vae: AutoencoderKLWan, latents: Tensor) -> Tensor:
    """What diffusers' pipeline does: undo the normalisation, decode the clip."""
    shape = (1, -1, 1, 1, 1)
    mean, std = torch.tensor(vae.config.latents_mean).view(shape), torch.tensor(vae.config.latents_std).view(shape)
    return vae.decode((latents * std + mean).to(vae.dtype)).sample


def streamed(decoder: StreamingVAE, latents: Tensor, state: DecodeState, lengths: list[int]) -> Tensor:
    return torch.cat([decoder.decode_samples(part, state) for part in latents.split(lengths, dim=2)], dim=2)


@pytest.mark.parametrize("lengths", [[1] * 6, [6], [2, 1, 3]], ids=["one by one", "at once", "mixed"])
def test_chunks_equal_the_whole(vae: AutoencoderKLWan, lengths: list[int]) -> None:
    latents = latents_of(6)
    expected = whole(vae, latents)
    assert expected.abs().lt(1).float().mean() > 0.5, "the pictures are saturated: the test would prove nothing"
    decoder = StreamingVAE(vae)
    torch.testing.assert_close(streamed(decoder, latents, decoder.new_state(), lengths), expected, atol=1e-4, rtol=0)


def test_pictures_leave_latent_by_latent(vae: AutoencoderKLWan) -> None:
    decoder, state = StreamingVAE(vae), DecodeState()
    factor = 2 ** sum(vae.config.temperal_downsample)
    for position in range(3):
        pictures = decoder.decode(latents_of(1), state)
        count = 1 if position == 0 else factor
        assert decoder.pictures_in(1, position) == count
        assert pictures.shape == (count, 2 * decoder.spatial_factor, 3 * decoder.spatial_factor, 3)
        assert pictures.dtype == torch.uint8
        assert state.position == position + 1


def test_plain_time_convolution_is_the_same(vae: AutoencoderKLWan) -> None:
    latents = torch.randn(4, 2, 3, 4)
    pairs, plain = StreamDecoder(vae.decoder, pairs=True), StreamDecoder(vae.decoder, pairs=False)
    tails: list[list[Tensor | None]] = [[None] * pairs.tail_count for _ in range(2)]
    expected, got = plain.decode(latents, tails[0], first=False), pairs.decode(latents, tails[1], first=False)
    torch.testing.assert_close(got, expected, atol=1e-4, rtol=0)


def test_streams_taking_turns_do_not_disturb_each_other() -> None:
    decoder = StreamingVAE(make_vae(STARTER))
    clips = [latents_of(4, seed=seed) for seed in (1, 2)]
    alone = [streamed(decoder, clip, decoder.new_state(), [1] * 4) for clip in clips]
    states = [decoder.new_state(), decoder.new_state()]
    turns: list[list[Tensor]] = [[], []]
    for frame, i in itertools.product(range(4), range(2)):
        turns[i].append(decoder.decode_samples(clips[i][:, :, frame : frame + 1], states[i]))
    for i in range(2):
        assert torch.equal(torch.cat(turns[i], dim=2), alone[i])


def test_memory_is_that_of_the_architecture() -> None:
    """28 and 38 latent frames were found by trying (float64, error 0)."""
    assert StreamingVAE(make_vae(STARTER)).memory_latent_frames == 28
    assert StreamingVAE(make_vae(WAN_2_1)).memory_latent_frames == 38


@pytest.mark.parametrize("form", ["starter", "wan2.1", "shallow"])
def test_priming_is_exact_from_the_memory_and_not_from_less(form: str) -> None:
    decoder = StreamingVAE(make_vae(FORMS[form]).double())
    memory = decoder.memory_latent_frames
    latents = latents_of(memory + 4, size=(2, 2)).double()
    expected = streamed(decoder, latents, decoder.new_state(), [1] * (memory + 4))
    start, pictures = memory + 1, decoder.pictures_in(memory + 1, 0)
    state = decoder.new_state()
    errors = []
    for kept in (memory, memory - 1):  # the second time the state is dirty
        decoder.prime(latents[:, :, start - kept : start], state, start - kept)
        assert state.position == start
        got = streamed(decoder, latents[:, :, start:], state, [1] * 3)
        errors.append((got - expected[:, :, pictures:]).abs().max().item())
    assert errors[0] == 0
    assert errors[1] > 0


@pytest.mark.parametrize("kept", [1, 3])
def test_priming_from_the_beginning_is_exact(vae: AutoencoderKLWan, kept: int) -> None:
    decoder = StreamingVAE(vae)
    latents = latents_of(kept + 2)
    state = decoder.new_state()
    decoder.prime(latents[:, :, :kept], state, 0)
    got = streamed(decoder, latents[:, :, kept:], state, [2])
    torch.testing.assert_close(got, whole(vae, latents)[:, :, decoder.pictures_in(kept, 0) :], atol=1e-4, rtol=0)


def test_dirty_state_is_as_good_as_new() -> None:
    decoder = StreamingVAE(make_vae(STARTER))
    latents = latents_of(4)
    expected = streamed(decoder, latents, decoder.new_state(), [1] * 4)
    state = decoder.new_state()
    decoder.decode(latents_of(5, seed=9), state)
    for tail in state.tails:
        assert tail is not None
        tail.fill_(float("nan"))
    state.reset()
    assert torch.equal(streamed(decoder, latents, state, [1] * 4), expected)


def test_state_does_not_grow() -> None:
    decoder, state = StreamingVAE(make_vae(STARTER)), DecodeState()
    decoder.decode(latents_of(2), state)
    size, addresses = state.nbytes, [t.data_ptr() for t in state.tails if t is not None]
    for _ in range(20):
        decoder.decode(latents_of(1), state)
    assert size > 0
    assert state.nbytes == size
    assert [t.data_ptr() for t in state.tails if t is not None] == addresses


def test_uint8_is_the_rounded_picture() -> None:
    decoder = StreamingVAE(make_vae(STARTER))
    latents = latents_of(3)
    samples = decoder.decode_samples(latents, decoder.new_state())[0].permute(1, 2, 3, 0)
    pictures = decoder.decode(latents, decoder.new_state())
    assert torch.equal(pictures, ((samples.double() + 1) * 127.5).round().to(torch.uint8))


@pytest.mark.parametrize("form", ["starter", "wan2.1", "widening"])
def test_yuv_is_bt709_limited(form: str) -> None:
    """Luma and chroma planes by the standard's own formulas, in float64 on the host."""
    decoder = StreamingVAE(make_vae(FORMS[form]))
    latents = latents_of(2)
    samples = decoder.decode_samples(latents, decoder.new_state())[0].double()
    red, green, blue = (samples + 1) / 2
    luma = 0.2126 * red + 0.7152 * green + 0.0722 * blue
    planes = [16 + 219 * luma, 128 + 224 * (blue - luma) / 1.8556, 128 + 224 * (red - luma) / 1.5748]
    pictures = decoder.decode_yuv(latents, decoder.new_state())
    assert len(pictures) == len(luma)
    height, width = luma.shape[1:]
    for i, picture in enumerate(pictures):
        assert len(picture) == height * width * 3 // 2
        values = np.frombuffer(picture, np.uint8).astype(np.float64)
        y, u, v = np.split(values, [height * width, height * width * 5 // 4])
        assert np.abs(y - planes[0][i].flatten().numpy()).max() <= 0.51
        for got, plane in ((u, planes[1][i]), (v, planes[2][i])):
            mean = torch.nn.functional.avg_pool2d(plane[None], 2)[0]
            assert np.abs(got - mean.flatten().numpy()).max() <= 0.51


def test_yuv_comes_back_through_ffmpeg() -> None:
    decoder = StreamingVAE(make_vae(STARTER))
    latents = latents_of(2, size=(8, 8))
    rgb = decoder.decode(latents, decoder.new_state())[1].numpy().astype(int)
    height, width, _ = rgb.shape
    i420 = np.frombuffer(decoder.decode_yuv(latents, decoder.new_state())[1], np.uint8)
    frame = av.VideoFrame.from_ndarray(i420.reshape(height * 3 // 2, width), format="yuv420p")
    back = frame.reformat(format="rgb24", src_colorspace="ITU709", src_color_range="MPEG").to_ndarray().astype(int)
    assert abs(back.mean(axis=(0, 1)) - rgb.mean(axis=(0, 1))).max() < 1.5


def test_bfloat16_is_as_good_as_diffusers() -> None:
    vae = make_vae(STARTER)
    latents = latents_of(6, size=(6, 8))
    expected = whole(vae, latents)
    vae = vae.to(torch.bfloat16)
    decoder = StreamingVAE(vae)
    theirs = (whole(vae, latents).float() - expected).square().mean().sqrt()
    ours = (decoder.decode_samples(latents, decoder.new_state()).float() - expected).square().mean().sqrt()
    assert ours < 1.5 * theirs


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_black_is_no_division_by_zero(dtype: torch.dtype) -> None:
    """A picture element that is zero in every channel stays so."""
    norm = Norm(make_vae(STARTER).to(dtype).decoder.norm_out)
    x = torch.zeros(1, 2, 2, 8, dtype=dtype)
    assert torch.equal(norm(x, out=torch.empty_like(x)), x)


@pytest.mark.parametrize("form", ["starter", "wan2.1"])
def test_encode_is_the_mode_of_the_posterior(form: str) -> None:
    vae = make_vae(FORMS[form])
    vae_stream = StreamingVAE(vae)
    side = 2 * vae_stream.spatial_factor
    pictures = torch.randint(0, 256, (5, side, side, 3), dtype=torch.uint8)
    latents = vae_stream.encode(pictures)
    assert latents.shape == (1, 4, 2, 2, 2)
    clip = pictures.permute(3, 0, 1, 2)[None] / 127.5 - 1
    shape = (1, -1, 1, 1, 1)
    mean, std = torch.tensor(vae.config.latents_mean).view(shape), torch.tensor(vae.config.latents_std).view(shape)
    torch.testing.assert_close(latents * std + mean, vae.encode(clip).latent_dist.mode(), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    "pictures",
    [
        torch.zeros(4, 8, 8, 3, dtype=torch.uint8),
        torch.zeros(1, 12, 8, 3, dtype=torch.uint8),
        torch.zeros(1, 8, 8, 3),
    ],
    ids=["count", "size", "type"],
)
def test_encode_refuses(pictures: Tensor) -> None:
    with pytest.raises(ValueError, match="pictures"):
        StreamingVAE(make_vae(STARTER)).encode(pictures)


def test_decode_refuses_other_shapes() -> None:
    decoder, state = StreamingVAE(make_vae(STARTER)), DecodeState()
    with pytest.raises(ValueError, match="latents must be"):
        decoder.decode(torch.zeros(2, 4, 1, 2, 3), state)
    decoder.decode(latents_of(1), state)
    with pytest.raises(ValueError, match="in a state of"):
        decoder.decode(latents_of(1, size=(4, 4)), state)
    assert state.position == 1


def test_refuses_a_vae_without_statistics() -> None:
    with pytest.raises(ValueError, match="latents_mean"):
        StreamingVAE(AutoencoderKLWan(**SHALLOW, z_dim=4))
