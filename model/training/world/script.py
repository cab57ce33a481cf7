"""A script: what a clip shows over time, and the caption in force at each block."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from model.training.world.attributes import NAMES, Attributes
from model.training.world.captions import as_random, caption, short_caption
from model.training.world.heldout import held_out

# Weights of the values; those that are hard to learn come more often.
_WEIGHTS: dict[str, dict[str, float]] = {
    "weather": {"clear": 2.0, "rain": 1.2},
    "subject": {"none": 0.6, "birds": 1.7, "whale": 1.4, "dragon": 1.6, "ufo": 1.2},
    "camera": {"still": 1.0, "drift left": 1.0, "drift right": 1.0},
}
_CHANGE_WEIGHTS = {"scene": 1.2, "time of day": 1.2, "weather": 1.2, "subject": 2.0, "colour": 0.9, "camera": 0.6}
_TRIES = 1000  # one draw in five is thrown away


@dataclass(frozen=True)
class Script:
    """One clip.

    start: the attributes of picture 0, every key of `attributes.KEYS`.
    changes: (block, {attribute: new value}), in rising order of block.
    block_pictures: number of pictures in each block; a change at block b begins at the block's first picture.
    captions, attributes: one a block, what is in force there.
    seed: draws the look (which peaks, where the sun stands, ...).
    """

    start: Attributes
    changes: tuple[tuple[int, Attributes], ...]
    block_pictures: tuple[int, ...]
    captions: list[str]
    seed: int
    attributes: list[Attributes] = field(default_factory=list)

    def first_picture(self, block: int) -> int:
        """Number of the first picture of `block`."""
        return sum(self.block_pictures[:block])

    @property
    def pictures(self) -> int:
        """Pictures in all blocks together."""
        return sum(self.block_pictures)


def block_picture_counts(blocks: int, block_pictures: int | Sequence[int]) -> tuple[int, ...]:
    """Pictures of each block. An int is 4 times the block's latent frames: block 0 has 3 pictures fewer, since
    latent frame 0 holds picture 0 alone. A sequence is taken as it is."""
    if isinstance(block_pictures, int):
        if block_pictures < 4 or block_pictures % 4:
            raise ValueError(f"block_pictures must be a positive multiple of 4, not {block_pictures}")
        return (block_pictures - 3, *[block_pictures] * (blocks - 1))
    counts = tuple(block_pictures)
    if len(counts) != blocks or min(counts, default=0) < 1:
        raise ValueError(f"block_pictures must hold {blocks} positive counts, not {counts}")
    return counts


def draw(key: str, rng: random.Random, other_than: str | None = None) -> str:
    """A value of `key` at random, by weight."""
    names = [n for n in NAMES[key] if n != other_than]
    weights = _WEIGHTS.get(key, {})
    return rng.choices(names, [weights.get(n, 1.0) for n in names])[0]


def draw_attributes(rng: random.Random, start: Attributes | None = None) -> Attributes:
    """A value of every attribute, never a held-out combination; those in `start` are kept.

    Raises:
        ValueError: `start` leaves nothing but held-out combinations.
    """
    for _ in range(_TRIES):
        attributes = {key: draw(key, rng) for key in NAMES} | (start or {})
        if not held_out(attributes):
            return attributes
    raise ValueError(f"start: {start} is a held-out combination, training does not show it")


def draw_changes(now: Attributes, rng: random.Random, double_probability: float = 0.15) -> Attributes:
    """One change of `now` (two with `double_probability`): attribute -> another value.

    What holds then is never a held-out combination.
    """
    for _ in range(_TRIES):
        changes = _any_changes(now, rng, double_probability)
        if not held_out(now | changes):
            return changes
    raise ValueError(f"every change of {now} leads to a held-out combination")  # cannot be: 4 in 5 don't


def _any_changes(now: Attributes, rng: random.Random, double_probability: float) -> Attributes:
    keys = [k for k in _CHANGE_WEIGHTS if k != "colour" or now["subject"] != "none"]
    changes: Attributes = {}
    for _ in range(2 if rng.random() < double_probability else 1):
        key = rng.choices(keys, [_CHANGE_WEIGHTS[k] for k in keys])[0]
        changes[key] = draw(key, rng, now[key])
    if changes.get("subject", "none") != "none" and rng.random() < 0.7:
        colour = draw("colour", rng)
        if colour != now["colour"]:
            changes["colour"] = colour
    if changes.get("subject") == "none":
        changes.pop("colour", None)
    return changes


def make_script(
    start: Attributes,
    changes: Sequence[tuple[int, Attributes]],
    blocks: int,
    block_pictures: int | Sequence[int],
    rng: random.Random,
    short_probability: float = 0.45,
) -> Script:
    """A script with given attributes and changes; captions and seed are drawn from `rng`."""
    seed = rng.getrandbits(62)
    now = dict(start)
    by_block = dict(changes)
    captions: list[str] = []
    attributes: list[Attributes] = []
    text = caption(now, rng)
    for block in range(blocks):
        if block in by_block:
            change, before = by_block[block], now
            now = {**now, **change}
            if rng.random() < short_probability:
                text = short_caption(change, rng, before=before)
            else:
                text = caption(now, rng, mention=change)
        captions.append(text)
        attributes.append(dict(now))
    counts = block_picture_counts(blocks, block_pictures)
    return Script(dict(start), tuple(changes), counts, captions, seed, attributes)


def sample_scripts(
    n: int,
    blocks: int,
    block_pictures: int | Sequence[int],
    generator: torch.Generator | random.Random,
    change_probability: float = 0.5,
    *,
    max_changes: int = 3,
    short_probability: float = 0.45,
    start: Attributes | None = None,
) -> list[Script]:
    """`n` scripts of `blocks` blocks, none with a block of a held-out combination (`heldout.held_out`).

    block_pictures: pictures a block (4 a latent frame; block 0 then has 3 fewer) or one count for each block.
    change_probability: for each block but the first, that something changes at its border.
    start: attributes held fixed at the start; the others are drawn.

    Raises:
        ValueError: `start` leaves nothing but held-out combinations.
    """
    rng = as_random(generator)
    scripts = []
    for _ in range(n):
        first = draw_attributes(rng, start)
        now = dict(first)
        changes: list[tuple[int, Attributes]] = []
        for block in range(1, blocks):
            if len(changes) < max_changes and rng.random() < change_probability:
                change = draw_changes(now, rng)
                changes.append((block, change))
                now |= change
        scripts.append(make_script(first, changes, blocks, block_pictures, rng, short_probability))
    return scripts
