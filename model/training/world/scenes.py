"""The eight scenes: four layers each, far to near, as strips; `palettes` has their colours.

`strip(scene, layer, variant)` paints one and keeps it. Variants are fixed for ever: clips choose among them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import numpy as np

from model.training.world.attributes import NAMES
from model.training.world.canvas import STRIP_WIDTH, Array, Canvas
from model.training.world.shapes import (
    Rng,
    cactus,
    crystal,
    ground_at,
    hills,
    mesa,
    peaks,
    pine,
    round_tree,
)

LAYERS = 4
VARIANTS = 6
PARALLAX = (0.10, 0.24, 0.50, 1.0)
# Row of the waterline, beyond the picture where there is none. Layers 0..2 stand behind the water, 3 before it.
WATERLINE = {"sea": 86.0, "lake": 98.0, "city": 110.0}
NO_WATER = 160.0
# Row where the sky ends for its gradient, and where a subject on the ground stands.
HORIZON = {"sea": 88.0, "lake": 96.0, "mountains": 92.0, "desert": 98.0, "meadow": 96.0, "forest": 104.0,
           "city": 104.0, "alien planet": 96.0}  # fmt: skip
GROUND = {"sea": 101.0, "lake": 112.0, "mountains": 118.0, "desert": 116.0, "meadow": 114.0, "forest": 122.0,
          "city": 123.0, "alien planet": 114.0}  # fmt: skip


def _along(rng: Rng, count: int, jitter: float = 0.4) -> list[float]:
    """Columns spread over the strip."""
    step = STRIP_WIDTH / count
    return [float((i + rng.uniform(-jitter, jitter)) * step) % STRIP_WIDTH for i in range(count)]


def _sea(c: Canvas, rng: Rng, layer: int) -> None:
    if layer == 0:
        peaks(c, rng, 89, (6, 17), (34, 90), 5, power=0.8, rough=0.5)
    elif layer == 1:
        for x in _along(rng, 3):
            h = float(rng.uniform(9, 22))
            for dx, k in ((0.0, 1.0), (h * 0.8, 0.6), (-h * 0.7, 0.45)):
                at = x + dx
                left = [(at - h * 0.55 * k, 92), (at - h * 0.2 * k, 88 - h * k * 0.9), (at, 88 - h * k)]
                right = [(at + h * 0.35 * k, 88 - h * k * 0.6), (at + h * 0.6 * k, 92)]
                c.polygon(left + right, 0.24, snow=0.5)
                c.polygon([*left, (at + h * 0.02, 92)], 0.9, snow=0.8)
    elif layer == 3:
        for x in _along(rng, 4):
            h = float(rng.uniform(7, 15))
            left = [(x - h * 2.4, 146), (x - h, 144 - h * 0.8), (x + h * 0.2, 143 - h)]
            c.polygon([*left, (x + h * 1.5, 146 - h * 0.5), (x + h * 2.6, 146)], 0.3, 0.2, snow=0.5)
            c.polygon([*left, (x + h * 0.1, 146)], 0.85, snow=0.85)


def _lake(c: Canvas, rng: Rng, layer: int) -> None:
    if layer == 0:
        peaks(c, rng, 102, (36, 58), (70, 120), 7, cap=0.42)
    elif layer == 1:
        out = hills(c, rng, 86, 9, (5, 11, 23))
        for x in _along(rng, 46):
            pine(c, x, ground_at(out, x) + 2, float(rng.uniform(7, 12)))
    elif layer == 2:
        out = hills(c, rng, 96, 4, (4, 9), accent=0.2)
        for x in _along(rng, 34):
            if rng.random() < 0.75:
                pine(c, x, ground_at(out, x) + 2, float(rng.uniform(12, 22)))
    else:
        out = hills(c, rng, 141, 5, (3, 7), accent=0.3)
        for x in _along(rng, 13):
            pine(c, x, ground_at(out, x) + 3, float(rng.uniform(16, 30)))
        for x in _along(rng, 26):
            y = ground_at(out, x) + 2
            for dx, h in ((-2.5, float(rng.uniform(5, 9))), (0.5, float(rng.uniform(8, 14)))):
                c.polygon([(x + dx - 1.5, y), (x + dx + h * 0.22, y - h), (x + dx + 1.5, y)], 0.75, 0.6, snow=0.4)


def _mountains(c: Canvas, rng: Rng, layer: int) -> None:
    if layer == 0:
        peaks(c, rng, 104, (48, 74), (62, 110), 8, cap=0.5)
    elif layer == 1:
        peaks(c, rng, 118, (30, 52), (60, 100), 9, cap=0.26)
    elif layer == 2:
        out = hills(c, rng, 112, 9, (5, 9, 19), accent=0.35)
        for x in _along(rng, 46):
            pine(c, x, ground_at(out, x) + 3, float(rng.uniform(9, 18)))
    else:
        out = hills(c, rng, 133, 6, (4, 7), accent=0.35)
        for x in _along(rng, 14):
            for dx in (0.0, float(rng.uniform(7, 12))):
                pine(c, x + dx, ground_at(out, x + dx) + 3, float(rng.uniform(18, 34)))
        for x in _along(rng, 6):
            y = ground_at(out, x) + 4
            c.polygon([(x - 8, y), (x - 5, y - 6), (x + 1, y - 8), (x + 7, y - 3), (x + 9, y)], 0.3, snow=0.6)
            c.polygon([(x - 8, y), (x - 5, y - 6), (x + 1, y - 8), (x + 1, y)], 0.95, snow=0.9)


def _desert(c: Canvas, rng: Rng, layer: int) -> None:
    if layer == 0:
        hills(c, rng, 97, 2, (4, 9))
        for x in _along(rng, 6):
            mesa(c, rng, x, 100, float(rng.uniform(14, 38)), float(rng.uniform(18, 38)))
    elif layer == 1:
        peaks(c, rng, 112, (8, 20), (90, 160), 7, power=1.35, rough=0.12)
    elif layer == 2:
        peaks(c, rng, 128, (10, 24), (110, 190), 6, power=1.4, rough=0.1)
    else:
        out = hills(c, rng, 134, 5, (3, 5), contrast=1.3)
        for x in _along(rng, 8):
            cactus(c, x, ground_at(out, x) + 3, float(rng.uniform(17, 30)))
        for x in _along(rng, 9):
            y = ground_at(out, x) + 3
            c.ellipse(x, y, 6, 3.5, 0.25, 0.0, snow=0.7)
            c.ellipse(x - 1.2, y - 0.8, 4, 2.2, 0.95, 0.0, snow=0.9)


def _meadow(c: Canvas, rng: Rng, layer: int) -> None:
    if layer == 0:
        peaks(c, rng, 104, (10, 24), (80, 150), 7, power=0.8, rough=0.3)
    elif layer == 1:
        out = hills(c, rng, 98, 7, (4, 9))
        for x in _along(rng, 26):
            round_tree(c, x, ground_at(out, x) + 1, float(rng.uniform(7, 11)))
    elif layer == 2:
        out = hills(c, rng, 112, 7, (4, 7))
        for x in _along(rng, 9):
            round_tree(c, x, ground_at(out, x) + 2, float(rng.uniform(15, 24)))
        for x in _along(rng, 3):
            _house(c, x, ground_at(out, x) + 3, float(rng.uniform(10, 14)))
    else:
        out = hills(c, rng, 133, 4, (3, 5))
        for x in _along(rng, 80):
            y = float(rng.uniform(ground_at(out, x) + 3, 144))
            size = 1.9 + (y - 128) * 0.09
            c.box(x - 0.6, y, x + 0.6, y + size * 3, 0.25, 0.0)
            c.ellipse(x, y, size * 1.2, size, 1.0, 1.0, snow=0.2)
            c.ellipse(x, y, size * 0.5, size * 0.45, 1.0, 0.3)


def _house(c: Canvas, x: float, base: float, s: float) -> None:
    """A cottage with a steep roof and a lit window."""
    c.box(x - s * 0.7, base - s * 0.75, x + s * 0.7, base, 0.95, 0.55)
    c.box(x + s * 0.25, base - s * 0.75, x + s * 0.7, base, 0.45, 0.55)
    c.polygon([(x - s * 0.85, base - s * 0.7), (x - s * 0.35, base - s * 1.4), (x + s * 0.55, base - s * 1.4),
               (x + s * 0.85, base - s * 0.7)], 0.2, 0.9, snow=1.0)  # fmt: skip
    c.box(x - s * 0.9, base - s * 0.8, x + s * 0.9, base - s * 0.64, 0.1, 0.9)  # eaves, dark even under snow
    c.polygon([(x - s * 0.35, base - s * 1.4), (x + s * 0.55, base - s * 1.4), (x + s * 0.66, base - s * 1.2),
               (x - s * 0.46, base - s * 1.2)], 0.95, 0.9, snow=1.0)  # fmt: skip
    c.box(x - s * 0.5, base - s * 0.56, x - s * 0.1, base - s * 0.14, 0.2, 0.5, emission=1.0)


def _forest(c: Canvas, rng: Rng, layer: int) -> None:
    base, count, low, high = ((98, 60, 20, 34), (110, 44, 26, 44), (122, 27, 32, 56), (142, 10, 34, 60))[layer]
    out = hills(c, rng, base, 4 + layer, (4, 9), accent=(1.0, 0.9, 0.7, 0.55)[layer])
    for x in _along(rng, count):
        pine(c, x, ground_at(out, x) + 3, float(rng.uniform(low, high)), value=0.95)
    if layer == 3:
        for x in _along(rng, 26):
            y, h = ground_at(out, x) + 3, float(rng.uniform(7, 12))
            for lean in (-0.75, 0.75, 0.0):
                c.polygon([(x - 1.7, y), (x + lean * h, y - h), (x + 1.7, y)], 0.55 - 0.3 * lean, 0.5, snow=0.5)


def _city(c: Canvas, rng: Rng, layer: int) -> None:
    if layer == 3:
        c.box(0, 136, STRIP_WIDTH, 146, 0.35, 0.3, snow=0.7)
        c.box(0, 134.5, STRIP_WIDTH, 136.5, 0.95, 0.2, snow=1.0)
        for post in range(8, STRIP_WIDTH, 32):
            c.box(post, 128, post + 2.4, 136, 0.3, 0.2)
        c.box(0, 127.4, STRIP_WIDTH, 129.6, 0.6, 0.2, snow=0.8)
        for x in _along(rng, 10, 0.1):
            c.box(x - 1.2, 106, x + 1.2, 136, 0.2, 0.2)
            c.ellipse(x, 105, 4.0, 4.4, 0.9, 0.2, emission=1.0)
            c.box(x - 4.4, 99.6, x + 4.4, 101.8, 0.2, 0.2, snow=1.0)
        return
    low, high, most, gap, pane, lights = (
        (38, 72, 2, (4.0, 12.0), 3.6, 0.50),
        (28, 62, 3, (10.0, 22.0), 4.2, 0.70),
        (13, 28, 4, (4.0, 10.0), 4.6, 0.75),
    )[layer]
    x = 0.0
    while x < STRIP_WIDTH - 2 * most * pane - 8:
        columns = int(rng.integers(2, most + 1))
        width = _tower(c, rng, x, columns, 113 - float(rng.uniform(low, high)), pane, lights)
        x += width + float(rng.uniform(*gap))
    if layer == 2:
        c.box(0, 109, STRIP_WIDTH, 114, 0.4, 0.2)
        c.box(0, 108, STRIP_WIDTH, 109.4, 0.95, 0.2, snow=1.0)


def _tower(c: Canvas, rng: Rng, x: float, columns: int, top: float, pane: float, lights: float) -> float:
    """A building of so many columns of windows (or ribbons), a share `lights` lit at night. Returns its width."""
    pitch, floor = pane * 1.9, pane * 2.2
    face = columns * pitch + pane * 0.7
    width = face + pane * 1.5
    base = 114.0
    value, tint = float(rng.uniform(0.66, 0.95)), float(rng.choice([0.0, 0.0, 0.35, 0.7]))
    middle, roof = x + width / 2, int(rng.integers(0, 4))
    if roof == 1:
        c.polygon(
            [(x + width * 0.2, top), (middle, top - width * 0.85), (x + width * 0.8, top)], value, tint, snow=0.8
        )
        c.polygon(
            [(middle, top - width * 0.85), (x + width * 0.8, top), (middle + 1, top)], value * 0.4, tint, snow=0.5
        )
    elif roof == 2:
        c.box(x + width * 0.18, top - pane * 1.9, x + width * 0.72, top, value, tint)
        c.box(x + width * 0.55, top - pane * 1.9, x + width * 0.72, top, value * 0.4, tint)
        c.box(x + width * 0.14, top - pane * 2.5, x + width * 0.76, top - pane * 1.9, value, tint, snow=1.0)
    elif roof == 3:
        c.ellipse(middle, top, width * 0.4, width * 0.36, value, tint, snow=0.9)
    c.box(x, top, x + width, base, value, tint, snow=0.05)
    c.box(x + face, top, x + width, base, value * 0.35, tint)
    c.box(x - 1.2, top - 0.6, x + width + 1.2, top + 2.2, min(1.0, value + 0.12), tint, snow=1.0)
    ribbon, dark = rng.random() < (0.5 if pane < 4 else 0.22), 0.24
    for wy in np.arange(top + pane * 1.5, base - pane * 1.6, floor):
        if ribbon:
            lit = 1.0 if rng.random() < lights else 0.0
            c.box(x + pane * 0.8, wy, x + face - pane * 0.5, wy + pane, dark, tint * 0.5, emission=lit)
            continue
        run = rng.random() < lights  # most of a floor is lit, or little of it
        for k in range(columns):
            lit = float(rng.choice([1.0, 1.0, 0.75])) if rng.random() < (0.85 if run else 0.12) else 0.0
            wx = x + pane * 0.9 + k * pitch
            c.box(wx, wy, wx + pane, wy + pane * 1.3, dark, tint * 0.5, emission=lit)
    return width


def _alien(c: Canvas, rng: Rng, layer: int) -> None:
    if layer == 0:
        peaks(c, rng, 104, (22, 46), (20, 60), 11, power=1.5, rough=0.5)
    elif layer == 1:
        out = hills(c, rng, 102, 6, (4, 9))
        for x in _along(rng, 5):
            _arch(c, x, ground_at(out, x) + 4, float(rng.uniform(18, 32)))
    elif layer == 2:
        out = hills(c, rng, 115, 5, (3, 7))
        for x in _along(rng, 9):
            crystal(c, rng, x, ground_at(out, x) + 3, float(rng.uniform(12, 22)), 0.8)
        for x in _along(rng, 9):
            y = ground_at(out, x) + float(rng.uniform(8, 16))
            w = float(rng.uniform(9, 17))
            c.ellipse(x, y, w, w * 0.26, 1.0, snow=0.9)
            c.ellipse(x + 0.6, y + 0.9, w * 0.88, w * 0.2, 0.08, snow=0.2)
    else:
        out = hills(c, rng, 135, 4, (3, 5))
        for x in _along(rng, 8):
            crystal(c, rng, x, ground_at(out, x) + 4, float(rng.uniform(14, 28)), 1.0)
        for x in _along(rng, 12):
            y, h = ground_at(out, x) + 4, float(rng.uniform(7, 14))
            c.box(x - 0.8, y - h, x + 0.8, y, 0.5, 0.5, emission=0.3)
            c.ellipse(x, y - h, h * 0.42, h * 0.26, 0.9, 1.0, emission=0.9, snow=0.5)


def _arch(c: Canvas, x: float, base: float, h: float) -> None:
    """A natural arch of rock: the gap is left open by painting only its two legs and the lintel."""
    turn = np.linspace(0, np.pi, 15)
    outer = [(x - np.cos(t) * h * 0.9, base - np.sin(t) * h) for t in turn]
    inner = [(x - np.cos(t) * h * 0.52 + h * 0.08, base - np.sin(t) * h * 0.68) for t in turn[::-1]]
    half = len(turn) // 2 + 2
    c.polygon(outer + inner, 0.2, snow=0.4)
    c.polygon(outer[:half] + inner[-half:], 0.85, snow=0.7)


_PAINTERS: dict[str, Callable[[Canvas, Rng, int], None]] = {
    "sea": _sea, "lake": _lake, "mountains": _mountains, "desert": _desert, "meadow": _meadow, "forest": _forest,
    "city": _city, "alien planet": _alien,
}  # fmt: skip


@cache
def strip(scene: str, layer: int, variant: int) -> Array:
    """(5, 124, 1024) float32, see `canvas`."""
    canvas = Canvas()
    seed = (NAMES["scene"].index(scene) * LAYERS + layer) * VARIANTS + variant
    _PAINTERS[scene](canvas, np.random.default_rng(seed), layer)
    return canvas.finish()


def prepare(wanted: Iterable[tuple[str, int, int]]) -> None:
    """Paint strips side by side ahead of their use: (scene, layer, variant) each."""
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda key: strip(*key), set(wanted)))
