"""The living subjects: birds, whale, dragon. Each paints one picture of its loop; phase runs over 2 pi."""

from __future__ import annotations

import math

from model.training.world.brush import INK, Brush, Point, curve


def birds(b: Brush, phase: float) -> None:
    """Three gulls, one in front: long wings that make a clear V, dark at the tips."""
    for x, y, s, lag in ((35, 79, 0.74, 1.3), (126, 85, 0.70, 2.4), (80, 49, 1.18, 0.0)):
        _gull(b, x, y, s, math.sin(phase + lag))


def _gull(b: Brush, x: float, y: float, s: float, lift: float) -> None:
    def at(dx: float, dy: float) -> Point:
        return (x + dx * s, y + (dy - lift * 2) * s)

    b.polygon([at(-7, -3), at(-27, 1), at(-23, 5), at(-27, 9), at(-6, 5)], 0.62, 1.0)
    for side, value in ((1, 0.74), (-1, 1.0)):
        tip = at(side * 42, -23 - 11 * lift)
        front = curve(at(side * 2, -4), at(side * 15, -16 - 4 * lift), tip)
        back = curve(tip, at(side * 20, -5 - 4 * lift), at(-side * 3, 5))
        b.polygon([*front, *back], value, 1.0)
        b.polygon([*front[12:], *back[:3]], *INK)
    b.polygon(curve(at(-14, 1), at(-4, -5), at(8, -7), at(15, -2), at(8, 5), at(-4, 6), at(-14, 1)), 1.0, 1.0)
    b.polygon(curve(at(-8, 3), at(2, 2), at(11, 1), at(6, 5), at(-3, 6), at(-8, 3)), 1.0)
    b.polygon([at(16, -10), at(27, -5), at(16, -2)], 1.0, 0.0, 0.8)
    b.ellipse(*at(13, -6), 5.8 * s, 5.4 * s, 1.0, 1.0)
    b.ellipse(*at(14.5, -7), 2.2 * s, 2.2 * s, 0.08)


def whale(b: Brush, phase: float) -> None:
    """A whale with a pale belly, a plain eye and a fountain."""
    t = 6 * math.sin(phase)
    rise = 3.5 * math.sin(phase)
    b.line([(112, 36), (112, 22 - rise)], 7, 1.0)
    for side in (-1, 1):
        b.polygon(
            curve((112, 26 - rise), (112 + side * 4, 12 - rise), (112 + side * 13, 8 - rise),
                  (112 + side * 21, 17 - rise), (112 + side * 13, 17 - rise), (112 + side * 4, 25 - rise)),
            1.0,
        )  # fmt: skip
    for points, value in (
        (((30, 58 + t), (22, 50 + t * 1.3), (8, 48 + t * 1.6), (5, 33 + t * 1.6), (18, 34 + t * 1.5), (32, 48 + t)),
         0.95),
        (((28, 56 + t), (16, 56 + t * 1.3), (6, 66 + t * 1.6), (18, 69 + t * 1.5), (32, 64 + t)), 0.66),
    ):  # fmt: skip
        b.polygon(curve(*points), value, 1.0)
    back = ((152, 64), (147, 46), (128, 36), (96, 34), (62, 42), (38, 52 + t * 0.5), (24, 50 + t))
    under = ((24, 60 + t), (40, 70 + t * 0.5), (66, 82), (100, 89), (134, 86), (150, 76), (152, 64))
    b.polygon(curve(*back, *under), 1.0, 1.0)
    b.polygon(
        curve(
            (150, 67), (130, 69), (104, 70), (74, 67), (48, 65 + t * 0.3), (68, 82), (100, 89), (134, 86), (149, 77)
        ),
        1.0,
    )
    for k in range(2):
        b.line(curve((146 - k * 4, 76 + k * 6), (116 - k * 4, 78 + k * 5), (84 - k * 2, 74 + k * 4)), 2.6, 0.62)
    b.line(curve((151, 65), (136, 68), (122, 65)), 3.2, *INK)
    flip = 5 * math.sin(phase + 1)
    fin = curve((100, 66), (92, 76 + flip), (76, 90 + flip * 0.6), (74, 82 + flip * 0.6), (84, 66))
    b.polygon(fin, 0.62, 1.0)
    b.ellipse(130, 54, 6.6, 6.6, 1.0)
    b.ellipse(131.5, 54.5, 4.6, 4.8, 0.05)
    b.ellipse(133, 52.5, 1.6, 1.6, 1.0)


def _wing(b: Brush, x: float, y: float, size: float, up: float, value: float, tint: float) -> None:
    """A bat's wing that leans back from its root (x, y); up -1..1."""

    def at(dx: float, dy: float) -> Point:
        return (x + dx * size, y + dy * size)

    root, wrist = at(4, 2), at(-8, -22 - 9 * up)
    tips = (at(-44, -30 - 12 * up), at(-60, -4 - 13 * up), at(-44, 12 - 6 * up))
    dips = (at(-40, -9 - 12 * up), at(-42, 2 - 8 * up), at(-24, 6 - 2 * up))
    edge: list[Point] = []
    for tip, dip in zip(tips, dips, strict=True):
        edge += [tip, dip]
    b.polygon([root, *curve(wrist, at(-24, -30 - 12 * up), tips[0])[:-1], *edge, at(-18, 10)], value, tint)
    for tip in tips[1:]:
        b.line([wrist, tip], 2.8 * size, 0.42 * value, 1.0)
    b.line([root, wrist], 6 * size, 0.8 * value, 1.0)
    b.line(curve(wrist, at(-24, -30 - 12 * up), tips[0]), 4 * size, 0.8 * value, 1.0)


def dragon(b: Brush, phase: float) -> None:
    """A dragon with two great wings of a pale skin between dark bones."""
    beat = math.sin(phase)
    up, bob = 0.3 + 0.7 * beat, -beat * 1.6
    _wing(b, 104, 54 + bob, 0.92, up * 0.9, 0.5, 1.0)
    for leg in (76.0, 98.0):
        foot = [(leg + 11, 82 + bob), (leg + 17, 88 + bob), (leg + 1, 88 + bob)]
        b.polygon([(leg, 68 + bob), (leg + 11, 66 + bob), *foot], 0.6, 1.0)
    spine = curve(
        (10, 70 + 5 * math.sin(phase + 2)), (28, 80 + 3 * math.sin(phase + 1)), (52, 74 + bob), (78, 66 + bob),
        (100, 64 + bob), (116, 56 + bob), (128, 42 + bob), steps=12,
    )  # fmt: skip
    radii = [2.6 + 11 * math.exp(-(((i / (len(spine) - 1) - 0.62) / 0.2) ** 2)) + 3.6 * i / len(spine)
             for i in range(len(spine))]  # fmt: skip
    for i in range(6, len(spine) - 3, 9):
        (x, y), r = spine[i], radii[i]
        b.polygon([(x - 8, y - r + 3), (x - 6, y - r - 7), (x + 6, y - r + 3)], 0.45, 1.0)
    tx, ty = spine[0]
    b.polygon([(tx + 3, ty - 9), (tx - 6, ty - 1), (tx + 3, ty + 8), (tx + 12, ty + 2)], 0.6, 1.0)
    for (x, y), r in zip(spine, radii, strict=True):
        b.ellipse(x, y, r, r, 1.0, 1.0)
    for i, ((x, y), r) in enumerate(zip(spine, radii, strict=True)):
        if 24 < i < len(spine) - 6:
            b.ellipse(x + 2, y + r * 0.55, r * 0.62, r * 0.45, 1.0, 0.0)
    for hx, hy in ((120, 34 + bob), (130, 31 + bob)):
        b.polygon([(hx - 3, hy), (hx - 12, hy - 17), (hx + 6, hy - 3)], 0.96)
    b.polygon(curve((126, 50 + bob), (138, 52 + bob), (153, 50 + bob), (147, 58 + bob), (130, 58 + bob)), 0.62, 1.0)
    b.polygon(
        curve((117, 42 + bob), (124, 30 + bob), (138, 30 + bob), (154, 38 + bob), (155, 47 + bob), (140, 51 + bob),
              (120, 52 + bob)), 1.0, 1.0,
    )  # fmt: skip
    b.ellipse(134, 39 + bob, 5.6, 5.4, 1.0, 0.0, 0.7)
    b.ellipse(135.5, 39 + bob, 3.0, 4.0, 0.05)
    _wing(b, 90, 58 + bob, 1.0, up, 1.0, 0.45)
