"""Fewer bits: what is quantised, how far the flow moves, and what is refused where."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from reference import TEXT_CHANNELS, make_text
from torch import Tensor, nn

from model.adapted import Adapter, Factors, adapted, adapter_set
from model.devices import Placement
from model.layers import TemporalTaps
from model.quantize import SCHEMES, QuantizeError, parse, quantize, require, require_schemes
from model.stream import LatentStream
from model.transformer import SanaVideoTransformer3DModel

CPU = torch.device("cpu")
BLOCK_LINEAR = 11  # attention: 4 and 4; feed-forward: 2 and the temporal convolution's


@pytest.fixture(scope="module")
def net() -> SanaVideoTransformer3DModel:
    torch.manual_seed(0)
    made = SanaVideoTransformer3DModel(
        in_channels=4,
        out_channels=4,
        num_attention_heads=2,
        attention_head_dim=32,
        num_layers=2,
        num_cross_attention_heads=2,
        cross_attention_head_dim=32,
        cross_attention_dim=64,
        caption_channels=TEXT_CHANNELS,
    )
    return made.to(torch.bfloat16).eval().requires_grad_(False)


def blocks(net: SanaVideoTransformer3DModel) -> Tensor:
    text, mask = make_text(0)
    stream = LatentStream(net, text=text, text_mask=mask, height=4, width=4, block=2, sampler="euler",
                          timesteps=(1000, 500), seed=1)  # fmt: skip
    return torch.cat([next(stream) for _ in range(2)], dim=2)


def off(ours: Tensor, true: Tensor) -> float:
    return float((ours - true).norm() / true.norm())


def test_the_temporal_convolution_as_a_matrix_is_the_same_convolution() -> None:
    generator = torch.Generator().manual_seed(0)
    conv = nn.Conv2d(8, 8, (3, 1), padding=(1, 0), bias=False)
    x = torch.randn(2, 8, 5, 6, generator=generator)
    with torch.no_grad():
        assert torch.allclose(TemporalTaps(conv)(x), conv(x), atol=1e-6)


def test_linear_layers_get_at_most_three_dimensions(net: SanaVideoTransformer3DModel) -> None:
    """bitsandbytes' 8-bit product flattens three, and fails on four."""
    changed = copy.deepcopy(net).float()  # bfloat16 packs the weights and passes the layers by
    for block in changed.transformer_blocks:
        block.ff.conv_temp = TemporalTaps(block.ff.conv_temp)
    seen: list[int] = []
    layers = [each for each in changed.transformer_blocks.modules() if isinstance(each, nn.Linear)]
    for layer in layers:
        layer.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].ndim))
    blocks(changed)
    assert len(layers) == BLOCK_LINEAR * len(net.transformer_blocks)
    assert len(seen) >= len(layers)
    assert max(seen) <= 3


@pytest.mark.parametrize(("scheme", "bound"), [("int8", 0.03), ("int8-dynamic", 0.05), ("fp8", 0.08)])
def test_torchao_on_the_cpu(net: SanaVideoTransformer3DModel, scheme: str, bound: float) -> None:
    pytest.importorskip("torchao")
    smaller = copy.deepcopy(net)
    share = quantize(smaller, scheme)
    weights = [each.weight for each in smaller.modules() if type(each) is nn.Linear]
    narrow = [weight for weight in weights if type(weight) is not nn.Parameter]
    assert len(narrow) == 2 * BLOCK_LINEAR + 1  # and one of the caption projection: the other's input is 24 wide
    assert share.quantised == sum(weight.numel() for weight in narrow)
    assert share.total == sum(each.numel() for each in net.parameters())
    assert share.quantised / sum(p.numel() for p in net.transformer_blocks.parameters()) > 0.95
    assert smaller.dtype == torch.bfloat16
    true = blocks(net)
    assert 1e-4 < off(blocks(smaller), true) < bound


def test_an_adapter_on_quantised_layers(net: SanaVideoTransformer3DModel) -> None:
    pytest.importorskip("torchao")
    generator = torch.Generator().manual_seed(3)

    def low(*shape: int) -> Tensor:
        return (1.5 * torch.randn(shape, generator=generator)).to(torch.bfloat16)

    ff = "transformer_blocks.0.ff"
    layers = {
        "transformer_blocks.0.attn1.to_q": Factors(low(4, 64), low(64, 4), 1.0),
        f"{ff}.conv_point": Factors(low(4, 160), low(64, 4), 1.0),
        f"{ff}.conv_temp": Factors(low(4, 64, 3, 1), low(64, 4, 1, 1), 1.0),
    }
    adapter = adapter_set([(Adapter("small", "0" * 64, layers, 4), 1.0)])
    smaller = copy.deepcopy(net)
    quantize(smaller, "int8")
    plain, true = blocks(net), blocks(adapted(net, adapter))
    error = off(blocks(adapted(smaller, adapter)), true)
    assert error < 0.03
    assert off(plain, true) > 10 * error


def test_diffusers_own_config_sees_every_linear_layer(net: SanaVideoTransformer3DModel, tmp_path: Any) -> None:
    pytest.importorskip("torchao")
    from diffusers import TorchAoConfig
    from torchao.quantization import Int8WeightOnlyConfig

    net.save_pretrained(tmp_path)
    loaded = SanaVideoTransformer3DModel.from_pretrained(
        tmp_path, quantization_config=TorchAoConfig(Int8WeightOnlyConfig()), torch_dtype=torch.bfloat16
    ).eval()
    ff = loaded.transformer_blocks[0].ff
    assert all(type(each.weight) is not nn.Parameter for each in (ff.conv_inverted, ff.conv_point))
    assert off(blocks(loaded), blocks(net)) < 0.03


@pytest.mark.parametrize("kind", ["int8", "nf4"])
def test_bitsandbytes_layers_hold_the_same_matrix(kind: str) -> None:
    pytest.importorskip("bitsandbytes")
    from model.quantize import _bitsandbytes

    torch.manual_seed(0)
    layer = nn.Linear(64, 96).to(torch.bfloat16).requires_grad_(False)
    x = torch.randn(5, 64).to(torch.bfloat16)
    smaller = _bitsandbytes(layer, kind)
    assert smaller.weight.dtype in (torch.int8, torch.uint8)
    assert off(smaller(x).float(), layer(x).float()) < (0.02 if kind == "int8" else 0.15)


def test_schemes_are_read_part_by_part() -> None:
    assert parse([]) == {}
    assert parse(["int8"]) == {"transformer": "int8", "text_encoder": "int8"}
    assert parse(["fp8", "text_encoder=bnb4"]) == {"transformer": "fp8", "text_encoder": "bnb4"}
    for text in ("int9", "vae=int8", "transformer="):
        with pytest.raises(QuantizeError, match="--quantize "):
            parse([text])


@pytest.mark.parametrize(
    ("scheme", "device", "dtype", "message"),
    [
        ("bnb4", "cpu", torch.bfloat16, "--quantize bnb4: runs on cuda, not on cpu"),
        ("nvfp4", "mps", torch.bfloat16, "--quantize nvfp4: runs on cuda, not on mps"),
        ("nvfp4", "cuda", torch.bfloat16, "needs a GPU of compute capability 10.0, this one has 8.9"),
        ("fp8-dynamic", "cuda", torch.float32, "needs the rest in bfloat16, not float32"),
    ],
)
def test_what_a_device_lacks_is_said_at_start(
    scheme: str, device: str, dtype: torch.dtype, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 9))
    with pytest.raises(QuantizeError, match=message):
        require(scheme, torch.device(device), dtype)
    require("fp8-dynamic", torch.device("cuda"), torch.bfloat16)


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    for scheme, kind in SCHEMES.items():
        with pytest.raises(QuantizeError, match=f"needs {kind.package}: pip install"):
            require_schemes({"transformer": scheme}, Placement.of("cpu", torch.bfloat16))
