"""The brush that paints a subject's cell: flat shapes, inked round, with an edge of light towards the upper left."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageChops, ImageDraw, ImageFilter

CELL_HEIGHT, CELL_WIDTH = 96, 160
CHANNELS = 5
SCALE = 4
INK = (0.30, 0.9)  # value and tint of outlines: a deep shade of the subject's colour
_RADIUS, _FOOT = 2.5, 24  # the outline is where a blur by so many half-fine pixels is more than this: 1.5 cell pixels

Point = tuple[float, float]


class Brush:
    """Flat shapes with (value, tint, emission): value 0..1 brightness, tint 1 takes the subject's colour.

    Points are in cell pixels, x 0..160, y 0..96; keep 3 pixels free at the edges for the outline.
    """

    def __init__(self) -> None:
        size = (CELL_WIDTH * SCALE, CELL_HEIGHT * SCALE)
        self.image = Image.new("RGBA", size)
        self.inked = True
        self._soft: Image.Image | None = None
        self._draw = ImageDraw.Draw(self.image)

    @staticmethod
    def _fill(value: float, tint: float, emission: float) -> tuple[int, int, int, int]:
        return (int(255 * value * (1 - tint)), int(255 * value * tint), int(255 * emission), 255)

    def polygon(self, points: Sequence[Point], value: float, tint: float = 0.0, emission: float = 0.0) -> None:
        """Fill a polygon."""
        self._draw.polygon([(x * SCALE, y * SCALE) for x, y in points], fill=self._fill(value, tint, emission))

    def box(
        self, x0: float, y0: float, x1: float, y1: float, value: float, tint: float = 0.0, emission: float = 0.0
    ) -> None:
        """Fill a rectangle."""
        self.polygon([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], value, tint, emission)

    def ellipse(
        self, cx: float, cy: float, rx: float, ry: float, value: float, tint: float = 0.0, emission: float = 0.0
    ) -> None:
        """Fill an ellipse."""
        box = [(cx - rx) * SCALE, (cy - ry) * SCALE, (cx + rx) * SCALE, (cy + ry) * SCALE]
        self._draw.ellipse(box, fill=self._fill(value, tint, emission))

    def line(self, points: Sequence[Point], width: float, value: float, tint: float = 0.0) -> None:
        """Stroke a polyline."""
        scaled = [(x * SCALE, y * SCALE) for x, y in points]
        self._draw.line(scaled, fill=self._fill(value, tint, 0.0), width=round(width * SCALE), joint="curve")

    def soften(self) -> None:
        """What was painted so far (smoke) stays behind the rest and gets no outline."""
        self._soft, self.image = self.image, Image.new("RGBA", self.image.size)
        self._draw = ImageDraw.Draw(self.image)

    def finish(self) -> npt.NDArray[np.float32]:
        """(5, 96, 160) float32 0..1."""
        half = self.image.getchannel("A").reduce(2)
        moved = ImageChops.offset(half.filter(ImageFilter.GaussianBlur(3)), 3, 5)
        rim = _plane(ImageChops.multiply(half, ImageChops.invert(moved)).reduce(2))
        planes = _planes(self.image)
        if self.inked:
            grown = half.filter(ImageFilter.GaussianBlur(_RADIUS)).point(lambda v: min(255, max(0, (v - _FOOT) * 8)))
            shape = _plane(grown.reduce(2))
            value, tint, _, _ = self._fill(*INK, 0.0)
            planes += np.stack([shape, shape * value / 255, shape * tint / 255, 0 * shape]) * (1 - planes[:1])
        if self._soft is not None:
            planes += _planes(self._soft) * (1 - planes[:1])
        return np.concatenate([planes, rim[None]]).astype(np.float32, copy=False)


def _plane(image: Image.Image) -> npt.NDArray[np.float32]:
    return np.asarray(image, np.float32) / np.float32(255)


def _planes(image: Image.Image) -> npt.NDArray[np.float32]:
    """Alpha, and the rest multiplied by it (nothing is painted where alpha is 0): (4, 96, 160)."""
    return np.stack([_plane(image.getchannel(c).reduce(SCALE)) for c in "ARGB"])


def curve(*points: Point, steps: int = 8) -> list[Point]:
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
