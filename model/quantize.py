"""Weights in 8 or 4 bits, by bitsandbytes and torchao, of the transformer and of the text encoder.

The 1x1 convolutions are linear layers here and the temporal convolution becomes one, so nearly all of the transformer
is quantised. Left as they are: norms, biases, the depthwise and patch convolutions, the time embedding and the last
projection, which run on a row or two or make the result itself.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from model.devices import Placement, name_of
from model.layers import TemporalTaps
from model.source import CheckpointError

PARTS = ("transformer", "text_encoder")
KEPT = ("time_embed", "proj_out")
"""Modules of the transformer whose layers are not quantised."""
SIDES = 16
"""Of 8- and 4-bit products: a layer's inputs and outputs are multiples of it."""


class QuantizeError(CheckpointError):
    """A scheme that is unknown or can't run here; the message is one line."""


@dataclass(frozen=True)
class Scheme:
    """One way to quantise.

    `devices` it runs on; on a GPU from compute `capability` on; `dtypes` of the rest of the model.
    """

    package: str
    what: str
    make: Callable[[], Any]
    """torchao's config, or the name of bitsandbytes' kind."""
    devices: tuple[str, ...] = ("cuda", "cpu")
    capability: tuple[int, int] = (0, 0)
    dtypes: tuple[torch.dtype, ...] = (torch.bfloat16, torch.float16, torch.float32)


@dataclass(frozen=True)
class Share:
    """Parameters of a part in fewer bits, and all of them."""

    scheme: str
    quantised: int
    total: int

    def __str__(self) -> str:
        return f"{self.scheme}: {self.quantised / self.total:.1%} of {self.total:,} parameters"


def _torchao(name: str, **options: Any) -> Callable[[], Any]:
    def make() -> Any:
        from torchao import quantization

        return getattr(quantization, name)(**options)

    return make


def _nvfp4() -> Any:
    from torchao.prototype.mx_formats import NVFP4DynamicActivationNVFP4WeightConfig

    return NVFP4DynamicActivationNVFP4WeightConfig()


_BF16 = (torch.bfloat16,)
SCHEMES = {
    "bnb8": Scheme("bitsandbytes", "8-bit weights, outliers apart", lambda: "int8", ("cuda",)),
    "bnb4": Scheme("bitsandbytes", "4-bit weights (NF4)", lambda: "nf4", ("cuda",)),
    "int8": Scheme("torchao", "8-bit weights", _torchao("Int8WeightOnlyConfig"), ("cuda", "cpu", "mps")),
    "int8-dynamic": Scheme(
        "torchao",
        "8-bit weights and activations",
        _torchao("Int8DynamicActivationInt8WeightConfig"),
        capability=(8, 0),
    ),
    "fp8": Scheme("torchao", "float8 weights", _torchao("Float8WeightOnlyConfig")),
    "fp8-dynamic": Scheme(
        "torchao",
        "float8 weights and activations",
        _torchao("Float8DynamicActivationFloat8WeightConfig"),
        devices=("cuda",),
        capability=(8, 9),
        dtypes=_BF16,
    ),
    "nvfp4": Scheme("torchao", "NVFP4 weights and activations", _nvfp4, ("cuda",), (10, 0), _BF16),
}


def parse(given: Iterable[str]) -> dict[str, str]:
    """What `--quantize` asks for: a scheme for each part. "int8" means both; "text_encoder=bnb4" one of them.

    Raises:
        QuantizeError: names the scheme or part.
    """
    wanted: dict[str, str] = {}
    for text in given:
        part, _, scheme = text.rpartition("=")
        if part and part not in PARTS:
            raise QuantizeError(f"--quantize {text}: {part} is none of {', '.join(PARTS)}")
        if scheme not in SCHEMES:
            raise QuantizeError(f"--quantize {text}: {scheme or 'nothing'} is none of {', '.join(SCHEMES)}")
        wanted.update(dict.fromkeys((part,) if part else PARTS, scheme))
    return wanted


def require(scheme: str, device: torch.device, dtype: torch.dtype) -> None:
    """Make sure that a scheme runs on a device with the rest of the model in `dtype`.

    Raises:
        QuantizeError: what is missing.
    """
    kind = SCHEMES[scheme]
    if importlib.util.find_spec(kind.package) is None:
        raise QuantizeError(f"--quantize {scheme}: needs {kind.package}: pip install 'sana-streamer[quantize]'")
    if device.type not in kind.devices:
        raise QuantizeError(f"--quantize {scheme}: runs on {', '.join(kind.devices)}, not on {device.type}")
    if device.type == "cuda" and (found := torch.cuda.get_device_capability(device)) < kind.capability:
        wanted, has = (".".join(map(str, each)) for each in (kind.capability, found))
        raise QuantizeError(f"--quantize {scheme}: needs a GPU of compute capability {wanted}, this one has {has}")
    if dtype not in kind.dtypes:
        allowed = ", ".join(name_of(each) for each in kind.dtypes)
        raise QuantizeError(f"--quantize {scheme}: needs the rest in {allowed}, not {name_of(dtype)}")


def require_schemes(schemes: Mapping[str, str], placement: Placement) -> None:
    """`require` for each part of a checkpoint, before anything is loaded."""
    for part, scheme in schemes.items():
        if part == "transformer":
            require(scheme, placement.device, placement.dtype)
        else:
            require(scheme, placement.text_device, placement.text_dtype)


def quantize(module: nn.Module, scheme: str) -> Share:
    """Quantise a transformer's or a text encoder's linear layers in place, where it stands.

    Raises:
        QuantizeError: see `require`; or the backend's own refusal.
    """
    parameter = next(module.parameters())
    require(scheme, parameter.device, parameter.dtype)
    total = sum(each.numel() for each in module.parameters())
    for name, each in list(module.named_modules()):
        if name.endswith("ff.conv_temp") and type(each) is nn.Conv2d:
            module.set_submodule(name, TemporalTaps(each))
    chosen = {name: each for name, each in module.named_modules() if _fits(name, each)}
    count = sum(each.in_features * each.out_features for each in chosen.values())
    kind = SCHEMES[scheme]
    try:
        if kind.package == "torchao":
            from torchao.quantization import quantize_

            quantize_(module, kind.make(), filter_fn=lambda each, name: name in chosen)
        else:
            for name, layer in chosen.items():
                module.set_submodule(name, _bitsandbytes(layer, kind.make()))
    except (AssertionError, RuntimeError, ImportError, NotImplementedError, ValueError) as error:
        raise QuantizeError(f"--quantize {scheme}: {' '.join(str(error).split())[:300]}") from error
    return Share(scheme, count, total)


def _fits(name: str, layer: nn.Module) -> bool:
    if type(layer) is not nn.Linear or name.startswith(KEPT):
        return False
    return layer.in_features % SIDES == 0 and layer.out_features % SIDES == 0


def _bitsandbytes(layer: nn.Linear, kind: str) -> nn.Module:
    import bitsandbytes

    sizes, bias, weight = (layer.in_features, layer.out_features), layer.bias is not None, layer.weight.detach()
    new: Any
    if kind == "int8":
        new = bitsandbytes.nn.Linear8bitLt(*sizes, bias=bias, has_fp16_weights=False, threshold=6.0, device="meta")
        new.weight = bitsandbytes.nn.Int8Params(weight.cpu(), requires_grad=False, has_fp16_weights=False)
    else:
        new = bitsandbytes.nn.Linear4bit(
            *sizes, bias=bias, compute_dtype=weight.dtype, quant_type=kind, device="meta"
        )
        new.weight = bitsandbytes.nn.Params4bit(weight.cpu(), requires_grad=False, quant_type=kind)
    if bias:
        new.bias = nn.Parameter(layer.bias.detach(), requires_grad=False)
    return new.to(weight.device).eval()  # moving the weight quantises it
