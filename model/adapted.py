"""Low-rank adapters on a transformer that many streams share.

A set of adapters gives a *view*: a transformer of its own that shares every parameter and every layer with the one
it is made of, but those that the adapters change. So rows without adapters run exactly as if there were none, and
rows of one set share passes. A view costs no memory but its modules'; the factors are shared too.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TypeVar
from weakref import WeakKeyDictionary, WeakValueDictionary

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.lora_source import MAX_WEIGHT
from model.packed import linear

MAX_ADAPTERS = 8
T = TypeVar("T", bound=nn.Module)


@dataclass(frozen=True, eq=False)
class Factors:
    """What an adapter adds to one layer: scale * up(down(x)).

    Of a linear layer `down` is (rank, in) and `up` (out, rank). Of a convolution `down` is its kernel with rank
    outputs and `up` (out, rank / groups, 1, 1). `up` is None where `down` is the whole difference of a kernel.
    """

    down: Tensor
    up: Tensor | None
    scale: float


@dataclass(frozen=True, eq=False)
class Adapter:
    """An adapter on a transformer's device: `layers` by module name."""

    name: str
    sha256: str
    """Hexadecimal, of its file, see `model.lora`."""
    layers: Mapping[str, Factors]
    rank: int
    """The largest of a layer."""

    @property
    def nbytes(self) -> int:
        """Bytes of its factors."""
        return sum(t.nbytes for each in self.layers.values() for t in (each.down, each.up) if t is not None)


@dataclass(frozen=True)
class AdapterSet:
    """Adapters with their weights, as one stream has them; made by `adapter_set`."""

    members: tuple[tuple[Adapter, float], ...] = ()

    def plain(self) -> list[list[str | float]]:
        """[name, SHA-256, weight] of each, for a snapshot."""
        return [[adapter.name, adapter.sha256, weight] for adapter, weight in self.members]


NO_ADAPTERS = AdapterSet()


def adapter_set(members: Iterable[tuple[Adapter, float]]) -> AdapterSet:
    """A set of adapters: those of weight 0 count as absent, and the order does not matter.

    Raises:
        ValueError: more than `MAX_ADAPTERS`, or a weight beyond +-`MAX_WEIGHT`.
    """
    given = list(members)
    for adapter, weight in given:
        if not -MAX_WEIGHT <= weight <= MAX_WEIGHT:
            raise ValueError(f"weight of {adapter.name}: must be {-MAX_WEIGHT:g} to {MAX_WEIGHT:g}, not {weight:g}")
    used = [(adapter, float(weight)) for adapter, weight in given if weight != 0]
    if len(used) > MAX_ADAPTERS:
        raise ValueError(f"at most {MAX_ADAPTERS} adapters a stream, not {len(used)}")
    # One order, so that the same set gives the same bits.
    return AdapterSet(tuple(sorted(used, key=lambda member: (member[0].sha256, member[1]))))


class Adapted(nn.Module):
    """A layer and what adapters add to it; the layer itself, which may be quantized, stays as it is."""

    def __init__(self, base: nn.Module, factors: Iterable[Factors]) -> None:
        super().__init__()
        self.base = base
        self._factors = tuple(factors)
        self.training = base.training

    def forward(self, x: Tensor) -> Tensor:
        """x as the base layer takes it."""
        return self.add(linear(self.base, x), x)

    def add(self, y: Tensor, x: Tensor) -> Tensor:
        """y, which is what the base layer makes of x, and what the adapters make of it."""
        for each in self._factors:
            down = x.to(each.down.dtype)
            if isinstance(self.base, nn.Conv2d | nn.Conv3d):
                y = torch.add(y, _convolved(self.base, down, each).to(y.dtype), alpha=each.scale)
            else:
                assert each.up is not None
                low = F.linear(down, each.down).flatten(0, -2).to(y.dtype)
                y = torch.addmm(y.flatten(0, -2), low, each.up.to(y.dtype).t(), alpha=each.scale).view(y.shape)
        return y


def _convolved(base: nn.Conv2d | nn.Conv3d, x: Tensor, factors: Factors) -> Tensor:
    down, up = factors.down, factors.up
    convolve: Callable[..., Tensor] = F.conv2d if isinstance(base, nn.Conv2d) else F.conv3d
    place = (base.stride, base.padding, base.dilation)
    if up is None:
        return convolve(x, down, None, *place, base.groups)
    return convolve(convolve(x, down, None, *place), up, groups=base.groups)


_views: WeakKeyDictionary[nn.Module, WeakValueDictionary[AdapterSet, nn.Module]] = WeakKeyDictionary()


def adapted(transformer: T, adapters: AdapterSet) -> T:
    """The transformer under a set of adapters, as long as anybody holds it one and the same for equal sets.

    Args:
        transformer: stays as it is; its parameters are the view's.
        adapters: loaded for this transformer.

    Raises:
        ValueError: hooks (offloading) stand in place of a block's own forward.
    """
    if not adapters.members:
        return transformer
    views = _views.setdefault(transformer, WeakValueDictionary())
    view = views.get(adapters)
    if view is None:
        view = views[adapters] = _view(transformer, adapters)
    assert isinstance(view, type(transformer))
    return view


def _view(transformer: nn.Module, adapters: AdapterSet) -> nn.Module:
    layers: dict[str, list[Factors]] = {}
    for adapter, weight in adapters.members:
        for name, each in adapter.layers.items():
            layers.setdefault(name, []).append(Factors(each.down, each.up, each.scale * weight))
    copies = {"": _twin(transformer)}
    for path, factors in layers.items():
        holder = copies[""]
        *above, name = path.split(".")
        for depth, part in enumerate(above, 1):
            place = ".".join(above[:depth])
            if place not in copies:
                copies[place] = holder._modules[part] = _twin(holder.get_submodule(part))
            holder = copies[place]
        holder._modules[name] = Adapted(holder.get_submodule(name), factors)
    return copies[""]


def _twin(module: nn.Module) -> nn.Module:
    """The same module again, with the same parameters and children, whose children can be replaced."""
    if "forward" in vars(module):  # bound to the module itself, so the twin would run without its own children
        raise ValueError(
            f"adapters can't be laid over a {type(module).__name__} whose forward was replaced by a hook"
        )
    twin = copy.copy(module)
    twin._modules = dict(module._modules)
    return twin
