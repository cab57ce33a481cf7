"""The subjects, and the ringed planet, painted once as looping animations.

`atlas()` is (sprites, 32 frames, 5, 96, 160): channels, multiplied by coverage: 0 alpha, 1 brightness of the parts
that keep their colour, 2 brightness of the parts that take the subject's colour, 3 emission (lamps, windows), 4 rim
(edge towards the light). All face right. Points are in cell pixels, x 0..160, y 0..96.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageChops, ImageDraw, ImageFilter

FRAMES = 32
CELL_HEIGHT, CELL_WIDTH = 96, 160
CHANNELS = 5
_SCALE = 4

Point = tuple[float, float]


class Brush:
    """Flat shapes with (value, tint, emission): value 0..1 brightness, tint 1 takes the subject's colour."""

    def __init__(self) -> None:
        self.image = Image.new("RGBA", (CELL_WIDTH * _SCALE, CELL_HEIGHT * _SCALE))
        self._draw = ImageDraw.Draw(self.image)

    @staticmethod
    def _fill(value: float, tint: float, emission: float) -> tuple[int, int, int, int]:
        return (int(255 * value * (1 - tint)), int(255 * value * tint), int(255 * emission), 255)

    def polygon(self, points: Sequence[Point], value: float, tint: float = 0.0, emission: float = 0.0) -> None:
        """Fill a polygon."""
        self._draw.polygon([(x * _SCALE, y * _SCALE) for x, y in points], fill=self._fill(value, tint, emission))

    def ellipse(
        self, cx: float, cy: float, rx: float, ry: float, value: float, tint: float = 0.0, emission: float = 0.0
    ) -> None:
        """Fill an ellipse."""
        box = [(cx - rx) * _SCALE, (cy - ry) * _SCALE, (cx + rx) * _SCALE, (cy + ry) * _SCALE]
        self._draw.ellipse(box, fill=self._fill(value, tint, emission))

    def line(self, points: Sequence[Point], width: float, value: float, tint: float = 0.0) -> None:
        """Stroke a polyline."""
        scaled = [(x * _SCALE, y * _SCALE) for x, y in points]
        self._draw.line(scaled, fill=self._fill(value, tint, 0.0), width=round(width * _SCALE), joint="curve")

    def finish(self) -> npt.NDArray[np.float32]:
        """(5, 96, 160) float32 0..1."""
        alpha = self.image.getchannel("A")
        half = alpha.reduce(2)
        moved = ImageChops.offset(half.filter(ImageFilter.GaussianBlur(3)), 2, 4)
        rim = ImageChops.multiply(half, ImageChops.invert(moved)).reduce(2)
        planes = [*(self.image.getchannel(c).reduce(_SCALE) for c in "ARGB"), rim]
        return np.stack([np.asarray(p, np.float32) / 255 for p in planes]).astype(np.float32)


def _curve(*points: Point, steps: int = 8) -> list[Point]:
    """Catmull-Rom through the points."""
    p = [points[0], *points, points[-1]]
    out: list[Point] = []
    for i in range(1, len(p) - 2):
        for k in range(steps):
            t = k / steps
            xy = []
            for d in (0, 1):
                a, b, c, e = (p[i + j][d] for j in (-1, 0, 1, 2))
                xy.append(
                    0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - e) * t * t + (3 * b - a - 3 * c + e) * t**3)
                )
            out.append((xy[0], xy[1]))
    return [*out, points[-1]]


def _sailboat(b: Brush, phase: float) -> None:
    lean = math.sin(phase) * 1.6
    b.line([(80, 80), (80 + lean, 5)], 2.0, 0.42)
    b.polygon([*_curve((83 + lean, 8), (104 + lean, 40), (110, 72)), (83, 72)], 1.0, 1.0)
    b.polygon([*_curve((83 + lean, 8), (91 + lean, 40), (94, 72)), (83, 72)], 0.78, 1.0)
    b.polygon([*_curve((77 + lean, 14), (58 + lean, 48), (50, 70)), (77, 70)], 1.0, 0.0)
    b.polygon([*_curve((77 + lean, 14), (70 + lean, 48), (67, 70)), (77, 70)], 0.8, 0.0)
    b.polygon([(80 + lean, 5), (92 + lean + math.sin(2 * phase) * 2, 8), (80 + lean, 11)], 0.9, 1.0)
    hull = _curve((38, 76), (60, 79), (96, 79), (124, 74), (112, 92), (60, 93), (46, 88))
    b.polygon(hull, 0.95, 0.0)
    b.polygon(_curve((43, 84), (80, 86), (118, 83), (112, 92), (60, 93), (46, 88)), 0.55, 1.0)
    b.ellipse(66, 82, 2.2, 2.2, 0.9, 0.0, 1.0)
    b.ellipse(98, 82, 2.2, 2.2, 0.9, 0.0, 1.0)


def _balloon(b: Brush, phase: float) -> None:
    cx, cy, r = 80 + math.sin(phase) * 1.2, 35, 33
    b.polygon([(cx - 17, 60), (cx + 17, 60), (80 + 6, 80), (80 - 6, 80)], 0.34, 1.0)
    for rx, value, tint in ((r, 0.62, 1.0), (r * 0.78, 0.95, 0.0), (r * 0.5, 1.0, 1.0), (r * 0.2, 0.95, 0.0)):
        b.ellipse(cx, cy, rx, r, value, tint)
        foot = 12 * rx / r
        side, low = rx * 0.87, cy + r * 0.5
        b.polygon([(cx - side, low), (cx + side, low), (cx + foot, 72), (cx - foot, 72)], value, tint)
    glow = 0.55 + 0.45 * math.sin(phase * 2)
    b.ellipse(cx, 69, 7, 4, 1.0, 0.0, 0.6 + 0.4 * glow)
    b.line([(cx - 10, 72), (76, 84)], 0.9, 0.3)
    b.line([(cx + 10, 72), (84, 84)], 0.9, 0.3)
    b.polygon([(72, 82), (88, 82), (86, 94), (74, 94)], 0.55, 0.0)
    b.polygon([(80, 82), (88, 82), (86, 94), (80, 94)], 0.36, 0.0)
    b.polygon([(71, 81), (89, 81), (89, 84), (71, 84)], 0.8, 1.0)


def _birds(b: Brush, phase: float) -> None:
    for x, y, s, lag in ((80, 28, 1.35, 0.0), (34, 54, 1.1, 1.2), (124, 60, 1.15, 2.2)):
        lift = math.sin(phase * 2 + lag)
        yb = y - lift * 3 * s
        for side, value in ((-1, 0.72), (1, 1.0)):
            elbow_y, tip_y = yb - (6 + 7 * lift) * s, yb + (1 - 17 * lift) * s
            top = _curve((x, yb - 3 * s), (x + side * 12 * s, elbow_y), (x + side * 30 * s, tip_y))
            back = _curve((x + side * 30 * s, tip_y), (x + side * 14 * s, elbow_y + 7 * s), (x, yb + 4 * s))
            b.polygon([*top, *back], value, 1.0)
            near = (x + side * 21 * s, (elbow_y + tip_y) / 2 - 1.0 * s)
            b.polygon(
                [near, (x + side * 30 * s, tip_y), (x + side * 20 * s, (elbow_y + tip_y) / 2 + 4.5 * s)], 0.45, 1.0
            )
        b.ellipse(x, yb + 1 * s, 7.5 * s, 6.0 * s, 0.86, 1.0)
        b.ellipse(x, yb + 3.4 * s, 5.5 * s, 3.4 * s, 0.97)
        b.ellipse(x + 2 * s, yb - 3 * s, 4 * s, 3.6 * s, 1.0, 0.0)
        b.polygon([(x + 5 * s, yb - 4 * s), (x + 10 * s, yb - 2 * s), (x + 5 * s, yb - 1 * s)], 0.62)
        b.ellipse(x + 3 * s, yb - 4 * s, 0.9 * s, 0.9 * s, 0.1)


def _train(b: Brush, phase: float) -> None:
    for k in range(5):  # smoke
        age = (k + phase / (2 * math.pi)) / 5
        b.ellipse(
            118 - age * 88, 30 - age * 20 + 2 * math.sin(5 * age), 3.5 + age * 10, 3 + age * 8, 0.96 - 0.22 * age
        )
    for x0 in (4, 46):  # coaches
        b.polygon([(x0, 50), (x0 + 38, 50), (x0 + 38, 84), (x0, 84)], 0.95, 1.0)
        b.polygon([(x0, 70), (x0 + 38, 70), (x0 + 38, 84), (x0, 84)], 0.62, 1.0)
        b.polygon([(x0 - 1, 46), (x0 + 39, 46), (x0 + 39, 51), (x0 - 1, 51)], 0.4)
        for wx in (x0 + 3, x0 + 15, x0 + 27):
            b.polygon([(wx, 55), (wx + 8, 55), (wx + 8, 66), (wx, 66)], 0.75, 0.0, 1.0)
    b.line([(38, 82), (150, 82)], 2.2, 0.25)
    b.polygon([(88, 40), (106, 40), (106, 84), (88, 84)], 0.8, 1.0)
    b.polygon([(86, 36), (109, 36), (109, 41), (86, 41)], 0.4)
    b.polygon([(92, 46), (103, 46), (103, 58), (92, 58)], 0.75, 0.0, 1.0)
    b.polygon([(104, 52), (144, 52), (148, 58), (148, 76), (104, 80)], 1.0, 1.0)
    b.polygon([(104, 68), (148, 68), (148, 78), (104, 82)], 0.55, 1.0)
    b.polygon([(132, 34), (141, 34), (139, 53), (134, 53)], 0.32)
    b.polygon([(130, 31), (143, 31), (143, 36), (130, 36)], 0.5)
    b.ellipse(119, 51, 5, 5, 0.85, 1.0)
    b.ellipse(148, 62, 3.4, 3.8, 1.0, 0.0, 1.0)
    b.polygon([(142, 78), (150, 78), (159, 92), (142, 92)], 0.4)
    for wx, r in ((11, 6), (34, 6), (53, 6), (76, 6), (97, 9), (117, 9), (136, 7)):
        b.ellipse(wx, 94 - r, r, r, 0.2)
        b.ellipse(wx, 94 - r, r * 0.62, r * 0.62, 0.6)
        spoke = phase + wx
        b.line([(wx - r * 0.6 * math.cos(spoke), 94 - r - r * 0.6 * math.sin(spoke)),
                (wx + r * 0.6 * math.cos(spoke), 94 - r + r * 0.6 * math.sin(spoke))], 1.6, 0.2)  # fmt: skip
    crank = (math.cos(phase * 2) * 3, math.sin(phase * 2) * 3)
    b.line([(97 + crank[0], 85 + crank[1]), (117 + crank[0], 85 + crank[1])], 2.0, 0.8)


def _whale(b: Brush, phase: float) -> None:
    wave = math.sin(phase)
    tail = 7 * wave
    back = ((150, 48), (143, 30), (118, 18), (84, 18), (52, 32), (30, 42 + tail * 0.6), (18, 38 + tail))
    belly = ((20, 46 + tail), (34, 56 + tail * 0.6), (60, 68), (96, 76), (130, 70), (147, 60), (150, 48))
    body = _curve(*back, *belly)
    b.polygon(
        _curve(
            (26, 40 + tail), (14, 32 + tail * 1.3), (3, 18 + tail * 1.8), (14, 22 + tail * 1.8), (24, 30 + tail * 1.4)
        ),
        0.75,
        1.0,
    )
    b.polygon(
        _curve((26, 44 + tail), (12, 48 + tail * 1.3), (2, 60 + tail * 1.7), (14, 58 + tail * 1.7), (28, 50 + tail)),
        0.6,
        1.0,
    )
    b.polygon(body, 0.92, 1.0)
    b.polygon(
        _curve(
            (150, 54), (132, 56), (104, 60), (72, 60), (44, 54 + tail * 0.4), (62, 69), (96, 76), (130, 70), (147, 60)
        ),
        0.97,
        0.0,
    )
    for k in range(5):
        b.line(_curve((140 - k * 7, 60 + k * 0.8), (120 - k * 8, 66 + k), (98 - k * 8, 66 + k * 0.4)), 0.9, 0.68)
    flip = 6 * math.sin(phase + 1)
    b.polygon(_curve((108, 62), (98, 74 + flip), (84, 86 + flip), (90, 72 + flip * 0.5), (96, 60)), 0.55, 1.0)
    b.line(_curve((150, 52), (138, 53), (126, 50)), 1.2, 0.3)
    b.ellipse(128, 44, 3, 3, 0.1)
    b.ellipse(129, 43, 1.1, 1.1, 1.0, 0.0, 0.8)
    for x, y, r in ((112, 28, 2.4), (98, 25, 1.8), (84, 28, 2.6), (68, 34, 1.8), (54, 40, 2.2)):
        b.ellipse(x, y, r, r, 1.0, 0.3, 0.55)


def _ufo(b: Brush, phase: float) -> None:
    b.ellipse(80, 40, 27, 27, 0.8)
    b.ellipse(74, 34, 17, 17, 0.98, 0.0, 0.35)
    b.ellipse(80, 42, 8, 12, 0.3, 0.5)
    b.polygon([(4, 56), (156, 56), (128, 74), (32, 74)], 0.5, 1.0)
    b.ellipse(80, 56, 76, 14, 0.95, 1.0)
    b.ellipse(80, 52, 60, 8, 1.0, 0.55)
    b.ellipse(80, 49, 30, 5, 0.55, 1.0)
    b.ellipse(80, 72, 48, 9, 0.4, 1.0)
    b.ellipse(80, 77, 22, 6, 1.0, 0.0, 1.0)
    for k in range(6):
        x = 80 + (k - 2.5) * 24
        lit = 0.35 + 0.65 * max(0.0, math.cos(phase - k * math.pi / 3))
        b.ellipse(x, 60 + 5 * math.cos((k - 2.5) * 0.55), 4.6, 4, 1.0, 0.0, lit)


def _lighthouse(b: Brush, phase: float) -> None:
    b.polygon(_curve((46, 95), (54, 87), (66, 84), (94, 84), (108, 88), (116, 95)), 0.5)
    b.polygon(_curve((46, 95), (54, 87), (66, 84), (78, 84), (74, 95)), 0.78)
    for k in range(5):
        y0, y1 = 24 + k * 12.4, 24 + (k + 1) * 12.4
        w0, w1 = 9 + k * 1.5, 9 + (k + 1) * 1.5
        tint = 1.0 if k % 2 == 0 else 0.0
        b.polygon([(80 - w0, y0), (80 + w0, y0), (80 + w1, y1), (80 - w1, y1)], 1.0, tint)
        b.polygon([(80 + w0 * 0.2, y0), (80 + w0, y0), (80 + w1, y1), (80 + w1 * 0.2, y1)], 0.62, tint)
    b.polygon([(67, 21), (93, 21), (93, 25), (67, 25)], 0.35)
    b.polygon([(72, 10), (88, 10), (88, 22), (72, 22)], 1.0, 0.0, 1.0)
    b.line([(80, 10), (80, 22)], 1.0, 0.4)
    b.polygon([(69, 11), (80, 1), (91, 11)], 0.8, 1.0)
    b.polygon([(76, 76), (84, 76), (84, 86), (76, 86)], 0.3)
    b.polygon([(77, 42), (82, 42), (82, 48), (77, 48)], 0.5, 0.0, 0.9)
    del phase  # its beam is drawn by the renderer


def _dragon(b: Brush, phase: float) -> None:
    flap = math.sin(phase)
    bob = -flap * 3
    up = flap * 26

    def at(x: float, y: float) -> Point:
        return (x, y + bob)

    far = _curve(
        at(92, 52),
        at(100, 36 - up * 0.5),
        at(112, 22 - up),
        at(116, 38 - up * 0.5),
        at(108, 46 - up * 0.2),
        at(84, 58),
    )
    b.polygon(far, 0.42, 1.0)
    spine = _curve(
        at(6, 60 + 6 * math.sin(phase + 2)),
        at(24, 70 + 4 * math.sin(phase + 1)),
        at(48, 64),
        at(76, 57),
        at(100, 58),
        at(118, 50),
        at(128, 40),
    )
    for i, (x, y) in enumerate(spine):
        f = i / (len(spine) - 1)
        r = 1.4 + 10.5 * math.exp(-(((f - 0.66) / 0.2) ** 2)) + 4.2 * f
        b.ellipse(x, y, r, r, 0.88, 1.0)
        if i % 3 == 0 and 0.1 < f < 0.95:
            b.polygon([(x - 4, y - r + 1), (x - 3, y - r - 5), (x + 3, y - r + 1)], 0.5, 1.0)
    for i, (x, y) in enumerate(spine):
        f = i / (len(spine) - 1)
        if f > 0.35:
            r = 0.5 + 6 * math.exp(-(((f - 0.68) / 0.2) ** 2)) + 1.5 * f
            b.ellipse(x + 1, y + r * 0.9, r * 0.8, r * 0.62, 0.95, 0.25)
    tx, ty = spine[0]
    b.polygon([(tx - 4, ty + 6), (tx - 5, ty - 6), (tx + 8, ty), (tx + 4, ty + 4)], 0.5, 1.0)
    b.polygon([at(120, 32), at(112, 22), at(126, 30)], 0.9)
    b.polygon([at(126, 31), at(121, 19), at(131, 30)], 0.9)
    b.polygon(
        _curve(at(119, 36), at(130, 29), at(146, 33), at(156, 40), at(152, 45), at(140, 47), at(124, 50)), 0.95, 1.0
    )
    b.polygon(_curve(at(126, 48), at(140, 46), at(152, 46), at(146, 52), at(130, 53)), 0.6, 1.0)
    b.ellipse(135, 37 + bob, 2.6, 2.2, 1.0, 0.0, 1.0)
    for x in (72, 98):
        b.polygon([at(x, 66), at(x + 8, 66), at(x + 6, 80), at(x + 12, 84), at(x, 83)], 0.6, 1.0)
    root, tip = at(88, 52), at(58, 30 - up)
    elbow = at(84, 30 - up * 0.55)
    edge = _curve(tip, at(48, 44 - up * 0.75), at(38, 52 - up * 0.6))[1:]
    rest = [at(54, 50 - up * 0.45), at(54, 60 - up * 0.3), at(66, 55 - up * 0.2), at(72, 62), at(98, 58)]
    wing = [root, elbow, tip, *edge, *rest]
    b.polygon(wing, 0.98, 0.7)
    for end in (tip, at(38, 52 - up * 0.6), at(54, 60 - up * 0.3)):
        b.line([elbow, end], 1.6, 0.55, 1.0)
    b.line([root, elbow, tip], 3.0, 0.7, 1.0)


def _planet(b: Brush, phase: float) -> None:
    b.ellipse(80, 48, 33, 33, 0.95, 1.0)
    for y, h, value in ((30, 5, 0.8), (45, 4, 1.0), (58, 7, 0.78), (70, 4, 0.9)):
        half = math.sqrt(max(0.0, 33**2 - (y - 48) ** 2)) * 0.99
        b.polygon(
            [(80 - half, y - h / 2), (80 + half, y - h / 2 - 3), (80 + half, y + h / 2 - 3), (80 - half, y + h / 2)],
            value,
            0.75,
        )
    shadow = Image.new("L", b.image.size)
    pen = ImageDraw.Draw(shadow)
    pen.ellipse([(80 - 33) * 4, (48 - 33) * 4, (80 + 33) * 4, (48 + 33) * 4], fill=150)
    pen.ellipse([(80 - 48) * 4, (48 - 46) * 4, (80 + 24) * 4, (48 + 28) * 4], fill=0)
    dark = ImageChops.multiply(b.image.convert("RGB"), ImageChops.invert(shadow).convert("RGB"))
    b.image = Image.merge("RGBA", (*dark.split(), b.image.getchannel("A")))
    ring = Image.new("RGBA", b.image.size)
    pen = ImageDraw.Draw(ring)
    for grow, fill in (
        (76, (190, 60, 0, 255)),
        (66, (150, 40, 0, 255)),
        (62, (225, 20, 0, 255)),
        (52, (170, 40, 0, 255)),
        (46, (0, 0, 0, 0)),
    ):
        pen.ellipse([(80 - grow) * 4, (48 - grow * 0.2) * 4, (80 + grow) * 4, (48 + grow * 0.2) * 4], fill=fill)
    ring = ring.rotate(14, Image.Resampling.BICUBIC)
    front = Image.new("L", b.image.size)
    ImageDraw.Draw(front).polygon([(0, 68 * 4), (640, 28 * 4), (640, 384), (0, 384)], fill=255)
    disc = b.image.getchannel("A").point(lambda v: 255 - v)
    stencil = ImageChops.multiply(ring.getchannel("A"), ImageChops.lighter(front, disc))
    b.image.paste(ring, (0, 0), stencil.point(lambda v: 255 if v > 127 else 0))
    del phase


PAINTERS: dict[str, Callable[[Brush, float], None]] = {
    "sailboat": _sailboat, "balloon": _balloon, "birds": _birds, "train": _train, "whale": _whale, "ufo": _ufo,
    "lighthouse": _lighthouse, "dragon": _dragon, "planet": _planet,
}  # fmt: skip
SPRITES = tuple(PAINTERS)


@lru_cache(maxsize=1)
def atlas() -> npt.NDArray[np.float32]:
    """(9 sprites in the order of SPRITES, 32 frames, 5, 96, 160) float32 0..1."""
    sheets = np.zeros((len(SPRITES), FRAMES, CHANNELS, CELL_HEIGHT, CELL_WIDTH), np.float32)
    for s, paint in enumerate(PAINTERS.values()):
        for f in range(FRAMES):
            if paint in (_planet, _lighthouse) and f:
                sheets[s, f] = sheets[s, 0]
                continue
            brush = Brush()
            paint(brush, 2 * math.pi * f / FRAMES)
            sheets[s, f] = brush.finish()
    return sheets
