"""Whether a checkpoint runs on an accelerator as it does on the CPU, and how fast: a minute, one table.

    python -m benchmarks.cuda_smoke [--model model/starter] [--device cuda] [--blocks 3]

A stream with guidance and a steer before its second block runs in float32 on the CPU (the reference), then in float32
and in the device's own dtype on the device, from the same noise. Errors are relative to the reference's latents
(root mean square); pictures are compared in levels of 255. Exit status 1: an error above its bound.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from transformers.utils import logging

from model.checkpoint import Checkpoint, load_checkpoint
from model.devices import Placement
from model.stream import LatentStream

PROMPT, STEER = "a red sailboat on the sea at sunset, clear sky", "a yellow balloon over the mountains at night"
GUIDANCE = 2.0
BOUNDS = {torch.float32: (2e-3, 1.0), torch.bfloat16: (0.15, 8.0), torch.float16: (0.05, 4.0)}
"""Of latents (relative) and pictures (mean levels of 255), by dtype."""


@dataclass(frozen=True)
class Run:
    """Latents (1, channels, frames, height, width), pictures (n, height, width, 3), and milliseconds."""

    latents: Tensor
    pictures: Tensor
    pass_ms: float
    decode_ms: float


def main() -> int:
    """Print the table; 1 if a bound is passed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=Path("model/starter"))
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--blocks", type=int, default=3)
    options = parser.parse_args()
    logging.disable_progress_bar()
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    device = torch.device(options.device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    print(f"{options.model} on {name}, torch {torch.__version__}, {options.blocks} blocks, guidance {GUIDANCE:g}")
    print(f"{'':<22}{'ms a pass':>10}{'ms a latent':>12}{'latents':>12}{'pictures':>10}{'MiB':>8}")
    sides = {
        "cpu float32": Placement.of("cpu", torch.float32),
        f"{device} float32": Placement.of(device, torch.float32),
        f"{device} default": Placement.of(device),
        f"{device}, text on cpu": Placement.of(device, text_offload=True),
    }
    reference: Run | None = None
    failed = False
    for title, place in sides.items():
        if place.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(place.device)
        run = stream(load_checkpoint(options.model, placement=place), options.blocks)
        reference = reference or run
        latents, pictures = distance(run, reference)
        bounds = BOUNDS[place.dtype]
        passed = bool(run.latents.isfinite().all()) and latents <= bounds[0] and pictures <= bounds[1]
        failed |= not passed
        mib = torch.cuda.max_memory_allocated(place.device) / 2**20 if place.device.type == "cuda" else 0
        print(
            f"{title:<22}{run.pass_ms:>10.2f}{run.decode_ms:>12.2f}{latents:>12.2e}{pictures:>10.2f}{mib:>8.0f}"
            f"{'' if passed else '  ABOVE ITS BOUND'}",
            flush=True,
        )
    return int(failed)


def stream(checkpoint: Checkpoint, blocks: int) -> Run:
    """Denoise and decode so many blocks; the second of them begins with a steer."""
    config, vae, encoder = checkpoint.config, checkpoint.streaming_vae, checkpoint.text
    text, mask = encoder.encode(PROMPT)
    negative, negative_mask = encoder.encode_negative()
    latents = LatentStream(
        checkpoint.transformer,
        text=text,
        text_mask=mask,
        height=config.height // vae.spatial_factor,
        width=config.width // vae.spatial_factor,
        guidance_scale=GUIDANCE,
        negative_text=negative,
        negative_mask=negative_mask,
        seed=1,
        config=config,
    )
    state, made, pictures = vae.new_state(), [], []
    passes_ms: list[float] = []
    decodes_ms: list[float] = []
    for index in range(blocks):
        if index == 1:
            latents.steer(*encoder.encode(STEER))
        passes = latents.passes_ahead
        start = now(vae.device)
        block = next(latents)
        passes_ms.append(1e3 * (now(vae.device) - start) / passes)
        made.append(block.cpu())
        for frame in range(block.shape[2]):
            start = now(vae.device)
            pictures.append(vae.decode(block[:, :, frame : frame + 1], state).cpu())
            decodes_ms.append(1e3 * (now(vae.device) - start))
    latents.release()
    typical = statistics.median(passes_ms[1:] or passes_ms), statistics.median(decodes_ms[1:] or decodes_ms)
    return Run(torch.cat(made, dim=2), torch.cat(pictures), *typical)


def distance(run: Run, reference: Run) -> tuple[float, float]:
    """Relative error of the latents, and mean difference of the pictures in levels."""
    off = (run.latents - reference.latents).square().mean().sqrt() / reference.latents.square().mean().sqrt()
    return float(off), float((run.pictures.float() - reference.pictures.float()).abs().mean())


def now(device: torch.device) -> float:
    """Seconds, once the device has done all that it was told."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
    return time.perf_counter()


if __name__ == "__main__":
    sys.exit(main())
