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
    spread = 36.0 / (d + 14.0)
    u = (s.xs.view(1, 1, -1) - s.vis / 2 + drift) * spread
    v = torch.log(d + 7.0) * 58.0
    field = held("noise", noise(), s.device).float()
    a = tile(field, u * 0.5 + t * 4.0, (v - t * 8.0).expand_as(u))
    b = tile(field, u * 0.95 - t * 6.0 + 90, (v * 1.6 - t * 14.0).expand_as(u))
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
    crest = smoothstep(0.42, 0.62, waves[:, :1] * (0.85 + 0.15 * rough)) * (0.3 + 0.7 * (depth / 14).clamp_max(1))
    trough = smoothstep(0.40, 0.66, -waves[:, :1]) * (depth / 14).clamp_max(1)
    colour = over(colour, (s.sky[i, 2].view(-1, 3, 1, 1) + 0.08).clamp(0, 1), crest * 0.26)
    colour = colour * (1 - 0.17 * trough)
    foam = smoothstep(0.55, 0.72, waves[:, 1:]) * s.w(STORM)[i] * (depth / 10).clamp_max(1)
    colour = over(colour, (s.ambient[i] + s.direct[i]).clamp(0, 1), foam * 0.55)
    sun = (s.xs.view(1, 1, 1, -1) - sun_place(s)[0][i].view(-1, 1, 1, 1)) / (9 + depth * 0.42)
    path = torch.exp(-sun * sun) * smoothstep(0.02, 0.42, waves[:, 1:] + 0.12) * s.disc[i]
    strength = (s.hour @ s.table((0.85, 0.6, 0.95, 0.6)))[i].view(-1, 1, 1, 1)
    colour = over(colour, shine, (path * strength).clamp(0, 1))
    edge = torch.exp(-depth / 0.9) * 0.28
    colour = over(colour, s.haze[i], edge)
    wet = ((s.ys.view(1, -1, 1) - wl) / s.pixel + 0.5).clamp(0, 1)[:, None]
    return picture.index_copy(0, i, over(above, colour, wet))
