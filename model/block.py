"""A block in the making: the steps left of it, and its latents between them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from model.precision import rounded
from model.sampler import Denoise, SamplerName, Step, adams_bashforth, clean_estimate, euler, renoise


class Block:
    """Latents on their way from noise to a clean block.

    Args:
        steps: the commit of the block before it, if there is one, then its denoising passes.
        draw: noise (1, channels, frames, height, width), float32, by pass; that of pass 0 is what it begins as.
        sampler: what a pass makes of the flow.
        rounding: of what "renoise" computes, see `model.precision.rounded`.

    Attributes:
        steps: those left, the next one first.
        latents: of draw's shape, float32; clean when no step is left.
    """

    def __init__(
        self,
        steps: Iterable[Step],
        draw: Callable[[int], Tensor],
        sampler: SamplerName,
        rounding: torch.dtype | None,
    ) -> None:
        self.steps = deque(steps)
        self.latents = draw(0)
        self._draw, self._sampler, self._rounding = draw, sampler, rounding
        self._flow_before: tuple[Tensor, float] | None = None  # of the pass before, with its sigma

    def denoise(self, step: Denoise, flow: Tensor) -> None:
        """Take the flow of a pass whose step was taken off `steps`; of the latents' shape, float32."""
        if self._sampler != "renoise":
            self.latents = self._integrated(step, flow)
            return
        self.latents = rounded(clean_estimate(self.latents, flow, step.sigma), self._rounding)
        if self.steps:
            fresh = rounded(self._draw(step.index + 1), self._rounding)
            self.latents = rounded(renoise(self.latents, fresh, step.next_sigma), self._rounding)

    def _integrated(self, step: Denoise, flow: Tensor) -> Tensor:
        before, self._flow_before = self._flow_before, (flow, step.sigma)
        if self._sampler == "euler" or before is None:
            return euler(self.latents, flow, step.sigma, step.next_sigma)
        return adams_bashforth(self.latents, flow, *before, step.sigma, step.next_sigma)
