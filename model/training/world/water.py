"""Water: the picture above the waterline, mirrored through moving ripples, over a deep colour of the hour."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from model.training.world import palettes as p
from model.training.world.attributes import NAMES
from model.training.world.sampling import held, mirror, over, smoothstep, tile
from model.training.world.shot import RAIN, ROWS, STORM, Shot
from model.training.world.sky import sun_place
from model.training.world.textures import noise
from model.training.world.weather import splashes

SWELL = {"sea": 1.0, "city": 0.35, "lake": 0.25}  # how plainly rollers show


@dataclass(frozen=True)
class Ripples:
    """Of the pictures `index` that show water: heights (n, 2, H, W) and rows below the waterline (n, 1, H, 1)."""

    index: Tensor
    height: Tensor
    depth: Tensor
    rough: Tensor


def make_ripples(s: Shot) -> Ripples | None:
    """None when no picture shows water."""
    index = torch.nonzero(s.water < ROWS - 0.5)[:, 0]
    if not len(index):
        return None
    depth = (s.ys[None] - s.water[index, None]).clamp_min(0)[:, None, :, None]
    t = s.t[index].view(-1, 1, 1)
    d = depth[:, 0]
    near = d / 50
    drift = (s.camera[index].view(-1, 1, 1) * (0.15 + 0.85 * near)) + s.look("phase")[index].view(-1, 1, 1) * 300
    spread = 32.0 / (d + 20.0)
    u = (s.xs.view(1, 1, -1) - s.vis / 2 + drift) * spread
    v = torch.log(d + 22.0) * 100.0
    field = held("noise", noise(), s.device).float()
    a = tile(field, u * 0.5 + t * 3.0, (v * 0.8 - t * 6.0).expand_as(u))
    b = tile(field, u * 0.9 - t * 4.5 + 90, (v * 1.2 - t * 9.0).expand_as(u))
    rough = 1 + 1.2 * s.weather[index, STORM] + 0.25 * s.weather[index, RAIN]
    sea = (s.scene_id[index] == NAMES["scene"].index("sea")).float()
    return Ripples(index, (a + b) * 0.62, depth, (rough * (0.75 + 0.3 * sea)).view(-1, 1, 1, 1))


def paint_water(s: Shot, ripples: Ripples | None, picture: Tensor) -> Tensor:
    """The picture (N, 3, H, W) with water below the waterline where there is some."""
    if ripples is None:
        return picture
    i, depth, rough = ripples.index, ripples.depth, ripples.rough
    waves = ripples.height
    above = picture[i]
    wl = s.water[i].view(-1, 1, 1)
    d = depth[:, 0]
    y = wl - d * 0.92 - 0.5 - (waves[:, 0] * rough[:, 0]) * (0.6 + d * 0.11)
    x = s.xs.view(1, 1, -1) + waves[:, 1] * rough[:, 0] * (0.6 + d * 0.05)
    y = torch.minimum(y, wl - 0.8)
    image = mirror(above, x / s.pixel - 0.5, y / s.pixel - 0.5)
    lum = (s.weather @ s.table(p.GREYING))[i].view(-1, 1, 1, 1)
    tint = s.table([p.WATER_TINT.get(n, (1.0, 1.0, 1.0)) for n in NAMES["scene"]])[s.scene_id[i]].view(-1, 3, 1, 1)
    deep = s.colour(p.WATER)[i] * tint
    deep = over(deep, s.sky[i, 1].view(-1, 3, 1, 1), 0.5 * lum)
    share = (0.26 + 0.012 * depth).clamp_max(0.72)
    colour = over(image * 0.94, deep, share)
    shine = s.colour(p.SUN)[i] * (0.35 + 0.65 * s.disc[i])
    near = (depth / 14).clamp_max(1)
    crest = smoothstep(0.30, 0.48, waves[:, :1]) * (0.3 + 0.7 * near)
    trough = smoothstep(0.30, 0.48, -waves[:, :1]) * near
    colour = over(colour, (s.sky[i, 2].view(-1, 3, 1, 1) + 0.10).clamp(0, 1), crest * 0.32)
    colour = colour * (1 - 0.20 * trough)
    colour = _swell(s, i, waves, depth, colour)
    sun = (s.xs.view(1, 1, 1, -1) - sun_place(s)[0][i].view(-1, 1, 1, 1)) / (9 + depth * 0.42)
    path = torch.exp(-sun * sun) * smoothstep(-0.08, 0.16, waves[:, 1:]) * s.disc[i]
    strength = (s.hour @ s.table((0.85, 0.6, 0.95, 0.6)))[i].view(-1, 1, 1, 1)
    colour = over(colour, shine, (path * strength).clamp(0, 1))
    wet_days = s.weather[i, RAIN] + s.weather[i, STORM]
    if float(wet_days.max()) > 0:
        bright = (s.haze[i] * 0.5 + s.table((0.5, 0.55, 0.6)).view(1, 3, 1, 1) * (0.4 + s.ambient[i])).clamp(0, 1)
        colour = over(colour, bright, splashes(s, i, s.water[i]) * wet_days.view(-1, 1, 1, 1) * 0.85)
    edge = torch.exp(-depth / 0.9) * 0.28
    colour = over(colour, s.haze[i], edge)
    wet = ((s.ys.view(1, -1, 1) - wl) / s.pixel + 0.5).clamp(0, 1)[:, None]
    return picture.index_copy(0, i, over(above, colour, wet))


def _swell(s: Shot, i: Tensor, waves: Tensor, depth: Tensor, colour: Tensor) -> Tensor:
    """Rollers that come nearer, sharp at their foot and foaming in a storm; colour (n, 3, H, W)."""
    strong = s.table([SWELL.get(n, 0.0) for n in NAMES["scene"]])[s.scene_id[i]].view(-1, 1, 1, 1)
    storm = s.w(STORM)[i]
    at = (torch.log(depth + 22.0) * 2.3 - s.t[i].view(-1, 1, 1, 1) * 0.22 + waves[:, 1:] * 0.16) % 1
    near = (depth / 12).clamp_max(1)
    near = near * ((1 - at) * (depth + 22.0) / (3.5 * s.pixel)).clamp(0, 1)  # an even edge at its foot
    light = (s.sky[i, 2].view(-1, 3, 1, 1) * 0.6 + s.ambient[i] * 0.5).clamp(0, 1)
    colour = over(colour, light, smoothstep(0.50, 0.97, at) * near * strong * 0.46)
    colour = colour * (1 - smoothstep(0.45, 0.0, at) * near * strong * 0.26)
    foam = smoothstep(0.80, 0.86, at + 0.10 * waves[:, :1]) * near * storm * (0.4 + 0.6 * strong)
    return over(colour, (s.ambient[i] + s.direct[i] + 0.12).clamp(0, 1), foam * 0.7)
