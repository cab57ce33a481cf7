"""Matrix products in int8 against packed bfloat16 on this CPU, at the shapes of a small transformer.

    python -m benchmarks.int8_products [--threads 1] [--tokens 432] [--width 288] [--ratio 2.5]

`bf16` is the packed product that `model.packed` runs; `int8` oneDNN's, as torch.compile's CPU backend calls it, on
activations that are 8-bit already; `with its input` adds finding the activations' scale and rounding them, as is
needed where no kernel before it does. Milliseconds, the quickest of many rounds in which the three take turns.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

ROUNDS = 200


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
    onednn: Any = torch.ops.onednn
    mkldnn: Any = torch.ops.mkldnn
    x = torch.randn(tokens, inputs).bfloat16()
    packed = mkldnn._reorder_linear_weight(torch.randn(outputs, inputs).bfloat16())
    weight = torch.randint(-127, 128, (outputs, inputs), dtype=torch.int8)
    packed8 = onednn.qlinear_prepack(weight, [tokens, inputs])
    scales, zeros = torch.rand(outputs), torch.zeros(outputs, dtype=torch.int64)
    middle = torch.tensor(128)

    def narrow() -> tuple[Tensor, Tensor]:
        scale = x.abs().amax().float() / 127
        return (x / scale).round().add_(128).to(torch.uint8), scale

    def product(x8: Tensor, scale: Tensor) -> Tensor:
        return onednn.qlinear_pointwise(
            x8, scale, middle, packed8, scales, zeros, None, 1.0, 0, torch.bfloat16, "none", [], ""
        )

    ready = narrow()
    return [
        lambda: mkldnn._linear_pointwise(x, packed, None, "none", [], ""),
        lambda: product(*ready),
        lambda: product(*narrow()),
    ]


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
