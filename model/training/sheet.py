"""A contact sheet of one stream: `python -m model.training.sheet --out docs/starter-stream.png`.

One picture a second, ten a row, of 60 s with three steers; with `--hold` the prompt stays, and colour and contrast
are printed each minute to see whether the stream drifts.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from PIL import Image, ImageDraw
from torch import Tensor

from model.checkpoint import load_checkpoint
from model.training.runs import say
from model.video import VideoStream

PROMPT = "a red sailboat on the sea at sunset"
STEERS = ["15: night falls", "30: the mountains by day, a yellow balloon", "45: it starts to snow"]
COLUMNS, BAR = 10, 16


def parse_steer(text: str) -> tuple[float, str]:
    """Return seconds and prompt of 'SECONDS: PROMPT'.

    Raises:
        ValueError: no colon, or no number before it.
    """
    seconds, _, prompt = text.partition(":")
    if not prompt.strip():
        raise ValueError(f"a steer is 'SECONDS: PROMPT', not {text!r}")
    return float(seconds), prompt.strip()


def colour_and_contrast(picture: Tensor) -> tuple[float, float]:
    """Return mean saturation (largest minus smallest channel) and the luminance's deviation, 0..255."""
    wide = picture.float()
    saturation = (wide.amax(-1) - wide.amin(-1)).mean().item()
    return saturation, wide.mean(-1).std().item()


def run(stream: VideoStream, seconds: float, rate_hz: float, steers: list[tuple[float, str]]) -> list[Tensor]:
    """Return one picture a second `(height, width, 3)`; each steer is given when its second is reached."""
    waiting = sorted(steers)
    kept: list[Tensor] = []
    number = 0
    for pictures in stream:
        for picture in pictures:
            if number % round(rate_hz) == 0:
                kept.append(picture.clone())
            number += 1
        while waiting and number >= waiting[0][0] * rate_hz:
            stream.steer(waiting.pop(0)[1])
        if number >= seconds * rate_hz:
            break
    return kept


def draw_sheet(pictures: list[Tensor], notes: dict[int, str], out: Path) -> None:
    """Lay the pictures out in rows of ten, each row under a bar with its second and the steers that fall in it."""
    height, width = pictures[0].shape[0] // 2, pictures[0].shape[1] // 2
    rows = -(-len(pictures) // COLUMNS)
    sheet = Image.new("RGB", (COLUMNS * width, rows * (height + BAR)))
    draw = ImageDraw.Draw(sheet)
    for index, picture in enumerate(pictures):
        row, column = divmod(index, COLUMNS)
        small = Image.fromarray(picture.cpu().numpy()).resize((width, height), Image.Resampling.LANCZOS)
        sheet.paste(small, (column * width, row * (height + BAR) + BAR))
        if index in notes or column == 0:
            text = f"{index} s {notes.get(index, '')}"
            draw.text((column * width + 3, row * (height + BAR) + 2), text, fill=(230, 230, 230))
    out.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(out, optimize=True)


def main() -> None:
    """Parse the command line, run the stream and save its sheet."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=Path("model/starter"))
    parser.add_argument("--out", type=Path, required=True, help="PNG to write")
    parser.add_argument("--prompt", default=PROMPT)
    parser.add_argument("--steer", action="append", metavar="'SECONDS: PROMPT'", help="repeatable")
    parser.add_argument("--hold", action="store_true", help="no steers")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    steers = [] if args.hold else [parse_steer(text) for text in args.steer or STEERS]
    checkpoint = load_checkpoint(args.model)
    stream = VideoStream(checkpoint, prompt=args.prompt, seed=args.seed)
    with torch.inference_mode():
        pictures = run(stream, args.seconds, checkpoint.config.rate_hz, steers)
    for second in range(4, len(pictures), 60):
        colour, contrast = colour_and_contrast(pictures[second])
        say(f"sheet: {second} s saturation {colour:.0f}, contrast {contrast:.0f}")
    notes = {0: args.prompt} | {round(second): prompt for second, prompt in steers}
    draw_sheet(pictures, notes, args.out)


if __name__ == "__main__":
    main()
