"""What can be said of pictures without knowing what they show: colour, contrast, sharpness, motion, flicker."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import torch
from torch import Tensor

from model.positions import PICTURES_PER_LATENT


def luma(pictures: Tensor) -> Tensor:
    """Mean of the colours, (..., h, w), 0..255."""
    return pictures.float().mean(-3)


def saturation(pictures: Tensor) -> float:
    """Mean of the greatest less the least colour of each pixel, 0..255."""
    wide = pictures.float()
    return float((wide.amax(-3) - wide.amin(-3)).mean())


def contrast(pictures: Tensor) -> float:
    """Mean over pictures of the standard deviation of luma."""
    return float(luma(pictures).flatten(-2).std(-1).mean())


def sharpness(pictures: Tensor) -> float:
    """Mean gradient of pictures (..., 3, h, w) uint8: the mean of |d/dx| plus that of |d/dy|, colours in 0..255."""
    wide = pictures.float()
    across = (wide[..., 1:] - wide[..., :-1]).abs().mean()
    down = (wide[..., 1:, :] - wide[..., :-1, :]).abs().mean()
    return float(across + down)


def changes(pictures: Tensor) -> Tensor:
    """Mean difference (clips, t - 1) of each picture to the one before it, 0..255."""
    return torch.stack([(b.float() - a.float()).abs().mean((1, 2, 3)) for a, b in _neighbours(pictures)], 1)


def _neighbours(pictures: Tensor) -> list[tuple[Tensor, Tensor]]:
    return [(pictures[:, t - 1], pictures[:, t]) for t in range(1, pictures.shape[1])]


def borders(lengths: Sequence[int]) -> list[int]:
    """At which pictures blocks of so many latent frames begin, the first at picture 0."""
    return [PICTURES_PER_LATENT * frames for frames in accumulate(lengths[:-1])]


def flicker(pictures: Tensor, starts: Sequence[int]) -> float:
    """Change at block borders over change inside, pictures (clips, t, 3, h, w); blocks begin at 0 and at `starts`."""
    change = changes(pictures)
    border = torch.zeros(change.shape[1], dtype=torch.bool, device=change.device)
    border[[start - 1 for start in starts]] = True
    return float(change[:, border].mean() / change[:, border.logical_not()].mean().clamp_min(1e-6))


def colour_gap(pictures: Tensor, renders: Tensor) -> float:
    """Distance of the mean colours (0..255) of clips (n, t, 3, h, w) to those of their renders, mean over clips."""
    ours, theirs = (clips.float().mean((1, 3, 4)) for clips in (pictures, renders))
    return float((ours - theirs).norm(dim=1).mean())
