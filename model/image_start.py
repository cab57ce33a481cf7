"""A stream that starts from a picture: the picture becomes latent frame 0, and the stream goes on from it.

The picture is encoded as the VAE's first frame, alone, and normalised channel by channel: (mode - mean) / std. That
is the same as `image_latents` in diffusers' `SanaImageToVideoPipeline.prepare_latents` (`sample_mode="argmax"`).

What is conditioned on it differs. The pipeline denoises the whole clip at once and keeps latent frame 0 clean *inside
each pass* (timestep 0 for its tokens, the noisy frames attend to it under the same text). A stream sees its past only
through its state, so here the picture is a block of its own, one latent frame long, already clean: it takes no
denoising pass and is committed as any other block, at t = 0, as the first step of block 1 and under the text then in
force. Block 1 begins at latent frame 1 with noise keyed by it. Checkpoints whose training had such first blocks go on
best; LongSANA's had none shorter than ten latent frames, there it is an extrapolation.
"""

from __future__ import annotations

import torch
from PIL import Image, ImageOps
from torch import Tensor

from model.vae import StreamingVAE
from model.whole_vae import WholeVAE

Picture = Image.Image | Tensor


def picture_tensor(picture: Picture, height: int, width: int) -> Tensor:
    """A picture as uint8 (1, height, width, 3).

    Args:
        picture: a PIL image of any size and mode, turned by its EXIF orientation, transparent parts on white, cut to
            the aspect ratio around its middle, resized; or a uint8 tensor (height, width, 3) of exactly this size.
        height, width: in pixels.

    Raises:
        ValueError: a tensor of another type or size.
    """
    if isinstance(picture, Tensor):
        if picture.dtype != torch.uint8 or tuple(picture.shape) != (height, width, 3):
            found = f"{picture.dtype} {tuple(picture.shape)}"
            raise ValueError(f"image: must be uint8 ({height}, {width}, 3), not {found}")
        return picture[None]
    upright = ImageOps.exif_transpose(picture).convert("RGBA")
    opaque = Image.alpha_composite(Image.new("RGBA", upright.size, (255, 255, 255, 255)), upright).convert("RGB")
    fitted = ImageOps.fit(opaque, (width, height), Image.Resampling.LANCZOS)
    pixels = torch.frombuffer(bytearray(fitted.tobytes()), dtype=torch.uint8)
    return pixels.view(1, height, width, 3)


def first_latent(vae: StreamingVAE | WholeVAE, picture: Picture, height: int, width: int) -> Tensor:
    """The normalised latent (1, channels, 1, h, w), float32, that `LatentStream(image=...)` takes.

    Raises:
        ValueError: as `picture_tensor`, or a size that the VAE doesn't take.
    """
    return vae.encode(picture_tensor(picture, height, width))
