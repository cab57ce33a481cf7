"""NVlabs' `.pth` checkpoints: read safely, told by their shapes, renamed to diffusers' parameter names.

Names: NVlabs/Sana, tools/convert_sana_video_to_diffusers.py. Joined projections (qkv, kv) are stacked along the first
axis there and stand apart in diffusers' class.
"""

from __future__ import annotations

import pickle
import re
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from model.source import CheckpointError, one_line

HEAD_CHANNELS = 112
"""A head's width in all released models; the number of heads can't be seen in the weights."""
AUTHORS_EPS = {"cross_attention_norm_eps": 1e-6, "linear_attention_eps": 1e-8}
"""What the authors' net computes with where diffusers' class has 1e-5 and 1e-15."""
SAMPLE_SIZES = {2: 30, 1: 22}
"""diffusers' `sample_size` by spatial patch: 480p and 720p."""
IGNORED = frozenset({"pos_embed", "y_embedder.y_embedding", "logvar_linear.weight", "logvar_linear.bias"})
PREFIX = "model."

_STEM = {
    "x_embedder.proj": "patch_embedding",
    "y_embedder.y_proj.fc1": "caption_projection.linear_1",
    "y_embedder.y_proj.fc2": "caption_projection.linear_2",
    "t_embedder.mlp.0": "time_embed.emb.timestep_embedder.linear_1",
    "t_embedder.mlp.2": "time_embed.emb.timestep_embedder.linear_2",
    "t_block.1": "time_embed.linear",
    "attention_y_norm": "caption_norm",
    "final_layer.linear": "proj_out",
}
_BLOCK = {
    "attn.q_norm": "attn1.norm_q",
    "attn.k_norm": "attn1.norm_k",
    "attn.proj": "attn1.to_out.0",
    "cross_attn.q_linear": "attn2.to_q",
    "cross_attn.q_norm": "attn2.norm_q",
    "cross_attn.k_norm": "attn2.norm_k",
    "cross_attn.proj": "attn2.to_out.0",
    "mlp.inverted_conv.conv": "ff.conv_inverted",
    "mlp.depth_conv.conv": "ff.conv_depth",
    "mlp.point_conv.conv": "ff.conv_point",
    "mlp.t_conv": "ff.conv_temp",
}
_JOINED = {
    "attn.qkv": ("attn1.to_q", "attn1.to_k", "attn1.to_v"),
    "cross_attn.kv_linear": ("attn2.to_k", "attn2.to_v"),
}
_BLOCK_KEY = re.compile(r"blocks\.(\d+)\.(.+)")


@dataclass(frozen=True)
class TorchFile:
    """Tensors of a `.pth` under the authors' names, and whether a LongSANA trainer wrote it."""

    tensors: dict[str, Tensor]
    from_trainer: bool


def read_pth(file: Path) -> TorchFile:
    """Read a `.pth`, whose tensors stay on disk until they are used.

    The file holds the tensors themselves, or under `state_dict`, or (a trainer's) under `generator`; names may begin
    with `model.`. Nothing but tensors and plain containers is ever unpickled.

    Raises:
        CheckpointError: cut short, holds other objects, or holds no tensors.
    """
    try:
        content = torch.load(file, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(file))
    except pickle.UnpicklingError as error:
        # torch's own text goes on to advise how to load it all the same.
        found = re.search(r"GLOBAL ([\w.]+)", str(error))
        what = f"it holds {found[1]}, and only tensors are loaded" if found else "damaged, or no PyTorch file"
        raise CheckpointError(f"{file}: {what}") from error
    except (OSError, RuntimeError) as error:
        # torch's own text goes on to guess at causes.
        raise CheckpointError(f"{file}: damaged or cut short: {one_line(error).partition('. ')[0]}") from error
    except Exception as error:  # bytes that are no pickle make its reader fail in any way
        raise CheckpointError(f"{file}: damaged, or no PyTorch file") from error
    from_trainer = isinstance(content, Mapping) and "generator" in content
    for key in ("generator", "state_dict"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping):
        raise CheckpointError(f"{file}: holds a {type(content).__name__}, not named tensors")
    tensors = {str(name).removeprefix(PREFIX): value for name, value in content.items()}
    if stray := next((name for name, value in tensors.items() if not isinstance(value, Tensor)), None):
        raise CheckpointError(f"{file}: {stray} is no tensor")
    return TorchFile({name: value for name, value in tensors.items() if name not in IGNORED}, from_trainer)


def config_of(tensors: Mapping[str, Tensor], heads: int | None = None) -> dict[str, Any]:
    """The transformer's config, as the shapes of the authors' tensors tell it.

    Args:
        tensors: by the authors' names.
        heads: attention heads; None takes width / 112.

    Raises:
        CheckpointError: names the first missing or misshapen parameter, or the width that heads don't divide.
    """
    width, channels, *patch = _shape(tensors, "x_embedder.proj.weight", 5)
    captions = _shape(tensors, "y_embedder.y_proj.fc1.weight", 2)[1]
    _shape(tensors, "blocks.0.attn.qkv.weight", 2)
    hidden = _shape(tensors, "blocks.0.mlp.depth_conv.conv.weight", 4)[0] // 2
    outputs = _shape(tensors, "final_layer.linear.weight", 2)[0]
    if heads is None and width % HEAD_CHANNELS:
        raise CheckpointError(
            f"a width of {width} is not made of heads of {HEAD_CHANNELS}: give num_attention_heads "
            "(on the command line: --heads)"
        )
    heads = width // HEAD_CHANNELS if heads is None else heads
    if heads < 1 or width % heads or width // heads % 2 or width // heads < 6:
        raise CheckpointError(f"num_attention_heads {heads}: a width of {width} needs even heads of 6 or more each")
    layers = 1 + max(int(match[1]) for name in tensors if (match := _BLOCK_KEY.fullmatch(name)))
    normed = any(name.endswith("attn.q_norm.weight") for name in tensors)
    return {
        "in_channels": channels,
        "out_channels": outputs // (patch[0] * patch[1] * patch[2]),
        "num_attention_heads": heads,
        "attention_head_dim": width // heads,
        "num_layers": layers,
        "num_cross_attention_heads": heads,
        "cross_attention_head_dim": width // heads,
        "cross_attention_dim": width,
        "caption_channels": captions,
        "mlp_ratio": _ratio(hidden, width),
        "attention_bias": "blocks.0.attn.qkv.bias" in tensors,
        "sample_size": SAMPLE_SIZES.get(patch[1], 30),
        "patch_size": tuple(patch),
        "qk_norm": "rms_norm_across_heads" if normed else None,
        **AUTHORS_EPS,
    }


def renamed(tensors: Mapping[str, Tensor], expected: Mapping[str, torch.Size]) -> dict[str, Tensor]:
    """The tensors under diffusers' names, checked.

    Args:
        tensors: by the authors' names.
        expected: name and shape of every parameter of the class, as diffusers has them.

    Raises:
        CheckpointError: names the first missing, misshapen or unexpected one by the authors' name.
    """
    result: dict[str, Tensor] = {}
    used: set[str] = set()
    for source, targets in _pairs(expected):
        shape = list(expected[targets[0]])
        shape[0] *= len(targets)
        if list(_shape(tensors, source, len(shape))) != shape:
            raise CheckpointError(f"{source} has shape {tuple(tensors[source].shape)}, not {tuple(shape)}")
        used.add(source)
        parts = tensors[source].chunk(len(targets))
        # Clones: tensors that share memory can't be saved one by one.
        result.update(zip(targets, parts if len(parts) == 1 else [part.clone() for part in parts], strict=True))
    if stray := next((name for name in tensors if name not in used), None):
        raise CheckpointError(f"unexpected parameter {stray}: not a net of SANA-Video's first generation")
    return result


def _pairs(expected: Mapping[str, torch.Size]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """(authors' name, diffusers' names) of all parameters, in the order of `expected`."""
    stems = {target: source for source, target in _STEM.items()}
    blocks = {target: source for source, target in _BLOCK.items()}
    firsts = {targets[0]: (source, targets) for source, targets in _JOINED.items()}
    others = {target for targets in _JOINED.values() for target in targets[1:]}
    for name in expected:
        module, _, kind = name.rpartition(".")
        if name == "scale_shift_table":
            yield "final_layer.scale_shift_table", (name,)
        elif match := re.fullmatch(r"transformer_blocks\.(\d+)(?:\.(.+))?", module):
            source, target = f"blocks.{match[1]}", f"transformer_blocks.{match[1]}"
            if match[2] is None:
                yield f"{source}.{kind}", (name,)
            elif match[2] in firsts:
                joined, targets = firsts[match[2]]
                yield f"{source}.{joined}.{kind}", tuple(f"{target}.{part}.{kind}" for part in targets)
            elif match[2] not in others:
                yield f"{source}.{blocks[match[2]]}.{kind}", (name,)
        else:
            yield f"{stems[module]}.{kind}", (name,)


def modules_of(name: str) -> tuple[str, ...]:
    """diffusers' modules that one of the authors' stands for, in the order of its rows; none where there is none."""
    if name in _STEM:
        return (_STEM[name],)
    match = _BLOCK_KEY.fullmatch(name)
    if match is None:
        return ()
    parts = _JOINED.get(match[2]) or ((_BLOCK[match[2]],) if match[2] in _BLOCK else ())
    return tuple(f"transformer_blocks.{match[1]}.{part}" for part in parts)


def _shape(tensors: Mapping[str, Tensor], name: str, dims: int) -> tuple[int, ...]:
    if name not in tensors:
        raise CheckpointError(f"parameter {name} is missing")
    shape = tuple(tensors[name].shape)
    if len(shape) != dims:
        raise CheckpointError(f"{name} has shape {shape}, must have {dims} axes")
    return shape


def _ratio(hidden: int, width: int) -> float:
    """The `mlp_ratio` for which diffusers' int(ratio * width) is `hidden`."""
    ratio = hidden / width
    return ratio if int(ratio * width) == hidden else (hidden + 0.5) / width
