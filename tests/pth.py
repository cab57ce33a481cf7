"""Random weights in the form of NVlabs' `.pth`."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor


def pth_shapes(
    *,
    width: int = 48,
    layers: int = 2,
    channels: int = 4,
    patch: tuple[int, int, int] = (1, 2, 2),
    captions: int = 24,
    hidden: int = 120,
) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a `.pth`, with the extra tensors that the authors' files carry."""
    w, patch_size = width, math.prod(patch)
    shapes: dict[str, tuple[int, ...]] = {
        "pos_embed": (1, 16, w),
        "x_embedder.proj.weight": (w, channels, *patch),
        "x_embedder.proj.bias": (w,),
        "t_embedder.mlp.0.weight": (w, 256),
        "t_embedder.mlp.0.bias": (w,),
        "t_embedder.mlp.2.weight": (w, w),
        "t_embedder.mlp.2.bias": (w,),
        "t_block.1.weight": (6 * w, w),
        "t_block.1.bias": (6 * w,),
        "y_embedder.y_embedding": (300, captions),
        "y_embedder.y_proj.fc1.weight": (w, captions),
        "y_embedder.y_proj.fc1.bias": (w,),
        "y_embedder.y_proj.fc2.weight": (w, w),
        "y_embedder.y_proj.fc2.bias": (w,),
        "attention_y_norm.weight": (w,),
    }
    for i in range(layers):
        block: dict[str, tuple[int, ...]] = {
            "scale_shift_table": (6, w),
            "attn.qkv.weight": (3 * w, w),
            "attn.q_norm.weight": (w,),
            "attn.k_norm.weight": (w,),
            "attn.proj.weight": (w, w),
            "attn.proj.bias": (w,),
            "cross_attn.q_linear.weight": (w, w),
            "cross_attn.q_linear.bias": (w,),
            "cross_attn.kv_linear.weight": (2 * w, w),
            "cross_attn.kv_linear.bias": (2 * w,),
            "cross_attn.q_norm.weight": (w,),
            "cross_attn.k_norm.weight": (w,),
            "cross_attn.proj.weight": (w, w),
            "cross_attn.proj.bias": (w,),
            "mlp.inverted_conv.conv.weight": (2 * hidden, w, 1, 1),
            "mlp.inverted_conv.conv.bias": (2 * hidden,),
            "mlp.depth_conv.conv.weight": (2 * hidden, 1, 3, 3),
            "mlp.depth_conv.conv.bias": (2 * hidden,),
            "mlp.point_conv.conv.weight": (w, hidden, 1, 1),
            "mlp.t_conv.weight": (w, w, 3, 1),
        }
        shapes |= {f"blocks.{i}.{name}": shape for name, shape in block.items()}
    shapes |= {
        "final_layer.linear.weight": (patch_size * channels, w),
        "final_layer.linear.bias": (patch_size * channels,),
        "final_layer.scale_shift_table": (2, w),
        "logvar_linear.weight": (1, w),
        "logvar_linear.bias": (1,),
    }
    return shapes


def random_pth(*, seed: int = 0, **form: Any) -> dict[str, Tensor]:
    """Random tensors under the authors' names; `form` as `pth_shapes` takes it."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: ("norm" in name) + 0.12 * torch.randn(shape, generator=generator)
        for name, shape in pth_shapes(**form).items()
    }
