"""ReLU linear attention with carried sums, and rotary angles at absolute positions.

out = (vk rope(q)) / (k_sum q + eps), where vk = sum of v rope(k)^T and k_sum = sum of the unrotated k, both over the
block's own tokens plus what the state carries. Sums and everything around them are float32.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

THETA = 10000.0


def rotary_axes(head_dim: int) -> tuple[int, int, int]:
    """Channels of a head that turn with time, height and width: Wan's split."""
    side = 2 * (head_dim // 6)
    return head_dim - 2 * side, side, side


@lru_cache(maxsize=256)
def _axis(first: int, count: int, dim: int, device: torch.device) -> Tensor:
    # (count, dim / 2) complex64, a few KB. The angles are float64: in float32 they would be wrong by whole radians
    # after a day of latent frames.
    frequencies = THETA ** (-torch.arange(0, dim, 2, dtype=torch.float64) / dim)
    angles = (torch.arange(count, dtype=torch.float64) + first)[:, None] * frequencies
    return torch.complex(angles.cos().float(), angles.sin().float()).to(device)


def rotation(first_frame: int, frames: int, height: int, width: int, head_dim: int, device: torch.device) -> Tensor:
    """Unit complex numbers that rotate adjacent channel pairs, (frames * height * width, head_dim / 2) complex64.

    Args:
        first_frame: absolute latent frame of the first frame; there is no table, so no end.
        frames, height, width: tokens a side.
        head_dim: channels of a head, even.
        device: where the result is put together; its angles are made on the host.
    """
    t, h, w = rotary_axes(head_dim)
    shape = (frames, height, width)
    parts = [
        _axis(first_frame, frames, t, device).view(frames, 1, 1, -1).expand(*shape, -1),
        _axis(0, height, h, device).view(1, height, 1, -1).expand(*shape, -1),
        _axis(0, width, w, device).view(1, 1, width, -1).expand(*shape, -1),
    ]
    return torch.cat(parts, dim=-1).flatten(0, 2)


def rotate(x: Tensor, turn: Tensor) -> Tensor:
    """Rotate adjacent channel pairs of x (..., head_dim), float32, by `turn` (broadcastable, head_dim / 2)."""
    pairs = torch.view_as_complex(x.unflatten(-1, (-1, 2)))
    return torch.view_as_real(pairs * turn).flatten(-2)


def own_sums(key: Tensor, key_rotated: Tensor, value: Tensor) -> Tensor:
    """A block's own contribution to the state.

    Args:
        key, key_rotated, value: (batch, tokens, heads, head_dim) float32.

    Returns:
        (batch, heads, head_dim + 1, head_dim) float32: rows of v rope(k)^T, then one row with the sum of k.
    """
    products = value.permute(0, 2, 3, 1) @ key_rotated.transpose(1, 2)
    return torch.cat([products, key.sum(1).unsqueeze(2)], dim=2)


def attend(query: Tensor, query_rotated: Tensor, sums: Tensor, eps: float) -> Tensor:
    """Read the sums.

    Args:
        query, query_rotated: (batch, tokens, heads, head_dim) float32.
        sums: (batch, heads, head_dim + 1, head_dim) float32.
        eps: added to the denominator.

    Returns:
        (batch, tokens, heads * head_dim) float32.
    """
    numerator = query_rotated.transpose(1, 2) @ sums[:, :, :-1].transpose(-1, -2)
    denominator = query.transpose(1, 2) @ sums[:, :, -1:].transpose(-1, -2)
    return (numerator / (denominator + eps)).transpose(1, 2).flatten(2)


def attend_rounded(query: Tensor, query_rotated: Tensor, sums: Tensor, eps: float, dtype: torch.dtype) -> Tensor:
    """`attend` with the denominator in `dtype` at every step, as LongSANA's released code has it."""
    numerator = query_rotated.transpose(1, 2) @ sums[:, :, :-1].transpose(-1, -2)
    denominator = query.transpose(1, 2).to(dtype) @ sums[:, :, -1:].transpose(-1, -2).to(dtype)
    return (numerator * (1 / (denominator + eps))).transpose(1, 2).flatten(2)
