"""Small painted textures beside the land: clouds, stars, rain, snow, lightning, noise, the viaduct."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, lru_cache
from itertools import pairwise

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from model.training.world.canvas import STRIP_WIDTH, Array, Canvas

CLOUD_ROWS = 92
CLOUD_VARIANTS = 4
TILE = 256
DECK_ROW = 113.0  # picture row of the viaduct's rails

Rng = np.random.Generator


def _puffs(discs: list[tuple[float, float, float, float]], scale: int = 2) -> Array:
    """(alpha, shade) of a union of balls, each (x, y, radius, row of its cloud's flat bottom), lit from the upper
    left; (2, 92, 1024)."""
    h, w = CLOUD_ROWS * scale, STRIP_WIDTH * scale
    depth = np.full((h, w), -1.0, np.float32)
    shade = np.zeros((h, w), np.float32)
    for x, y, r, floor in discs:
        x, y, r, floor = (v * scale for v in (x, y, r, floor))
        y0, y1 = int(max(0, y - r)), int(min(h, floor, y + r + 1))
        columns = np.arange(int(x - r), int(x + r + 2))
        if y1 <= y0:
            continue
        dy, dx = np.mgrid[y0:y1, columns[0] : columns[-1] + 1].astype(np.float32)
        dy, dx = (dy - y) / r, (dx - x) / r
        z = np.sqrt(np.clip(1 - dx**2 - dy**2, 0, None))
        light = np.clip(0.48 - 0.42 * dx - 0.62 * dy + 0.16 * z, 0, 1)
        light = light * np.clip((floor - np.arange(y0, y1)[:, None]) / (0.9 * r) + 0.25, 0.25, 1)
        index = np.ix_(np.arange(y0, y1), columns % w)
        better = (z > 0) & (z * r > depth[index])
        depth[index] = np.where(better, z * r, depth[index])
        shade[index] = np.where(better, light, shade[index])
    alpha = (depth > 0).astype(np.float32)
    fine = np.stack([alpha, shade * alpha])
    return fine.reshape(2, CLOUD_ROWS, scale, STRIP_WIDTH, scale).mean((2, 4)).astype(np.float32)


def _cumulus(rng: Rng, x: float, floor: float, width: float) -> list[tuple[float, float, float, float]]:
    discs = []
    for _ in range(int(7 + width / 5)):
        at = float(rng.uniform(-1, 1))
        r = width * 0.26 * (1.05 - abs(at)) * float(rng.uniform(0.6, 1.1)) + width * 0.05
        discs.append((x + at * width * 0.5, floor - r * float(rng.uniform(0.1, 0.85)), r, floor))
    return discs


@cache
def clouds(kind: str, variant: int) -> Array:
    """(2, 92, 1024): alpha and shade times alpha. kind: 'far' small clouds, 'near' big ones, 'deck' overcast."""
    rng = np.random.default_rng(1000 + variant * 3 + ("far", "near", "deck").index(kind))
    discs: list[tuple[float, float, float, float]] = []
    if kind == "far":
        for x in np.arange(0, STRIP_WIDTH, 64):
            discs += _cumulus(
                rng, x + float(rng.uniform(-20, 20)), float(rng.uniform(56, 84)), float(rng.uniform(22, 46))
            )
    elif kind == "near":
        for x in np.arange(0, STRIP_WIDTH, 128):
            discs += _cumulus(
                rng, x + float(rng.uniform(-45, 45)), float(rng.uniform(26, 50)), float(rng.uniform(50, 92))
            )
    else:
        return _deck(rng)
    alpha, shade = _puffs(discs)
    return np.stack([alpha, _blur(shade, 0.9) / np.maximum(_blur(alpha, 0.9), 0.02) * alpha])


def _deck(rng: Rng, scale: int = 3) -> Array:
    """A closed deck: scalloped bands, the near ones higher and larger, each dark along its lower edge."""
    x = (np.arange(STRIP_WIDTH * scale) + 0.5) / scale
    y = ((np.arange(CLOUD_ROWS * scale) + 0.5) / scale)[:, None]
    alpha, shade = np.zeros((2, CLOUD_ROWS * scale, STRIP_WIDTH * scale), np.float32)
    for row, r in ((70, 10), (57, 15), (41, 21), (23, 27), (3, 32)):
        edge = np.full(len(x), float(row - r) if row < 70 else -1.0)
        count = round(STRIP_WIDTH / r / 1.25)
        for i in range(count):
            at = (i + float(rng.uniform(-0.3, 0.3))) * STRIP_WIDTH / count
            size, drop = r * float(rng.uniform(0.8, 1.3)), float(rng.uniform(-0.28, 0.16)) * r
            if row == 70 and rng.random() < 0.4:
                continue
            away = (x - at + STRIP_WIDTH / 2) % STRIP_WIDTH - STRIP_WIDTH / 2
            bulge = row + drop - size * 0.45 + 0.85 * np.sqrt(np.clip(size**2 - away**2, 0, None))
            edge = np.where(np.abs(away) < size, np.maximum(edge, bulge), edge)
        inside = y < edge[None]
        rise = np.clip((edge[None] - y) / (r * 1.25), 0, 1)
        shade = np.where(inside, 0.18 + 0.80 * rise * rise * (3 - 2 * rise), shade)
        alpha = np.where(inside, 1.0, alpha)
    fine = np.stack([alpha, shade * alpha]).reshape(2, CLOUD_ROWS, scale, STRIP_WIDTH, scale)
    return fine.mean((2, 4)).astype(np.float32)


def _blur(field: Array, radius: float) -> Array:
    """Gaussian blur of a tileable field (rows, columns)."""
    pad = 32
    wide = np.concatenate((field[:, -pad:], field, field[:, :pad]), 1)
    image = Image.fromarray((np.clip(wide, 0, 1) * 255).astype(np.uint8), "L")
    return np.asarray(image.filter(ImageFilter.GaussianBlur(radius)), np.float32)[:, pad:-pad] / np.float32(255)


def _scatter(count: int, rng: Rng, paint: Callable[[ImageDraw.ImageDraw, float, float], None], k: int = 4) -> Array:
    """(256, 256) tileable: `paint(pen, x, y)` called for `count` spread places, in pixels of `k` times the size."""
    image = Image.new("L", (TILE * k, TILE * k))
    pen = ImageDraw.Draw(image)
    columns = round(count**0.5)
    for i in range(count):  # a shaken lattice: no clumps, no holes
        x = (i % columns + float(rng.uniform(0.1, 0.9))) * TILE / columns
        y = (i // columns + float(rng.uniform(0.1, 0.9))) * TILE / -(-count // columns)
        state = rng.bit_generator.state
        for dx in (-TILE, 0, TILE):
            for dy in (-TILE, 0, TILE):
                rng.bit_generator.state = state
                paint(pen, (x + dx) * k, (y + dy) * k)
    fine = np.asarray(image, np.float32) / 255
    return fine.reshape(TILE, k, TILE, k).mean((1, 3)).astype(np.float32)


_RAIN = ((36, 56.0, 2.4, 195), (20, 84.0, 3.5, 255))  # count, length, width, tone: far, near


@lru_cache(maxsize=1)
def rain() -> Array:
    """(2, 256, 256) tileable: far and near streaks that fall down the columns, pointed at both ends.

    They are long against their way in one latent frame (4 pictures), so that they live through the VAE.
    """
    rng = np.random.default_rng(7)
    k = 4
    sheets = []
    for count, length, width, tone in _RAIN:

        def streak(pen: ImageDraw.ImageDraw, x: float, y: float, length: float = length, width: float = width,
                   tone: int = tone) -> None:  # fmt: skip
            tall, half = length * float(rng.uniform(0.75, 1.2)) * k, width * float(rng.uniform(0.8, 1.1)) * k / 2
            low = y + 0.72 * tall
            pen.polygon([(x, y), (x - half, low), (x, y + tall), (x + half, low)], fill=tone)

        sheets.append(_scatter(count, rng, streak, k))
    return np.stack(sheets)


@lru_cache(maxsize=1)
def snow() -> Array:
    """(3, 256, 256) tileable: flakes far, between and near, each sheet fewer and larger."""
    rng = np.random.default_rng(8)
    k = 4
    sheets = []
    for count, low, high in ((196, 0.9, 1.4), (90, 1.7, 2.5), (25, 3.0, 4.2)):

        def flake(pen: ImageDraw.ImageDraw, x: float, y: float, low: float = low, high: float = high) -> None:
            r = float(rng.uniform(low, high)) * k
            pen.ellipse([x - r, y - r, x + r, y + r], fill=255)

        sheets.append(_scatter(count, rng, flake, k))
    return np.stack(sheets)


@lru_cache(maxsize=1)
def stars() -> Array:
    """(2, 256, 256): stars and their phase (0..1); few, and large enough to last."""
    rng = np.random.default_rng(9)
    field, phases = np.zeros((TILE, TILE), np.float32), np.zeros((TILE, TILE), np.float32)
    yy, xx = np.mgrid[:TILE, :TILE].astype(np.float32)
    side = 12
    for i in range(side * side):
        x, y = ((k + float(rng.uniform(0.15, 0.85))) * TILE / side for k in (i % side, i // side))
        size = 0.75 + 0.75 * float(rng.random()) ** 3
        blob = np.exp(-((xx - x) ** 2 + (yy - y) ** 2) / (2 * size**2)) * float(rng.uniform(0.7, 1.1))
        field = np.maximum(field, blob)
        phases[(xx - x) ** 2 + (yy - y) ** 2 < 20] = i / side**2
    return np.stack([field, phases]).astype(np.float32)


RING_RADIUS = 13.0  # texels of `rings` that a splash may grow to


@lru_cache(maxsize=1)
def rings() -> Array:
    """(2, 256, 256) tileable: distance in texels to the nearest splash of rain, and that splash's phase (0..1)."""
    rng = np.random.default_rng(12)
    side = 7
    step = TILE / side
    centres = [
        (
            (i + float(rng.uniform(0.36, 0.64))) * step,
            (j + float(rng.uniform(0.36, 0.64))) * step,
            float(rng.random()),
        )
        for i in range(side)
        for j in range(side)
    ]
    yy, xx = np.mgrid[:TILE, :TILE].astype(np.float32)
    best, phase = np.full((TILE, TILE), 99.0, np.float32), np.zeros((TILE, TILE), np.float32)
    for x, y, p in centres:
        dx = (xx - x + TILE / 2) % TILE - TILE / 2
        dy = (yy - y + TILE / 2) % TILE - TILE / 2
        away = np.hypot(dx, dy)
        phase = np.where(away < best, p, phase)
        best = np.minimum(best, away)
    return np.stack([best, phase]).astype(np.float32)


@lru_cache(maxsize=1)
def noise() -> Array:
    """(2, 256, 256) tileable smooth noise, about -1..1."""
    rng = np.random.default_rng(11)
    out = []
    for _ in range(2):
        f = np.fft.fftfreq(TILE) * TILE
        radius = np.sqrt(f[:, None] ** 2 + f[None] ** 2)
        spectrum = np.where((radius > 2) & (radius < 17), (radius + 4.0) ** -1.5, 0)
        field = np.fft.ifft2(np.fft.fft2(rng.standard_normal((TILE, TILE))) * spectrum).real
        out.append(np.clip(field / field.std() * 0.5, -1.4, 1.4))
    return np.stack(out).astype(np.float32)


BOLT_ROWS, BOLT_COLUMNS = 104, 96


@lru_cache(maxsize=1)
def bolts() -> Array:
    """(8, 2, 104, 96): core and glow of eight lightning bolts, from the middle of the first row down."""
    rng = np.random.default_rng(5)
    k = 4
    sheets = []
    for _ in range(8):
        image = Image.new("L", (BOLT_COLUMNS * k, BOLT_ROWS * k))
        pen = ImageDraw.Draw(image)
        x, y, side = BOLT_COLUMNS / 2, 2.0, float(rng.choice([-1, 1]))
        path = [(x, y)]
        while y < BOLT_ROWS - 4:
            x, y = x + side * float(rng.uniform(5, 12)) + (BOLT_COLUMNS / 2 - x) * 0.15, y + float(rng.uniform(9, 17))
            side = -side if rng.random() < 0.8 else side
            path.append((x, y))
        for i, (a, b) in enumerate(pairwise(path)):
            pen.line([(v * k) for v in (*a, *b)], fill=255, width=round((3.6 - 1.6 * i / len(path)) * k))
            pen.ellipse([b[0] * k - 5, b[1] * k - 5, b[0] * k + 5, b[1] * k + 5], fill=255)
        for fork in (path[2], path[len(path) // 2 + 1]):
            away = float(rng.choice([-1, 1]))
            twig = [fork, (fork[0] + 10 * away, fork[1] + 9), (fork[0] + 13 * away, fork[1] + 19),
                    (fork[0] + 22 * away, fork[1] + 28)]  # fmt: skip
            pen.line([(px * k, py * k) for px, py in twig], fill=255, width=round(1.9 * k), joint="curve")
        glow = image.reduce(k).filter(ImageFilter.GaussianBlur(5))
        fields = [np.asarray(i, np.float32) / 255 for i in (image.reduce(k), glow)]
        sheets.append(np.stack([fields[0], np.clip(fields[1] * 3.2, 0, 1)]))
    return np.stack(sheets).astype(np.float32)


@lru_cache(maxsize=1)
def viaduct() -> Array:
    """(5, 124, 1024): the arches under a train, channels as in `canvas`."""
    c = Canvas()
    c.box(0, DECK_ROW, STRIP_WIDTH, DECK_ROW + 1.2, 0.95, 0.0, snow=1.0)
    c.box(0, DECK_ROW + 1.2, STRIP_WIDTH, DECK_ROW + 6, 0.5)
    step = STRIP_WIDTH / 22
    for i in range(22):
        x = i * step
        c.polygon([(x - 4, DECK_ROW + 5), (x + 4, DECK_ROW + 5), (x + 4.6, 146), (x - 4.6, 146)], 0.75)
        c.polygon([(x + 0.5, DECK_ROW + 5), (x + 4, DECK_ROW + 5), (x + 4.6, 146), (x + 0.5, 146)], 0.25)
        turn = np.linspace(0, np.pi, 17)
        r = step / 2 - 4
        arch = [(x + step / 2 - np.cos(t) * r, DECK_ROW + 6 + r * 0.62 - np.sin(t) * r * 0.62) for t in turn]
        c.polygon([(x + 3, DECK_ROW + 5), *arch, (x + step - 3, DECK_ROW + 5)], 0.42)
        c.polygon([(x + 3, DECK_ROW + 5), *arch[:6], (arch[5][0], DECK_ROW + 5)], 0.3)
    return c.finish()
