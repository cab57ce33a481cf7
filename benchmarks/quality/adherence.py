"""Does a stream show what its prompt says?"""

from __future__ import annotations

from benchmarks.quality.generate import Context
from benchmarks.quality.prompts import KINDS, Wish, held_out_share
from benchmarks.quality.report import Table, percent
from model.training.world import KEYS, Attributes
from model.training.world.heldout import HELD_OUT_OF

SHOWN = 24


def hits(some: list[Wish], seen: list[Attributes], key: str | None = None) -> list[bool]:
    """For each attribute that a prompt names (or `key` alone): is it seen?"""
    return [
        found[k] == w.attributes[k]
        for w, found in zip(some, seen, strict=True)
        for k in w.asked
        if key is None or k == key
    ]


def measure(context: Context) -> list[Table]:
    """Score per attribute and kind of prompt, judged in the second block."""
    asked = [w for opening in context.openings for w in opening.wishes]
    seen = [found for opening in context.openings for found in context.judge.names(opening.views)]
    table = Table(
        f"Adherence: % of named attributes seen in the second block, {len(asked)} prompts",
        [*KEYS, "all named"],
        name="adherence",
    )
    for kind in (*KINDS, None):
        chosen = [i for i, w in enumerate(asked) if kind in (None, w.kind)]
        part, found = [asked[i] for i in chosen], [seen[i] for i in chosen]
        scores = [percent(hits(part, found, key)) for key in KEYS]
        table.add(f"{kind or 'all'} ({len(part)})", *scores, percent(hits(part, found)))
    own = [100 * context.judge.accuracy[key] for key in KEYS]
    table.add("classifier on renders", *own, sum(own) / len(own))
    _show(context)
    return [table]


def note() -> str:
    """What `unseen` means for a model trained by the sources as they stand."""
    share = held_out_share()
    rule = f"unseen: one in {HELD_OUT_OF} of scene|time|weather|subject|colour, by SHA-256 (world.held_out); "
    if share:
        return f"{rule}model/training does NOT keep them out: {share:.0%} of the blocks it draws are of them."
    return f"{rule}model/training keeps them out."


def _named(w: Wish) -> str:
    return "render: " + ", ".join(w.attributes[key] for key in KEYS)


def _show(context: Context) -> None:
    some = [
        (w, views) for opening in context.openings for w, views in zip(opening.wishes, opening.views, strict=True)
    ]
    count = min(SHOWN, len(some))
    some = [some[i * len(some) // count] for i in range(count)]
    half = context.sheet.columns // 2
    renders = context.rendered([w for w, _ in some], 1)[:, 0]
    for start in range(0, len(some), half):
        pairs = list(zip(some[start : start + half], renders[start : start + half], strict=True))
        labels = [text for (w, _), _ in pairs for text in (f"{w.kind}: {w.prompt}", _named(w))]
        context.sheet.row(labels, [p for (_, views), render in pairs for p in (views[-1, -1], render)])
