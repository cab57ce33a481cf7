"""Without a state our transformer is diffusers' transformer; its files and adapters are diffusers' too."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import SanaVideoTransformer3DModel as DiffusersTransformer
from reference import TEXT_CHANNELS, make_nets
from torch import Tensor

from model.layers import joined_weight
from model.packed import linear
from model.transformer import OWN_FIELDS, SanaVideoTransformer3DModel


def inputs(frames: int, height: int, width: int, seed: int = 0) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(seed)
    mask = torch.ones(2, 9)
    mask[0, 5:] = 0
    return {
        "hidden_states": torch.randn(2, 4, frames, height, width, generator=generator),
        "encoder_hidden_states": torch.randn(2, 9, TEXT_CHANNELS, generator=generator),
        "encoder_attention_mask": mask,
        "timestep": torch.tensor([999.0, 37.0]),
    }


@torch.no_grad()
def difference(ours: Any, theirs: Any, arguments: dict[str, Any]) -> float:
    a, b = ours(**arguments).sample, theirs(**arguments).sample
    assert a.shape == b.shape
    return float((a - b).abs().max() / b.std())


@pytest.mark.parametrize("per_token", [False, True])
@pytest.mark.parametrize(
    ("config", "size"),
    [
        ({}, (3, 8, 12)),
        ({"head_dim": 32, "heads": 3, "layers": 2}, (1, 4, 4)),
        ({"head_dim": 112, "heads": 2, "layers": 1, "mlp_ratio": 3.0}, (5, 6, 10)),
        ({"head_dim": 20, "patch_size": (1, 1, 1), "layers": 2}, (2, 5, 3)),
        ({"head_dim": 16, "patch_size": (2, 2, 2), "layers": 2, "attention_bias": True}, (4, 8, 4)),
        ({"head_dim": 24, "norm_elementwise_affine": True, "num_cross_attention_heads": 4,
          "cross_attention_head_dim": 12}, (2, 4, 6)),
    ],
)  # fmt: skip
def test_equals_diffusers(config: dict[str, Any], size: tuple[int, int, int], per_token: bool) -> None:
    theirs, ours = make_nets(std=0.2, **config)
    arguments = inputs(*size)
    if per_token:
        grid = [n // p for n, p in zip(size, ours.config.patch_size, strict=True)]
        arguments["timestep"] = torch.rand(2, 1, *grid, generator=torch.Generator().manual_seed(1)) * 1000
    assert difference(ours, theirs, arguments) < 1e-4


def test_equals_diffusers_with_guidance_embeds_and_without_mask() -> None:
    theirs, ours = make_nets(guidance_embeds=True)
    arguments = inputs(2, 4, 4) | {"encoder_attention_mask": None, "guidance": torch.tensor([100.0, 450.0])}
    assert difference(ours, theirs, arguments) < 1e-4


def test_equals_diffusers_while_training() -> None:
    theirs, ours = make_nets()
    arguments = inputs(3, 4, 4)
    for net in (theirs, ours):
        net.requires_grad_(True)
        net(**arguments).sample.square().mean().backward()
    gradients = {name: p.grad for name, p in theirs.named_parameters()}
    for name, parameter in ours.named_parameters():
        expected = gradients[name]
        assert expected is not None
        assert parameter.grad is not None
        scale = expected.abs().max()
        assert float((parameter.grad - expected.view_as(parameter)).abs().max()) <= 1e-3 * float(scale), name


def test_bfloat16_follows_float32() -> None:
    _, ours = make_nets()
    arguments = inputs(3, 8, 8)
    exact = ours(**arguments).sample
    short = ours.to(torch.bfloat16)
    out = short(**(arguments | {"hidden_states": arguments["hidden_states"].bfloat16()})).sample
    assert out.dtype == torch.bfloat16
    assert float((out.float() - exact).abs().mean() / exact.std()) < 0.03


@torch.no_grad()
def test_packed_weights_follow_their_modules() -> None:
    """bfloat16 without gradients runs on packed copies: changing a parameter in place or whole must show."""
    _, net = make_nets(std=0.3)
    net = net.to(torch.bfloat16)
    arguments = inputs(3, 8, 8)

    def agreement() -> float:
        packed = net(**arguments).sample.float()
        with torch.enable_grad():
            plain = net(**arguments).sample.float()
        return float((packed - plain).abs().mean() / plain.std())

    assert agreement() < 0.02
    before = net(**arguments).sample
    block = net.transformer_blocks[1]
    for layer in (block.attn1.to_k, block.attn1.to_out[0], block.attn2.to_q, block.ff.conv_temp):
        layer.weight.mul_(-2)
    assert agreement() < 0.02
    block.ff.conv_point.weight = torch.nn.Parameter(-block.ff.conv_point.weight, requires_grad=False)
    state = {name: value.clone() for name, value in net.state_dict().items()}
    state["transformer_blocks.0.ff.conv_inverted.weight"] *= 1.5
    net.load_state_dict(state)
    assert agreement() < 0.02
    assert float((net(**arguments).sample - before).abs().mean()) > 0.1


@torch.no_grad()
def test_compiled_graphs_hold_no_packed_product() -> None:
    """Inductor can't lower one whose weight it has not packed itself."""
    layer, seen = torch.nn.Linear(8, 4, dtype=torch.bfloat16), list[str]()

    def keep(graph: torch.fx.GraphModule, _: object) -> Any:
        seen.extend(str(node.target) for node in graph.graph.nodes)
        return graph.forward

    torch.compile(lambda x: linear(layer, x), backend=keep)(torch.randn(2, 8).bfloat16())
    assert any("linear" in target for target in seen)
    assert not any("pointwise" in target for target in seen)


def same_weights(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("shard", ["10GB", "60KB"])
def test_files_go_both_ways(tmp_path: Path, shard: str) -> None:
    theirs, ours = make_nets()
    difference(ours, theirs, inputs(1, 4, 4))  # joins weights: they must still save as separate tensors
    ours.save_pretrained(tmp_path / "ours", max_shard_size=shard)
    theirs.save_pretrained(tmp_path / "theirs", max_shard_size=shard)
    back = DiffusersTransformer.from_pretrained(tmp_path / "ours")
    assert same_weights(back.state_dict(), theirs.state_dict())
    loaded = SanaVideoTransformer3DModel.from_pretrained(tmp_path / "theirs")
    assert same_weights(loaded.diffusers_state_dict(), theirs.state_dict())
    assert loaded.state_dict()["transformer_blocks.0.ff.conv_point.weight"].ndim == 2


def test_the_saved_config_has_diffusers_fields(tmp_path: Path) -> None:
    theirs, ours = make_nets()
    ours.save_pretrained(tmp_path / "ours")
    theirs.save_pretrained(tmp_path / "theirs")
    configs = [json.loads((tmp_path / name / "config.json").read_text()) for name in ("ours", "theirs")]
    assert configs[0] == configs[1]
    _, authors = make_nets(authors=True)
    authors.save_pretrained(tmp_path / "authors")
    fields = json.loads((tmp_path / "authors" / "config.json").read_text())
    assert fields.keys() - configs[1].keys() == OWN_FIELDS.keys()
    again = SanaVideoTransformer3DModel.from_pretrained(tmp_path / "authors")
    assert again.transformer_blocks[0].attn2.norm_q.eps == 1e-6


def test_a_lora_made_for_diffusers_works() -> None:
    theirs, ours = make_nets()
    generator = torch.Generator().manual_seed(4)
    adapter: dict[str, Tensor] = {}
    for name in ("attn1.to_q", "attn1.to_v", "attn2.to_k", "ff.conv_inverted", "ff.conv_point"):
        weight = theirs.get_submodule(f"transformer_blocks.1.{name}").weight
        out, width, *kernel = weight.shape
        key = f"transformer_blocks.1.{name}"
        adapter[f"{key}.lora_A.weight"] = torch.randn(2, width, *kernel, generator=generator)
        adapter[f"{key}.lora_B.weight"] = torch.randn(out, 2, *kernel, generator=generator) * 0.1
    arguments = inputs(2, 4, 4)
    before = ours(**arguments).sample
    for net in (theirs, ours):
        net.load_lora_adapter(dict(adapter), prefix=None)
    assert difference(ours, theirs, arguments) < 1e-4
    assert not torch.allclose(ours(**arguments).sample, before, atol=1e-3)
    half = arguments | {"attention_kwargs": {"scale": 0.5}}
    assert difference(ours, theirs, half) < 1e-4
    theirs.fuse_lora()
    ours.fuse_lora()
    assert difference(ours, theirs, arguments) < 1e-4


def test_joined_weights_follow_their_modules() -> None:
    theirs, ours = make_nets()
    arguments = inputs(2, 4, 4)
    assert difference(ours, theirs, arguments) < 1e-4
    attn = ours.transformer_blocks[0].attn1
    parts = (attn.to_q, attn.to_k, attn.to_v)
    address = attn.to_q.weight.data_ptr()
    joined = joined_weight(parts)
    assert joined.data_ptr() == address
    for net in (theirs, ours):
        net.transformer_blocks[0].attn1.to_k.weight.mul_(1.5)
        net.transformer_blocks[1].attn1.to_v.weight = torch.nn.Parameter(
            torch.ones_like(net.transformer_blocks[1].attn1.to_v.weight), requires_grad=False
        )
    assert difference(ours, theirs, arguments) < 1e-4
    assert ours.double().float() is ours
    assert difference(ours, theirs, arguments) < 1e-4
