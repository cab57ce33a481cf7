"""Latents to pictures, latent frame by latent frame, and pictures to latents.

`StreamingVAE` wraps a `diffusers.AutoencoderKLWan` (Wan 2.1's form, the residual form, any depth, with or without
picture patches). The causal cache lives in a `DecodeState`, one for each stream; the module keeps nothing, so
streams may take turns on it. It is meant for one thread at a time, as diffusers' encoder is.

Latents are the pipeline's: normalised, (z - latents_mean) / latents_std, channel by channel.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKLWan
from torch import Tensor

from model.pictures import to_samples
from model.positions import PICTURES_PER_LATENT
from model.vae_decoder import StreamDecoder, Tails

# BT.709, limited range: luma 16..235, chroma 16..240 (ITU-R BT.709-6, items 3.2 to 4.6).
LUMA = (0.2126, 0.7152, 0.0722)


@dataclass
class DecodeState:
    """What decoding one stream remembers: two frames before each convolution. Starts empty, at latent frame 0."""

    tails: Tails = field(default_factory=list)
    position: int = 0  # the latent frame that is decoded next
    size: tuple[int, int] | None = None  # height and width in latent pixels, fixed by the first latent

    @property
    def nbytes(self) -> int:
        """Bytes of tensors held."""
        return sum(tail.nbytes for tail in self.tails if tail is not None)

    def reset(self, position: int = 0) -> None:
        """Forget everything; the next latent is `position`."""
        self.tails, self.position, self.size = [], position, None


class StreamingVAE:
    """Streaming decoder and image encoder over the weights of a `diffusers.AutoencoderKLWan`.

    Place the VAE (device, dtype) before wrapping it: layouts of weights are derived here.
    """

    def __init__(self, vae: AutoencoderKLWan) -> None:
        """Raises ValueError for a VAE whose pictures don't have three colours or whose latents lack statistics."""
        config = vae.config
        self.vae = vae.eval().requires_grad_(False)
        self.patch = int(config.patch_size or 1)
        if config.out_channels != 3 * self.patch**2:
            raise ValueError(f"vae out_channels is {config.out_channels}, not 3 x patch_size² = {3 * self.patch**2}")
        for name in ("latents_mean", "latents_std"):
            if len(getattr(config, name)) != config.z_dim:
                raise ValueError(f"vae {name} has {len(getattr(config, name))} values, z_dim is {config.z_dim}")
        self.channels = int(config.z_dim)
        weight = vae.post_quant_conv.weight
        self.device, self.dtype = weight.device, weight.dtype
        self.decoder = StreamDecoder(vae.decoder)
        self.spatial_factor = 2 ** (len(config.dim_mult) - 1) * self.patch
        self.temporal_factor = self.decoder.frames_per_latent
        self.mean = torch.tensor(config.latents_mean, device=self.device)
        self.std = torch.tensor(config.latents_std, device=self.device)
        # Undoing the normalisation and post_quant_conv (1x1x1) are one linear map of the channels.
        mix = weight.flatten(1).float()
        self._unmix = (mix * self.std).to(self.dtype)
        self._offset = (mix @ self.mean + vae.post_quant_conv.bias.float()).to(self.dtype)
        self._to_yuv, self._yuv_zero = (t.to(self.device) for t in _yuv_of_cells())

    @property
    def memory_latent_frames(self) -> int:
        """How many latent frames back a picture can depend on: re-priming from that many is exact."""
        return self.decoder.stage_memory[0]

    def new_state(self) -> DecodeState:
        """An empty state, at latent frame 0."""
        return DecodeState()

    def pictures_in(self, latents: int, position: int) -> int:
        """How many pictures `latents` latent frames from `position` on make: the video's first makes one."""
        return latents * self.temporal_factor - (self.temporal_factor - 1 if position == 0 and latents else 0)

    @torch.no_grad()
    def decode_samples(self, latents: Tensor, state: DecodeState) -> Tensor:
        """Latents (1, channels, n, h, w), normalised -> pictures (1, 3, pictures, height, width) in [-1, 1].

        The n latent frames must follow those the state has seen; the state moves on by n.
        Raises ValueError for a wrong shape.
        """
        rgb = _unpatchify(self._decode(latents, state), self.patch)
        return rgb.clamp(-1, 1).permute(3, 0, 1, 2)[None]

    @torch.no_grad()
    def decode(self, latents: Tensor, state: DecodeState) -> Tensor:
        """As `decode_samples`, to uint8 pictures (pictures, height, width, 3)."""
        rgb = _unpatchify(self._decode(latents, state), self.patch)
        return rgb.float().clamp_(-1, 1).mul_(127.5).add_(128.0).to(torch.uint8)

    def decode_yuv(self, latents: Tensor, state: DecodeState) -> list[bytes]:
        """As `decode_samples`, to I420 (BT.709, limited range): height * width * 3 / 2 bytes a picture."""
        planes = self.decode_planes(latents, state).cpu().numpy()
        return [picture.tobytes() for picture in planes]

    @torch.no_grad()
    def decode_planes(self, latents: Tensor, state: DecodeState) -> Tensor:
        """As `decode_yuv`, still on the device: uint8 (pictures, height * width * 3 / 2).

        Chroma is the mean of each 2x2 square, sited at its centre.
        """
        x = self._decode(latents, state)
        if self.patch != 2:
            x = _cells(_unpatchify(x, self.patch))
        frames, rows, cols, _ = x.shape
        yuv = x.float().clamp_(-1, 1) @ self._to_yuv + self._yuv_zero
        yuv = yuv.to(torch.uint8)
        luma = yuv[..., :4].view(frames, rows, cols, 2, 2).transpose(2, 3).reshape(frames, -1)
        chroma = yuv[..., 4:].permute(0, 3, 1, 2).reshape(frames, -1)
        return torch.cat((luma, chroma), dim=1)

    @torch.no_grad()
    def prime(self, latents: Tensor, state: DecodeState, first_latent: int) -> None:
        """Make the state what it is after decoding up to latents (1, channels, n, h, w), without making pictures.

        `first_latent` is the latent frame of latents[:, :, 0]. Whatever the state held is dropped. Exact with
        n >= `memory_latent_frames` or first_latent = 0; with fewer the first pictures after it are only close.
        """
        state.reset(first_latent)
        z = self._enter(latents, state)
        self.decoder.prime(z, state.tails, first=first_latent == 0)
        state.position += len(z)

    @torch.no_grad()
    def encode(self, pictures: Tensor) -> Tensor:
        """uint8 pictures (1 + 4 k, height, width, 3) -> normalised latents (1, channels, 1 + k, h, w), float32.

        The mode of the posterior, not a sample. Raises ValueError for other counts, sizes or types.
        """
        x = to_samples(pictures.to(self.device), PICTURES_PER_LATENT, self.spatial_factor)
        z = self.vae.encode(x.to(self.dtype)).latent_dist.mode().float()
        shape = (1, -1, 1, 1, 1)
        return (z - self.mean.view(shape)) / self.std.view(shape)

    def _enter(self, latents: Tensor, state: DecodeState) -> Tensor:
        """Check, undo the normalisation: (1, channels, n, h, w) -> (n, h, w, channels) in the decoder's dtype."""
        if latents.dim() != 5 or latents.shape[0] != 1 or latents.shape[1] != self.channels:
            raise ValueError(f"latents must be (1, {self.channels}, n, h, w), not {tuple(latents.shape)}")
        size = (int(latents.shape[3]), int(latents.shape[4]))
        if state.size not in (None, size):
            raise ValueError(f"latents of {size} in a state of {state.size}")
        if state.size is None:
            state.size, state.tails = size, [None] * self.decoder.tail_count
        z = latents[0].permute(1, 2, 3, 0).to(self.device, self.dtype)
        return F.linear(z, self._unmix, self._offset)

    def _decode(self, latents: Tensor, state: DecodeState) -> Tensor:
        """(1, channels, n, h, w) -> (pictures, height / patch, width / patch, 3 * patch²)."""
        z = self._enter(latents, state)
        parts = [z] if state.position else [z[:1], z[1:]]
        frames = [
            self.decoder.decode(part, state.tails, first=state.position + i == 0)
            for i, part in enumerate(parts)
            if len(part)
        ]
        state.position += len(z)
        return frames[0] if len(frames) == 1 else torch.cat(frames)


def _unpatchify(x: Tensor, patch: int) -> Tensor:
    """(pictures, h, w, 3 * patch²), channels ordered (colour, column, row) -> (pictures, h * patch, w * patch, 3)."""
    if patch == 1:
        return x
    frames, height, width, _ = x.shape
    x = x.reshape(frames, height, width, 3, patch, patch).permute(0, 1, 5, 2, 4, 3)
    return x.reshape(frames, height * patch, width * patch, 3)


def _cells(x: Tensor) -> Tensor:
    """(pictures, height, width, 3) -> (pictures, height / 2, width / 2, 12), ordered (colour, column, row)."""
    frames, height, width, _ = x.shape
    x = x.reshape(frames, height // 2, 2, width // 2, 2, 3).permute(0, 1, 3, 5, 4, 2)
    return x.reshape(frames, height // 2, width // 2, 12)


def _yuv_of_cells() -> tuple[Tensor, Tensor]:
    """The linear map from a 2x2 cell of RGB in [-1, 1] to its Y (row by row), U and V: (12, 6) and (6,).

    The offset includes the half that makes truncation to integers a rounding.
    """
    red, green, blue = LUMA
    luma = torch.tensor(LUMA) / 2
    u = torch.tensor([-red, -green, 1 - blue]) / (2 * (1 - blue)) / 2
    v = torch.tensor([1 - red, -green, -blue]) / (2 * (1 - red)) / 2
    matrix = torch.zeros(3, 2, 2, 6)  # colour, column, row
    for row in range(2):
        for col in range(2):
            matrix[:, col, row, 2 * row + col] = 219 * luma
            matrix[:, col, row, 4] = 224 * u / 4
            matrix[:, col, row, 5] = 224 * v / 4
    zero = torch.tensor([16 + 219 / 2] * 4 + [128.0] * 2) + 0.5
    return matrix.view(12, 6), zero
