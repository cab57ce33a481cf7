"""The FFN's middle: SiLU, depthwise 3x3 convolution and GLU, the heaviest memory traffic of a training step.

On CUDA Triton kernels (`depthwise_kernels`) read the hidden tensor once forwards and keep nothing but it; elsewhere,
and after `enable(False)`, plain torch does the same. The fused form is a custom operator, so that it stays inside a
compiled graph. Float32 inside either way.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

_enabled = find_spec("triton") is not None


def enable(fused: bool) -> None:
    """Allow the fused form on CUDA, or forbid it; graphs compiled before are compiled anew."""
    global _enabled
    _enabled = fused and find_spec("triton") is not None


def gated(hidden: Tensor, hidden_bias: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Return value * silu(gate), where value and gate are the halves of conv3x3(silu(hidden + hidden_bias)) + bias.

    Args:
        hidden: `(rows, height, width, 2 c)` a product without its bias.
        hidden_bias: `(2 c,)`.
        weight: `(2 c, 1, 3, 3)` one kernel a channel; zeros stand around the picture.
        bias: `(2 c,)`.

    Returns:
        `(rows, height, width, c)` like `hidden`.
    """
    if _enabled and hidden.is_cuda:
        fused: Tensor = silu_depthwise_glu(hidden, hidden_bias, weight, bias)
        return fused
    return plain(hidden, hidden_bias, weight, bias)


def plain(hidden: Tensor, hidden_bias: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Do what `gated` says in plain torch: nine shifted products, which the compiler joins forwards."""
    height, width = hidden.shape[1:3]
    picture = F.silu(hidden + hidden_bias.to(hidden.dtype))
    padded = F.pad(picture, (0, 0, 1, 1, 1, 1))
    depth = weight.to(hidden.dtype)[:, 0]
    taps = bias.float().expand_as(hidden)
    for i in range(3):
        for j in range(3):
            taps = taps + padded[:, i : i + height, j : j + width].float() * depth[:, i, j].float()
    value, gate = taps.chunk(2, dim=-1)
    return (value * F.silu(gate)).to(hidden.dtype)


@torch.library.custom_op("starter::silu_depthwise_glu", mutates_args=())
def silu_depthwise_glu(hidden: Tensor, hidden_bias: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """`gated` by a Triton kernel; biases and weights in float32."""
    from model.training import depthwise_kernels

    return depthwise_kernels.forward(hidden, hidden_bias, weight, bias)


@torch.library.custom_op("starter::silu_depthwise_glu_backward", mutates_args=())
def _backward(
    gradient: Tensor, hidden: Tensor, hidden_bias: Tensor, weight: Tensor, bias: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the gradients of the four arguments of `silu_depthwise_glu`."""
    from model.training import depthwise_kernels

    return depthwise_kernels.backward(gradient, hidden, hidden_bias, weight, bias)


@silu_depthwise_glu.register_fake
def _(hidden: Tensor, hidden_bias: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return hidden.new_empty((*hidden.shape[:-1], hidden.shape[-1] // 2))


@_backward.register_fake
def _(
    gradient: Tensor, hidden: Tensor, hidden_bias: Tensor, weight: Tensor, bias: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return (
        hidden.new_empty(hidden.shape), hidden_bias.new_empty(hidden_bias.shape), weight.new_empty(weight.shape),
        bias.new_empty(bias.shape),
    )  # fmt: skip


def _keep(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _gradients(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    gradients: tuple[Tensor, Tensor, Tensor, Tensor] = _backward(gradient, *ctx.saved_tensors)
    return gradients


silu_depthwise_glu.register_autograd(_gradients, setup_context=_keep)
