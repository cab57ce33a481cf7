"""How exactly a stream computes: as the maths says, or as LongSANA's released bfloat16 code does.

`precise`: the sums that a stream carries are float32, a pass is told its exact timestep, latents are float32.
`reference`: as the authors' code in the transformer's dtype. In bfloat16 the timesteps 889 and 727 become 888 and
728, and the sums of k, the denominators made of them and the latents between passes are bfloat16. In any dtype a
prompt change at block 1 finds block 0 committed under the old prompt and commits it once more on top of that, where
`precise` commits it once, from nothing. (In float32 the two are one but for this.)

A bfloat16 sum stalls when what is added falls below half of its last digit: it holds 0.89 of the true sum of 400
blocks and 0.60 of 600. So `reference` refuses to run such a sum past 200 blocks.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Precision = Literal["precise", "reference"]
PRECISIONS: tuple[Precision, ...] = ("precise", "reference")
REFERENCE_BLOCKS = 200
"""Blocks that a bfloat16 sum may add up."""


class PrecisionError(ValueError):
    """`reference` cannot go on; the message is one line."""

    def __init__(self) -> None:
        super().__init__(
            f"precision reference: a sum kept in bfloat16 stalls past {REFERENCE_BLOCKS} blocks; "
            f"take a window of at most {REFERENCE_BLOCKS} blocks, or precision precise"
        )


def rounded_dtype(precision: Precision, dtype: torch.dtype) -> torch.dtype | None:
    """The dtype that a transformer of `dtype` rounds timesteps, latents and sums of k to; None: it doesn't."""
    return dtype if precision == "reference" and dtype != torch.float32 else None


def rounded(x: Tensor, dtype: torch.dtype | None) -> Tensor:
    """x, float32, with the digits of `dtype`; None leaves it as it is."""
    return x if dtype is None else x.to(dtype).float()
