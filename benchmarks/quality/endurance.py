"""Does a stream stay what it was? Scores, colour, contrast, motion and flicker after minutes."""

from __future__ import annotations

import random
import time

import torch
from torch import Tensor

from benchmarks.quality.adherence import hits
from benchmarks.quality.classifier import GAP
from benchmarks.quality.generate import Context, Roll, rendered
from benchmarks.quality.judge import views_of
from benchmarks.quality.prompts import Wish, wish
from benchmarks.quality.report import Table, percent

MARKS_MIN = (1.0, 5.0, 30.0)
WINDOW_BLOCKS = 5
COLUMNS = ("scores %", "saturation", "contrast", "motion", "borders/inside")


def luma(pictures: Tensor) -> Tensor:
    """Mean of the colours, (..., h, w), 0..255."""
    return pictures.float().mean(-3)


def saturation(pictures: Tensor) -> float:
    """Mean of the greatest less the least colour of each pixel, 0..255."""
    wide = pictures.float()
    return float((wide.amax(-3) - wide.amin(-3)).mean())


def contrast(pictures: Tensor) -> float:
    """Mean over pictures of the standard deviation of luma."""
    return float(luma(pictures).flatten(-2).std(-1).mean())


def changes(pictures: Tensor) -> Tensor:
    """Mean difference (clips, t - 1) of each picture to the one before it, 0..255."""
    return torch.stack([(b.float() - a.float()).abs().mean((1, 2, 3)) for a, b in _neighbours(pictures)], 1)


def _neighbours(pictures: Tensor) -> list[tuple[Tensor, Tensor]]:
    return [(pictures[:, t - 1], pictures[:, t]) for t in range(1, pictures.shape[1])]


def flicker(pictures: Tensor, block_pictures: int) -> float:
    """Change at block borders over change inside; the first picture begins a block."""
    change = changes(pictures)
    border = torch.arange(1, pictures.shape[1]) % block_pictures == 0
    return float(change[:, border].mean() / change[:, ~border].mean().clamp_min(1e-6))


def steady_wishes(count: int, seed: int) -> list[Wish]:
    """Prompts of the grammar without storms, whose lightning is meant to flicker."""
    rng, found = random.Random(seed + 77), list[Wish]()
    while len(found) < count:
        one = wish("seen", rng)
        if one.attributes["weather"] != "storm":
            found.append(one)
    return found


def measure(context: Context) -> list[Table]:
    """Roll some streams for `minutes` and look at windows of five blocks on the way."""
    options, begin = context.options, time.monotonic()
    some = steady_wishes(options.streams, options.seed)
    roll = Roll(context.checkpoint, [w.prompt for w in some], options.seed + 5000)
    rate_hz = context.checkpoint.config.rate_hz
    table = Table(f"Endurance: {len(some)} streams, no storm, nothing steered", COLUMNS, digits=2)
    marks = sorted({0.0, options.minutes, *(m for m in MARKS_MIN if m <= options.minutes)})
    last = []
    roll.skip()
    for mark in marks:
        while roll.next_picture < mark * 60 * rate_hz:
            roll.skip()
        pictures = roll.pictures(WINDOW_BLOCKS)
        ends = range(GAP, pictures.shape[1], 18)
        score = percent(hits(some, context.judge.names(views_of(pictures, list(ends)))))
        shape = (saturation(pictures), contrast(pictures), float(changes(pictures).mean()))
        table.add(f"minute {mark:g}" if mark else "start", score, *shape, flicker(pictures, context.block_pictures))
        last.append(pictures[:, -1])
    reference = rendered(some, 2 * GAP + 1, options.seed)
    seen = context.judge.names(views_of(reference, [GAP, 2 * GAP]))
    look = (saturation(reference), contrast(reference), float(changes(reference).mean()))
    table.add("renders", percent(hits(some, seen)), *look, None)
    for i, w in enumerate(some[:4]):
        labels = [w.prompt, *(f"minute {m:g}" for m in marks[1:])]
        context.sheet.row(labels, [pictures[i] for pictures in last])
    print(f"endurance, {marks[-1]:g} minutes of {len(some)} streams: {time.monotonic() - begin:.0f} s", flush=True)
    return [table]


def left_out(minutes: float) -> str:
    """What of minutes 1, 5 and 30 isn't measured."""
    missing = [f"{m:g}" for m in MARKS_MIN if m > minutes]
    return f"endurance: minute {', '.join(missing)} (--minutes {missing[-1]})" if missing else ""
