"""Does a stream stay what it was? Scores, colour, contrast, motion, flicker, distance from renders after minutes.

The Fréchet distance is of few pictures that go together (four of each stream): to be compared between marks, and
between weights with the same prompts, not with `benchmarks.quality.frechet`'s of hundreds.
"""

from __future__ import annotations

import random
import time
from collections.abc import Sequence

import torch
from torch import Tensor

from benchmarks.quality.adherence import hits
from benchmarks.quality.classifier import GAP
from benchmarks.quality.frechet import distance
from benchmarks.quality.generate import Context
from benchmarks.quality.judge import views_of
from benchmarks.quality.look import borders, changes, colour_gap, contrast, flicker, saturation, sharpness
from benchmarks.quality.prompts import Wish, wish
from benchmarks.quality.report import Sheet, Table, percent
from model.training.world import KEYS

WINDOW_BLOCKS, WINDOW_LATENTS = 3, 16
VIEW_EVERY = 18
SHOWN = 8
COLUMNS = ("saturation", "contrast", "colour gap", "motion", "least motion", "sharpness", "borders/inside", "fréchet")


def steady_wishes(count: int, seed: int) -> list[Wish]:
    """Prompts of the grammar without storms, whose lightning is meant to flicker."""
    rng, found = random.Random(seed + 77), list[Wish]()
    while len(found) < count:
        one = wish("seen", rng)
        if one.attributes["weather"] != "storm":
            found.append(one)
    return found


def measure(context: Context) -> list[Table]:
    """Roll some streams for minutes and look at windows of some blocks on the way."""
    options, block, begin = context.options, context.checkpoint.config.block, time.monotonic()
    some = steady_wishes(options.streams, options.seed)
    roll = context.roll(some, 5000)
    rate_hz = context.checkpoint.config.rate_hz
    lengths = [block] * max(WINDOW_BLOCKS, -(-WINDOW_LATENTS // block))
    title = f"Endurance: {len(some)} streams, no storm, nothing steered; "
    scores = Table(title + "% of named attributes seen", [*KEYS, "all named"], name="endurance scores")
    looks = Table(title + "look", COLUMNS, digits=2, name="endurance look")
    reference = context.rendered(some, 2 * GAP + 1)
    near, other = (
        torch.cat([_features(context, context.rendered(some, 2, i)) for i in two]) for two in ((1, 2), (3, 4))
    )

    def add(name: str, pictures: Tensor, starts: Sequence[int] = (), features: Tensor | None = None) -> None:
        ends = list(range(GAP, pictures.shape[1], VIEW_EVERY))
        seen = context.judge.names(views_of(pictures, ends))
        scores.add(name, *(percent(hits(some, seen, key)) for key in KEYS), percent(hits(some, seen)))
        motion = changes(pictures).mean(1)
        looks.add(
            name, saturation(pictures), contrast(pictures), colour_gap(pictures, reference), float(motion.mean()),
            float(motion.min()), sharpness(pictures[:, ends]), flicker(pictures, starts) if starts else None,
            distance(_features(context, pictures[:, ends]) if features is None else features, near),
        )  # fmt: skip

    last: list[Tensor] = []
    marks: list[float] = []
    roll.skip()
    for mark in sorted({0.0, *options.minutes}):
        while roll.next_picture < mark * 60 * rate_hz and not context.late:
            roll.skip()
        if marks and context.late:
            print(f"endurance: stopped at minute {roll.next_picture / rate_hz / 60:.1f}", flush=True)
            break
        pictures = roll.pictures(lengths)
        add(f"minute {mark:g}" if mark else "start", pictures, borders(lengths))
        last.append(pictures[:, -1])
        marks.append(mark)
        print(f"endurance: minute {mark:g} after {time.monotonic() - begin:.0f} s", flush=True)
    add("renders", reference, features=other)
    context.sheet = Sheet(columns=len(last))
    for i, w in enumerate(some[:SHOWN]):
        labels = [w.prompt, *(f"minute {m:g}" for m in marks[1:])]
        context.sheet.row(labels, [pictures[i] for pictures in last])
    return [scores, looks]


def _features(context: Context, pictures: Tensor) -> Tensor:
    return context.judge.features(pictures.flatten(0, 1))
