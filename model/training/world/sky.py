"""Sky: gradient, stars, planet, sun and moon, clouds, lightning."""

from __future__ import annotations

import torch
from torch import Tensor

from model.training.world import palettes as p
from model.training.world.look import Look
from model.training.world.sampling import held, over, slide, smoothstep, stamp, tile, wrapped
from model.training.world.scenes import LAYERS
from model.training.world.shot import FOG, RAIN, SNOW, STORM, Shot
from model.training.world.sprites import CELL_HEIGHT, CELL_WIDTH, SPRITES, atlas
from model.training.world.textures import BOLT_COLUMNS, bolts, clouds, stars

CLOUDS = ("far", "near", "deck")
CLOUD_PARALLAX = (0.05, 0.08, 0.07)
CLOUD_WIND = (0.5, 1.0, 1.2)
BOLT_TOP = 14.0  # row where lightning leaves the clouds


def sun_place(s: Shot) -> tuple[Tensor, Tensor]:
    """Column and row of the sun (of the moon at night), (N,)."""
    sun_x, moon_x, dy = s.look("sun_x"), s.look("moon_x"), s.look("sun_y")
    day = sun_x + (0.5 - sun_x) * 0.25
    across = torch.stack((sun_x, day, sun_x, moon_x), 1)
    low = s.horizon - 13 + dy * 0.7
    row = torch.stack((low, 24 + dy, low + 3, 27 + dy), 1)
    return (s.hour * across).sum(1) * s.vis, (s.hour * row).sum(1)


def paint_sky(s: Shot) -> Tensor:
    """(N, 3, H, W)."""
    n, height, width = len(s.t), len(s.ys), len(s.xs)
    v = (s.ys[None] / s.horizon[:, None]).clamp(0, 1)[:, None, :, None]
    zenith, middle, low = (s.sky[:, i].view(-1, 3, 1, 1) for i in range(3))
    sky = over(zenith, middle, smoothstep(0.0, 0.62, v))
    sky = over(sky, low, smoothstep(0.45, 1.0, v)).expand(n, 3, height, width).clone()
    sky = _stars(s, sky)
    sky = _planet(s, sky)
    return _bolts(s, _clouds(s, _discs(s, sky)))


def _stars(s: Shot, sky: Tensor) -> Tensor:
    visible = (s.hour @ s.table(p.STARS)).view(-1, 1, 1, 1)
    visible = torch.maximum(visible, s.alien * 0.45) * (0.15 + 0.85 * s.disc) * (1 - s.w(FOG))
    if float(visible.max()) <= 0:
        return sky
    u = (s.xs[None, None] + (s.look("phase") * 256)[:, None, None]).expand(-1, len(s.ys), -1)
    field = tile(held("stars", stars(), s.device).float(), u, s.ys[None, :, None].expand_as(u))
    twinkle = 0.72 + 0.28 * torch.sin(s.t.view(-1, 1, 1) * 3.2 + field[:, 1] * 40)
    fade = smoothstep(0.1, 0.6, 1 - s.ys / s.horizon[:, None])[:, None, :, None]
    return sky + (field[:, 0] * twinkle)[:, None] * visible * fade * s.table((0.95, 0.97, 1.0)).view(1, 3, 1, 1)


def _planet(s: Shot, sky: Tensor) -> Tensor:
    if float(s.alien.max()) <= 0:
        return sky
    scale = s.look("planet_size")[:, None, None]
    x = (s.xs[None, None] - (s.look("planet_x") * s.vis)[:, None, None]) / scale + CELL_WIDTH / 2
    y = (s.ys[None, :, None] - s.look("planet_y")[:, None, None]) / scale + CELL_HEIGHT / 2
    x, y = torch.broadcast_tensors(x, y)
    cell = held("planet", atlas()[SPRITES.index("planet"), 0], s.device).float()
    got = stamp(cell[None].expand(len(s.t), -1, -1, -1), x - 0.5, y - 0.5)
    tint = s.look("planet_colour").view(-1, 3, 1, 1)
    cream = s.table((0.98, 0.90, 0.80)).view(1, 3, 1, 1)
    colour = (got[:, 1:2] * cream + got[:, 2:3] * tint) / got[:, :1].clamp_min(1e-3)
    seen = got[:, :1] * s.alien * (0.35 + 0.65 * s.disc)
    return over(sky, colour * 0.86 + s.sky[:, 1].view(-1, 3, 1, 1) * 0.16, seen * 0.96)


def _discs(s: Shot, sky: Tensor) -> Tensor:
    """Sun by day, moon by night, each with a glow on two scales."""
    cx, cy = (v.view(-1, 1, 1, 1) for v in sun_place(s))
    x, y = s.xs.view(1, 1, 1, -1) - cx, s.ys.view(1, 1, -1, 1) - cy
    far = torch.sqrt(x * x + y * y + 1e-4)
    night = s.hour[:, 3].view(-1, 1, 1, 1)
    low = (s.hour[:, 0] + s.hour[:, 2]).view(-1, 1, 1, 1)
    colour = s.colour(p.SUN)
    clear = s.disc
    glow = torch.exp(-far / 12) * 0.42 + torch.exp(-far / (36 + 26 * low)) * (0.30 + 0.16 * low)
    glow = glow * (1 - 0.62 * night) * (0.25 + 0.75 * clear) * (1 - s.w(STORM))
    sky = over(sky, colour.expand_as(sky), glow.clamp(0, 0.92))
    radius = 8.0 + 4.0 * low + 1.5 * night
    disc = ((radius - far) / s.pixel + 0.5).clamp(0, 1) * clear
    face = colour * (1 - 0.02 * far / radius) + 0.06
    spot = sum(
        ((r + 0.6 - torch.sqrt((x - a) ** 2 + (y - b) ** 2 + 1e-4)) / 1.2).clamp(0, 1)
        for a, b, r in ((-3.0, -2.0, 2.2), (2.5, 2.5, 2.6), (2.8, -3.6, 1.3), (-2.6, 3.8, 1.5))
    )
    face = face - 0.14 * night * spot
    return over(sky, face.clamp(0, 1), disc)


def _bolts(s: Shot, sky: Tensor) -> Tensor:
    """Lightning before the clouds: a bolt, its glow, and the clouds lit round it."""
    index = torch.nonzero(s.bolt[:, 1] > 0)[:, 0]
    if not len(index):
        return sky
    sheets = held("bolts", bolts(), s.device).float()
    which, bright = s.bolt[index, 0], s.bolt[index, 1].view(-1, 1, 1, 1)
    centre = (0.22 + 0.56 * ((which * 0.618 + s.look("phase")[index]) % 1)) * s.vis
    x = (s.xs.view(1, 1, -1) - centre.view(-1, 1, 1)).expand(-1, len(s.ys), -1)
    y = s.ys.view(1, -1, 1) - BOLT_TOP
    got = stamp(sheets[which.long() % len(sheets)], x + BOLT_COLUMNS / 2 - 0.5, (y - 0.5).expand_as(x))
    lit = torch.exp(-((x / 44) ** 2 + (y / 52) ** 2))[:, None] * 0.40
    glow = torch.maximum(lit, got[:, 1:] * 0.80) * bright
    below = over(sky[index], s.table((0.74, 0.80, 1.0)).view(1, 3, 1, 1), glow)
    return sky.index_copy(0, index, over(below, s.table((1.0, 1.0, 0.94)).view(1, 3, 1, 1), got[:, :1] * bright))


def _cloud_strips(looks: list[Look], kind: str, device: torch.device, extra: int) -> Tensor:
    strips = [held(f"{kind} {look.cloud}", clouds(kind, look.cloud), device) for look in looks]
    turned = [strip.flip(-1) if look.flip else strip for look, strip in zip(looks, strips, strict=True)]
    return wrapped(torch.stack(turned).float(), extra)


def _clouds(s: Shot, sky: Tensor) -> Tensor:
    deck = s.weather @ s.table(p.DECK)
    fair = s.weather @ s.table(p.FAIR)
    light, dark = s.colour(p.CLOUD_LIGHT), s.colour(p.CLOUD_DARK)
    grey = (s.weather @ s.table(p.GREYING)).view(-1, 1, 1, 1)
    bright = (s.weather @ s.table(p.DECK_BRIGHT)).view(-1, 1, 1, 1)
    bright = bright + (1 - bright) * 0.75 * s.hour[:, 3].view(-1, 1, 1, 1)
    tint = 1 + (s.table(p.STORM_TINT).view(1, 3, 1, 1) - 1) * (s.w(STORM) + 0.6 * s.w(RAIN))
    lums = [(c * s.table((0.3, 0.55, 0.15)).view(1, 3, 1, 1)).sum(1, keepdim=True) for c in (light, dark)]
    dusk = (s.hour[:, 0] + s.hour[:, 2]).view(-1, 1, 1, 1)
    lums = [k * (1 + (s.table(p.DUSK_GREY).view(1, 3, 1, 1) - 1) * dusk) for k in lums]
    light, dark = (over(c, k, grey) * bright * tint for c, k in zip((light, dark), lums, strict=True))
    light = light * (1 - 0.28 * (s.w(STORM) + 0.4 * s.w(RAIN))) + s.flash * 0.20
    dark = dark + s.flash * s.table((0.13, 0.15, 0.24)).view(1, 3, 1, 1)
    pale = s.w(SNOW) * s.table((0.06, 0.09, 0.15)).view(1, 3, 1, 1)
    light, dark = light + pale, dark + pale
    wind = s.look("wind") * (1 + 1.5 * s.weather[:, STORM])
    v = s.ys.view(1, 1, -1).expand(s.clips, s.pictures, -1) - 0.5
    for i, kind in enumerate(CLOUDS):
        cover = deck if kind == "deck" else fair
        if float(cover.max()) <= 0:
            continue
        strips = _cloud_strips(s.looks, kind, s.device, int(s.vis) + 2)
        offset = torch.tensor([look.offsets[LAYERS + i] for look in s.looks], device=s.device).repeat_interleave(
            s.pictures
        )
        u0 = (offset + s.camera * CLOUD_PARALLAX[i] + wind * CLOUD_WIND[i] * s.t) % 1024
        got = slide(strips, u0.view(s.clips, s.pictures), s.xs - 0.5, v)
        shade = got[:, 1:] / got[:, :1].clamp_min(1e-3)
        colour = over(dark, light, smoothstep(0.08, 0.92, shade))
        colour = over(colour, s.haze, 0.35 if kind == "far" else 0.12)
        sky = over(sky, colour, got[:, :1] * cover.view(-1, 1, 1, 1) * (0.94 if kind == "deck" else 0.92))
    low = smoothstep(0.1, 1.0, s.ys / s.horizon[:, None])[:, None, :, None]
    return over(sky, s.fog_colour, s.w(FOG) * (0.22 + 0.5 * low))
