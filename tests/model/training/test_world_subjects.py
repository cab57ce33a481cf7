"""The subjects: whole in their cells and in the picture, smooth in their loops, of the colour that is named."""

import colorsys
import random

import numpy as np
import pytest
from numpy.typing import NDArray

from model.training.world import NAMES, make_script, render
from model.training.world.palettes import SUBJECT_COLOURS
from model.training.world.sprites import SPRITES, atlas

SUBJECTS = [n for n in NAMES["subject"] if n != "none"]
PLACE = {"scene": "meadow", "time of day": "day", "weather": "clear", "colour": "red", "camera": "still"}
HUE_APART = 12.0  # degrees; the two nearest names, orange and yellow, are 22 apart


@pytest.mark.parametrize("name", SUBJECTS)
def test_painted_whole_and_without_a_jump(name: str) -> None:
    alpha = atlas()[SPRITES.index(name), :, 0]
    sides = [alpha[:, 0], alpha[:, :, 0], alpha[:, :, -1]]
    if name not in ("train", "lighthouse"):  # these stand on their cell's last row
        sides.append(alpha[:, -1])
    assert max(float(side.max()) for side in sides) == 0
    steps = np.abs(np.roll(alpha, -1, 0) - alpha).mean((1, 2))
    assert steps[-1] <= 2 * steps[:-1].max()  # the loop closes as smoothly as it runs


@pytest.mark.parametrize(("height", "width"), [(36, 64), (64, 36)])
def test_never_cut_off_at_the_sides(height: int, width: int) -> None:
    names = [n for n in NAMES["subject"] if n != "lighthouse"]  # whose beam leaves the picture
    for seed in range(3):
        scripts = [make_script(PLACE | {"subject": n}, [], 1, [96], random.Random(seed)) for n in names]
        for picture in (0, 61):
            none, *shown = render(scripts, 1, height=height, width=width, first_picture=picture)[:, 0].float()
            for name, clip in zip(names[1:], shown, strict=True):
                changed = (clip - none).abs()[:, : height * 3 // 4]  # the train's viaduct runs on below
                assert changed.mean() > 1
                assert max(changed[..., 0].max(), changed[..., -1].max()) < 24, (name, seed, picture)


def _hue(colour: NDArray[np.float32]) -> float:
    return colorsys.rgb_to_hsv(*(float(c) for c in colour))[0] * 360


@pytest.mark.parametrize("hour", NAMES["time of day"])
def test_colours_keep_their_name_in_every_light(hour: str) -> None:
    cases = [{"subject": "none"}, *({"subject": "balloon", "colour": c} for c in NAMES["colour"])]
    for weather in NAMES["weather"]:
        start = PLACE | {"time of day": hour, "weather": weather}
        scripts = [make_script(start | case, [], 1, [9], random.Random(3)) for case in cases]
        none, *shown = render(scripts, 1, height=48, width=84)[:, 0].numpy().astype(np.float32) / 255
        for name, named, picture in zip(NAMES["colour"], SUBJECT_COLOURS, shown, strict=True):
            balloon = picture[:, np.abs(picture - none).max(0) > 0.12]
            chroma = balloon.max(0) - balloon.min(0)
            if name == "white":
                assert np.median(chroma) < 0.2, weather
                continue
            gores = balloon[:, chroma >= np.quantile(chroma, 0.6)].mean(1)
            apart = (_hue(gores) - _hue(np.array(named, np.float32)) + 180) % 360 - 180
            assert abs(apart) < HUE_APART, (name, weather)
            assert gores.max() - gores.min() > 0.25, (name, weather)
