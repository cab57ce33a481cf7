"""What falls and drifts in front of everything: rain and its splashes, snow, banks of fog.

All of it moves slowly against its own size (a latent frame is 4 pictures), so that it outlives the VAE.
"""

from __future__ import annotations

import torch
from torch import Tensor

from model.training.world.sampling import held, over, smoothstep, tile
from model.training.world.shot import FOG, RAIN, ROWS, SNOW, STORM, Shot
from model.training.world.textures import RING_RADIUS, noise, rain, rings, snow

# (rows a second, opacity) of each sheet, far to near.
RAIN_SHEETS = ((48.0, 0.72), (64.0, 0.85))
SNOW_SHEETS = ((8.0, 0.85), (12.0, 0.95), (17.0, 0.95))
SPLASH_HZ = 0.9
PUDDLES_FROM = 126.0  # row below which splashes show on land


def paint_weather(s: Shot, picture: Tensor) -> Tensor:
    """Lay rain, snow and fog over the picture (N, 3, H, W)."""
    for paint, amount in (
        (_fog, s.weather[:, FOG]),
        (_rain, s.weather[:, RAIN] + s.weather[:, STORM]),
        (_snow, s.weather[:, SNOW]),
    ):
        index = torch.nonzero(amount > 0)[:, 0]
        if len(index):
            shown = paint(s, index, amount[index].view(-1, 1, 1, 1), picture[index])
            picture = picture.index_copy(0, index, shown)
    return picture


def splashes(s: Shot, index: Tensor, top: Tensor) -> Tensor:
    """Rings where rain strikes, 0..1, of the pictures `index` below row `top` (n,); (n, 1, H, W)."""
    d = (s.ys[None] - top[:, None]).clamp_min(0)[:, :, None]
    x = s.xs.view(1, 1, -1) - s.vis / 2 + s.camera[index].view(-1, 1, 1) * (0.3 + 0.7 * d / 50).clamp_max(1)
    u, v = torch.broadcast_tensors(x * 30.0 / (d + 16.0) + 80, torch.log(d + 12.0) * 84.0)
    away, phase = tile(held("rings", rings(), s.device).float(), u, v).unbind(1)
    age = (s.t[index].view(-1, 1, 1) * SPLASH_HZ + phase) % 1
    band = (1.25 - (away - (0.15 + 0.75 * age) * RING_RADIUS).abs() * 0.42).clamp(0, 1)
    return (band * (1 - age) * (d / 6).clamp_max(1) * (d > 0))[:, None]


def _grid(s: Shot, index: Tensor) -> tuple[Tensor, Tensor]:
    x = s.xs.view(1, 1, -1) + (s.look("phase")[index] * 997).view(-1, 1, 1)
    return torch.broadcast_tensors(x, s.ys.view(1, -1, 1))


def _rain(s: Shot, index: Tensor, amount: Tensor, picture: Tensor) -> Tensor:
    x, y = _grid(s, index)
    t, camera = s.t[index].view(-1, 1, 1), s.camera[index].view(-1, 1, 1)
    slant = (0.20 + 0.22 * s.weather[index, STORM]).view(-1, 1, 1)
    light = (0.42 + 0.75 * s.ambient[index]).clamp(0, 1)
    colour = (s.haze[index] * 0.2 + s.table((0.78, 0.86, 0.94)).view(1, 3, 1, 1) * light).clamp(0, 1)
    dry = (s.water[index] >= ROWS).float()
    ground = splashes(s, index, torch.full_like(s.water[index], PUDDLES_FROM)) * dry.view(-1, 1, 1, 1)
    picture = over(picture, colour, ground * amount * 0.6)
    sheets = held("rain", rain(), s.device).float()
    for depth, (speed, weight) in enumerate(RAIN_SHEETS):
        drops = tile(sheets[depth : depth + 1], x + y * slant + camera * (0.3 + 0.6 * depth), y - speed * t)
        picture = over(picture, colour, drops * amount * weight)
    return picture


def _snow(s: Shot, index: Tensor, amount: Tensor, picture: Tensor) -> Tensor:
    x, y = _grid(s, index)
    t, camera = s.t[index].view(-1, 1, 1), s.camera[index].view(-1, 1, 1)
    light = 0.70 + 0.30 * (s.ambient[index] + s.direct[index]).clamp(0, 1)
    white = s.table((0.98, 0.99, 1.0)).view(1, 3, 1, 1) * light
    sheets = held("snow", snow(), s.device).float()
    for depth, (speed, weight) in enumerate(SNOW_SHEETS):
        sway = 2.5 * torch.sin(t * 0.9 + y * 0.025 + depth) + t * (2 + 1.5 * depth)
        flakes = tile(sheets[depth : depth + 1], x + sway + camera * (0.25 + 0.35 * depth), y - speed * t)
        picture = over(picture, white, flakes * amount * weight)
    return picture


def _fog(s: Shot, index: Tensor, amount: Tensor, picture: Tensor) -> Tensor:
    """Two banks of mist with rolling tops; the air above them stays clear enough for what flies there."""
    x, y = _grid(s, index)
    t, camera = s.t[index].view(-1, 1, 1), s.camera[index].view(-1, 1, 1)
    roll = tile(held("noise", noise(), s.device).float(), x * 0.42 + t * 2.4 + camera * 0.2, y * 0.22 + t * 0.5)
    rows = y[:, None]
    cover = torch.zeros_like(rows)
    for bank, (top, deep, swing, dense) in enumerate(((80.0, 8.0, 12.0, 0.42), (110.0, 9.0, 10.0, 0.56))):
        edge = top + swing * roll[:, bank : bank + 1]
        inside = smoothstep(0.0, 1.0, (rows - edge) / deep) * torch.exp(-(rows - edge).clamp_min(0) / 26)
        cover = cover + inside * dense * (1 - cover)
    return over(picture, s.fog_colour[index], (cover * amount).clamp(0, 0.75))
