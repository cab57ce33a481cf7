"""The video VAE of the 720p form: a clip's latents to pictures, all at once.

`WholeVAE` wraps a `diffusers.AutoencoderKLLTX2Video`: 8 pictures a latent frame, 32 pixels a latent pixel. Its
decoder is not causal: a picture depends on latent frames after it, more of them than a clip has. So it decodes whole
clips, as diffusers' pipelines do, and can't stream.

Latents are the pipeline's: normalised, (z - latents_mean) / latents_std, channel by channel.
"""

from __future__ import annotations

import weakref
from typing import Any

import torch
from diffusers import AutoencoderKLLTX2Video
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from model.pictures import to_pictures, to_samples

NO_STREAMS = "its VAE (AutoencoderKLLTX2Video) is not causal, it decodes whole clips only"
"""Why such a checkpoint has no streams, for people."""


class WholeVAE:
    """Decoder of whole clips and encoder of pictures over the weights of a `diffusers.AutoencoderKLLTX2Video`."""

    def __init__(self, vae: AutoencoderKLLTX2Video) -> None:
        """Raises ValueError for a VAE that doesn't make three colours, or whose decoder wants a timestep."""
        config = vae.config
        if config.in_channels != 3 or config.out_channels != 3:
            raise ValueError(f"vae in_channels, out_channels are {config.in_channels}, {config.out_channels}, not 3")
        if config.timestep_conditioning:
            raise ValueError("vae timestep_conditioning is true, which SANA-Video's pipelines don't give")
        self.vae = vae.eval().requires_grad_(False)
        self.channels = int(config.latent_channels)
        self.spatial_factor = int(vae.spatial_compression_ratio)
        self.temporal_factor = int(vae.temporal_compression_ratio)
        self.device, self.dtype = vae.latents_mean.device, next(vae.parameters()).dtype
        self.mean, self.std = (value.view(1, -1, 1, 1, 1) for value in (vae.latents_mean, vae.latents_std))

    @torch.no_grad()
    def decode_samples(self, latents: Tensor) -> Tensor:
        """A clip's latents (1, channels, n, h, w), normalised -> pictures (1, 3, pictures, height, width), about
        [-1, 1], on the device in the VAE's dtype.

        Raises ValueError for a wrong shape.
        """
        if latents.dim() != 5 or latents.shape[:2] != (1, self.channels):
            raise ValueError(f"latents must be (1, {self.channels}, n, h, w), not {tuple(latents.shape)}")
        z = latents.to(self.device, self.dtype)
        return self.vae.decode(z * self.std.to(z) + self.mean.to(z), return_dict=False)[0]

    def decode(self, latents: Tensor) -> Tensor:
        """As `decode_samples`, to uint8 pictures (pictures, height, width, 3)."""
        return to_pictures(self.decode_samples(latents))

    @torch.no_grad()
    def encode(self, pictures: Tensor) -> Tensor:
        """uint8 pictures (1 + 8 k, height, width, 3) -> normalised latents (1, channels, 1 + k, h, w), float32.

        The mode of the posterior, not a sample. Raises ValueError for other counts, sizes or types.
        """
        x = to_samples(pictures.to(self.device), self.temporal_factor, self.spatial_factor)
        z = self.vae.encode(x.to(self.dtype)).latent_dist.mode().float()
        return (z - self.mean.to(z)) / self.std.to(z)

    def decode_nbytes(self, frames: int, height: int, width: int) -> int:
        """Most bytes of activations that decoding a clip holds at once; sizes of its latents.

        Found by running the decoder without numbers (torch's `meta` device), so it holds for any depth and width.
        What convolutions take for themselves comes on top.
        """
        with torch.device("meta"):
            bare = AutoencoderKLLTX2Video.from_config(self.vae.config).eval()
            z = torch.empty(1, self.channels, frames, height, width, dtype=self.dtype)
        torch.nn.Module.to(bare, self.dtype)  # diffusers' own warns of layers kept in float32, of which it has none
        with torch.no_grad(), _Held() as held:
            bare.decoder(z, None, causal=None)
        return held.most


class _Held(TorchDispatchMode):
    """Counts the bytes of tensors that operations make, as long as they live."""

    def __init__(self) -> None:
        super().__init__()
        self.most = self._now = 0
        self._storages: dict[int, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for tensor in made if isinstance(made, tuple | list) else (made,):
            if isinstance(tensor, Tensor):
                self._hold(tensor.untyped_storage())
        return made

    def _hold(self, storage: Any) -> None:
        key = id(storage)
        if key in self._storages:  # a view of what is counted
            return
        self._storages[key] = storage.nbytes()
        self._now += self._storages[key]
        self.most = max(self.most, self._now)
        weakref.finalize(storage, self._drop, key)

    def _drop(self, key: int) -> None:
        self._now -= self._storages.pop(key)
