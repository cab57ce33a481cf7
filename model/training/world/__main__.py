"""`python -m model.training.world --out docs/world.png`: a contact sheet, and a clip with changes as a strip."""

from __future__ import annotations

import argparse
import random
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageDraw

from model.training.world.attributes import NAMES, Attributes
from model.training.world.render import render
from model.training.world.script import Script, draw, make_script

_EXTRA = ("clear", "clear", "cloudy", "rain", "snow", "fog", "storm")
LABEL = 14


def _scripts(seed: int, scenes: Sequence[str]) -> list[Script]:
    """One script for each of the scenes and each hour, with weathers and subjects spread over them."""
    rng = random.Random(seed)
    subjects = [n for n in NAMES["subject"] if n != "none"]
    scripts = []
    for row, scene in enumerate(NAMES["scene"]):
        for col, hour in enumerate(NAMES["time of day"]):
            start: Attributes = {
                "scene": scene,
                "time of day": hour,
                "weather": _EXTRA[(row * 3 + col * 5 + seed) % len(_EXTRA)],
                "subject": subjects[(row * 5 + col * 3 + seed) % len(subjects)],
                "colour": draw("colour", rng),
                "camera": "still",
            }
            if scene not in scenes:
                continue
            scripts.append(make_script(start, [], 1, [9], rng))
    return scripts


def _strip_script(seed: int) -> Script:
    start: Attributes = {"scene": "lake", "time of day": "sunset", "weather": "clear", "subject": "sailboat",
                         "colour": "red", "camera": "drift right"}  # fmt: skip
    changes: list[tuple[int, Attributes]] = [
        (2, {"time of day": "night"}), (4, {"subject": "ufo", "colour": "green"}), (6, {"scene": "desert"}),
        (8, {"time of day": "day", "weather": "rain"}),
    ]  # fmt: skip
    return make_script(start, changes, 10, 12, random.Random(seed))


def _tile(pictures: npt.NDArray[np.uint8], labels: Sequence[str], columns: int) -> Image.Image:
    """Pictures (n, H, W, 3) in rows of `columns`, each with its label above."""
    _, height, width, _ = pictures.shape
    rows = -(-len(pictures) // columns)
    sheet = Image.new("RGB", (columns * (width + 2), rows * (height + LABEL)), (18, 18, 20))
    pen = ImageDraw.Draw(sheet)
    for i, (picture, label) in enumerate(zip(pictures, labels, strict=True)):
        x, y = (i % columns) * (width + 2), (i // columns) * (height + LABEL)
        sheet.paste(Image.fromarray(picture), (x, y + LABEL))
        pen.text((x + 3, y + 1), label, fill=(225, 225, 225))
    return sheet


def main() -> None:
    """Write the sheet."""
    parser = argparse.ArgumentParser(prog="python -m model.training.world", description=__doc__)
    parser.add_argument("--out", required=True, help="PNG to write")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--height", type=int, default=144)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--no-strip", action="store_true", help="leave out the clip with changes")
    parser.add_argument("--scenes", nargs="+", choices=NAMES["scene"], default=NAMES["scene"])
    args = parser.parse_args()
    size = {"height": args.height, "width": args.width, "device": args.device}
    scripts = _scripts(args.seed, args.scenes)
    shown = render(scripts, 1, first_picture=5, **size)[:, 0]
    labels = [f"{a['scene']}, {a['time of day']}, {a['weather']}, {a['colour']} {a['subject']}" for a in
              (s.start for s in scripts)]  # fmt: skip
    if not args.no_strip:
        script = _strip_script(args.seed)
        clip = render([script], script.pictures, **size)[0]
        step = 5
        at = list(range(0, script.pictures, step))[:24]
        shown = torch.cat((shown, clip[at]))
        for picture in at:
            block = sum(picture >= script.first_picture(b) for b in range(1, 10))
            labels.append(f"{picture / 16:.2f} s  {script.captions[block][:38]}")
    sheet = _tile(shown.permute(0, 2, 3, 1).cpu().numpy(), labels, 4)
    sheet.save(args.out)


if __name__ == "__main__":
    main()
