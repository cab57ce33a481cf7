"""Ways to decode a block of latents: what plain classes do, and what makes it cheaper.

Every way decodes the same blocks one after the other, each with its own memory of those before; `run` is timed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, Protocol

import torch
from diffusers import AutoencoderKLWan
from diffusers.models.autoencoders.autoencoder_kl_wan import unpatchify
from torch import Tensor

from benchmarks.cheaper.passes import World
from model.devices import name_of
from model.vae import StreamingVAE
from model.vae_decoder import StreamDecoder


class Decoding(Protocol):
    """One way to decode."""

    def run(self, latents: Tensor) -> None:
        """Decode the next block, (1, channels, frames, h, w), to what the way ends with."""
        ...

    def pictures(self, latents: Tensor) -> Tensor | None:
        """The same block's pictures, (1, 3, pictures, height, width) in [-1, 1]; None: they show nothing."""
        ...


class Ours:
    """`StreamingVAE`, latent frame by latent frame, to I420 bytes as a stream needs them.

    Args:
        vae: with its weights.
        whole: all latent frames of the block in one call.
        pairs: see `StreamDecoder`.
        shows: whether the weights are the checkpoint's.
    """

    def __init__(
        self, vae: AutoencoderKLWan, *, whole: bool = False, pairs: bool | None = None, shows: bool = True
    ) -> None:
        self.vae, self._whole, self._shows = StreamingVAE(vae), whole, shows
        if pairs is not None:
            self.vae.decoder = StreamDecoder(vae.decoder, pairs=pairs)
        self.state, self._beside = self.vae.new_state(), self.vae.new_state()

    def run(self, latents: Tensor) -> None:
        for part in [latents] if self._whole else latents.split(1, dim=2):
            self.vae.decode_yuv(part, self.state)

    def pictures(self, latents: Tensor) -> Tensor | None:
        return self.vae.decode_samples(latents, self._beside).float() if self._shows else None


class Plain:
    """Diffusers' decoder with its own causal cache, latent frame by latent frame, to floats."""

    def __init__(self, vae: Any, channels_last: bool = False) -> None:
        self._vae, self._last = vae.eval().requires_grad_(False), channels_last
        for parameter in vae.parameters():
            if channels_last and parameter.dim() == 5:
                parameter.data = parameter.data.contiguous(memory_format=torch.channels_last_3d)
        shape = (1, -1, 1, 1, 1)
        self._mean, self._std = (torch.tensor(vae.config[f"latents_{name}"]).view(shape) for name in ("mean", "std"))
        vae.clear_cache()
        self._cache, self._first = vae._feat_map, True
        self._made = torch.zeros(())

    def run(self, latents: Tensor) -> None:
        z = (latents * self._std + self._mean).to(self._vae.dtype)
        if self._last:
            z = z.contiguous(memory_format=torch.channels_last_3d)
        made = []
        for frame in self._vae.post_quant_conv(z).split(1, dim=2):
            made.append(self._vae.decoder(frame, feat_cache=self._cache, feat_idx=[0], first_chunk=self._first))
            self._first = False
        pictures = torch.cat(made, dim=2)
        patch = self._vae.config.patch_size
        self._made = (unpatchify(pictures, patch) if patch else pictures).clamp(-1, 1)

    def pictures(self, latents: Tensor) -> Tensor | None:
        return self._made.float()


def ways(world: World, dtype: torch.dtype, bases: Sequence[int]) -> Iterator[tuple[str, Callable[[], Decoding]]]:
    """(name, what makes it): the first is the plain form; `dtype` is what a server takes here."""
    fp32, bf16 = torch.float32, torch.bfloat16

    def vae(dtype: torch.dtype) -> AutoencoderKLWan:
        return AutoencoderKLWan.from_pretrained(world.folder / "vae", torch_dtype=dtype, local_files_only=True)

    def narrower(base: int) -> Decoding:
        config = {**vae(fp32).config, "decoder_base_dim": base}
        return Ours(AutoencoderKLWan.from_config(config).to(dtype), shows=False)

    yield "diffusers' class, float32", lambda: Plain(vae(fp32))
    yield "diffusers' class, float32, channels last", lambda: Plain(vae(fp32), channels_last=True)
    yield "diffusers' class, bfloat16", lambda: Plain(vae(bf16))
    yield "diffusers' class, bfloat16, channels last", lambda: Plain(vae(bf16), channels_last=True)
    yield "ours, float32, plain time convolution", lambda: Ours(vae(fp32), pairs=False)
    yield "ours, float32", lambda: Ours(vae(fp32))
    yield "ours, bfloat16, plain time convolution", lambda: Ours(vae(bf16), pairs=False)
    yield "ours, bfloat16", lambda: Ours(vae(bf16))
    yield f"ours, {name_of(dtype)}, a block a call", lambda: Ours(vae(dtype), whole=True)
    for base in bases:
        yield f"ours, {name_of(dtype)}, base {base}, random weights", partial(narrower, base)
