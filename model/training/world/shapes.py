"""Landforms, plants and buildings, painted on a `Canvas`. Light comes from the left; y is in picture rows."""

from __future__ import annotations

import numpy as np

from model.training.world.canvas import STRIP_WIDTH, SUPERSAMPLE, Array, Canvas, noise1

Rng = np.random.Generator


def peaks(
    c: Canvas, rng: Rng, base: float, height: tuple[float, float], width: tuple[float, float], count: int,
    cap: float = 0.0, power: float = 1.0, rough: float = 1.0, accent: float = 0.0,
) -> Array:  # fmt: skip
    """A range of cones: a wiggling ridge parts the lit from the shaded side. cap: share of the height that is
    accent coloured (snow). Returns the outline, (3 * 1024,) picture rows."""
    x = c.x[0]
    at = (np.arange(count) + rng.uniform(-0.3, 0.3, count)) * STRIP_WIDTH / count
    h = rng.uniform(*height, count)
    w = rng.uniform(*width, count) * (0.6 + 0.4 * h / height[1])
    away = (x[None] - at[:, None] + STRIP_WIDTH / 2) % STRIP_WIDTH - STRIP_WIDTH / 2
    cones = h[:, None] * np.clip(1 - np.abs(away) / w[:, None], 0, None) ** power
    jag = noise1(rng, (90, 180, 360)) * 2.2 * rough
    owner = cones.argmax(0)
    columns = np.arange(len(x))
    top = base - cones[owner, columns]
    outline = np.minimum(top + jag * np.clip(cones[owner, columns] / 12, 0, 1), base + 2)
    below = c.y - outline[None]
    depth = np.clip(c.y - (base - h[owner])[None], 0, None)
    wiggle = (noise1(rng, (40, 110))[: c.y.shape[0] * 4 : 4] * 7 * rough)[:, None] * np.clip(depth / 25, 0, 1)
    lit = away[owner, columns][None] + depth * 0.18 < wiggle
    facet = noise1(rng, (60, 130))[None] + np.sin(depth * 0.35 + away[owner, columns][None] * 0.25) * 0.35
    facet = facet if rough > 0.3 else np.sin(depth * 0.45 + away[owner, columns][None] * 0.02) * 0.2 + 0.5
    tone = np.clip(facet * 6, -1, 1)
    shade = np.where(lit, 0.88 + 0.12 * tone, 0.22 + 0.1 * tone)
    if rough <= 0.3:  # a dune's shadow is lost further down
        share = np.clip(cones[owner, columns] / h[owner] * 2.2, 0, 1)[None] * np.clip(1 - below / 22, 0, 1)
        shade = 0.60 + (shade - 0.60) * share
    shade = shade * np.clip(1.1 - below / 160, 0.5, 1)
    teeth = np.abs(((x[None] * 0.17 + noise1(rng, (50,))[None] * 2) % 2) - 1) * 9 + noise1(rng, (120,))[None] * 3
    white = (depth < h[owner][None] * cap - 6 + teeth) & (cap > 0)
    c.fill(below > 0, shade, np.where(white, 1.0, accent), np.clip(0.9 - below / 40, 0.25, 0.9))
    return outline.astype(np.float32)


def hills(
    c: Canvas, rng: Rng, mid: float, swing: float, waves: tuple[int, ...] = (5, 9, 17), accent: float = 0.0,
    contrast: float = 1.0,
) -> Array:  # fmt: skip
    """Rolling ground with a soft light on the slopes that face left. Returns the outline."""
    height = noise1(rng, waves)
    outline = mid + height * swing
    slope = (np.roll(height, -24) - np.roll(height, 24)) * swing
    below = c.y - outline[None]
    bend = np.sin(c.x * 2 * np.pi * 9 / STRIP_WIDTH + below * 0.07 + height[None] * 4)
    shade = 0.56 + contrast * (-slope[None] * 0.09 * np.exp(-below / 30) + 0.1 * bend)
    shade = shade + 0.2 * np.exp(-below / 3.0) - below * 0.004
    c.fill(below > 0, shade.astype(np.float32), accent, 0.92)
    return outline.astype(np.float32)


def ground_at(outline: Array, x: float) -> float:
    """Row of the outline at strip column x."""
    return float(outline[int(x * SUPERSAMPLE) % len(outline)])


def pine(c: Canvas, x: float, base: float, height: float, accent: float = 1.0, value: float = 1.0) -> None:
    """A fir of serrated tiers, lit on the left."""
    half = height * 0.27
    c.box(x - height * 0.03, base - height * 0.14, x + height * 0.03, base + 2, 0.12 * value, accent)
    for i in range(4):
        low, high = base - height * (0.08 + 0.2 * i), base - height * (0.42 + 0.2 * i)
        w = half * (1 - 0.21 * i)
        top = max(high, base - height)
        c.polygon([(x - w, low), (x, top), (x + w, low), (x, low - height * 0.05)], 0.16 * value, accent, snow=0.25)
        c.polygon([(x - w, low), (x, top), (x + w * 0.1, low - height * 0.06)], 0.62 * value, accent, snow=0.8)


def round_tree(c: Canvas, x: float, base: float, size: float, accent: float = 1.0) -> None:
    """A leafy tree: a trunk and three clumps with a lit side."""
    c.polygon(
        [(x - size * 0.08, base + 2), (x - size * 0.05, base - size * 0.6), (x + size * 0.05, base - size * 0.6),
         (x + size * 0.09, base + 2)], 0.08, accent,
    )  # fmt: skip
    clumps = ((-0.24, 0.66, 0.3), (0.26, 0.62, 0.28), (0.0, 0.9, 0.36))
    for dx, dy, r in clumps:
        c.ellipse(x + dx * size, base - dy * size, r * size, r * size * 0.9, 0.2, accent, snow=0.3)
    for dx, dy, r in clumps:
        c.ellipse(x + (dx - 0.07) * size, base - (dy + 0.07) * size, r * size * 0.72, r * size * 0.62, 0.72, accent,
                  snow=0.85)  # fmt: skip


def mesa(c: Canvas, rng: Rng, x: float, base: float, width: float, height: float) -> None:
    """A table mountain with strata."""
    lean = height * 0.22
    c.polygon([(x - width - lean * 2.2, base), (x - width, base - height * 0.55), (x + width, base - height * 0.55),
               (x + width + lean * 2.2, base)], 0.55, 0.25, snow=0.5)  # fmt: skip
    edges = [(x - width, base - height * 0.5), (x - width * 0.92, base - height), (x + width * 0.9, base - height),
             (x + width, base - height * 0.5)]  # fmt: skip
    c.polygon(edges, 0.9, 0.0, snow=0.3)
    split = x + width * float(rng.uniform(0.0, 0.4))
    c.polygon([(split, base - height), edges[2], (x + width + lean * 2.2, base), (split + lean, base)], 0.18, 0.2,
              snow=0.3)  # fmt: skip
    c.polygon([edges[1], edges[2], (x + width * 0.93, base - height + 2), (x - width * 0.94, base - height + 2)], 1.0,
              snow=0.95)  # fmt: skip
    for k in (0.35, 0.6):
        y = base - height + height * 0.5 * k
        c.box(x - width * 0.94, y, split, y + 1.6, 0.6, 0.35)


def cactus(c: Canvas, x: float, base: float, h: float) -> None:
    """A saguaro with two arms."""
    r = h * 0.09
    for dx, foot, top, w in ((0.0, 0.0, 1.0, r), (-0.3, 0.36, 0.72, r * 0.75), (0.28, 0.5, 0.86, r * 0.75)):
        cx = x + dx * h
        if dx:
            c.box(min(x, cx), base - foot * h - w * 1.4, max(x, cx), base - foot * h + w * 0.6, 0.3, 1.0, snow=0.5)
        c.box(cx - w, base - top * h, cx + w, base - foot * h + 1, 0.25, 1.0)
        c.ellipse(cx, base - top * h, w, w, 0.25, 1.0, snow=0.8)
        c.box(cx - w, base - top * h, cx - w * 0.1, base - foot * h + 1, 0.8, 1.0)


def crystal(c: Canvas, rng: Rng, x: float, base: float, h: float, glow: float) -> None:
    """A cluster of leaning shards that glow."""
    for lean, scale in ((-0.45, 0.62), (0.4, 0.7), (0.0, 1.0)):
        w, tall = h * 0.16 * (0.7 + 0.5 * scale), h * scale
        tip, foot = x + lean * tall * float(rng.uniform(0.7, 1.1)), x + lean * h * 0.25
        left = [(foot - w, base + 2), (tip - w * 0.55, base - tall * 0.78), (tip, base - tall)]
        right = [(tip + w * 0.5, base - tall * 0.72), (foot + w, base + 2)]
        c.polygon(left + right, 0.3, 1.0, glow * 0.55, 0.2)
        c.polygon([*left, (foot + w * 0.05, base + 2)], 0.95, 1.0, glow, 0.4)
