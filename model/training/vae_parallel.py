"""A whole clip through `diffusers.AutoencoderKLWan` at once.

diffusers runs its causal VAE four pictures at a time with a cache. For training we run every layer over the
whole clip instead; zero padding on the left is what the empty cache gives, and the first picture, which the
temporal resampling lets pass, is cut off and put back. Equal to diffusers' result to rounding
(tests/model/training/test_vae_parallel.py).

All functions take the diffusers module itself, so weights need no conversion.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def _norm_silu_pad(x: Tensor, gamma: Tensor, frames: int) -> Tensor:
    """RMS norm over channels, SiLU, `frames` zero frames on the left: one kernel when compiled."""
    wide = x.float()
    length = wide.square().sum(1, keepdim=True).sqrt().clamp_min(1e-12)
    y = F.silu((wide / length) * (x.shape[1] ** 0.5) * gamma.float()).to(x.dtype)
    return F.pad(y, (0, 0, 0, 0, frames, 0))


def _upsample(x: Tensor) -> Tensor:
    """Double height and width by repetition; `(batch, channels, height, width)`."""
    b, c, h, w = x.shape
    y = x.permute(0, 2, 3, 1)[:, :, None, :, None].expand(b, h, 2, w, 2, c)
    return y.reshape(b, 2 * h, 2 * w, c).permute(0, 3, 1, 2)


def _add_down(x: Tensor, shortcut: Any, source: Tensor) -> Tensor:
    added: Tensor = x + shortcut(source)
    return added


def _add_up(x: Tensor, shortcut: Any, source: Tensor) -> Tensor:
    added: Tensor = x + shortcut(source, first_chunk=True)
    return added


class VaeParallel:
    """Encodes and decodes whole clips with a diffusers Wan VAE.

    Args:
        vae: the module; `patch_size` set, residual or not.
        compiled: compile the pointwise parts (worth it on an accelerator only).
    """

    def __init__(self, vae: Any, compiled: bool = False) -> None:
        self.vae = vae
        wrap: Callable[[Any], Any] = (lambda f: torch.compile(f, dynamic=False)) if compiled else (lambda f: f)
        self._norm = wrap(_norm_silu_pad)
        self._upsample = wrap(_upsample)
        self._add_down = wrap(_add_down)
        self._add_up = wrap(_add_up)

    def encode(self, pictures: Tensor) -> Tensor:
        """Return mean and log variance `(batch, 2 z, latent frames, height / 8, width / 8)`.

        Args:
            pictures: `(batch, 3, 1 + 4 n, height, width)` in -1 to 1.
        """
        vae = self.vae
        x = self.conv(vae.encoder.conv_in, _patchify(pictures, vae.config.patch_size))
        for block in vae.encoder.down_blocks:
            if hasattr(block, "resnets"):
                source = x
                for resnet in block.resnets:
                    x = self.resnet(resnet, x)
                if block.downsampler is not None:
                    x = self._down(block.downsampler, x)
                x = self._add_down(x, block.avg_shortcut, source)
            else:
                x = self._down(block, x) if hasattr(block, "resample") else self.resnet(block, x)
        x = self.middle(vae.encoder.mid_block, x)
        x = self._normed(vae.encoder.norm_out, vae.encoder.conv_out, x)
        return F.conv3d(x, _like(vae.quant_conv.weight, x), _like(vae.quant_conv.bias, x))

    def decode(self, latents: Tensor) -> Tensor:
        """Return pictures `(batch, 3, 1 + 4 (latent frames - 1), height, width)`, not clamped.

        Args:
            latents: `(batch, z, latent frames, height / 8, width / 8)`, not normalised.
        """
        vae = self.vae
        x = F.conv3d(latents, _like(vae.post_quant_conv.weight, latents), _like(vae.post_quant_conv.bias, latents))
        x = self.conv(vae.decoder.conv_in, x)
        x = self.middle(vae.decoder.mid_block, x)
        for block in vae.decoder.up_blocks:
            source = x
            for resnet in block.resnets:
                x = self.resnet(resnet, x)
            sampler = getattr(block, "upsampler", None) or (getattr(block, "upsamplers", None) or [None])[0]
            if sampler is not None:
                x = self._up(sampler, x)
            if getattr(block, "avg_shortcut", None) is not None:
                x = self._add_up(x, block.avg_shortcut, source)
        x = self._normed(vae.decoder.norm_out, vae.decoder.conv_out, x)
        return _unpatchify(x, vae.config.patch_size)

    def conv(self, conv: Any, x: Tensor) -> Tensor:
        """One causal convolution over whole clips `(batch, channels, frames, height, width)`."""
        return self._conv_padded(conv, F.pad(x, (0, 0, 0, 0, conv.weight.shape[2] - 1, 0)))

    def _conv_padded(self, conv: Any, x: Tensor) -> Tensor:
        """A causal convolution over frames that are already padded on the left."""
        side = conv.weight.shape[-1] // 2
        return F.conv3d(x, _like(conv.weight, x), _like(conv.bias, x), padding=(0, side, side))

    def _normed(self, norm: Any, conv: Any, x: Tensor) -> Tensor:
        return self._conv_padded(conv, self._norm(x, norm.gamma, conv.weight.shape[2] - 1))

    def resnet(self, block: Any, x: Tensor) -> Tensor:
        """One residual block over whole clips."""
        kept = x if isinstance(block.conv_shortcut, torch.nn.Identity) else self.conv(block.conv_shortcut, x)
        x = self._normed(block.norm1, block.conv1, x)
        return self._normed(block.norm2, block.conv2, x) + kept

    def middle(self, block: Any, x: Tensor) -> Tensor:
        """A middle block (residual, attention, residual) over whole clips."""
        x = self.resnet(block.resnets[0], x)
        for attention, resnet in zip(block.attentions, block.resnets[1:], strict=True):
            x = self.resnet(resnet, self._attention(attention, x))
        return x

    def _attention(self, block: Any, x: Tensor) -> Tensor:
        b, c, t, h, w = x.shape
        tokens = x.permute(0, 2, 3, 4, 1).reshape(b * t, h * w, c)
        normed = F.normalize(tokens.float(), dim=-1).to(x.dtype) * (c**0.5) * _like(block.norm.gamma, x).flatten()
        qkv = F.linear(normed, _like(block.to_qkv.weight, x)[:, :, 0, 0], _like(block.to_qkv.bias, x))
        q, k, v = qkv.chunk(3, dim=-1)
        mixed = F.scaled_dot_product_attention(q[:, None], k[:, None], v[:, None])[:, 0]
        out = F.linear(mixed, _like(block.proj.weight, x)[:, :, 0, 0], _like(block.proj.bias, x))
        return x + out.reshape(b, t, h, w, c).permute(0, 4, 1, 2, 3)

    def _down(self, block: Any, x: Tensor) -> Tensor:
        conv = block.resample[1]
        y = _unfold(F.conv2d(F.pad(_fold(x), (0, 1, 0, 1)), _like(conv.weight, x), _like(conv.bias, x), stride=2), x)
        if block.mode != "downsample3d":
            return y
        time = block.time_conv
        rest = F.conv3d(y, _like(time.weight, x), _like(time.bias, x), stride=(2, 1, 1))
        return torch.cat([y[:, :, :1], rest], dim=2)

    def _up(self, block: Any, x: Tensor) -> Tensor:
        if block.mode == "upsample3d":
            b, c, t, h, w = x.shape
            pair = self.conv(block.time_conv, x[:, :, 1:])
            pair = pair.reshape(b, 2, c, t - 1, h, w).permute(0, 2, 3, 1, 4, 5).reshape(b, c, 2 * t - 2, h, w)
            x = torch.cat([x[:, :, :1], pair], dim=2).contiguous(memory_format=torch.channels_last_3d)
        conv = block.resample[1]
        y = F.conv2d(self._upsample(_fold(x)), _like(conv.weight, x), _like(conv.bias, x), padding=1)
        return _unfold(y, x)


def _like(parameter: Tensor, x: Tensor) -> Tensor:
    """Return a parameter in the data's precision; float32 masters stay what the optimiser sees."""
    return parameter.to(x.dtype)


def _fold(x: Tensor) -> Tensor:
    """`(batch, channels, frames, h, w)` to `(batch * frames, channels, h, w)`, a view when channels-last."""
    b, c, t, h, w = x.shape
    return x.permute(0, 2, 1, 3, 4).reshape(b * t, c, h, w)


def _unfold(y: Tensor, like: Tensor) -> Tensor:
    """Undo `_fold` for a tensor of other channels and size."""
    b, _, t = like.shape[:3]
    return y.reshape(b, t, *y.shape[1:]).permute(0, 2, 1, 3, 4)


def _patchify(x: Tensor, size: int | None) -> Tensor:
    """Move `size` x `size` picture patches into channels, ordered (channel, column, row) as diffusers does."""
    if size is None or size == 1:
        return x
    b, c, t, h, w = x.shape
    y = x.reshape(b, c, t, h // size, size, w // size, size).permute(0, 1, 6, 4, 2, 3, 5)
    y = y.reshape(b, c * size * size, t, h // size, w // size)
    return y.contiguous(memory_format=torch.channels_last_3d)


def _unpatchify(x: Tensor, size: int | None) -> Tensor:
    """Undo `_patchify`."""
    if size is None or size == 1:
        return x
    b, c, t, h, w = x.shape
    y = x.reshape(b, c // (size * size), size, size, t, h, w).permute(0, 1, 4, 5, 3, 6, 2)
    return y.reshape(b, c // (size * size), t, h * size, w * size)
