"""Pictures of the world: shapes, determinism, changes at their block's border and nowhere else."""

import random
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

from model.training.world import NAMES, Script, make_script, render

BLOCKS, BLOCK = 2, 8
BORDER = BLOCK - 3
SIZE = {"height": 36, "width": 64}
START = {
    "scene": "lake",
    "time of day": "day",
    "weather": "clear",
    "subject": "balloon",
    "colour": "red",
    "camera": "still",
}


def _script(changes: dict[str, str] | None = None, seed: int = 0, **start: str) -> Script:
    timed = [(1, changes)] if changes else []
    return make_script(START | start, timed, BLOCKS, BLOCK, random.Random(seed))


def _difference(a: Tensor, b: Tensor) -> Tensor:
    """Mean absolute difference of each picture, in 8-bit steps."""
    return (a.float() - b.float()).abs().mean((-1, -2, -3))


def test_shape_type_and_determinism() -> None:
    scripts = [_script(), _script(seed=4, scene="desert")]
    a = render(scripts, 3, **SIZE)
    assert a.shape == (2, 3, 3, 36, 64)
    assert a.dtype == torch.uint8
    assert a.float().std() > 20
    assert torch.equal(a, render(scripts, 3, **SIZE))
    alone = render(scripts[1:], 3, **SIZE)
    assert (alone.int() - a[1:].int()).abs().max() <= 1


def test_chunks_and_first_picture_do_not_matter() -> None:
    scripts = [_script({"scene": "city", "weather": "rain"})]
    whole = render(scripts, 13, **SIZE)
    small = render(scripts, 13, **SIZE, chunk_pixels=2 * 36 * 64)
    tail = render(scripts, 4, first_picture=9, **SIZE)
    assert (whole.int() - small.int()).abs().max() <= 1
    assert (whole[:, 9:].int() - tail.int()).abs().max() <= 1


def test_generator_draws_another_look() -> None:
    script = [_script()]
    one = render(script, 1, generator=torch.Generator().manual_seed(1), **SIZE)
    same = render(script, 1, generator=torch.Generator().manual_seed(1), **SIZE)
    other = render(script, 1, generator=torch.Generator().manual_seed(2), **SIZE)
    assert torch.equal(one, same)
    assert _difference(one, other).max() > 2


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("scene", "desert"),
        ("time of day", "night"),
        ("weather", "fog"),
        ("subject", "whale"),
        ("colour", "blue"),
        ("camera", "drift left"),
    ],
)
def test_change_shows_from_its_border_on(key: str, value: str) -> None:
    plain, changed = render([_script(), _script({key: value})], BORDER + BLOCK, **SIZE)
    apart = _difference(plain, changed)
    assert apart[:BORDER].max() == 0
    assert apart[BORDER] > 0
    assert apart[-1] > (0.2 if key in ("colour", "camera") else 1)


def test_change_arrives_at_the_new_state_within_a_second() -> None:
    rng = random.Random(0)
    change = {"scene": "meadow", "time of day": "sunset", "weather": "snow", "subject": "ufo", "colour": "pink"}
    changed = make_script(START, [(1, change)], 2, [4, 16], rng)
    there = make_script(START | change, [], 2, [4, 16], rng)
    same = [changed, Script(there.start, there.changes, there.block_pictures, there.captions, changed.seed)]
    a, b = render(same, 20, **SIZE)
    apart = _difference(a, b)
    assert apart[0] > 5
    assert apart[16:].max() < 0.5


def test_drift_left_moves_the_land_right() -> None:
    left, right = render([_script(camera="drift left"), _script(camera="drift right")], 12, height=72, width=128)
    for clip, sign in ((left, 1), (right, -1)):
        band = clip[..., 52:, :].float().mean(1)
        first, last = band[0], band[11]
        errors = {d: (first[:, 20:-20] - last.roll(-d, -1)[:, 20:-20]).abs().mean() for d in range(-12, 13)}
        assert min(errors, key=lambda d: float(errors[d])) * sign > 0


@pytest.mark.parametrize("key", ["scene", "time of day", "weather", "subject", "colour"])
def test_all_values_look_different(key: str) -> None:
    clips = render([_script(**{key: name}) for name in NAMES[key]], 1, **SIZE)[:, 0].float()
    for i in range(len(clips)):
        for j in range(i):
            assert _difference(clips[i], clips[j]) > (0.3 if key in ("subject", "colour") else 2), (i, j)


def test_night_stays_readable() -> None:
    clips = render([_script(**{"time of day": "night", "weather": w}) for w in NAMES["weather"]], 1, **SIZE)
    assert clips.float().mean((1, 2, 3, 4)).min() > 25


def test_portrait_and_bad_sizes() -> None:
    assert render([_script()], 1, height=64, width=36).shape[-2:] == (64, 36)
    for bad in ({"height": 4, "width": 64}, {"height": 16, "width": 200}):
        with pytest.raises(ValueError, match="cannot render"):
            render([_script()], 1, **bad)
    with pytest.raises(ValueError, match="at least one"):
        render([], 1, **SIZE)


def test_sheet_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from model.training.world.__main__ import main

    out = tmp_path / "sheet.png"
    monkeypatch.setattr(
        "sys.argv", ["world", "--out", str(out), "--height", "18", "--width", "32", "--no-strip", "--scenes", "sea"]
    )
    main()
    with Image.open(out) as sheet:
        assert sheet.size == (4 * 34, 18 + 14)
