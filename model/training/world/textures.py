"""Small painted textures beside the land: clouds, stars, rain, snow, lightning, noise, the viaduct."""

from __future__ import annotations

from functools import cache, lru_cache

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter

from model.training.world.canvas import STRIP_WIDTH, Array, Canvas

CLOUD_ROWS = 92
CLOUD_VARIANTS = 4
TILE = 256
DECK_ROW = 113.0  # picture row of the viaduct's rails

Rng = np.random.Generator


def _puffs(rng: Rng, discs: list[tuple[float, float, float, float]], scale: int = 2) -> Array:
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
        for row, r in ((66, 8), (54, 13), (40, 17), (24, 20), (8, 22), (-6, 24)):
            count = int(STRIP_WIDTH / r * 0.95)
            for i in range(count):
                at = (i + float(rng.uniform(-0.4, 0.4))) * STRIP_WIDTH / count
                skip = 0.45 if row == 66 else 0.18 if row == 54 else 0.0
                if rng.random() >= skip:
                    y = row + float(rng.uniform(-4, 4))
                    discs.append((at, y, r * float(rng.uniform(0.75, 1.3)), y + r * 1.3))
    alpha, shade = _puffs(rng, discs)
    return np.stack([alpha, _blur(shade, 5.0 if kind == "deck" else 0.9) / _cover(alpha, kind) * alpha])


def _cover(alpha: Array, kind: str) -> Array:
    return np.maximum(_blur(alpha, 5.0 if kind == "deck" else 0.9), 0.02)


def _blur(field: Array, radius: float) -> Array:
    """Gaussian blur of a tileable field (rows, columns)."""
    pad = 32
    wide = np.concatenate((field[:, -pad:], field, field[:, :pad]), 1)
    image = Image.fromarray((np.clip(wide, 0, 1) * 255).astype(np.uint8), "L")
    return np.asarray(image.filter(ImageFilter.GaussianBlur(radius)), np.float32)[:, pad:-pad] / np.float32(255)


def _tile(draw_scale: int, paint: npt.NDArray[np.uint8]) -> Array:
    fine = paint.astype(np.float32) / 255
    return fine.reshape(TILE, draw_scale, TILE, draw_scale).mean((1, 3)).astype(np.float32)


@lru_cache(maxsize=1)
def tiles() -> Array:
    """(6, 256, 256) tileable: rain far, rain near, snow far, snow near, stars, stars' phase (0..1)."""
    rng = np.random.default_rng(7)
    k = 4
    sheets = []
    for count, length, width, high in ((95, 9, 0.8, 150), (60, 15, 1.3, 230)):
        image = Image.new("L", (TILE * k, TILE * k))
        pen = ImageDraw.Draw(image)
        for _ in range(count):
            x, y = rng.uniform(0, TILE, 2)
            tall = length * float(rng.uniform(0.7, 1.2))
            for dx in (-TILE, 0, TILE):
                for dy in (-TILE, 0, TILE):
                    a = ((x + dx) * k, (y + dy) * k)
                    pen.line([a, (a[0], a[1] + tall * k)], fill=high, width=round(width * k))
        sheets.append(_tile(k, np.asarray(image)))
    for count, low, high_r in ((170, 0.6, 1.0), (75, 1.1, 2.0)):
        image = Image.new("L", (TILE * k, TILE * k))
        pen = ImageDraw.Draw(image)
        for _ in range(count):
            x, y = rng.uniform(0, TILE, 2)
            r = float(rng.uniform(low, high_r))
            for dx in (-TILE, 0, TILE):
                for dy in (-TILE, 0, TILE):
                    pen.ellipse([(x + dx - r) * k, (y + dy - r) * k, (x + dx + r) * k, (y + dy + r) * k], fill=255)
        sheets.append(_tile(k, np.asarray(image)))
    stars, phases = np.zeros((TILE, TILE), np.float32), np.zeros((TILE, TILE), np.float32)
    yy, xx = np.mgrid[:TILE, :TILE].astype(np.float32)
    for i in range(230):
        x, y = rng.uniform(3, TILE - 3, 2)
        size = 0.55 + 0.75 * float(rng.random()) ** 5 * 1.3
        blob = np.exp(-((xx - x) ** 2 + (yy - y) ** 2) / (2 * size**2)) * float(rng.uniform(0.5, 1.0))
        stars = np.maximum(stars, blob)
        phases[(xx - x) ** 2 + (yy - y) ** 2 < 16] = i / 230
    return np.stack([*sheets, stars, phases]).astype(np.float32)


@lru_cache(maxsize=1)
def noise() -> Array:
    """(2, 256, 256) tileable smooth noise, about -1..1."""
    rng = np.random.default_rng(11)
    out = []
    for _ in range(2):
        f = np.fft.fftfreq(TILE) * TILE
        radius = np.sqrt(f[:, None] ** 2 + f[None] ** 2)
        spectrum = np.where((radius > 2) & (radius < 26), (radius + 4.0) ** -1.5, 0)
        field = np.fft.ifft2(np.fft.fft2(rng.standard_normal((TILE, TILE))) * spectrum).real
        out.append(np.clip(field / field.std() * 0.5, -1.4, 1.4))
    return np.stack(out).astype(np.float32)


@lru_cache(maxsize=1)
def bolts() -> Array:
    """(8, 96, 64): coverage of eight lightning bolts."""
    rng = np.random.default_rng(5)
    k = 4
    sheets = []
    for _ in range(8):
        image = Image.new("L", (64 * k, 96 * k))
        pen = ImageDraw.Draw(image)
        x, y = 32.0, 4.0
        path = [(x, y)]
        while y < 90:
            x, y = x + float(rng.uniform(-9, 9)) + (32 - x) * 0.2, y + float(rng.uniform(7, 14))
            path.append((x, y))
        pen.line([(px * k, py * k) for px, py in path], fill=255, width=2 * k)
        fork = path[len(path) // 2]
        side = float(rng.choice([-1, 1]))
        twig = [fork, (fork[0] + 8 * side, fork[1] + 9), (fork[0] + 11 * side, fork[1] + 20)]
        pen.line([(px * k, py * k) for px, py in twig], fill=200, width=round(1.2 * k))
        fine = np.asarray(image, np.float32) / 255
        sheets.append(fine.reshape(96, k, 64, k).mean((1, 3)))
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
