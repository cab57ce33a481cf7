"""A tileable strip that is painted once at three times its size and then only moved.

Channels of a finished strip, all multiplied by coverage: 0 alpha, 1 shade (0 turned from the sun .. 1 lit), 2 accent
(mix from the layer's base colour to its accent colour), 3 emission (shines at night), 4 snow (where snow lies).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

STRIP_WIDTH = 1024
STRIP_HEIGHT = 124
STRIP_TOP = 20  # picture row (of 144) of the strip's first row; its last row is the picture's last
SUPERSAMPLE = 3
CHANNELS = 5

Array = npt.NDArray[np.float32]
Point = tuple[float, float]


def noise1(rng: np.random.Generator, octaves: Sequence[int], gain: float = 0.5) -> Array:
    """Periodic smooth noise over the strip's fine columns, (3 * 1024,), about -1..1. octaves: waves a strip."""
    n = STRIP_WIDTH * SUPERSAMPLE
    x = np.arange(n) / n
    out = np.zeros(n)
    amplitude, total = 1.0, 0.0
    for waves in octaves:
        knots = rng.uniform(-1, 1, waves)
        p = x * waves
        i = np.floor(p).astype(int)
        f = p - i
        f = f * f * (3 - 2 * f)
        out += amplitude * (knots[i % waves] * (1 - f) + knots[(i + 1) % waves] * f)
        total += amplitude
        amplitude *= gain
    return (out / total * 1.4).astype(np.float32)


class Canvas:
    """Paints shapes in strip pixels: x 0..1024 (wraps round), y in picture rows 20..144."""

    def __init__(self) -> None:
        size = (STRIP_WIDTH * SUPERSAMPLE, STRIP_HEIGHT * SUPERSAMPLE)
        self._main = Image.new("RGBA", size)  # shade, accent, emission, alpha
        self._snow = Image.new("L", size)
        self._draw = ImageDraw.Draw(self._main)
        self._draw_snow = ImageDraw.Draw(self._snow)
        rows = np.arange(size[1], dtype=np.float32) / SUPERSAMPLE + STRIP_TOP
        self.y: Array = np.repeat(rows[:, None], size[0], 1)
        self.x: Array = np.repeat(np.arange(size[0], dtype=np.float32)[None] / SUPERSAMPLE, size[1], 0)

    def fill(
        self,
        mask: npt.NDArray[np.bool_],
        shade: Array | float,
        accent: Array | float = 0.0,
        snow: Array | float = 0.0,
        emission: Array | float = 0.0,
    ) -> None:
        """Paint where `mask` (fine rows, fine columns); the fields are numbers or arrays of that shape, 0..1."""
        fields = [np.broadcast_to(np.asarray(f, np.float32), mask.shape) for f in (shade, accent, emission)]
        stack = np.stack([*fields, np.ones(mask.shape, np.float32)], -1)
        pixels = Image.fromarray((np.clip(stack, 0, 1) * 255).astype(np.uint8), "RGBA")
        stencil = Image.fromarray(mask.astype(np.uint8) * 255, "L")
        self._main.paste(pixels, (0, 0), stencil)
        lying = np.clip(np.broadcast_to(np.asarray(snow, np.float32), mask.shape), 0, 1) * 255
        self._snow.paste(Image.fromarray(lying.astype(np.uint8), "L"), (0, 0), stencil)

    def polygon(
        self, points: Sequence[Point], shade: float, accent: float = 0.0, emission: float = 0.0, snow: float = 0.0
    ) -> None:
        """Fill a polygon with flat values."""
        self._shape("polygon", points, shade, accent, emission, snow)

    def box(
        self, x0: float, y0: float, x1: float, y1: float, shade: float, accent: float = 0.0, emission: float = 0.0,
        snow: float = 0.0,
    ) -> None:  # fmt: skip
        """Fill a rectangle, right and bottom edge excluded."""
        self.polygon([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], shade, accent, emission, snow)

    def ellipse(
        self, cx: float, cy: float, rx: float, ry: float, shade: float, accent: float = 0.0, emission: float = 0.0,
        snow: float = 0.0,
    ) -> None:  # fmt: skip
        """Fill an ellipse round (cx, cy)."""
        self._shape("ellipse", [(cx - rx, cy - ry), (cx + rx, cy + ry)], shade, accent, emission, snow)

    def _shape(
        self, kind: str, points: Sequence[Point], shade: float, accent: float, emission: float, snow: float
    ) -> None:
        xs = [p[0] for p in points]
        for shift in (-STRIP_WIDTH, 0, STRIP_WIDTH):
            if max(xs) + shift < 0 or min(xs) + shift > STRIP_WIDTH:
                continue
            moved = [((x + shift) * SUPERSAMPLE, (y - STRIP_TOP) * SUPERSAMPLE) for x, y in points]
            colour = tuple(int(255 * min(max(v, 0.0), 1.0)) for v in (shade, accent, emission, 1.0))
            getattr(self._draw, kind)(moved, fill=colour)
            getattr(self._draw_snow, kind)(moved, fill=int(255 * snow))

    def finish(self) -> Array:
        """The strip, (5, 124, 1024) float32 0..1, averaged down (so multiplied by coverage)."""
        main = np.asarray(self._main.reduce(SUPERSAMPLE), np.float32) / 255
        snow = np.asarray(self._snow.reduce(SUPERSAMPLE), np.float32) / 255
        alpha = main[..., 3]
        covered = [main[..., i] * alpha for i in range(3)]
        return np.stack([alpha, *covered, snow]).astype(np.float32)
