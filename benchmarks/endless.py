"""A stream for hours: does memory stay flat, do the numbers stay sound, does a restored stream go on the same?

    python -m benchmarks.endless [--model model/starter] [--hours 1] [--rows 12] [--decode] [--device cpu]

Blocks follow each other as fast as the device makes them; hours are those of the video. In the middle a snapshot goes
to bytes and back into a second stream; at the end the second one is run for as long and must end in the same bits.
`rss` is this process's memory, `tensors` counts those that Python holds (it grows until 256 positions are known),
`state` is the pool. Exit status 1: a number that is not finite, or another end.
"""

from __future__ import annotations

import argparse
import gc
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import torch
from torch import Tensor
from transformers.utils import logging

from model.checkpoint import Checkpoint, load_checkpoint
from model.loading import add_loading_arguments, loading
from model.positions import PICTURES_PER_LATENT
from model.snapshot import pack, unpack
from model.stream import LatentStream
from model.vae import DecodeState

MIB = 1 << 20


def main() -> int:
    """Print the table; 1 if something was wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=Path("model/starter"))
    parser.add_argument("--hours", type=float, default=1.0, help="of video")
    parser.add_argument("--rows", type=int, default=12)
    parser.add_argument("--decode", action="store_true", help="make the pictures too")
    add_loading_arguments(parser)
    options = parser.parse_args()
    logging.disable_progress_bar()
    checkpoint = load_checkpoint(options.model, **loading(options))
    config = checkpoint.config
    blocks = max(2, round(options.hours * 3600 * config.rate_hz / (PICTURES_PER_LATENT * config.block)))
    print(f"{options.model}, {options.hours:g} h at {config.rate_hz:g} Hz: {blocks} blocks of {config.block}")
    print(
        f"{'block':>8}{'video':>9}{'rss MiB':>9}{'state':>7}{'tensors':>9}{'mean':>8}{'std':>7}{'level':>7}{'ms':>8}"
    )
    stream = new_stream(checkpoint)
    try:
        run(checkpoint, stream, range(blocks // 2), blocks, options)
        saved = pack(stream.snapshot())
        end = run(checkpoint, stream, range(blocks // 2, blocks), blocks, options)
        print(f"again from the snapshot of block {blocks // 2}, {len(saved) / MIB:.1f} MiB")
        again = new_stream(checkpoint)
        again.restore(unpack(saved))
        repeated = run(checkpoint, again, range(blocks // 2, blocks), blocks, options)
    except FloatingPointError as error:
        print(error)
        return 1
    same = torch.equal(end, repeated)
    print("the same last block, to the bit" if same else "ANOTHER LAST BLOCK")
    return int(not same)


def new_stream(checkpoint: Checkpoint) -> LatentStream:
    """A stream of the checkpoint's own prompt and size."""
    config, factor = checkpoint.config, checkpoint.vae.spatial_factor
    text, mask = checkpoint.text.encode(config.prompt)
    negative, negative_mask = checkpoint.text.encode_negative()
    return LatentStream(
        checkpoint.transformer,
        text=text,
        text_mask=mask,
        height=config.height // factor,
        width=config.width // factor,
        negative_text=negative,
        negative_mask=negative_mask,
        seed=1,
        config=config,
    )


def run(
    checkpoint: Checkpoint, stream: LatentStream, span: range, blocks: int, options: argparse.Namespace
) -> Tensor:
    """Run the blocks of `span` of so many, printing a row now and then; the last block's latents.

    Raises:
        FloatingPointError: a number that is not finite.
    """
    every, state = max(1, blocks // options.rows), checkpoint.streaming_vae.new_state()
    since, started = span.start, time.perf_counter()
    latents = torch.zeros(())
    for block in span:
        latents = next(stream)
        if not bool(latents.isfinite().all()):
            raise FloatingPointError(f"block {block} is not finite")
        level = _level(checkpoint, latents, state) if options.decode else float("nan")
        if (block + 1) % every and block != span.stop - 1:
            continue
        now = time.perf_counter()
        seconds = stream.next_frame * PICTURES_PER_LATENT / checkpoint.config.rate_hz
        video = f"{int(seconds) // 3600}:{int(seconds) // 60 % 60:02}:{int(seconds) % 60:02}"
        spent_ms = 1e3 * (now - started) / (block + 1 - since)
        rss, tensors = psutil.Process().memory_info().rss / MIB, sum(1 for _ in _tensors())
        print(
            f"{block + 1:>8}{video:>9}{rss:>9.0f}{stream.pool.nbytes / MIB:>7.1f}{tensors:>9}"
            f"{latents.mean():>8.3f}{latents.std():>7.3f}{level:>7.1f}{spent_ms:>8.1f}",
            flush=True,
        )
        since, started = block + 1, now
    return latents


def _level(checkpoint: Checkpoint, latents: Tensor, state: DecodeState) -> float:
    """Mean brightness, 0 to 255, of the block's pictures."""
    pictures = [checkpoint.streaming_vae.decode(frame, state) for frame in latents.split(1, dim=2)]
    return float(torch.cat(pictures).float().mean())


def _tensors() -> Iterator[Tensor]:
    gc.collect()
    yield from (thing for thing in gc.get_objects() if issubclass(type(thing), Tensor))


if __name__ == "__main__":
    sys.exit(main())
