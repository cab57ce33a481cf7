"""The streams' own noise, drawn ahead for many latent frames at once: the same numbers, fewer kernels."""

from __future__ import annotations

import torch
from torch import Tensor

from model.noise import philox_frames

FIRST, MOST = 8, 96  # latent frames drawn at once: at first, and later


class NoiseAhead:
    """`model.noise.Noise` of a seed, in chunks of latent frames.

    Args:
        seed: 64 bits.
        shape: (channels, height, width) of a latent frame.
        device: where it is drawn.
    """

    def __init__(self, seed: int, shape: tuple[int, int, int], device: torch.device) -> None:
        self._seed, self._shape, self._device = seed, shape, device
        self._chunks: dict[int, tuple[int, Tensor]] = {}

    def __call__(self, frame: int, pass_: int) -> Tensor:
        """Noise (channels, height, width) of a latent frame and pass."""
        first, held = self._chunks.get(pass_, (0, None))
        if held is None or not first <= frame < first + len(held):
            count = FIRST if held is None else min(MOST, 2 * len(held))
            first, held = frame, philox_frames(self._seed, frame, count, pass_, self._shape, self._device)
            self._chunks[pass_] = (first, held)
        return held[frame - first]
