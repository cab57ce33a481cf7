"""LoRA adapters of diffusers and peft, from a file, a folder or the Hugging Face hub, as `model.adapted` runs them.

Read are safetensors only. Names may be diffusers' (with or without `transformer.`), old or new, peft's
(`base_model.model.`), the authors' own (`blocks.0.attn.qkv`), ComfyUI's (`diffusion_model.`) or kohya's
(`lora_unet_...lora_down`). Factors of 1x1 convolutions become those of linear layers, joined projections are divided.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from diffusers.loaders.lora_base import LORA_ADAPTER_METADATA_KEY
from diffusers.utils.state_dict_utils import DIFFUSERS_TO_PEFT, UNET_TO_DIFFUSERS, convert_state_dict
from peft import LoraConfig
from peft.utils.other import get_pattern_key
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from model.adapted import Adapter, Factors
from model.lora_source import CONFIG, AdapterError, adapter_file, adapter_hash
from model.pth import modules_of
from model.source import CheckpointError, display_name, one_line, read_json
from model.transformer import SanaVideoTransformer3DModel

MAX_RANK = 512
_PREFIXES = ("base_model.model.", "model.diffusion_model.", "diffusion_model.", "transformer.")
_KOHYA = ("lora_unet_", "lora_transformer_")
_PART = re.compile(r"(.+)\.(?:lora_([AB])(?:\.[^.]+)?\.weight|(alpha))")
_DORA = ("dora_scale", "lora_magnitude_vector")
_JOINED = {"to_qkv": ("to_q", "to_k", "to_v"), "to_kv": ("to_k", "to_v")}
_BASE_CHANGED = ("pissa", "olora", "loftq", "corda", "lora_ga")
"""peft's `init_lora_weights` under which the base weights are not the checkpoint's any more."""


@dataclass
class _Pair:
    """What a file says of one module: its keys by what they are, A, B or alpha, and the layers they are for."""

    keys: dict[str, str] = field(default_factory=dict)
    targets: tuple[str, ...] = ()


def load_adapter(path: str | Path, transformer: SanaVideoTransformer3DModel, name: str | None = None) -> Adapter:
    """Read an adapter for a transformer.

    Args:
        path: a `.safetensors`, a folder with one, or a hub id, `owner/name` or `owner/name@revision`.
        transformer: what it must fit; gives device and dtype.
        name: what it shall be called; None takes the file's or folder's name.

    Raises:
        AdapterError: what is missing or damaged, or the first key that does not fit.
    """
    file = adapter_file(path)
    try:
        sha256, config = adapter_hash(file), _config(file)
        with safe_open(file, "pt") as opened:
            pairs = _pairs(opened.keys(), transformer)
            tensors = {key: opened.get_tensor(key) for pair in pairs.values() for key in pair.keys.values()}
        layers: dict[str, Factors] = {}
        rank = 0
        for module, pair in pairs.items():
            down, up = tensors[pair.keys["A"]], tensors[pair.keys["B"]]
            rank = max(rank, _check_rank(pair, down))
            scale = _scale(module, pair, tensors, config, down.shape[0])
            for target, rows in zip(pair.targets, _divided(up, len(pair.targets), pair), strict=True):
                if target in layers:
                    raise AdapterError(f"{pair.keys['A']}: a second one for {target}")
                factors = _fitted(pair, down, rows, transformer.get_submodule(target), scale, len(pair.targets))
                layers[target] = _placed(factors, transformer)
    except AdapterError as error:
        raise AdapterError(f"{file}: {error}") from error
    except (SafetensorError, OSError) as error:
        raise AdapterError(f"{file}: {one_line(error)}") from error
    return Adapter(name or display_name(path).removesuffix(".safetensors"), sha256, layers, rank)


# -- what a file says ----------------------------------------------------------------------------------------------


def _config(file: Path) -> LoraConfig | None:
    """peft's configuration: of the folder, or of the file's header, where diffusers puts it."""
    beside = file.with_name(CONFIG)
    if beside.is_file():
        try:
            fields = read_json(beside)
        except CheckpointError as error:
            raise AdapterError(str(error)) from error
    else:
        with safe_open(file, "pt") as opened:
            header = (opened.metadata() or {}).get(LORA_ADAPTER_METADATA_KEY)
        if header is None:
            return None
        try:
            fields = {key.removeprefix("transformer."): value for key, value in json.loads(header).items()}
        except (ValueError, AttributeError) as error:
            raise AdapterError(f"{LORA_ADAPTER_METADATA_KEY} in its header: {one_line(error)}") from error
    fields.pop("runtime_config", None)
    try:
        config = LoraConfig.from_peft_type(**LoraConfig.check_kwargs(**fields))
    except (TypeError, ValueError, KeyError) as error:
        raise AdapterError(f"{CONFIG}: {one_line(error)}") from error
    if not isinstance(config, LoraConfig):
        raise AdapterError(f"{CONFIG}: peft_type {fields.get('peft_type')!r} is not LORA")
    if config.use_dora:
        raise AdapterError(f"{CONFIG}: use_dora: DoRA adapters can't be loaded")
    start = config.init_lora_weights
    if isinstance(start, str) and start.lower().startswith(_BASE_CHANGED):
        raise AdapterError(f"{CONFIG}: init_lora_weights {start!r}: it was trained on other base weights")
    return config


def _pairs(keys: list[str], transformer: SanaVideoTransformer3DModel) -> dict[str, _Pair]:
    """The file's keys by module, the module as the file names it but for prefixes."""
    layers = {n for n, m in transformer.named_modules() if isinstance(m, nn.Linear | nn.Conv2d | nn.Conv3d)}
    flat = {name.replace(".", "_"): name for name in layers}
    pairs: dict[str, _Pair] = {}
    for key in sorted(keys):
        if any(part in key for part in _DORA):
            raise AdapterError(f"{key}: DoRA adapters can't be loaded")
        match = _PART.fullmatch(_peft_key(key, flat))
        if match is None:
            raise AdapterError(f"unexpected key {key}")
        pair = pairs.setdefault(match[1], _Pair())
        part = match[2] or match[3]
        if part in pair.keys:
            raise AdapterError(f"{key} says the same as {pair.keys[part]}")
        pair.keys[part] = key
    if not pairs:
        raise AdapterError("holds no LoRA factors")
    for module, pair in pairs.items():
        for part in "AB":
            if part not in pair.keys:
                raise AdapterError(f"beside {next(iter(pair.keys.values()))} there is no lora_{part} of {module}")
        pair.targets = _targets(module, layers)
        if not pair.targets:
            raise AdapterError(f"{pair.keys['A']}: the transformer has no layer {module}")
    return pairs


def _peft_key(key: str, flat: Mapping[str, str]) -> str:
    """A key as peft has it, without prefixes; `flat` gives the module whose dots were made underscores."""
    name = key
    while prefix := next((prefix for prefix in _PREFIXES if name.startswith(prefix)), None):
        name = name.removeprefix(prefix)
    for kohya in _KOHYA:
        if name.startswith(kohya):
            module, _, part = name.removeprefix(kohya).partition(".")
            name = f"{flat.get(module, module)}.{part}"
    name = name.replace(".lora_down.", ".lora_A.").replace(".lora_up.", ".lora_B.")
    for mapping in (UNET_TO_DIFFUSERS, DIFFUSERS_TO_PEFT):
        (name,) = convert_state_dict({name: None}, mapping)
    return name


def _targets(module: str, layers: Collection[str]) -> tuple[str, ...]:
    """The layers that a file's module stands for; none where the transformer lacks one."""
    stem, _, last = module.rpartition(".")
    joined = tuple(f"{stem}.{part}" for part in _JOINED.get(last, ()))
    for names in ((module,), joined, modules_of(module)):
        if names and all(name in layers for name in names):
            return names
    return ()


# -- factors -------------------------------------------------------------------------------------------------------


def _check_rank(pair: _Pair, down: Tensor) -> int:
    rank = down.shape[0] if down.ndim else 0
    if not 1 <= rank <= MAX_RANK:
        raise AdapterError(f"{pair.keys['A']}: rank {rank}, must be 1 to {MAX_RANK}")
    return rank


def _scale(module: str, pair: _Pair, tensors: Mapping[str, Tensor], config: LoraConfig | None, rank: int) -> float:
    """alpha / rank (alpha / sqrt(rank) with rsLoRA); 1 where nothing says an alpha."""
    alpha: float = rank
    if "alpha" in pair.keys:
        said = tensors[pair.keys["alpha"]]
        if said.numel() != 1 or not math.isfinite(said.item()):
            raise AdapterError(f"{pair.keys['alpha']} must be one number")
        alpha = float(said.item())
    elif config is not None:
        own = config.rank_pattern.get(get_pattern_key(config.rank_pattern.keys(), module), config.r)
        if own != rank:
            raise AdapterError(f"{pair.keys['A']}: rank {rank}, {CONFIG} says {own}")
        alpha = config.alpha_pattern.get(get_pattern_key(config.alpha_pattern.keys(), module), config.lora_alpha)
    root = config is not None and config.use_rslora
    return alpha / (math.sqrt(rank) if root else rank)


def _divided(up: Tensor, parts: int, pair: _Pair) -> tuple[Tensor, ...]:
    if up.ndim < 2 or up.shape[0] % parts:
        raise AdapterError(f"{pair.keys['B']} has shape {tuple(up.shape)}, its rows can't be divided by {parts}")
    return up.chunk(parts)


def _fitted(pair: _Pair, down: Tensor, up: Tensor, layer: nn.Module, scale: float, parts: int) -> Factors:
    """The factors in the layer's form. `up` holds the rows of one of `parts` layers that were joined."""
    rank = down.shape[0]
    wanted: tuple[tuple[int, ...], tuple[int, ...]]
    if isinstance(layer, nn.Linear):
        down, up = (each.flatten(1) if set(each.shape[2:]) <= {1} else each for each in (down, up))
        wanted = ((rank, layer.in_features), (layer.out_features, rank))
    else:
        assert isinstance(layer, nn.Conv2d | nn.Conv3d)
        kernel, point, groups = layer.kernel_size, (1,) * len(layer.kernel_size), layer.groups
        if groups > 1 and down.shape[1:2] == (layer.in_channels // groups,):
            # Factors of the kernel itself, whose product is a kernel of the same groups.
            wanted = ((rank, layer.in_channels // groups, *kernel), (layer.out_channels, rank, *point))
        else:
            # peft's: a full convolution, then a grouped one.
            wanted = ((rank, layer.in_channels, *kernel), (layer.out_channels, rank // groups, *point))
    for part, tensor, shape in (("A", down, wanted[0]), ("B", up, wanted[1])):
        if tuple(tensor.shape) != shape:
            whole = (shape[0] * parts, *shape[1:]) if part == "B" else shape
            found = (tensor.shape[0] * parts, *tensor.shape[1:]) if part == "B" else tuple(tensor.shape)
            raise AdapterError(f"{pair.keys[part]} has shape {found}, not {whole}")
        if not tensor.is_floating_point() or not bool(torch.isfinite(tensor.float()).all()):
            raise AdapterError(f"{pair.keys[part]} holds what is no finite number")
    if not isinstance(layer, nn.Linear) and layer.groups > 1 and down.shape[1] != layer.in_channels:
        whole_kernel = up.flatten(1).float() @ down.flatten(1).float()
        return Factors(whole_kernel.view(layer.out_channels, *down.shape[1:]), None, scale)
    return Factors(down, up, scale)


def _placed(factors: Factors, transformer: SanaVideoTransformer3DModel) -> Factors:
    dtype = transformer.dtype if transformer.dtype.itemsize > 1 else torch.bfloat16  # of 8 bits: a storage format
    down, up = (
        None if each is None else each.to(transformer.device, dtype).contiguous()
        for each in (factors.down, factors.up)
    )
    assert down is not None
    return Factors(down, up, factors.scale)
