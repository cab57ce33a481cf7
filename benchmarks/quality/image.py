"""Does a stream that starts from a picture keep what it shows, and move?"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor

from benchmarks.quality.endurance import steady_wishes
from benchmarks.quality.generate import Context
from benchmarks.quality.judge import views_of
from benchmarks.quality.look import changes, sharpness
from benchmarks.quality.prompts import Wish
from benchmarks.quality.report import Sheet, Table, percent
from model.training.world import KEYS, Attributes

STILL = tuple(key for key in KEYS if key != "camera")  # a single picture does not show the camera's way
SECONDS = 5
MARKS_S = (0, 1, 2, 4)
COLUMNS = (*STILL, "all kept", "first step", "motion", "least motion", "sharpness")


def kept(some: Sequence[Wish], seen: Sequence[Attributes], key: str | None = None) -> list[bool]:
    """For each attribute that the picture showed (or `key` alone): is it seen?"""
    return [
        found[k] == w.attributes[k]
        for w, found in zip(some, seen, strict=True)
        for k in STILL
        if key in (None, k) and not (k == "colour" and w.attributes["subject"] == "none")
    ]


def measure(context: Context) -> list[Table]:
    """Start from renders, with the prompt that they were painted from and with none, and look at the fifth second."""
    options, begin = context.options, time.monotonic()
    some = steady_wishes(options.passes_prompts, options.seed + 1)
    rate_hz = round(context.checkpoint.config.rate_hz)
    blocks = -(-(SECONDS * rate_hz + 3) // context.block_pictures)
    renders = context.rendered(some, SECONDS * rate_hz)
    table = Table(
        f"Image start: {len(some)} streams from a render, % of its attributes seen in second {SECONDS}; "
        "first step: picture difference to the given one over later ones",
        COLUMNS, digits=2, name="image start",
    )  # fmt: skip

    def add(name: str, pictures: Tensor) -> None:
        pictures = pictures[:, : SECONDS * rate_hz]
        last = pictures.shape[1] - 1
        seen = context.judge.names(views_of(pictures, (last - rate_hz // 2, last)))
        change = changes(pictures)
        late = change[:, rate_hz:].mean(1)
        table.add(
            name, *(percent(kept(some, seen, key)) for key in STILL), percent(kept(some, seen)),
            float(change[:, 0].mean() / late.mean().clamp_min(1e-6)), float(late.mean()), float(late.min()),
            sharpness(pictures[:, -rate_hz:]),
        )  # fmt: skip

    rows: list[tuple[str, Tensor]] = []
    for name, asked in (("with its prompt", some), ("empty prompt", [replace(w, prompt="") for w in some])):
        if context.late:
            break
        pictures = context.roll(asked, 4000, images=renders[:, 0]).pictures(blocks + 1)
        add(name, pictures)
        rows.append((name, pictures))
    add("renders", renders)
    context.sheet = Sheet(columns=1 + len(MARKS_S))
    for i, w in enumerate(some[:6]):
        for name, pictures in rows:
            shown = [pictures[i, second * rate_hz] for second in MARKS_S]
            labels = ["given picture", *(f"{name}, {second} s: {w.prompt}" for second in MARKS_S)]
            context.sheet.row(labels, [renders[i, 0], *shown])
    print(f"image start: {time.monotonic() - begin:.0f} s", flush=True)
    return [table]
