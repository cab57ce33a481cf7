"""Does a steer show, how soon, and does the rest stay?

Steers begin at prompts of the grammar as long as these last; a colour is not compared where nothing is or was there.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import Tensor

from benchmarks.quality.generate import Context
from benchmarks.quality.judge import views_of
from benchmarks.quality.prompts import Turn, Wish, turns
from benchmarks.quality.report import Table, percent
from model.training.world import KEYS, Attributes, make_script, render

RATE_HZ = 16
# Last pictures of the views by which the first and the second second after the boundary are judged.
MARKS = {1: (12, 15), 2: (26, 31)}
COARSE = 3  # renders are made of every third picture, to be cheap
SHOWN = 4


@dataclass
class Score:
    """Hits by attribute: what was asked for after 1 s and after 2 s, and what should have stayed after 2 s."""

    soon: dict[str, list[bool]] = field(default_factory=lambda: {key: [] for key in KEYS})
    later: dict[str, list[bool]] = field(default_factory=lambda: {key: [] for key in KEYS})
    kept: dict[str, list[bool]] = field(default_factory=lambda: {key: [] for key in KEYS})

    def count(
        self, steers: Sequence[Turn], before: list[Attributes], one: list[Attributes], two: list[Attributes]
    ) -> None:
        """Compare what is seen before, 1 s and 2 s after each steer."""
        for turn, old, early, late in zip(steers, before, one, two, strict=True):
            wanted = turn.after[turn.key]
            self.soon[turn.key].append(early[turn.key] == wanted)
            self.later[turn.key].append(late[turn.key] == wanted)
            nobody = "none" in (turn.after["subject"], old["subject"])
            fixed = [k for k in KEYS if k != turn.key and not (k == "colour" and (nobody or turn.key == "subject"))]
            for key in fixed:
                self.kept[key].append(late[key] == old[key])

    def rows(self, table: Table, name: str) -> None:
        """Three rows of the table."""
        for what, found in (("seen at 1 s", self.soon), ("seen at 2 s", self.later), ("others kept", self.kept)):
            every = [hit for part in found.values() for hit in part]
            table.add(f"{name}, {what}", *(percent(found[key]) for key in KEYS), percent(every))


def measure(context: Context) -> list[Table]:
    """Steer the streams of the adherence part once each, and render the same changes for comparison."""
    openings = [opening for opening in context.openings if opening.roll is not None]
    start = [w for opening in openings for w in opening.wishes]
    plan = list(turns(start, context.options.seed))
    blocks = -(-(MARKS[2][-1] + 1) // context.block_pictures)
    ours, done = Score(), 0
    for opening in openings:
        steers = plan[done : done + len(opening.wishes)]
        done += len(steers)
        assert opening.roll is not None
        opening.roll.steer([turn.prompt for turn in steers])
        after = opening.roll.pictures(blocks)
        opening.roll = None
        before = context.judge.names(opening.views)
        ours.count(steers, before, *(context.judge.names(views_of(after, ends)) for ends in MARKS.values()))
        if opening is openings[0]:
            _show(context, opening.wishes, steers, opening.views[:, -1, -1], after)
    table = Table(
        f"Steering: % of {done} single changes seen at the mark after the boundary, and of the other attributes kept",
        [*KEYS, "all"],
        name="steering",
    )
    ours.rows(table, "streams")
    _renders(context, start, plan).rows(table, "renders")
    return [table]


def _renders(context: Context, start: Sequence[Wish], plan: Sequence[Turn]) -> Score:
    """The same changes as the world paints them."""
    rng, score = random.Random(context.options.seed), Score()
    lead, tail = 4, MARKS[2][-1] // COARSE + 1
    scripts = [
        make_script(w.attributes, [(1, {turn.key: turn.after[turn.key]})], 2, [lead, tail], rng)
        for w, turn in zip(start, plan, strict=True)
    ]
    height, width = context.size
    pictures = render(
        scripts, lead + tail, height=height, width=width, rate_hz=RATE_HZ / COARSE, device=context.device
    )

    def seen(end: int) -> list[Attributes]:
        return context.judge.names(pictures[:, None, [end - 2, end]])

    score.count(plan, seen(lead - 1), *(seen(lead + ends[-1] // COARSE) for ends in MARKS.values()))
    return score


def _show(context: Context, some: list[Wish], steers: Sequence[Turn], before: Tensor, after: Tensor) -> None:
    for i in range(min(SHOWN, len(some))):
        moments = (0, 3, 7, 15, 31)
        labels = [some[i].prompt, steers[i].prompt, *(f"{(m + 1) / RATE_HZ:.2f} s after" for m in moments[1:])]
        context.sheet.row(labels, [before[i], *(after[i, m] for m in moments)])
