"""How a block is denoised: a list of steps over the shifted 1000-step flow table.

A step is one transformer pass. The first step of every block but the first commits the block before it (a pass at
t = 0 over its clean latents, which writes the state); the others denoise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import torch
from torch import Tensor

SamplerName = Literal["renoise", "euler", "adams-bashforth"]
SAMPLERS: tuple[SamplerName, ...] = ("renoise", "euler", "adams-bashforth")
TABLE_STEPS = 1000


@lru_cache(maxsize=16)
def sigma_table(shift: float) -> Tensor:
    """Sigmas of the shifted flow schedule, (1000,), float32, from 1 down.

    s_i = 1 - i/1000, sigma_i = shift s_i / (1 + (shift - 1) s_i); the timestep of entry i is 1000 sigma_i.
    """
    s = 1 - torch.arange(TABLE_STEPS, dtype=torch.float64) / TABLE_STEPS
    return (shift * s / (1 + (shift - 1) * s)).float()


@lru_cache(maxsize=256)
def sigma_of(timestep: float, shift: float) -> float:
    """Sigma of the table entry whose timestep is nearest, which is not timestep / 1000."""
    table = sigma_table(shift)
    return float(table[(table * TABLE_STEPS - timestep).abs().argmin()])


def spaced_timesteps(steps: int, shift: float) -> tuple[float, ...]:
    """Timesteps of so many passes, evenly spaced over the flow schedule before its shift, falling from 1000."""
    table = sigma_table(shift)
    return tuple(TABLE_STEPS * float(table[i * TABLE_STEPS // steps]) for i in range(steps))


@lru_cache(maxsize=256)
def _rounded(timestep: float, dtype: torch.dtype) -> float:
    return float(torch.tensor(timestep, dtype=dtype))


@dataclass(frozen=True)
class Commit:
    """Write the last clean block into the state, at timestep 0; `before_steer`: under the text that a steer ended."""

    before_steer: bool = False


@dataclass(frozen=True)
class Denoise:
    """One denoising pass.

    `sigma` belongs to `timestep`, `next_sigma` to the noise of the pass after it (0 for the last); `index` counts
    from 0.
    """

    index: int
    timestep: float
    sigma: float
    next_sigma: float


Step = Commit | Denoise


def block_steps(
    timesteps: Sequence[float], shift: float, *, commit: bool, rounded_to: torch.dtype | None = None
) -> list[Step]:
    """The steps of one block: the commit of the block before it, if there is one, then a pass a timestep.

    `rounded_to`: the dtype in which a pass is told its timestep, as LongSANA's released code does; bfloat16 makes 888
    of 889 and 728 of 727, for the network and for the sigma of the clean estimate, not for the noise level.
    """
    told = [float(t) for t in timesteps]
    levels = [sigma_of(t, shift) for t in told] + [0.0]
    if rounded_to is not None:
        told = [_rounded(t, rounded_to) for t in told]
    passes = [Denoise(i, t, sigma_of(t, shift), levels[i + 1]) for i, t in enumerate(told)]
    return [Commit(), *passes] if commit else list(passes)


def clean_estimate(x: Tensor, flow: Tensor, sigma: float) -> Tensor:
    """x0 = x - sigma * flow, float32; the authors' float64, which not every device has, differs by a rounding."""
    return torch.add(x, flow, alpha=-sigma)


def renoise(x0: Tensor, noise: Tensor, sigma: float) -> Tensor:
    """(1 - sigma) x0 + sigma noise, in the tensors' own precision."""
    return (1 - sigma) * x0 + sigma * noise


def euler(x: Tensor, flow: Tensor, sigma: float, next_sigma: float) -> Tensor:
    """One Euler step of the flow from sigma to next_sigma, both tensors float32."""
    return torch.add(x, flow, alpha=next_sigma - sigma)


def adams_bashforth(
    x: Tensor, flow: Tensor, before: Tensor, sigma_before: float, sigma: float, next_sigma: float
) -> Tensor:
    """One second-order step of the flow from sigma to next_sigma, all tensors float32.

    `before` is the flow found at the pass before, at `sigma_before`. The flow is taken to go on changing as it did,
    and its value in the middle of the interval is used (Adams-Bashforth of two steps, uneven ones). It costs no pass
    and, with few passes, saves much of the detail that Euler steps average away.
    """
    half = 0.5 * (sigma - next_sigma) / (sigma_before - sigma)
    return torch.add(x, torch.lerp(before, flow, 1 + half), alpha=next_sigma - sigma)
