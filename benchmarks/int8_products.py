"""Matrix products in int8 against packed bfloat16 on this CPU, at the shapes of a small transformer.

    python -m benchmarks.int8_products [--threads 1] [--tokens 432] [--width 288] [--ratio 2.5]

`bf16` is the packed product that `model.packed` runs; `int8` oneDNN's, as torch.compile's CPU backend calls it, on
activations that are 8-bit already; `with its input` adds finding the activations' scale and rounding them, as is
needed where no kernel before it does. Milliseconds, the quickest of many rounds in which the three take turns.
`benchmarks.cheaper` shows what comes of it in a whole stream.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from model.layers import TemporalTaps

ROUNDS = 200
Net = TypeVar("Net", bound=nn.Module)
MIDDLE = 128


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--tokens", type=int, default=432)
    parser.add_argument("--width", type=int, default=288)
    parser.add_argument("--ratio", type=float, default=2.5, help="of the feed-forward")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.set_grad_enabled(False)
    width, hidden = options.width, int(options.ratio * options.width)
    layers = {
        "attention: q, k, v": (width, 3 * width),
        "attention: out": (width, width),
        "feed-forward: in": (width, 2 * hidden),
        "feed-forward: out": (hidden, width),
        "feed-forward: in time": (3 * width, width),
    }
    print(f"{options.tokens} tokens, {options.threads} threads, torch {torch.__version__}")
    print(f"{'':<24}{'bf16':>8}{'int8':>8}{'with its input':>16}")
    total = [0.0, 0.0, 0.0]
    for name, (inputs, outputs) in layers.items():
        times = quickest(products(options.tokens, inputs, outputs))
        total = [a + b for a, b in zip(total, times, strict=True)]
        print(f"{name:<24}{times[0]:>8.3f}{times[1]:>8.3f}{times[2]:>16.3f}")
    print(f"{'a layer':<24}{total[0]:>8.3f}{total[1]:>8.3f}{total[2]:>16.3f}")


def products(tokens: int, inputs: int, outputs: int) -> list[Callable[[], Any]]:
    """The three products of (tokens, inputs) with (outputs, inputs)."""
    mkldnn: Any = torch.ops.mkldnn
    x = torch.randn(tokens, inputs).bfloat16()
    layer = nn.Linear(inputs, outputs, bias=False, dtype=torch.bfloat16)
    packed, small = mkldnn._reorder_linear_weight(layer.weight.detach()), Int8Linear(layer)
    ready = narrow(x)
    return [
        lambda: mkldnn._linear_pointwise(x, packed, None, "none", [], ""),
        lambda: small.product(*ready),
        lambda: small.product(*narrow(x)),
    ]


def narrow(x: Tensor) -> tuple[Tensor, Tensor]:
    """x in 8 bits, 128 for 0, and its scale."""
    scale = x.abs().amax().float() / 127
    return (x / scale).round().add_(MIDDLE).to(torch.uint8), scale


class Int8Linear(nn.Module):
    """A linear layer by oneDNN's int8 product: a scale for each output, and one for each input, found as it comes."""

    _latest: tuple[Tensor, tuple[Tensor, Tensor]] | None = None
    """The input met last, of whichever layer: queries, keys and values are made of the same one."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        weight = layer.weight.detach().float()
        self.scales = weight.abs().amax(1) / 127
        whole = (weight / self.scales[:, None]).round().to(torch.int8)
        self.packed = torch.ops.onednn.qlinear_prepack(whole, None)
        self.zeros = torch.zeros(len(weight), dtype=torch.int64)
        self.bias = None if layer.bias is None else layer.bias.detach().float()
        self.middle, self.dtype = torch.tensor(MIDDLE), layer.weight.dtype

    def forward(self, x: Tensor) -> Tensor:
        """x (..., in) -> (..., out)."""
        held = Int8Linear._latest
        if held is None or held[0] is not x:
            held = Int8Linear._latest = (x, narrow(x))
        return self.product(*held[1])

    def product(self, x: Tensor, scale: Tensor) -> Tensor:
        """What `narrow` made of an input -> (..., out)."""
        onednn: Any = torch.ops.onednn
        return onednn.qlinear_pointwise(
            x, scale, self.middle, self.packed, self.scales, self.zeros, self.bias, 1.0, 0, self.dtype, "none", [], ""
        )


def use_int8(net: Net) -> Net:
    """Put `Int8Linear` in place of linear layers and temporal convolutions of a transformer's blocks."""
    for name, layer in list(net.named_modules()):
        if name.endswith("ff.conv_temp") and type(layer) is nn.Conv2d:
            net.set_submodule(name, TemporalTaps(layer))
    for name, layer in list(net.named_modules()):
        if type(layer) is nn.Linear and name.startswith("transformer_blocks."):
            net.set_submodule(name, Int8Linear(layer))
    return net


def quickest(works: list[Callable[[], Any]]) -> list[float]:
    """Milliseconds of each."""
    best = [float("inf")] * len(works)
    for _ in range(ROUNDS):
        for index, work in enumerate(works):
            start = time.perf_counter()
            work()
            best[index] = min(best[index], 1e3 * (time.perf_counter() - start))
    return best


if __name__ == "__main__":
    main()
