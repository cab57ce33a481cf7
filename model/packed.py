"""Linear layers on the CPU over weights packed for oneDNN's kernels.

A packed weight is a copy, derived from the module's parameter and made anew when that changes. It saves the kernel
the re-ordering of its weight at each call and joins the activation to the product: 0 to 5 % of the starter's passes
in bfloat16, the more the fewer threads (`benchmarks.cheaper` has both rows). Everything else (other devices, float32,
gradients, adapters, quantized layers, torch.compile, which packs by itself) computes as usual.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.devices import onednn_takes_bf16

_Key = tuple[tuple[int, int], ...]
_packed: WeakKeyDictionary[nn.Module, tuple[_Key, tuple[Tensor, ...], Tensor]] = WeakKeyDictionary()
# The operators that torch.compile's CPU backend calls; not public, so their absence is no error.
_ops: Any = torch.ops.mkldnn
_AVAILABLE = hasattr(_ops, "_linear_pointwise") and onednn_takes_bf16()


def plain(module: nn.Module, kind: type[nn.Module] = nn.Linear) -> bool:
    """Whether a layer's weight may be computed with in its place.

    Not with an adapter around it, nor with a quantized weight, which is a class of its own, nor where a hook fetches
    the weight or casts it when the layer is called (offloading, layerwise casting), which replaces its `forward`.
    """
    return type(module) is kind and type(module.weight) is nn.Parameter and "forward" not in vars(module)


def usable(x: Tensor, module: nn.Module, kind: type[nn.Module]) -> bool:
    """Whether `x` may run through the packed weight of a plain, frozen `kind` of layer."""
    return (
        _AVAILABLE
        and plain(module, kind)
        and x.dtype == torch.bfloat16
        and x.device.type == "cpu"
        and not torch.is_grad_enabled()
        and not torch.compiler.is_compiling()
    )


def product(
    x: Tensor,
    module: nn.Module,
    sources: tuple[Tensor, ...],
    bias: Tensor | None = None,
    activation: str = "none",
    matrix: Callable[[tuple[Tensor, ...]], Tensor] = lambda sources: sources[0],
) -> Tensor:
    """activation(x matrix(sources)^T + bias) by a packed weight.

    Args:
        x: (..., in), see `usable`.
        module: what the packed weight belongs to and dies with.
        sources: the parameters that it derives from; a change of any is noticed.
        bias: (out,).
        activation: "none" or "swish".
        matrix: (out, in) from the parameters.
    """
    key = tuple((source.data_ptr(), source._version) for source in sources)
    held = _packed.get(module)
    if held is None or held[0] != key:
        # The sources are kept too, so that their addresses cannot come to mean other tensors.
        kept = tuple(source.detach() for source in sources)
        held = (key, kept, _ops._reorder_linear_weight(matrix(kept).contiguous()))
        _packed[module] = held
    return _ops._linear_pointwise(x, held[2], bias, activation, [], "")


def linear(module: nn.Module, x: Tensor, *, silu: bool = False) -> Tensor:
    """module(x), then SiLU if asked; x (..., in)."""
    if usable(x, module, nn.Linear):
        activation = "swish" if silu else "none"
        plain = cast(nn.Linear, module)
        return product(x, plain, (plain.weight,), plain.bias, activation)
    y = module(x)
    return F.silu(y, inplace=not torch.is_grad_enabled()) if silu else y
