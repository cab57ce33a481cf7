"""Decoding of clips in a row, each by itself: see `model.chain`."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from model.vae import DecodeState, StreamingVAE


@dataclass
class ChainState:
    """What decoding one chained stream remembers."""

    inner: DecodeState = field(default_factory=DecodeState)
    position: int = 0  # the latent frame that is decoded next
    given: Tensor | None = None  # that of the clip it is in

    @property
    def nbytes(self) -> int:
        """Bytes of tensors held."""
        return self.inner.nbytes

    def reset(self) -> None:
        """Forget everything; the next latent frame is the first."""
        self.inner.reset()
        self.position, self.given = 0, None


class ChainVAE:
    """Decodes what a `ChainStream` makes, each clip by itself; the interface of `StreamingVAE`.

    Args:
        vae: the checkpoint's.
        clip: latent frames of the longest block but the first.
    """

    def __init__(self, vae: StreamingVAE, clip: int) -> None:
        self._vae = vae
        self.channels = 2 * vae.channels
        self.device, self.dtype = vae.device, vae.dtype
        self.spatial_factor, self.temporal_factor = vae.spatial_factor, vae.temporal_factor
        self.memory_latent_frames = clip
        """Priming from that many is exact: nothing before its clip matters to a picture."""
        self.encode = vae.encode

    def new_state(self) -> ChainState:
        """An empty state, at latent frame 0."""
        return ChainState(self._vae.new_state())

    def decode(self, latents: Tensor, state: ChainState) -> Tensor:
        """One latent frame (1, 2 channels, 1, h, w) to uint8 pictures (1 or 4, height, width, 3)."""
        return self._vae.decode(self._enter(latents, state), state.inner)

    def decode_yuv(self, latents: Tensor, state: ChainState) -> list[bytes]:
        """One latent frame (1, 2 channels, 1, h, w) to I420 pictures, see `StreamingVAE`."""
        return self._vae.decode_yuv(self._enter(latents, state), state.inner)

    def _enter(self, latents: Tensor, state: ChainState) -> Tensor:
        if latents.shape[2] != 1:
            raise ValueError(f"latents are decoded one latent frame a call, not {latents.shape[2]}")
        own, given = latents.chunk(2, dim=1)
        if state.given is not None and not torch.equal(given, state.given):
            self._vae.prime(given, state.inner, 0)
        state.given = given.clone()
        state.position += 1
        return own

    def prime(self, latents: Tensor, state: ChainState, first_latent: int) -> None:
        """Make the state what it is after decoding up to latents (1, 2 channels, n, h, w).

        Args:
            latents: in order; exact with n >= `memory_latent_frames` or first_latent = 0.
            state: whatever it held is dropped.
            first_latent: the latent frame of latents[:, :, 0].
        """
        own, given = latents.chunk(2, dim=1)
        start = count = latents.shape[2]
        while start and torch.equal(given[:, :, start - 1], given[:, :, -1]):
            start -= 1
        clip = own[:, :, start:]
        if first_latent + start > 0:
            clip = torch.cat([given[:, :, -1:], clip], dim=2)
        self._vae.prime(clip, state.inner, 0)
        state.position = first_latent + count
        state.given = given[:, :, -1:].clone()
