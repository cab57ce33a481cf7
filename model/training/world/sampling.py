"""Moving painted textures over pictures: all of it is `grid_sample` in float32."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

_held: dict[tuple[str, torch.device], Tensor] = {}


def held(name: str, array: npt.NDArray[np.float32], device: torch.device) -> Tensor:
    """A painted constant on the device as float16, put there once under its name."""
    key = (name, device)
    if key not in _held:
        _held[key] = torch.from_numpy(array).to(device).half()
    return _held[key]


def over(below: Tensor, colour: Tensor, alpha: Tensor | float) -> Tensor:
    """`colour` (not multiplied by alpha) laid over `below`; (pictures, 3, H, W), alpha broadcasts."""
    return below + (colour - below) * alpha


def smoothstep(low: float, high: float, x: Tensor) -> Tensor:
    """0 below `low`, 1 above `high`, smooth between."""
    t = ((x - low) / (high - low)).clamp(0, 1)
    return t * t * (3 - 2 * t)


def wrapped(texture: Tensor, extra: int) -> Tensor:
    """Append the first `extra` columns at the right, so that a window may run over a tileable texture's end."""
    width = texture.shape[-1]
    copies = [texture] * (1 + -(-extra // width))
    return torch.cat(copies, -1)[..., : width + extra]


def slide(texture: Tensor, u0: Tensor, x: Tensor, v: Tensor) -> Tensor:
    """A window of a strip, moved sideways.

    texture: (clips, channels, rows, columns), already `wrapped`; u0: (clips, pictures) first column;
    x: (W,) column offsets; v: (clips, pictures, H) texture rows (may be fractions; outside is 0).
    Returns (clips * pictures, channels, H, W).
    """
    clips, channels, rows, columns = texture.shape
    pictures, height, width = v.shape[1], v.shape[2], len(x)
    gx = ((u0[..., None] + x + 0.5) * (2.0 / columns) - 1.0)[:, :, None, :].expand(-1, -1, height, -1)
    gy = ((v + 0.5) * (2.0 / rows) - 1.0)[..., None].expand(-1, -1, -1, width)
    grid = torch.stack((gx, gy), -1).reshape(clips, pictures * height, width, 2)
    out = F.grid_sample(texture, grid, "bilinear", "zeros", align_corners=False)
    out = out.view(clips, channels, pictures, height, width).transpose(1, 2)
    return out.reshape(clips * pictures, channels, height, width)


def tile(texture: Tensor, u: Tensor, v: Tensor) -> Tensor:
    """A periodic texture (channels, S, S) at texels u, v (pictures, H, W) -> (pictures, channels, H, W)."""
    size = texture.shape[-1]
    padded = torch.cat((texture, texture[:, :1]), 1)
    padded = torch.cat((padded, padded[:, :, :1]), 2)[None]
    scale = 2.0 / (size + 1)
    grid = torch.stack(((u % size + 0.5) * scale - 1.0, (v % size + 0.5) * scale - 1.0), -1)
    pictures, height, width, _ = grid.shape
    out = F.grid_sample(
        padded, grid.reshape(1, pictures * height, width, 2), "bilinear", "border", align_corners=False
    )
    return out.view(texture.shape[0], pictures, height, width).transpose(0, 1)


def stamp(cells: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Cells (pictures, channels, h, w) at cell pixel coordinates x, y (pictures, H, W); outside is 0."""
    _, _, rows, columns = cells.shape
    grid = torch.stack(((x + 0.5) * (2.0 / columns) - 1.0, (y + 0.5) * (2.0 / rows) - 1.0), -1)
    return F.grid_sample(cells, grid, "bilinear", "zeros", align_corners=False)


def mirror(picture: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Picture (pictures, 3, H, W) at its own pixel coordinates x, y (pictures, H, W); edges are held."""
    _, _, rows, columns = picture.shape
    grid = torch.stack(((x + 0.5) * (2.0 / columns) - 1.0, (y + 0.5) * (2.0 / rows) - 1.0), -1)
    return F.grid_sample(picture, grid, "bilinear", "border", align_corners=False)
