"""A stream for hours: does memory stay flat, do the numbers stay sound, does a restored stream go on the same?

    python -m benchmarks.endless [--model model/starter] [--hours 1 | --blocks 4800] [--rows 12] [--decode]
        [--device cuda]

Blocks follow each other as fast as the device makes them; hours are those of the video. In the middle a snapshot goes
to bytes and back into a second stream; at the end the second one is run for as long and must end in the same bits. So
an hour of the starter is 4,800 blocks, made one and a half times: `left` says how many minutes of it are to come.

`rss` is this process's memory, `device` what PyTorch holds on a GPU, `state` the pool, `tensors` the number of those
that Python holds (it grows for 256 blocks). Exit status 1: a number that is not finite, another end, or more tensors
or a larger state at the end than in the middle.
"""

from __future__ import annotations

import argparse
import gc
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
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
REMEMBERED = 256
"""Blocks whose rotary turns `model.linear_attention` keeps: until then the number of tensors grows."""


def main() -> int:
    """Print the table; 1 if something was wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=Path("model/starter"))
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--hours", type=float, default=1.0, help="of video")
    length.add_argument("--blocks", type=int, help="at least 2, in place of hours")
    parser.add_argument("--rows", type=int, default=12)
    parser.add_argument("--decode", action="store_true", help="make the pictures too")
    add_loading_arguments(parser)
    options = parser.parse_args()
    logging.disable_progress_bar()
    checkpoint = load_checkpoint(options.model, **loading(options))
    config = checkpoint.config
    asked = options.hours * 3600 * config.rate_hz / (PICTURES_PER_LATENT * config.block)
    blocks = max(2, options.blocks or round(asked))
    hours = blocks * PICTURES_PER_LATENT * config.block / config.rate_hz / 3600
    print(f"{options.model}, {hours:.3g} h at {config.rate_hz:g} Hz: {blocks} blocks of {config.block}")
    print(
        f"{'block':>8}{'video':>9}{'rss MiB':>9}{'device':>8}{'state':>7}{'tensors':>9}"
        f"{'mean':>8}{'std':>7}{'level':>7}{'ms':>8}{'left':>7}"
    )
    stream, middle = new_stream(checkpoint), blocks // 2
    try:
        end = run(checkpoint, stream, range(middle), blocks, options)
        early, saved = held(stream), pack(stream.snapshot())
        end = run(checkpoint, stream, range(middle, blocks), blocks, options)
        late = held(stream)
        print(f"again from the snapshot of block {middle}, {len(saved) / MIB:.1f} MiB", flush=True)
        again = new_stream(checkpoint)
        again.restore(unpack(saved))
        repeated = run(checkpoint, again, range(middle, blocks), blocks, options, again=True)
    except FloatingPointError as error:
        print(error)
        return 1
    same, known = torch.equal(end, repeated), middle > REMEMBERED
    grew = known and (late.tensors > early.tensors or late.state > early.state)
    print("the same last block, to the bit" if same else "ANOTHER LAST BLOCK")
    print(f"middle to end: tensors {early.tensors} to {late.tensors}, rss {early.rss:.0f} to {late.rss:.0f} MiB")
    if grew:
        print("IT GROWS")
    return int(grew or not same)


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


@dataclass(frozen=True)
class Held:
    """What there is in memory: MiB, and the number of tensors."""

    rss: float
    device: float
    state: float
    tensors: int


def held(stream: LatentStream) -> Held:
    """Count."""
    device = stream.transformer.device
    on_gpu = torch.cuda.memory_allocated(device) if device.type == "cuda" else 0
    count = sum(1 for _ in _tensors())
    return Held(psutil.Process().memory_info().rss / MIB, on_gpu / MIB, stream.pool.nbytes / MIB, count)


def run(
    checkpoint: Checkpoint,
    stream: LatentStream,
    span: range,
    blocks: int,
    options: argparse.Namespace,
    *,
    again: bool = False,
) -> Tensor:
    """Run the blocks of `span` of so many, printing a row now and then; the last block's latents.

    `again`: none come after them; else the second half is still to be repeated.

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
        spent_ms = 1e3 * (time.perf_counter() - started) / (block + 1 - since)
        to_come = blocks - block - 1 + (0 if again else blocks - blocks // 2)
        seconds, now = int(stream.next_frame * PICTURES_PER_LATENT / checkpoint.config.rate_hz), held(stream)
        video = f"{seconds // 3600}:{seconds // 60 % 60:02}:{seconds % 60:02}"
        print(
            f"{block + 1:>8}{video:>9}{now.rss:>9.0f}{now.device:>8.0f}{now.state:>7.1f}{now.tensors:>9}"
            f"{latents.mean():>8.3f}{latents.std():>7.3f}{level:>7.1f}{spent_ms:>8.1f}"
            f"{to_come * spent_ms / 6e4:>7.1f}",
            flush=True,
        )
        since, started = block + 1, time.perf_counter()
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
