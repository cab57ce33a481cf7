"""The made subjects: sailboat, balloon, train, ufo, lighthouse; and the ringed planet of the alien sky."""

from __future__ import annotations

import math

from PIL import Image, ImageChops, ImageDraw

from model.training.world.brush import SCALE, Brush, curve


def sailboat(b: Brush, phase: float) -> None:
    """Low and broad: a long hull under two full sails, the greater one coloured."""
    lean = math.sin(phase) * 1.6
    b.line([(84, 78), (84 + lean, 6)], 3.6, 0.4)
    b.polygon([*curve((81 + lean, 10), (52 + lean, 36), (36, 68)), (81, 70)], 1.0, 1.0)
    b.polygon([*curve((81 + lean, 10), (70 + lean, 40), (66, 69)), (81, 70)], 0.74, 1.0)
    b.polygon([*curve((88 + lean, 16), (112 + lean, 42), (127, 69)), (88, 70)], 1.0, 0.0)
    b.polygon([*curve((88 + lean, 16), (98 + lean, 42), (103, 69)), (88, 70)], 0.8, 0.0)
    b.polygon([(85 + lean, 4), (104 + lean, 8 + math.sin(phase) * 1.5), (85 + lean, 13)], 1.0, 1.0)
    b.polygon(curve((22, 73), (60, 77), (104, 77), (141, 70), (127, 90), (66, 91), (34, 88)), 1.0, 0.0)
    b.polygon(curve((27, 81), (66, 84), (104, 84), (134, 80), (126, 90), (66, 91), (34, 88)), 0.8, 1.0)


def balloon(b: Brush, phase: float) -> None:
    """An envelope of broad gores over a stout basket."""
    cx, cy, r = 80 + math.sin(phase) * 1.2, 36, 33
    for rx, value, tint in ((r, 0.78, 1.0), (r * 0.73, 1.0, 0.0), (r * 0.42, 1.0, 1.0)):
        b.ellipse(cx, cy, rx, r, value, tint)
        foot, side, low = 12 * rx / r, rx * 0.87, cy + r * 0.5
        b.polygon([(cx - side, low), (cx + side, low), (cx + foot, 73), (cx - foot, 73)], value, tint)
    b.line([(cx - 10, 72), (70, 84)], 2.6, 0.3)
    b.line([(cx + 10, 72), (90, 84)], 2.6, 0.3)
    b.ellipse(cx, 73, 6, 4.5, 1.0, 0.0, 0.8 + 0.2 * math.sin(phase * 2))
    b.polygon([(68, 81), (92, 81), (89, 93), (71, 93)], 0.6, 0.35)
    b.box(66, 79, 94, 84, 0.9, 1.0)


def _wheel(b: Brush, x: float, y: float, r: float, pin: float) -> None:
    """A dark tyre, a bright disc and a coloured pin. No spokes: they don't outlive the VAE."""
    b.ellipse(x, y, r + 2.6, r + 2.6, 0.14)
    b.ellipse(x, y, r, r, 0.96)
    b.ellipse(x, y, pin, pin, 0.6, 1.0)


def train(b: Brush, phase: float) -> None:
    """A steam engine with two tall drivers, and a coach."""
    for k in range(4):
        age = (k + phase / (2 * math.pi)) / 4
        shrink = min(1.0, (1 - age) * 4)
        rx = (6 + age * 9) * shrink
        b.ellipse(124 - age * 94, 22 - age * 6 + 2 * math.sin(5 * age), rx, rx * 0.72, 1.0 - 0.16 * age)
    b.soften()
    b.box(52, 76, 74, 82, 0.25)
    b.box(6, 46, 58, 82, 1.0, 1.0)
    b.box(6, 68, 58, 82, 0.62, 1.0)
    b.box(4, 40, 60, 47, 0.36)
    for x in (12, 35):
        b.box(x, 51, x + 17, 65, 0.85, 0.0, 1.0)
    b.box(68, 34, 94, 82, 0.9, 1.0)
    b.box(65, 29, 97, 36, 0.36)
    b.box(73, 40, 89, 55, 0.85, 0.0, 1.0)
    b.ellipse(108, 50, 7, 8, 1.0, 0.0)
    b.ellipse(138, 63, 11, 13, 1.0, 1.0)
    b.box(94, 50, 140, 76, 1.0, 1.0)
    b.box(94, 66, 146, 78, 0.6, 1.0)
    b.polygon([(121, 27), (135, 27), (132, 52), (124, 52)], 0.3)
    b.polygon([(117, 22), (139, 22), (136, 30), (120, 30)], 0.9, 1.0)
    b.polygon([(138, 78), (149, 78), (157, 93), (138, 93)], 0.36)
    b.ellipse(148, 60, 6, 6.5, 1.0, 0.0, 1.0)
    for x, y, r in ((19, 83, 8), (45, 83, 8), (137, 83.5, 7.5)):
        _wheel(b, x, y, r, 3.6)
    for x in (82, 111):
        _wheel(b, x, 79.5, 11.5, 0)
    dx, dy = 4.5 * math.cos(phase), 4.5 * math.sin(phase)
    b.line([(82 + dx, 79.5 + dy), (111 + dx, 79.5 + dy)], 5, 0.6, 1.0)
    for x in (82, 111):
        b.ellipse(x + dx, 79.5 + dy, 4.8, 4.8, 0.6, 1.0)


def ufo(b: Brush, phase: float) -> None:
    """A saucer with a glass dome and five great lamps that light up in turn."""
    b.ellipse(80, 38, 29, 29, 0.8)
    b.ellipse(70, 30, 13, 13, 1.0)
    b.ellipse(80, 42, 10, 13, 0.4, 1.0)
    b.polygon([(8, 58), (152, 58), (126, 76), (34, 76)], 0.45, 1.0)
    b.ellipse(80, 56, 74, 15, 1.0, 1.0)
    b.ellipse(80, 51, 56, 8, 1.0, 0.45)
    b.ellipse(80, 48, 31, 6, 0.5, 1.0)
    b.ellipse(80, 74, 46, 9, 0.35, 1.0)
    b.ellipse(80, 79, 24, 7, 1.0, 0.0, 1.0)
    for k in range(5):
        lit = 0.45 + 0.55 * max(0.0, math.cos(phase - k * math.pi * 0.4))
        b.ellipse(80 + (k - 2) * 28, 61 + 5 * math.cos((k - 2) * 0.7), 6.4, 5.2, 1.0, 0.0, lit)


def lighthouse(b: Brush, phase: float) -> None:
    """A tall striped tower on a rock, with a stout lamp room behind a rail."""
    del phase  # its beam is drawn by the renderer
    b.polygon(curve((38, 94), (46, 85), (60, 80), (100, 80), (114, 84), (124, 94)), 0.42)
    b.polygon(curve((38, 94), (46, 85), (60, 80), (78, 81), (72, 94)), 0.66)
    for k in range(4):
        y0, y1 = 32 + k * 13, 32 + (k + 1) * 13
        w0, w1 = 10.5 + k * 1.4, 10.5 + (k + 1) * 1.4
        tint = 1.0 if k % 2 == 0 else 0.0
        b.polygon([(80 - w0, y0), (80 + w0, y0), (80 + w1, y1), (80 - w1, y1)], 1.0, tint)
        b.polygon([(80 + w0 * 0.3, y0), (80 + w0, y0), (80 + w1, y1), (80 + w1 * 0.3, y1)], 0.7, tint)
    b.box(75, 71, 86, 84, 0.2)
    b.box(69.5, 13, 90.5, 28, 1.0, 0.0, 1.0)
    b.polygon([(61, 27), (99, 27), (95, 34), (65, 34)], 0.3)
    for x in (62.5, 97.5):
        b.line([(x, 20), (x, 28)], 2.6, 0.3)
    for x0, x1 in ((61, 69.5), (90.5, 99)):
        b.line([(x0, 20.5), (x1, 20.5)], 2.6, 0.3)
    b.polygon([*curve((66, 15), (71, 8), (80, 3), (89, 8), (94, 15))], 1.0, 1.0)


def planet(b: Brush, phase: float) -> None:
    """A banded ball in a tilted ring, part of it in its own shadow."""
    del phase  # it stands still
    b.inked = False
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
    pen.ellipse([(80 - 33) * SCALE, (48 - 33) * SCALE, (80 + 33) * SCALE, (48 + 33) * SCALE], fill=150)
    pen.ellipse([(80 - 48) * SCALE, (48 - 46) * SCALE, (80 + 24) * SCALE, (48 + 28) * SCALE], fill=0)
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
        pen.ellipse(
            [(80 - grow) * SCALE, (48 - grow * 0.2) * SCALE, (80 + grow) * SCALE, (48 + grow * 0.2) * SCALE],
            fill=fill,
        )
    ring = ring.rotate(14, Image.Resampling.BICUBIC)
    front = Image.new("L", b.image.size)
    ImageDraw.Draw(front).polygon([(0, 68 * SCALE), (640, 28 * SCALE), (640, 384), (0, 384)], fill=255)
    disc = b.image.getchannel("A").point(lambda v: 255 - v)
    stencil = ImageChops.multiply(ring.getchannel("A"), ImageChops.lighter(front, disc))
    b.image.paste(ring, (0, 0), stencil.point(lambda v: 255 if v > 127 else 0))
