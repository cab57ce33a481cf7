"""Adapters that diffusers and peft saved, against diffusers' own class with them; and streams under them."""

from __future__ import annotations

import copy
import hashlib
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import SanaVideoPipeline
from diffusers import SanaVideoTransformer3DModel as DiffusersTransformer
from diffusers.training_utils import _collate_lora_metadata
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict
from reference import make_nets, make_noise, make_text
from safetensors.torch import save_file
from torch import Tensor

from model.adapted import Adapter, AdapterSet, adapted, adapter_set
from model.lora import load_adapter
from model.lora_source import AdapterError, LoraOption, adapter_hash
from model.snapshot import pack, unpack
from model.stream import LatentStream, advance, new_pool
from model.transformer import SanaVideoTransformer3DModel

H, W = 8, 8
ATTENTION = ["to_q", "to_k", "to_v", "to_out.0"]
CONVOLUTIONS = ["conv_inverted", "conv_point", "conv_temp"]
OTHERS = ["patch_embedding", "proj_out", "time_embed.linear", "linear_1", "linear_2"]
Saver = Callable[[DiffusersTransformer, LoraConfig, Path], Path]


def trained(net: DiffusersTransformer, config: LoraConfig, seed: int = 3) -> DiffusersTransformer:
    """A copy of the net with an adapter of random numbers."""
    net = copy.deepcopy(net)
    net.add_adapter(config, adapter_name="default")
    fill(net, seed)
    return net.eval().requires_grad_(False)


def fill(net: torch.nn.Module, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in sorted(net.named_parameters()):
        if "lora_" in name:
            parameter.data.copy_(
                0.3 * torch.randn(parameter.shape, generator=generator) / parameter[0].numel() ** 0.5
            )


def as_diffusers(net: DiffusersTransformer, config: LoraConfig, folder: Path) -> Path:
    """`pytorch_lora_weights.safetensors`, as diffusers' training scripts leave it."""
    SanaVideoPipeline.save_lora_weights(
        folder,
        transformer_lora_layers=get_peft_model_state_dict(net, adapter_name="default"),
        **_collate_lora_metadata({"transformer": net}),
    )
    return folder


def as_peft(net: DiffusersTransformer, config: LoraConfig, folder: Path) -> Path:
    """`adapter_model.safetensors` and `adapter_config.json`, as peft's model leaves them."""
    plain = copy.deepcopy(net)
    plain.delete_adapters("default")
    whole = get_peft_model(plain, config)
    fill_from = {name.replace(".weight", ".default.weight"): v for name, v in get_peft_model_state_dict(net).items()}
    found = whole.base_model.model.load_state_dict(fill_from, strict=False)
    assert not found.unexpected_keys
    whole.save_pretrained(folder)
    return folder


def inputs() -> dict[str, Any]:
    generator = torch.Generator().manual_seed(8)
    text, mask = make_text(1)
    return {
        "hidden_states": torch.randn(1, 4, 3, H, W, generator=generator),
        "encoder_hidden_states": text,
        "encoder_attention_mask": mask,
        "timestep": torch.tensor([700.0]),
        "return_dict": False,
    }


@torch.no_grad()
def gap(one: Any, other: Any) -> float:
    return float((one(**inputs())[0] - other(**inputs())[0]).abs().max())


def one(adapter: Adapter, weight: float = 1.0) -> AdapterSet:
    return adapter_set([(adapter, weight)])


@pytest.mark.parametrize("save", [as_diffusers, as_peft])
@pytest.mark.parametrize(
    "options",
    [
        {"target_modules": ATTENTION},
        {"target_modules": ATTENTION + CONVOLUTIONS + OTHERS, "lora_alpha": 6},
        {"target_modules": ["to_q", "conv_point"], "use_rslora": True},
        {
            "target_modules": ["to_q", "to_k", "conv_inverted"],
            "rank_pattern": {"to_k": 2, "transformer_blocks.0.ff.conv_inverted": 5},
            "alpha_pattern": {"to_q": 7},
        },
    ],
    ids=["attention", "all", "rslora", "patterns"],
)
def test_an_adapter_computes_what_diffusers_class_computes(save: Saver, options: Any, tmp_path: Path) -> None:
    theirs, ours = make_nets()
    config = LoraConfig(**{"r": 4, "lora_alpha": 8, **options})
    net = trained(theirs, config)
    adapter = load_adapter(save(net, config, tmp_path / "ink"), ours)
    assert gap(theirs, net) > 0.02
    assert gap(adapted(ours, one(adapter)), net) < 1e-5
    net.set_adapters(["default"], [-0.4])
    assert gap(adapted(ours, one(adapter, -0.4)), net) < 1e-5


def test_a_depthwise_convolution_takes_both_kinds_of_factors(tmp_path: Path) -> None:
    theirs, ours = make_nets(layers=1)
    config = LoraConfig(r=240, lora_alpha=100, target_modules=["conv_depth"])
    net = trained(theirs, config)
    adapter = load_adapter(as_diffusers(net, config, tmp_path / "peft"), ours)
    assert gap(theirs, net) > 1e-3
    assert gap(adapted(ours, one(adapter)), net) < 1e-5

    name = "transformer_blocks.0.ff.conv_depth"
    down, up = torch.randn(2, 1, 3, 3), torch.randn(240, 2, 1, 1)
    save_file({f"{name}.lora_A.weight": down, f"{name}.lora_B.weight": up}, tmp_path / "kernel.safetensors")
    adapter = load_adapter(tmp_path / "kernel.safetensors", ours)
    merged = copy.deepcopy(ours)
    merged.transformer_blocks[0].ff.conv_depth.weight += (up.flatten(1) @ down.flatten(1)).view(240, 1, 3, 3)
    assert gap(adapted(ours, one(adapter)), merged) < 1e-4


def attention_factors(net: DiffusersTransformer) -> dict[str, Tensor]:
    return {key: value for key, value in get_peft_model_state_dict(net).items() if ".attn" in key}


def old_diffusers(factors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {
        "transformer." + key.replace("lora_A", "lora.down").replace("lora_B", "lora.up"): value
        for key, value in factors.items()
    }


def kohya(factors: dict[str, Tensor]) -> dict[str, Tensor]:
    named = {}
    for key, value in factors.items():
        module, _, part = key.partition(".lora_")
        flat = "lora_unet_" + module.replace(".", "_")
        named[f"{flat}.lora_{'down' if part[0] == 'A' else 'up'}.weight"] = value
        named[f"{flat}.alpha"] = torch.tensor(8.0)
    return named


def comfy(factors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"diffusion_model.{key}": value for key, value in factors.items()}


@pytest.mark.parametrize(("rename", "alpha"), [(old_diffusers, 4), (kohya, 8), (comfy, 4)])
def test_other_names_mean_the_same(rename: Any, alpha: int, tmp_path: Path) -> None:
    theirs, ours = make_nets(layers=2)
    net = trained(theirs, LoraConfig(r=4, lora_alpha=alpha, target_modules=ATTENTION))
    save_file(rename(attention_factors(net)), tmp_path / "ink.safetensors")
    adapter = load_adapter(tmp_path / "ink.safetensors", ours)
    assert adapter.name == "ink"
    assert gap(adapted(ours, one(adapter)), net) < 1e-5


@pytest.mark.parametrize(
    ("joined", "parts"),
    [
        ("blocks.1.attn.qkv", ("attn1.to_q", "attn1.to_k", "attn1.to_v")),
        ("base_model.model.blocks.1.cross_attn.kv_linear", ("attn2.to_k", "attn2.to_v")),
        ("transformer.transformer_blocks.1.attn1.to_qkv", ("attn1.to_q", "attn1.to_k", "attn1.to_v")),
    ],
)
def test_factors_of_joined_projections_are_divided(joined: str, parts: tuple[str, ...], tmp_path: Path) -> None:
    _, ours = make_nets(layers=2)
    down, up = torch.randn(3, 48) / 7, torch.randn(48 * len(parts), 3) / 2
    save_file({f"{joined}.lora_A.weight": down, f"{joined}.lora_B.weight": up}, tmp_path / "a.safetensors")
    merged = copy.deepcopy(ours)
    for part, rows in zip(parts, up.chunk(len(parts)), strict=True):
        merged.get_submodule(f"transformer_blocks.1.{part}").weight += rows @ down
    view = adapted(ours, one(load_adapter(tmp_path / "a.safetensors", ours)))
    assert gap(ours, merged) > 1e-2
    assert gap(view, merged) < 1e-5


def saved(net: DiffusersTransformer, name: str, folder: Path) -> Path:
    file = folder / f"{name}.safetensors"
    save_file(get_peft_model_state_dict(net, adapter_name=name), file)
    return file


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A net with two adapters, one of them on every kind of layer, the same two for ours, and ours merged."""
    folder = tmp_path_factory.mktemp("adapters")
    theirs, ours = make_nets(layers=2)
    config = LoraConfig(r=4, lora_alpha=4, target_modules=ATTENTION + CONVOLUTIONS + OTHERS)
    net = trained(theirs, config)
    net.add_adapter(LoraConfig(r=2, lora_alpha=2, target_modules=["to_q", "conv_point"]), adapter_name="second")
    fill(net, 4)
    first, second = (load_adapter(saved(net, name, folder), ours) for name in ("default", "second"))
    net.set_adapters(["default", "second"], [0.5, -1.5])
    merged = copy.deepcopy(net)
    merged.fuse_lora(adapter_names=["default", "second"])
    merged.unload_lora()
    ours_merged = make_nets(layers=2)[1]
    ours_merged.load_state_dict(merged.state_dict())
    return {
        "net": net,
        "ours": ours,
        "merged": ours_merged,
        "set": adapter_set([(first, 0.5), (second, -1.5)]),
        "first": first,
        "second": second,
    }


def test_several_adapters_add_up_in_any_order(pair: dict[str, Any]) -> None:
    assert pair["set"] == adapter_set([(pair["second"], -1.5), (pair["first"], 0.5)])
    assert gap(adapted(pair["ours"], pair["set"]), pair["net"]) < 1e-5
    assert gap(pair["merged"], pair["net"]) < 1e-5


def test_a_view_is_one_for_equal_sets_and_leaves_the_net_alone(pair: dict[str, Any]) -> None:
    ours, before = pair["ours"], pair["ours"](**inputs())[0]
    view = adapted(ours, pair["set"])
    assert adapted(ours, adapter_set([(pair["first"], 0.5), (pair["second"], -1.5)])) is view
    assert adapted(ours, one(pair["first"], 0.0)) is ours
    assert {id(p) for p in view.parameters()} == {id(p) for p in ours.parameters()}
    assert gap(view, ours) > 1e-2
    assert torch.equal(ours(**inputs())[0], before)


def test_hooks_that_would_run_the_plain_layers_are_refused(pair: dict[str, Any]) -> None:
    hooked = copy.deepcopy(pair["ours"])
    block = hooked.transformer_blocks[0]
    block.forward = block.forward
    with pytest.raises(ValueError, match="can't be laid over a TransformerBlock"):
        adapted(hooked, pair["set"])


def test_adapters_lie_over_quantised_layers(pair: dict[str, Any], tmp_path: Path) -> None:
    pytest.importorskip("torchao")
    from model.quantize import quantize

    eight = copy.deepcopy(pair["ours"])
    quantize(eight, "int8")
    error = gap(eight, pair["ours"])
    assert 0 < error < 0.1
    view = adapted(eight, one(load_adapter(saved(pair["net"], "default", tmp_path), eight)))
    assert gap(view, eight) > 1e-2
    assert gap(view, adapted(pair["ours"], one(pair["first"]))) < 2 * error


# -- streams -------------------------------------------------------------------------------------------------------


def make_stream(net: SanaVideoTransformer3DModel, seed: int = 1, **options: Any) -> LatentStream:
    text, mask = make_text(seed)
    given = {"noise": make_noise(5, 4, H, W), "block": 1, "first_block": 2, "timesteps": [1000, 500], **options}
    return LatentStream(net, text=text, text_mask=mask, height=H, width=W, **given)


def run(stream: LatentStream, blocks: int) -> Tensor:
    return torch.cat([next(stream) for _ in range(blocks)], dim=2)


@pytest.mark.parametrize("guidance", [1.0, 2.5])
def test_a_stream_with_adapters_equals_one_of_the_merged_net(pair: dict[str, Any], guidance: float) -> None:
    negative, negative_mask = make_text(9)
    options = {"guidance_scale": guidance, "negative_text": negative, "negative_mask": negative_mask}
    ours = run(make_stream(pair["ours"], loras=pair["set"], **options), 3)
    assert float((ours - run(make_stream(pair["merged"], **options), 3)).abs().max()) < 1e-5 * guidance
    assert float((ours - run(make_stream(pair["ours"], **options), 3)).abs().max()) > 1e-2


@pytest.mark.parametrize("same_text", [True, False])
def test_after_a_swap_a_stream_goes_on_as_one_of_the_merged_net(pair: dict[str, Any], same_text: bool) -> None:
    negative, negative_mask = make_text(9)
    options = {"guidance_scale": 2.0, "negative_text": negative, "negative_mask": negative_mask}
    stream, merged = make_stream(pair["ours"], **options), make_stream(pair["merged"], **options)
    run(stream, 2)
    merged.restore(stream.snapshot())
    text = make_text(1 if same_text else 2)
    stream.steer(*text, loras=pair["set"])
    merged.steer(*text)
    swapped = run(stream, 2)
    assert float((swapped - run(merged, 2)).abs().max()) < 2e-5

    # A steer that says nothing of adapters keeps them; an empty set takes them off.
    stream.steer(*make_text(3))
    merged.steer(*make_text(3))
    assert float((run(stream, 1) - run(merged, 1)).abs().max()) < 2e-5
    plain = make_stream(pair["ours"], loras=pair["set"], **options)
    plain.restore(stream.snapshot())
    for each in (stream, plain):
        each.steer(*make_text(3), loras=adapter_set([]))
    assert torch.equal(run(stream, 1), run(plain, 1))


def test_without_recache_the_commit_is_under_the_adapters_before(pair: dict[str, Any]) -> None:
    stream = make_stream(pair["ours"], recache=False)
    other = make_stream(pair["ours"], recache=False)
    run(stream, 1)
    run(other, 1)
    stream.steer(*make_text(1), loras=pair["set"])
    for each in (stream, other):
        advance([each])  # the commit
    assert torch.equal(stream.pool.read(stream.slots[0])["tail"], other.pool.read(other.slots[0])["tail"])
    assert not torch.equal(next(stream), next(other))


def test_streams_of_one_batch_run_as_alone_each_under_its_own_set(pair: dict[str, Any]) -> None:
    ours = pair["ours"]
    sets = [adapter_set([]), pair["set"], one(pair["first"]), pair["set"], adapter_set([])]
    alone = [run(make_stream(ours, seed, loras=loras), 2) for seed, loras in enumerate(sets, 1)]

    pool = new_pool(ours, H, W)
    streams = [make_stream(ours, seed, loras=loras, pool=pool) for seed, loras in enumerate(sets, 1)]
    blocks: list[list[Tensor]] = [[] for _ in streams]
    while min(map(len, blocks)) < 2:
        for made, block in zip(blocks, advance(streams, bucket=1), strict=True):
            if block is not None:
                made.append(block)
    for made, expected in zip(blocks, alone, strict=True):
        assert torch.equal(torch.cat(made, dim=2), expected)


def test_who_shares_the_batch_does_not_touch_the_bits_of_a_stream_without_adapters(pair: dict[str, Any]) -> None:
    """Also in bfloat16 on the CPU, where weights are packed."""
    ours = copy.deepcopy(pair["ours"]).to(torch.bfloat16)
    factors = {n: type(f)(f.down.bfloat16(), f.up.bfloat16(), f.scale) for n, f in pair["first"].layers.items()}
    half = Adapter("half", pair["first"].sha256, factors, 4)

    def both(loras: AdapterSet) -> Tensor:
        pool = new_pool(ours, H, W)
        streams = [make_stream(ours, seed, pool=pool) for seed in (1, 2)]
        streams[1].steer(*make_text(2), loras=loras)
        made: list[Tensor] = []
        while len(made) < 2:
            block = advance(streams, bucket=2)[0]
            if block is not None:
                made.append(block)
        return torch.cat(made, dim=2)

    assert torch.equal(both(one(half)), both(adapter_set([])))

    small = adapted(ours, one(half, 1e-9))
    exact = ours(**{**inputs(), "hidden_states": inputs()["hidden_states"].bfloat16()})[0]
    nearly = small(**{**inputs(), "hidden_states": inputs()["hidden_states"].bfloat16()})[0]
    assert float((exact - nearly).abs().max()) < 0.05 * float(exact.abs().max())


def test_a_snapshot_holds_the_set(pair: dict[str, Any]) -> None:
    stream = make_stream(pair["ours"], loras=pair["set"], noise=None, seed=4)
    run(stream, 2)
    content = unpack(pack(stream.snapshot()))
    expected = run(stream, 2)
    known = {adapter.sha256: adapter for adapter in (pair["first"], pair["second"])}
    other = make_stream(pair["ours"], noise=None, adapters=known)
    other.restore(content)
    assert torch.equal(run(other, 2), expected)
    with pytest.raises(ValueError, match=r"adapter default .* is not loaded"):
        make_stream(pair["ours"]).restore(content)


# -- limits and errors ---------------------------------------------------------------------------------------------


def test_the_limits_of_a_set(pair: dict[str, Any]) -> None:
    adapter_set([(pair["first"], 0.1 * n) for n in range(9)])
    with pytest.raises(ValueError, match="at most 8 adapters a stream, not 9"):
        adapter_set([(pair["first"], 0.1)] * 9)
    for weight in (4.1, -5.0, math.nan):
        with pytest.raises(ValueError, match="weight of default: must be -4 to 4"):
            adapter_set([(pair["first"], weight)])


Q = "transformer_blocks.0.attn1.to_q"
GOOD = {f"{Q}.lora_A.weight": torch.zeros(2, 48), f"{Q}.lora_B.weight": torch.zeros(48, 2)}


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({}, "holds no LoRA factors"),
        ({**GOOD, "text_encoder.layers.0.q_proj.lora_A.weight": torch.zeros(2, 3)}, "there is no lora_B of text_enc"),
        ({**GOOD, f"{Q}.lora_B.bias": torch.zeros(48)}, f"unexpected key {Q}.lora_B.bias"),
        ({**GOOD, f"{Q}.lora_magnitude_vector": torch.zeros(48)}, "DoRA adapters can't be loaded"),
        ({f"{Q}.lora_A.weight": torch.zeros(2, 48)}, f"beside {Q}.lora_A.weight there is no lora_B of {Q}"),
        ({**GOOD, f"{Q}.lora_A.weight": torch.zeros(2, 47)}, r"lora_A.weight has shape \(2, 47\), not \(2, 48\)"),
        ({**GOOD, f"{Q}.lora_B.weight": torch.zeros(48, 3)}, r"lora_B.weight has shape \(48, 3\), not \(48, 2\)"),
        (
            {**GOOD, f"{Q}.lora_A.weight": torch.full((2, 48), math.nan)},
            "lora_A.weight holds what is no finite number",
        ),
        ({**GOOD, f"{Q}.lora_A.weight": torch.zeros(513, 48)}, "rank 513, must be 1 to 512"),
        (
            {k.replace("_blocks.0", "_blocks.7"): v for k, v in GOOD.items()},
            "no layer transformer_blocks.7.attn1.to_q",
        ),
        ({**GOOD, f"{Q}.alpha": torch.zeros(2)}, f"{Q}.alpha must be one number"),
        ({**GOOD, f"transformer.{Q}.lora_A.weight": torch.zeros(2, 48)}, "says the same as"),
    ],
)
def test_what_does_not_fit_is_named(tensors: dict[str, Tensor], message: str, tmp_path: Path) -> None:
    file = tmp_path / "bad.safetensors"
    save_file(tensors, file)
    with pytest.raises(AdapterError, match=message) as caught:
        load_adapter(file, make_nets(layers=1)[1])
    assert str(caught.value).startswith(str(file))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"peft_type": "LOHA"}, "peft_type 'LOHA' is not LORA"),
        ({"peft_type": "LORA", "r": 3}, "rank 2, adapter_config.json says 3"),
        ({"peft_type": "LORA", "r": 2, "use_dora": True}, "DoRA"),
        ({"peft_type": "LORA", "r": 2, "init_lora_weights": "pissa"}, "other base weights"),
        ([], "must be a JSON object"),
    ],
)
def test_a_config_that_means_something_else_is_refused(config: Any, message: str, tmp_path: Path) -> None:
    save_file(GOOD, tmp_path / "adapter_model.safetensors")
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    with pytest.raises(AdapterError, match=message):
        load_adapter(tmp_path, make_nets(layers=1)[1])


def test_only_safetensors_are_read(tmp_path: Path) -> None:
    ours = make_nets(layers=1)[1]
    torch.save(GOOD, tmp_path / "adapter_model.bin")
    (tmp_path / "cut").mkdir()
    (tmp_path / "cut" / "a.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0{}")
    for path, message in [
        (tmp_path / "adapter_model.bin", "no .safetensors, and nothing else is read"),
        (tmp_path, "no .safetensors in it, and nothing else is read"),
        (tmp_path / "nowhere", "no such file or folder"),
        (tmp_path / "cut", "a.safetensors: "),
    ]:
        with pytest.raises(AdapterError, match=message):
            load_adapter(path, ours)
    for name in ("a", "b"):
        save_file(GOOD, tmp_path / f"{name}.safetensors")
    with pytest.raises(AdapterError, match=r"several adapters, name one: a\.safetensors, b\.safetensors"):
        load_adapter(tmp_path, ours)


def test_the_hash_is_of_the_file_and_its_config(tmp_path: Path) -> None:
    file = tmp_path / "adapter_model.safetensors"
    save_file(GOOD, file)
    assert adapter_hash(file) == hashlib.sha256(file.read_bytes()).hexdigest()
    (tmp_path / "adapter_config.json").write_text('{"peft_type": "LORA", "r": 2}')
    whole = file.read_bytes() + (tmp_path / "adapter_config.json").read_bytes()
    adapter = load_adapter(tmp_path, make_nets(layers=1)[1])
    assert adapter.sha256 == hashlib.sha256(whole).hexdigest()
    assert (adapter.name, adapter.rank, adapter.nbytes) == (tmp_path.name, 2, 2 * 2 * 48 * 4)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ink=./ink", ("ink", "./ink", 1.0)),
        ("ink=./ink:0.5", ("ink", "./ink", 0.5)),
        ("ink=owner/name@v1:-4", ("ink", "owner/name@v1", -4.0)),
        ("ink=C:/files/ink", ("ink", "C:/files/ink", 1.0)),
        ("a.b-c=x:y:0", ("a.b-c", "x:y", 0.0)),
    ],
)
def test_the_option_is_read(text: str, expected: tuple[str, str, float]) -> None:
    option = LoraOption.parse(text)
    assert (option.name, option.path, option.weight) == expected


@pytest.mark.parametrize("text", ["ink", "=./ink", "in k=./ink", "ink=", "ink=./ink:4.5", "ink=./ink:nan"])
def test_an_option_that_says_nothing_is_refused(text: str) -> None:
    with pytest.raises(AdapterError, match=f"--lora {text}: "):
        LoraOption.parse(text)


# -- diffusers' own mechanisms on our class ------------------------------------------------------------------------


def test_diffusers_loads_an_adapter_into_our_class(tmp_path: Path) -> None:
    theirs, ours = make_nets(layers=2)
    config = LoraConfig(r=4, lora_alpha=8, target_modules=ATTENTION + CONVOLUTIONS)
    net = trained(theirs, config)
    as_diffusers(net, config, tmp_path)
    factors, metadata = SanaVideoPipeline.lora_state_dict(tmp_path, return_lora_metadata=True)
    SanaVideoPipeline.load_lora_into_transformer(factors, transformer=ours, adapter_name="ink", metadata=metadata)
    assert gap(ours, net) < 1e-5
    half = {"attention_kwargs": {"scale": 0.5}}
    scaled = ours(**inputs(), **half)[0] - net(**inputs(), **half)[0]
    assert float(scaled.abs().max()) < 1e-5
    ours.delete_adapters("ink")
    assert gap(ours, theirs) < 1e-5
    ours.load_lora_adapter(tmp_path, weight_name="pytorch_lora_weights.safetensors")
    assert gap(ours, net) < 1e-5
    ours.fuse_lora()
    ours.unload_lora()
    assert gap(ours, net) < 1e-5


def test_peft_injects_an_adapter_into_our_class() -> None:
    theirs, ours = make_nets(layers=2)
    ours.add_adapter(LoraConfig(r=4, target_modules=ATTENTION + CONVOLUTIONS), adapter_name="new")
    assert gap(ours, theirs) < 1e-5
    fill(ours, 3)
    assert gap(ours, theirs) > 1e-2
    ours.disable_adapters()
    assert gap(ours, theirs) < 1e-5
