"""Where a checkpoint's parts run: defaults, refusals, and that no op needs what a device lacks.

The device is faked: `meta` under FakeTensorMode stands for an accelerator. Ops that mix it with host tensors raise as
they do on a GPU, and a dispatch mode refuses float64 there (MPS has none), while the host may have it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKLWan, FlowMatchEulerDiscreteScheduler
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import Gemma2Config, Gemma2Model

from model import layers
from model.adapted import Adapter, Factors, adapter_set
from model.denoise import WholeClip
from model.devices import Placement, default_dtype, require_device
from model.linear_attention import _axis
from model.passes import Text
from model.sampler import block_steps
from model.schedule import clip_scheduler
from model.source import CheckpointError
from model.stream import LatentStream, advance
from model.stream_config import StreamConfig
from model.text import TextEncoder
from model.transformer import SanaVideoTransformer3DModel
from model.vae import StreamingVAE

DEVICE = "meta"
WIDE = (torch.float64, torch.complex128)


class NoFloat64(TorchDispatchMode):
    """Refuses float64 on the device, and lists the ops it saw there."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves((args, kwargs, out)):
            if isinstance(leaf, Tensor) and leaf.device.type == DEVICE:
                self.seen.add(str(func))
                if leaf.dtype in WIDE:
                    raise TypeError(f"{func}: {leaf.dtype} on the device")
        return out


@contextmanager
def fake_accelerator() -> Iterator[NoFloat64]:
    _axis.cache_clear()  # it remembers tensors, and must not remember fake ones
    with ExitStack() as stack:
        stack.callback(_axis.cache_clear)
        stack.enter_context(FakeTensorMode(allow_non_fake_inputs=True))
        yield stack.enter_context(NoFloat64())


def make_net(dtype: torch.dtype) -> SanaVideoTransformer3DModel:
    net = SanaVideoTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=12,
        num_layers=1,
        num_cross_attention_heads=2,
        cross_attention_head_dim=12,
        cross_attention_dim=24,
        caption_channels=16,
    )
    return net.to(DEVICE, dtype).eval().requires_grad_(False)


def make_adapter(dtype: torch.dtype) -> Adapter:
    def factors(*shapes: tuple[int, ...]) -> Factors:
        down, up = (torch.empty(shape, dtype=dtype, device=DEVICE) for shape in shapes)
        return Factors(down, up, 0.5)

    block = "transformer_blocks.0"
    adapted = {
        f"{block}.attn1.to_q": factors((2, 24), (24, 2)),
        f"{block}.attn2.to_k": factors((2, 24), (24, 2)),
        f"{block}.ff.conv_temp": factors((2, 24, 3, 1), (24, 2, 1, 1)),
        "patch_embedding": factors((2, 16, 1, 2, 2), (24, 2, 1, 1, 1)),
    }
    return Adapter("look", "0" * 64, adapted, 2)


def make_vae(dtype: torch.dtype) -> StreamingVAE:
    vae = AutoencoderKLWan(
        base_dim=4,
        dim_mult=[1, 2, 2],
        num_res_blocks=1,
        temperal_downsample=[True, True],
        is_residual=True,
        in_channels=12,
        out_channels=12,
        patch_size=2,
        latents_mean=[0.0] * 16,
        latents_std=[1.0] * 16,
    )
    return StreamingVAE(vae.to(DEVICE, dtype))


def text() -> tuple[Tensor, Tensor]:
    """As the text encoder on the host gives it."""
    return torch.randn(1, 6, 16), torch.ones(1, 6, dtype=torch.long)


@pytest.mark.parametrize(
    ("sampler", "precision"), [("renoise", "reference"), ("euler", "precise"), ("adams-bashforth", "precise")]
)
def test_a_stream_keeps_to_its_device_and_needs_no_float64(
    sampler: Any, precision: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two streams in one batch, one guided, a steer with an adapter, a window with groups, a sink, a snapshot."""
    timesteps = (1000, 500)
    block_steps(timesteps, 7.0, commit=True, rounded_to=torch.bfloat16)  # host tables, which the real host makes once
    block_steps(timesteps, 7.0, commit=True)
    # Weights without addresses cannot lie side by side.
    monkeypatch.setattr(layers, "joined_weight", lambda parts: torch.cat([part.weight for part in parts]))
    net = make_net(torch.bfloat16)
    with fake_accelerator() as mode:
        words, mask = text()
        options: dict[str, Any] = {
            "text": words,
            "text_mask": mask,
            "height": 4,
            "width": 4,
            "block": 1,
            "timesteps": timesteps,
            "sampler": sampler,
            "precision": precision,
            "window": 2,
            "sink": 1,
            "decay": 0.9,
        }
        plain = LatentStream(net, **options, seed=1)
        guided = LatentStream(net, **options, seed=2, guidance_scale=2.0, negative_text=words, negative_mask=mask,
                              pool=plain.pool)  # fmt: skip
        blocks: list[Tensor] = []
        while under_way := [stream for stream in (plain, guided) if stream.block_index < 3]:
            blocks += [block for block in advance(under_way, bucket=3) if block is not None]
            if guided.at_boundary:
                guided.steer(*text(), loras=adapter_set([(make_adapter(torch.bfloat16), 0.5)]))
        assert len(blocks) == 6
        assert {(block.device.type, block.dtype) for block in blocks} == {(DEVICE, torch.float32)}
        again = LatentStream(net, **options, seed=1)
        again.restore(plain.snapshot())
        assert next(again).device.type == DEVICE
    assert any("mm" in name for name in mode.seen)
    assert any("bitwise_xor" in name for name in mode.seen)  # the noise is drawn there


@pytest.mark.parametrize("make", [clip_scheduler, FlowMatchEulerDiscreteScheduler])
def test_a_whole_clip_keeps_to_its_device_and_needs_no_float64(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guided, from a picture."""
    monkeypatch.setattr(layers, "joined_weight", lambda parts: torch.cat([part.weight for part in parts]))
    # It looks for a timestep's place by its number, and here they have none.
    monkeypatch.setattr(type(make()), "_init_step_index", lambda self, _: setattr(self, "_step_index", 0))
    net = make_net(torch.bfloat16)
    with NoFloat64():  # not faked: a scheduler's tables are made by numpy
        prompt, negative = (Text.of(net, *text()) for _ in range(2))
        clip = WholeClip(
            make(),
            text=prompt,
            negative=negative,
            guidance_scale=6.0,
            steps=4,
            shape=(3, 4, 4),
            seed=1,
            image=torch.zeros(1, 16, 1, 4, 4),
        )
    with fake_accelerator() as mode:
        latents = [clip.step() for _ in range(4)][-1]
        assert latents is not None
        assert (latents.shape, latents.device.type, latents.dtype) == ((1, 16, 3, 4, 4), DEVICE, torch.float32)
    assert any("mm" in name for name in mode.seen)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_the_decoder_keeps_to_its_device(dtype: torch.dtype) -> None:
    vae = make_vae(dtype)
    with fake_accelerator() as mode:
        state = vae.new_state()
        latents = torch.randn(1, 16, 3, 4, 4, device=DEVICE)
        assert vae.decode(latents[:, :, :1], state).shape == (1, 32, 32, 3)
        assert vae.decode_planes(latents[:, :, 1:2], state).device.type == DEVICE
        again = vae.new_state()
        vae.prime(latents, again, 0)
        assert vae.decode(latents[:, :, :1], again).shape == (4, 32, 32, 3)
        pictures = torch.zeros(5, 32, 32, 3, dtype=torch.uint8)
        assert vae.encode(pictures).device.type == DEVICE
    assert any("convolution" in name for name in mode.seen)


def test_the_text_encoder_needs_no_float64() -> None:
    config = Gemma2Config(
        vocab_size=32,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        query_pre_attn_scalar=8,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    encoder = Gemma2Model(config).to(DEVICE, torch.bfloat16).eval()
    with fake_accelerator() as mode:
        tokens = torch.ones(1, 6, dtype=torch.long, device=DEVICE)
        with torch.no_grad():
            (embeds, *_) = encoder(tokens, attention_mask=torch.ones_like(tokens), use_cache=False, return_dict=False)
        assert (embeds.device.type, embeds.dtype) == (DEVICE, torch.bfloat16)
    assert mode.seen


def test_the_fake_device_catches_what_it_is_there_for() -> None:
    with fake_accelerator():
        here, there = torch.ones(2), torch.ones(2, device=DEVICE)
        with pytest.raises(RuntimeError, match="same device"):
            here + there
        with pytest.raises(TypeError, match="float64 on the device"):
            there.double()
        assert here.double().dtype == torch.float64


def test_defaults_suit_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    bf16, fp16, fp32 = torch.bfloat16, torch.float16, torch.float32
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: not including_emulation)
    place = Placement.of("cuda")
    assert (place.dtype, place.vae_dtype, place.text_dtype, place.text_device.type) == (bf16, bf16, bf16, "cuda")
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation)
    place = Placement.of("cuda")  # a GPU before Ampere: the VAE and Gemma leave float16's range
    assert (place.dtype, place.vae_dtype, place.text_dtype) == (fp16, fp32, fp32)
    monkeypatch.setattr(torch.backends.mps, "is_macos_or_newer", lambda major, minor: False)
    place = Placement.of("mps")
    assert (place.dtype, place.vae_dtype, place.text_dtype) == (fp16, fp32, fp32)
    place = Placement.of("cpu", bf16)
    assert (place.dtype, place.vae_dtype, place.text_dtype) == (bf16, bf16, fp32)
    place = Placement.of("cuda", text_offload=True)
    assert (place.device.type, place.text_device.type) == ("cuda", "cpu")
    assert place.text_dtype == default_dtype("cpu")
    assert Placement.of("cpu", bf16, fp32, bf16).vae_dtype == fp32
    assert Placement.of("cuda", fp32).text_dtype == fp32


LESSER = """
import torch
from torch import nn
from model.devices import Placement
from model.packed import linear

layer, x = nn.Linear(32, 16).bfloat16(), torch.randn(4, 32).bfloat16()
with torch.no_grad():
    assert torch.equal(linear(layer, x), layer(x))
print(Placement.of("cpu").dtype, Placement.of("cpu", torch.bfloat16).vae_dtype)
"""


def test_a_cpu_without_avx512_takes_float32_and_computes_in_bfloat16_if_told_so() -> None:
    forbidden = {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2"}
    told = subprocess.run(
        [sys.executable, "-c", LESSER],
        env=os.environ | forbidden,
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert told.stdout.split() == ["torch.float32", "torch.bfloat16"], told.stderr


@pytest.mark.parametrize(
    ("dtypes", "message"),
    [
        ((torch.float64,), "dtype: the transformer runs in bf16, fp16 or fp32, not float64"),
        ((torch.float16, torch.float16), "vae_dtype: must be bf16 or fp32, not float16"),
        ((None, None, torch.float16), "text_dtype: must be bf16 or fp32, not float16"),
    ],
)
def test_dtypes_outside_the_rules_are_refused(dtypes: tuple[Any, ...], message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        Placement.of("cpu", *dtypes)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nowhere", "must be cpu, cuda, cuda:1 or mps"),
        ("meta", "must be cpu, cuda, cuda:1 or mps"),
        ("", "must be cpu, cuda, cuda:1 or mps"),
        ("cuda:99", ".+"),
        pytest.param(
            "mps",
            "this machine has none",
            marks=pytest.mark.skipif(torch.backends.mps.is_available(), reason="a Mac"),
        ),
    ],
)
def test_a_device_that_is_not_there_is_named(name: str, message: str) -> None:
    with pytest.raises(CheckpointError, match=f"device {name}: {message}"):
        require_device(name)


def test_an_offloaded_text_encoder_delivers_to_the_device(tiny_model: Path) -> None:
    config = StreamConfig.load(tiny_model)
    encoder = TextEncoder.from_pretrained(tiny_model, config, "cpu", output_device=DEVICE)
    embeds, mask = encoder.encode("the sea")
    assert (embeds.device.type, mask.device.type, encoder.encoder.device.type) == (DEVICE, DEVICE, "cpu")
    assert embeds.shape == (1, config.max_tokens, encoder.width)
