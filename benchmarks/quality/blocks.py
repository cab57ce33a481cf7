"""Does a stream look as good with other block lengths, one for all blocks or mixed?"""

from __future__ import annotations

import random
import time

from torch import Tensor

from benchmarks.quality.adherence import hits
from benchmarks.quality.endurance import VIEW_EVERY, steady_wishes
from benchmarks.quality.generate import Context
from benchmarks.quality.judge import views_of
from benchmarks.quality.look import borders, changes, flicker, sharpness
from benchmarks.quality.report import Sheet, Table, percent

LATENTS = 24  # looked at, after as many passed over
COLUMNS = ("blocks", "scores %", "sharpness", "motion", "borders/inside", "passes/latent")


def drawn(lengths: tuple[int, ...], latents: int, rng: random.Random) -> list[int]:
    """Lengths at random that make up at least so many latent frames."""
    found: list[int] = []
    while sum(found) < latents:
        found.append(rng.choice(lengths))
    return found


def measure(context: Context) -> list[Table]:
    """The same prompts and seeds at each length of `--blocks`, and with all of them mixed."""
    options, begin = context.options, time.monotonic()
    config = context.checkpoint.config
    some = steady_wishes(options.passes_prompts, options.seed)
    named: list[tuple[str, tuple[int, ...]]] = [(str(length), (length,)) for length in options.blocks]
    if len(options.blocks) > 1:
        named.append(("mixed", options.blocks))
    table = Table(
        f"Blocks: {len(some)} prompts, {LATENTS} latent frames after as many; default {config.block}, "
        f"trained for {', '.join(map(str, config.block_latent_frames))}",
        COLUMNS, digits=2, name="blocks",
    )  # fmt: skip
    shown: list[tuple[str, Tensor]] = []
    for name, choice in named:
        if context.late:
            break
        rng = random.Random(options.seed)
        roll = context.roll(some, 3000)
        for frames in drawn(choice, LATENTS, rng):
            roll.skip(frames)
        lengths = drawn(choice, LATENTS, rng)
        pictures = roll.pictures(lengths)
        seen = context.judge.names(views_of(pictures, list(range(VIEW_EVERY, pictures.shape[1], VIEW_EVERY))))
        passes = len(lengths) * (len(config.timesteps) + 1) / sum(lengths)
        table.add(
            name, len(lengths), percent(hits(some, seen)), sharpness(pictures), float(changes(pictures).mean()),
            flicker(pictures, borders(lengths)), passes,
        )  # fmt: skip
        shown.append((name, pictures[:, -1]))
    context.sheet = Sheet(columns=max(1, len(shown)))
    for i, w in enumerate(some[:6]):
        context.sheet.row([f"{name}: {w.prompt}" for name, _ in shown], [pictures[i] for _, pictures in shown])
    print(f"blocks: {time.monotonic() - begin:.0f} s", flush=True)
    return [table]
