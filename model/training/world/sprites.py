"""The subjects, and the ringed planet, painted once as looping animations.

`atlas()` is (sprites, 48 frames, 5, 96, 160): channels, multiplied by coverage: 0 alpha, 1 brightness of the parts
that keep their colour, 2 brightness of the parts that take the subject's colour, 3 emission (lamps, windows), 4 rim
(edge towards the light). All face right.

A detail must outlive the VAE, which keeps 8 x 8 pixels of four pictures in one latent pixel: shapes are few, broad
(3 pixels and more once scaled) and inked round, and what moves moves slowly.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from model.training.world.brush import CELL_HEIGHT, CELL_WIDTH, CHANNELS, Brush
from model.training.world.creatures import birds, dragon, whale
from model.training.world.vehicles import balloon, lighthouse, planet, sailboat, train, ufo

__all__ = ["CELL_HEIGHT", "CELL_WIDTH", "FRAMES", "SPRITES", "atlas"]

FRAMES = 48  # a loop of 3 s is then one frame a picture at 16 Hz, one of 1.5 s two: neither stutters

PAINTERS: dict[str, Callable[[Brush, float], None]] = {
    "sailboat": sailboat, "balloon": balloon, "birds": birds, "train": train, "whale": whale, "ufo": ufo,
    "lighthouse": lighthouse, "dragon": dragon, "planet": planet,
}  # fmt: skip
SPRITES = tuple(PAINTERS)
_STILL = (lighthouse, planet)


@lru_cache(maxsize=1)
def atlas() -> npt.NDArray[np.float32]:
    """(9 sprites in the order of SPRITES, 48 frames, 5, 96, 160) float32 0..1."""
    sheets = np.zeros((len(SPRITES), FRAMES, CHANNELS, CELL_HEIGHT, CELL_WIDTH), np.float32)
    for s, paint in enumerate(PAINTERS.values()):
        for f in range(FRAMES):
            if paint in _STILL and f:
                sheets[s, f] = sheets[s, 0]
                continue
            brush = Brush()
            paint(brush, 2 * math.pi * f / FRAMES)
            sheets[s, f] = brush.finish()
    return sheets
