"""Normal noise as a pure function of (seed, latent frame, pass): Philox4x32-10 and Box-Muller.

Philox is the counter-based generator of Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" (SC'11).
The integers are the same on every machine; the normals equal to float32 rounding. The global RNG is never used.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

Noise = Callable[[int, int], Tensor]
"""noise(absolute latent frame, pass) -> (channels, height, width); pass 0 starts a block, 1, 2, ... re-noise it."""

_M0, _M1 = 0xD2511F53, 0xCD9E8D57
_W0, _W1 = 0x9E3779B9, 0xBB67AE85
_MASK = 0xFFFFFFFF
_ROUNDS = 10


def philox4x32(counter: tuple[Tensor, Tensor, Tensor, Tensor], key: tuple[int, int]) -> tuple[Tensor, ...]:
    """Ten rounds of Philox4x32.

    Args:
        counter: four int64 tensors of one shape that hold 32-bit words, lowest word first.
        key: two 32-bit words.

    Returns:
        Four int64 tensors that hold 32-bit words.
    """
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(_ROUNDS):
        # int64 products wrap modulo 2^64, so both halves come out right after masking.
        p0, p1 = c0 * _M0, c2 * _M1
        c0, c1, c2, c3 = (
            ((p1 >> 32) & _MASK) ^ c1 ^ k0,
            p1 & _MASK,
            ((p0 >> 32) & _MASK) ^ c3 ^ k1,
            p0 & _MASK,
        )
        k0, k1 = (k0 + _W0) & _MASK, (k1 + _W1) & _MASK
    return c0, c1, c2, c3


def philox_normal(
    seed: int,
    frame: int,
    pass_: int,
    shape: tuple[int, ...],
    device: torch.device | str = "cpu",
) -> Tensor:
    """Standard normal noise of one latent frame, float32, of `shape`, e.g. (channels, height, width).

    Args:
        seed: 64-bit stream seed (taken modulo 2^64): the Philox key.
        frame: absolute latent frame, 64 bits of the counter.
        pass_: 0 for the start of a block, 1, 2, ... for each re-noising; 32 bits of the counter.
        shape: shape of the result; elements are filled in row-major order.
        device: where to compute.
    """
    return philox_frames(seed, frame, 1, pass_, shape, device)[0]


def philox_frames(
    seed: int,
    first_frame: int,
    frames: int,
    pass_: int,
    shape: tuple[int, ...],
    device: torch.device | str = "cpu",
) -> Tensor:
    """`philox_normal` of so many latent frames in a row, (frames, *shape), in as many kernels as one takes.

    Equal to one by one to float32 rounding.
    """
    count = math.prod(shape)
    index = torch.arange((count + 3) // 4, dtype=torch.int64, device=device).expand(frames, -1)
    frame = torch.arange(frames, dtype=torch.int64, device=device)[:, None].add(first_frame).expand_as(index)
    words = philox4x32(
        (index, torch.full_like(index, pass_ & _MASK), frame & _MASK, (frame >> 32) & _MASK),
        (seed & _MASK, (seed >> 32) & _MASK),
    )
    # 24 bits each, exact in float32: the radius' uniform lies in (0, 1], the angle's in [0, 1).
    u0, u1, u2, u3 = ((word >> 8).float() for word in words)
    normals = [*_box_muller(u0, u1), *_box_muller(u2, u3)]
    return torch.stack(normals, dim=-1).flatten(1)[:, :count].unflatten(1, shape)


def block_noise(
    source: Noise | int,
    first_frame: int,
    frames: int,
    pass_: int,
    shape: tuple[int, int, int],
    device: torch.device | str = "cpu",
) -> Tensor:
    """Noise of a block, (1, channels, frames, height, width) float32, from a function or a seed."""
    span = range(first_frame, first_frame + frames)
    if isinstance(source, int):
        # Metal's 64-bit integers are not relied on: there the host draws.
        place = "cpu" if torch.device(device).type == "mps" else device
        drawn = [philox_normal(source, frame, pass_, shape, place) for frame in span]
    else:
        drawn = [source(frame, pass_).to(torch.float32) for frame in span]
    return torch.stack(drawn, dim=1).unsqueeze(0).to(device)


def _box_muller(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    radius = ((a + 1) * 2.0**-24).log_().mul_(-2).sqrt_()
    angle = b * (2.0**-24 * 2 * math.pi)
    return radius * angle.cos(), radius * angle.sin()
