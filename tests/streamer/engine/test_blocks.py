"""Where blocks begin, against the rule spelled out block by block."""

from __future__ import annotations

import random

import pytest

from streamer.engine.blocks import Blocks


def boundaries(blocks: Blocks, until: int) -> list[tuple[int, int]]:
    """(beginning, end before any cut) of each block, by the rule."""
    found, start = [], 0
    while start < until:
        steered = blocks.cuts and start in blocks.places
        length = (blocks.steer or blocks.default) if steered else blocks.default if start else blocks.first
        found.append((start, start + length))
        inside = [place for place in blocks.places if start < place < start + length] if blocks.cuts else []
        start = min(inside, default=start + length)
    return found


@pytest.mark.parametrize("seed", range(12))
def test_every_latent_frame_lies_where_the_rule_puts_it(seed: int) -> None:
    dice = random.Random(seed)
    places = sorted(dice.sample(range(3, 80), dice.choice([0, 1, 12, 40])))
    blocks = Blocks(dice.randint(1, 5), dice.randint(1, 5), dice.choice([None, 1, 2, 5]), seed % 4 > 0, places)
    grid = boundaries(blocks, 100)
    starts = [start for start, _ in grid]
    for latent in range(80):
        index = max(i for i, start in enumerate(starts) if start <= latent)
        assert blocks.floor(latent) == starts[index]
        assert blocks.next(latent) == starts[index + 1]
        assert blocks.ceil(latent) == (latent if latent in starts else starts[index + 1])
        assert blocks.whole(latent) == grid[index][1]
    if blocks.cuts:
        assert set(places) <= set(starts)


def test_a_steer_cuts_the_block_that_holds_it_and_moves_those_behind_it() -> None:
    blocks = Blocks(first=3, default=3, steer=2, cuts=True)
    assert [blocks.next(f) for f in (3, 6, 9)] == [6, 9, 12]
    blocks.places.append(7)
    assert [blocks.next(f) for f in (3, 6, 7, 9)] == [6, 7, 9, 12]
    assert (blocks.whole(6), blocks.floor(8), blocks.ceil(8)) == (9, 7, 9)
    assert blocks.cut(3, 9) == 7
    blocks.cuts = False
    assert [blocks.next(f) for f in (3, 6, 7, 9)] == [6, 9, 9, 12]
