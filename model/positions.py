"""Arithmetic of positions: pictures and latent frames of a video VAE, 4 pictures a latent frame unless one says so.

Latent frame f holds picture 0 (f = 0) or pictures 4f-3 .. 4f (f >= 1).
"""

from __future__ import annotations

PICTURES_PER_LATENT = 4


def first_picture(latent: int, per_latent: int = PICTURES_PER_LATENT) -> int:
    """Index of the first picture of a latent frame."""
    return 0 if latent == 0 else per_latent * (latent - 1) + 1


def pictures(latent: int) -> int:
    """Number of pictures in a latent frame: 1 for the first, 4 for every other."""
    return 1 if latent == 0 else PICTURES_PER_LATENT


def latent_of(picture: int, per_latent: int = PICTURES_PER_LATENT) -> int:
    """The latent frame that holds a picture."""
    return (picture + per_latent - 1) // per_latent
