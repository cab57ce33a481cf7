"""A whole clip denoised at once, as bidirectional checkpoints do it, a scheduler's step at a time.

The loop of diffusers' `SanaVideoPipeline` and, with a first latent frame given, `SanaImageToVideoPipeline`, cut into
steps: same noise, same schedulers, same latents. The pipelines of `model.pipelines` are those of diffusers and can't
be left in the middle; a server must be able to.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor

from model.layers import TextCache
from model.passes import Text


class WholeClip:
    """A clip under way: see `model.clip.Maker`.

    Args:
        scheduler: copied; as configured.
        text: the prompt, and the transformer that reads it.
        negative: what guidance leads away from; None for no guidance.
        guidance_scale: above 1, with `negative`.
        steps: of the scheduler.
        shape: latent frames, height and width of the latents.
        seed: of the noise: `torch.Generator("cpu").manual_seed(seed)`, as diffusers draws it.
        image: the first latent frame (1, channels, 1, height, width), which stays as it is.
    """

    def __init__(
        self,
        scheduler: Any,
        *,
        text: Text,
        negative: Text | None,
        guidance_scale: float,
        steps: int,
        shape: tuple[int, int, int],
        seed: int,
        image: Tensor | None = None,
    ) -> None:
        transformer = text.net
        self._net, self._scale = transformer, guidance_scale
        rows = [text.cache] if negative is None else [negative.cache, text.cache]
        self._text: TextCache | None = TextCache.stack(rows)
        self._rows = len(rows)
        self._scheduler = copy.deepcopy(scheduler)
        self._scheduler.set_timesteps(steps, device=transformer.device)
        self._timesteps = list(self._scheduler.timesteps)
        generator = torch.Generator("cpu").manual_seed(seed)
        channels = transformer.config.in_channels
        self._latents: Tensor = randn_tensor(
            (1, channels, *shape), generator=generator, device=transformer.device, dtype=torch.float32
        )
        self._given = 0 if image is None else 1
        if image is not None:
            self._latents[:, :, :1] = image.to(self._latents)
        self.passes_left = len(self._timesteps)

    @torch.no_grad()
    def step(self) -> Tensor | None:
        """One step of the scheduler; after the last one, the clip (1, channels, frames, height, width), float32."""
        if self._text is None:
            raise RuntimeError("the clip was closed")
        t = self._timesteps[-self.passes_left]
        latents, given = self._latents, self._given
        (flow,) = self._net(
            torch.cat([latents] * self._rows).to(self._net.dtype), self._text, self._times(t), return_dict=False
        )
        flow = flow.float()
        if self._rows == 2:
            aside, flow = flow.chunk(2)
            flow = aside + self._scale * (flow - aside)
        flow = flow[:, : latents.shape[1]]  # a checkpoint that also learned the variance
        moved = self._scheduler.step(flow[:, :, given:], t, latents[:, :, given:], return_dict=False)[0]
        self._latents = torch.cat([latents[:, :, :given], moved], dim=2)
        self.passes_left -= 1
        return None if self.passes_left else self._latents

    def _times(self, t: Tensor) -> Tensor:
        """The timestep of every row, or of every token: 0 for those of a given frame."""
        if not self._given:
            return t.expand(self._rows)
        _, _, frames, height, width = self._latents.shape
        p_t, p_h, p_w = self._net.config.patch_size
        times = t.expand(self._rows, 1, frames // p_t, height // p_h, width // p_w).clone()
        times[:, :, 0] = 0
        return times

    def close(self) -> None:
        """Free what it holds."""
        self._text = None
        self._latents = self._latents.new_zeros(())
