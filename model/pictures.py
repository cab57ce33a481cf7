"""Pictures as bytes, and as the samples that a VAE takes and gives."""

from __future__ import annotations

import torch
from torch import Tensor


def to_pictures(samples: Tensor) -> Tensor:
    """Samples (1, 3, n, height, width) in [-1, 1] -> uint8 (n, height, width, 3)."""
    rgb = samples[0].permute(1, 2, 3, 0)
    return rgb.float().clamp_(-1, 1).mul_(127.5).add_(128.0).to(torch.uint8)


def to_samples(pictures: Tensor, temporal_factor: int, spatial_factor: int) -> Tensor:
    """uint8 (1 + temporal_factor k, height, width, 3) -> float32 samples (1, 3, pictures, height, width) in [-1, 1].

    Raises:
        ValueError: another type, shape or count, or sides that are no multiples of `spatial_factor`.
    """
    if pictures.dtype != torch.uint8 or pictures.dim() != 4 or pictures.shape[-1] != 3:
        raise ValueError(f"pictures must be uint8 (pictures, height, width, 3), not {tuple(pictures.shape)}")
    count, height, width, _ = pictures.shape
    if count % temporal_factor != 1 or height % spatial_factor or width % spatial_factor:
        raise ValueError(
            f"{count} pictures of {height}x{width}: need 1 + {temporal_factor} k of multiples of {spatial_factor}"
        )
    return pictures.permute(3, 0, 1, 2)[None].float() / 127.5 - 1
