"""What `precision reference` loses against `precise` as a stream gets long: a table over 2,000 blocks.

    python -m benchmarks.precision [--blocks 2000] [--window 25]

One small transformer with random weights, three sides in one run from the same noise: float32 throughout (taken for
the truth), bfloat16 weights with `precise`, and bfloat16 weights with `reference`, as LongSANA's released code. After
every block all sides go on from the truth's clean latents: so a row shows what one block loses by its rounding and by
the state that it reads, and not how far two chaotic streams have parted.

`k_sum` is the sum of the keys, the denominator of the attention: its relative error and the share of the true sum
that is there. `latents` is the relative error of the block's clean latents (root mean square).
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator

import torch
from diffusers.utils import logging
from torch import Tensor

import model.stream
from model.precision import Precision
from model.stream import LatentStream
from model.transformer import SanaVideoTransformer3DModel

ROWS = (10, 100, 200, 400, 1000, 2000)
SIZE, BLOCK, TEXT_TOKENS = 4, 2, 8


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--blocks", type=int, default=ROWS[-1])
    parser.add_argument("--window", type=int, help="blocks that the sides remember (default: all of them)")
    options = parser.parse_args()
    model.stream.REFERENCE_BLOCKS = options.blocks  # type: ignore[attr-defined]  # streams refuse what is shown here
    remembers = "a running sum" if options.window is None else f"a window of {options.window} blocks"
    print(f"{remembers}, blocks of {BLOCK} latent frames, passes at 1000, 960, 889, 727")
    print(f"{'':>7}{'precise (bfloat16 weights)':^36}{'reference (bfloat16 weights)':^36}")
    print(f"{'block':>7}" + 2 * f"{'k_sum error':>13}{'of true':>9}{'latents':>12}  ")
    for row in compare(options.blocks, options.window):
        print(row, flush=True)


def compare(blocks: int, window: int | None) -> Iterator[str]:
    """Yield the table's rows, as text."""
    sides = {
        "truth": side(torch.float32, "precise", window),
        "precise": side(torch.bfloat16, "precise", window),
        "reference": side(torch.bfloat16, "reference", window),
    }
    truth = sides["truth"]
    for block in range(1, blocks + 1):
        clean = {name: next(stream) for name, stream in sides.items()}
        if block in ROWS:
            cells = ""
            for name in ("precise", "reference"):
                error, share = sums_error(sides[name], truth)
                cells += f"{error:>13.2e}{share:>9.3f}{relative(clean[name], clean['truth']):>12.2e}  "
            yield f"{block:>7}{cells}"
        for name in ("precise", "reference"):
            sides[name].restore(sides[name].snapshot() | {"clean": clean["truth"]})


def side(dtype: torch.dtype, precision: Precision, window: int | None) -> LatentStream:
    """A stream of the random transformer."""
    torch.manual_seed(0)
    logging.set_verbosity_error()
    net = SanaVideoTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=24,
        num_layers=2,
        num_cross_attention_heads=2,
        cross_attention_head_dim=24,
        cross_attention_dim=48,
        caption_channels=32,
        cross_attention_norm_eps=1e-6,
        linear_attention_eps=1e-8,
    )
    text = torch.randn(1, TEXT_TOKENS, 32)
    return LatentStream(
        net.to(dtype).eval().requires_grad_(False),
        text=text,
        text_mask=None,
        height=SIZE,
        width=SIZE,
        block=BLOCK,
        window=window,
        precision=precision,
        seed=1,
    )


def sums_error(stream: LatentStream, truth: LatentStream) -> tuple[float, float]:
    """Relative error of the carried sum of keys, and its share of the true one."""
    mine, true = (each.pool.read(each.slots[0])["sums"][..., -1, :] for each in (stream, truth))
    return relative(mine, true), float(mine.sum() / true.sum())


def relative(x: Tensor, true: Tensor) -> float:
    """Root mean square of the difference over that of the true numbers."""
    return float((x - true).square().mean().sqrt() / true.square().mean().sqrt())


if __name__ == "__main__":
    main()
