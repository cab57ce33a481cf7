"""Runs every shape once before the worker says that it is ready, and measures what steps take."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import psutil
import torch

from model.chain import advance
from model.checkpoint import Checkpoint
from model.clip import Clip, ClipSpec
from model.positions import first_picture
from model.stream_config import StreamConfig
from model.whole_vae import WholeVAE
from streamer.engine.budget import choose_rate, picture_s
from streamer.engine.info import Timings
from streamer.engine.protocol import Steer
from streamer.engine.worker_models import Models
from streamer.engine.worker_stream import KEPT_EXTRA_LATENTS

BUCKETS = (2, 4, 8)
FREE_BUCKET = 1.25
"""A wider pass is taken if it costs at most this many times a narrow one: then its empty rows cost nothing much."""
MEMORY_SHARE = 0.5
"""Of the memory that is free when the worker is warm, what streams may take."""
CLIP_MEMORY_SHARE = 0.7
"""Of that memory, what the activations of a whole clip's decoding may take; convolutions take some for themselves."""
LEAD_BOUNDARIES = 4
MAX_SLOTS = 256
TINY_PATCHES = 4
"""Height and width of the clip that warms up a worker of clips only."""
REPEATS = 4
"""The quickest of so many counts: what else starts at the same time (a server, a browser) is over soon."""
SECOND_LOOKS = 2
"""Where that says that the checkpoint's own rate is too much, it is counted again: a moment that others took must not
cost the stream its rate until the next start."""


@dataclass(frozen=True)
class Measured:
    """What the warm-up found out."""

    timings: Timings
    bucket: int
    """Rows of a transformer pass."""
    stream_nbytes: int
    """Memory of one stream, its boundaries and kept latents included."""
    text_s: float
    """Seconds that encoding a prompt takes."""


def synchronize(device: torch.device) -> None:
    """Wait until the device has done what it was told, so that a clock reading means something."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def warm_up(models: Models, bucket: int | None, report: Callable[[float, str], None]) -> Measured:
    """Run and time first blocks, blocks and decoding at the checkpoint's own size.

    Args:
        models: What will run.
        bucket: Rows of a pass; None chooses 1 on a CPU, and elsewhere the widest that costs next to nothing.
        report: Called with (share done, what is being done).
    """
    config, device = models.checkpoint.config, models.checkpoint.transformer.device
    report(0.0, "running the first block")
    chosen = bucket or 1
    passes = _passes(models, chosen)
    if bucket is None and device.type != "cpu":
        for wider in BUCKETS:
            report(0.3, f"trying passes of {wider} streams")
            timed = _passes(models, wider)
            if timed[1] > FREE_BUCKET * passes[1]:
                break
            chosen, passes = wider, timed
    report(0.6, "decoding")
    decode_s, decoder_nbytes = _decode(models)
    for _ in range(SECOND_LOOKS):
        cost_s = picture_s(_timings(config, chosen, passes, decode_s), config.block)
        if choose_rate(cost_s, config.rate_hz, alone=device.type != "cpu")[0] == config.rate_hz:
            break
        report(0.8, "measuring again")
        first_s, later_s, steer_s = (min(pair) for pair in zip(passes, _passes(models, chosen), strict=True))
        passes, decode_s = (first_s, later_s, steer_s), min(decode_s, _decode(models)[0])
    return Measured(
        timings=_timings(config, chosen, passes, decode_s),
        bucket=chosen,
        stream_nbytes=_roll_nbytes(models) * (1 + LEAD_BOUNDARIES) + decoder_nbytes,
        text_s=_timed(device, lambda: models.texts(Steer(at_latent=0, prompt=config.prompt, guidance_scale=1.0))),
    )


def warm_up_clips(models: Models, report: Callable[[float, str], None]) -> Measured:
    """As `warm_up`, of a checkpoint that makes clips only: one tiny clip, all the way to its pictures."""
    checkpoint = models.checkpoint
    config, vae, device = checkpoint.config, checkpoint.vae, checkpoint.transformer.device
    report(0.0, "making a tiny clip")
    side = TINY_PATCHES * vae.spatial_factor * max(checkpoint.transformer.config.patch_size[1:])
    size = {"height": min(side, config.height), "width": min(side, config.width)}
    steer = Steer(at_latent=0, prompt=config.prompt, guidance_scale=1.0, loras=models.default_loras)
    spec = ClipSpec(prompt=config.prompt, frames=1 + vae.temporal_factor, steps=2, guidance_scale=1.0, **size)
    clip = Clip(checkpoint, spec, loras=models.loras(steer))
    times = {"pass": 0.0, "decode": 0.0}
    try:
        while not clip.finished:
            unit = clip.unit
            times[unit] = max(times[unit], _timed(device, clip.step))
    finally:
        clip.close()
    return Measured(
        timings=_timings(config, 1, (times["pass"],) * 3, times["decode"]),
        bucket=1,
        stream_nbytes=0,
        text_s=_timed(device, lambda: models.texts(steer)),
    )


def most_clip_pixels(checkpoint: Checkpoint) -> int | None:
    """Most pixels of all pictures of a clip together that there is memory for; None where the longest clip of the
    checkpoint's own size fits."""
    vae, config = checkpoint.vae, checkpoint.config
    if not isinstance(vae, WholeVAE):
        return None
    latents, (height, width) = config.first_block_latent_frames, (config.height, config.width)
    pixels = first_picture(latents, vae.temporal_factor) * height * width
    taken = vae.decode_nbytes(latents, height // vae.spatial_factor, width // vae.spatial_factor)
    allowed = int(free_bytes(checkpoint.transformer.device) * CLIP_MEMORY_SHARE)
    # Whole latent frames are decoded: of the last one perhaps a single picture was asked for.
    surplus = (vae.temporal_factor - 1) * height * width
    return None if taken <= allowed else max(0, pixels * allowed // taken - surplus)


def _timings(config: StreamConfig, bucket: int, passes: tuple[float, float, float], decode_s: float) -> Timings:
    first_pass_s, pass_s, steer_pass_s = passes
    return Timings(
        first_block_s=len(config.first_block_timesteps or config.timesteps) * first_pass_s,
        pass_s=pass_s,
        passes=len(config.timesteps),
        decode_s=decode_s,
        steer_pass_s=steer_pass_s,
        # A wider pass has the row already, empty; and what guides by default was measured so.
        guided=2.0 if bucket == 1 and config.guidance_scale == 1 else 1.0,
    )


def free_bytes(device: torch.device) -> int:
    """Memory that is free on the device that holds the streams."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return int(psutil.virtual_memory().available)


def slots(device: torch.device, stream_nbytes: int) -> int:
    """How many streams memory allows, at least 1."""
    return max(1, min(MAX_SLOTS, int(free_bytes(device) * MEMORY_SHARE) // stream_nbytes))


def _latent_size(models: Models) -> tuple[int, int]:
    checkpoint = models.checkpoint
    factor = checkpoint.vae.spatial_factor
    return checkpoint.config.height // factor, checkpoint.config.width // factor


def _roll_nbytes(models: Models) -> int:
    """Bytes of a stream's roll state at the checkpoint's size, with its kept latents."""
    height, width = _latent_size(models)
    kept = models.vae.memory_latent_frames + KEPT_EXTRA_LATENTS
    latents = kept * models.vae.channels * height * width * 4
    rows = 1 if models.checkpoint.config.guidance_scale == 1 else 2
    pool = models.pool(height, width)
    return (0 if pool is None else rows * pool.slot_nbytes) + latents


def _passes(models: Models, bucket: int) -> tuple[float, float, float]:
    """Seconds of a pass of the first block, of a later one, and of one that begins at a steer, with so many rows."""
    height, width = _latent_size(models)
    checkpoint = models.checkpoint
    config, device = checkpoint.config, checkpoint.transformer.device
    # Every pass of a block costs the same, so blocks of a single one will do: pass; commit, pass; commit, pass.
    stream: Any = models.stream(
        height,
        width,
        config=replace(config, timesteps=config.timesteps[:1], first_block_timesteps=None),
        **models.texts(Steer(at_latent=0, prompt="warming up", loras=models.default_loras)),
    )

    def timed(count: int) -> list[float]:
        return [_timed(device, lambda: advance([stream], bucket=bucket)) for _ in range(count)]

    try:
        start = stream.snapshot()
        first: list[float] = []
        for _ in range(3):
            stream.restore(start)
            first += timed(1)
        times = timed(2 + REPEATS)
        pass_s = min(times[3::2] if models.chained else times[2:])  # what links clips is no pass
        steer_pass_s = pass_s
        if config.steer_block_latent_frames not in (None, config.block):
            stream.block = config.steer_block_latent_frames
            steer_pass_s = min(timed(2 + REPEATS)[2:])
        if config.cut_blocks:
            for frames in range(1, config.block):  # the commit of what a cut leaves
                stream.block = config.block
                timed(2)
                stream.cut(frames)
            timed(2)
        return min(first[1:]), pass_s, steer_pass_s
    finally:
        stream.release()


def _decode(models: Models) -> tuple[float, int]:
    """Seconds of a latent frame's decoding to I420, and bytes of the decoder's state."""
    height, width = _latent_size(models)
    vae: Any = models.vae
    state = vae.new_state()
    latent = torch.zeros(1, vae.channels, 1, height, width, device=vae.device)
    times = [_timed(vae.device, lambda: vae.decode_yuv(latent, state)) for _ in range(2 + REPEATS)]
    return min(times[2:]), state.nbytes


def _timed(device: torch.device, work: Callable[[], object]) -> float:
    start_s = time.perf_counter()
    work()
    synchronize(device)
    return time.perf_counter() - start_s
