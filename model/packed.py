"""Linear layers on the CPU over weights packed for oneDNN's kernels.

A packed weight is a copy, derived from the module's parameter and made anew when that changes. It saves the kernel
the re-ordering of its weight at each call and joins the activation to the product: 10% of a small transformer's pass
in bfloat16. Everything else (other devices, float32, gradients, adapters, quantized layers) computes as usual.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_Key = tuple[int, int]
_packed: WeakKeyDictionary[nn.Module, tuple[_Key, Tensor, Tensor]] = WeakKeyDictionary()
# The operators that torch.compile's CPU backend calls; not public, so their absence is no error.
_ops: Any = torch.ops.mkldnn
_AVAILABLE = torch.backends.mkldnn.is_available() and hasattr(_ops, "_linear_pointwise")


def usable(x: Tensor, module: nn.Module, kind: type[nn.Module]) -> bool:
    """Whether `x` may run through the packed weight of a plain, frozen `kind` of layer."""
    return (
        _AVAILABLE
        and type(module) is kind
        and x.dtype == torch.bfloat16
        and x.device.type == "cpu"
        and not torch.is_grad_enabled()
    )


def product(
    x: Tensor,
    module: nn.Module,
    weight: Tensor,
    bias: Tensor | None = None,
    activation: str = "none",
    matrix: Callable[[Tensor], Tensor] = lambda weight: weight,
) -> Tensor:
    """activation(x matrix(weight)^T + bias) by the packed weight.

    Args:
        x: (..., in), see `usable`.
        module: what the packed weight belongs to and dies with.
        weight: the parameter that it derives from.
        bias: (out,).
        activation: "none" or "swish".
        matrix: (out, in) from the parameter.
    """
    key = (weight.data_ptr(), weight._version)
    held = _packed.get(module)
    if held is None or held[0] != key:
        # The source is kept too: its address cannot come to mean another tensor.
        held = (key, weight.detach(), _ops._reorder_linear_weight(matrix(weight.detach()).contiguous()))
        _packed[module] = held
    return _ops._linear_pointwise(x, held[2], bias, activation, [], "")


def linear(module: nn.Module, x: Tensor, *, silu: bool = False) -> Tensor:
    """module(x), then SiLU if asked; x (..., in)."""
    if usable(x, module, nn.Linear):
        activation = "swish" if silu else "none"
        return product(x, module, module.weight, module.bias, activation)  # type: ignore[arg-type]
    y = module(x)
    return F.silu(y, inplace=not torch.is_grad_enabled()) if silu else y
