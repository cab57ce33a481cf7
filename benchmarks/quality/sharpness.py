"""How many passes does a sharp picture take?"""

from __future__ import annotations

import time

import torch
from torch import Tensor

from benchmarks.quality.adherence import hits
from benchmarks.quality.classifier import GAP
from benchmarks.quality.endurance import steady_wishes
from benchmarks.quality.generate import Context
from benchmarks.quality.judge import views_of
from benchmarks.quality.look import sharpness
from benchmarks.quality.report import Table, percent
from model.vae import StreamingVAE

PASSES = (1, 2, 4, 32)
SHOWN = 3


def timesteps(passes: int, shift: float) -> list[float]:
    """Evenly spaced steps of the shifted flow schedule, 1000 first."""
    even = [1 - i / passes for i in range(passes)]
    return [1000 * shift * s / (1 + (shift - 1) * s) for s in even]


def reconstructed(vae: StreamingVAE, clips: Tensor) -> Tensor:
    """Clips (n, 1 + 4 k, 3, h, w) through encoder and decoder."""
    out = [vae.decode(vae.encode(clip.permute(0, 2, 3, 1)), vae.new_state()) for clip in clips]
    return torch.stack(out).permute(0, 1, 4, 2, 3)


def measure(context: Context) -> list[Table]:
    """Sharpness and scores of the second block, every block made with so many passes."""
    options, config, begin = context.options, context.checkpoint.config, time.monotonic()
    some = steady_wishes(options.passes_prompts, options.seed)
    table = Table(
        f"Passes: {len(some)} prompts, second block; {config.sampler}, shift {config.shift:g}; as shipped: "
        f"{len(config.timesteps)} passes, first block {len(config.first_block_timesteps or config.timesteps)}",
        ("sharpness", "scores %"), digits=2, name="passes",
    )  # fmt: skip
    shown: list[tuple[str, Tensor]] = []

    def add(name: str, pictures: Tensor) -> None:
        last = pictures.shape[1] - 1
        seen = context.judge.names(views_of(pictures, [last - 5, last]))
        table.add(name, sharpness(pictures[:, last - GAP :]), percent(hits(some, seen)))
        shown.append((name, pictures[:, -1]))

    renders = context.rendered(some, context.block_pictures + 1)
    add("renders", renders)
    add("reconstructions", reconstructed(context.checkpoint.streaming_vae, renders))
    for passes in (None, *PASSES):
        if context.late:
            break
        steps = None if passes is None else timesteps(passes, config.shift)
        roll = context.roll(some, 9000, timesteps=steps)
        add("as shipped" if passes is None else f"{passes} passes", roll.pictures(2))
    for i in range(min(SHOWN, len(some))):
        part = shown[1:]
        context.sheet.row([name for name, _ in part], [pictures[i] for _, pictures in part])
    print(f"passes: {time.monotonic() - begin:.0f} s", flush=True)
    return [table]
