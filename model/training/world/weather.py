"""What falls and drifts in front of everything: rain, snow, bands of fog."""

from __future__ import annotations

import torch
from torch import Tensor

from model.training.world.sampling import held, over, smoothstep, tile
from model.training.world.shot import FOG, RAIN, SNOW, STORM, Shot
from model.training.world.textures import noise, tiles

RAIN_ROWS_S = (170.0, 250.0)
SNOW_ROWS_S = (17.0, 30.0)


def paint_weather(s: Shot, picture: Tensor) -> Tensor:
    """Lay rain, snow and fog over the picture (N, 3, H, W)."""
    picture = _fog(s, picture)
    sheets = held("tiles", tiles(), s.device).float()
    return _snow(s, sheets, _rain(s, sheets, picture))


def _grid(s: Shot) -> tuple[Tensor, Tensor]:
    x = s.xs.view(1, 1, -1) + (s.look("phase") * 997).view(-1, 1, 1)
    return torch.broadcast_tensors(x, s.ys.view(1, -1, 1))


def _rain(s: Shot, sheets: Tensor, picture: Tensor) -> Tensor:
    amount = s.w(RAIN) * 0.62 + s.w(STORM) * 0.8
    if float(amount.max()) <= 0:
        return picture
    x, y = _grid(s)
    t = s.t.view(-1, 1, 1)
    slant = (0.12 + 0.30 * s.weather[:, STORM]).view(-1, 1, 1)
    colour = (s.haze * 0.35 + s.table((0.60, 0.66, 0.74)).view(1, 3, 1, 1) * (0.55 + 0.45 * s.ambient)).clamp(0, 1)
    for depth, (speed, weight) in enumerate(zip(RAIN_ROWS_S, (0.55, 0.85), strict=True)):
        drops = tile(
            sheets[depth : depth + 1], x + y * slant + s.camera.view(-1, 1, 1) * (0.3 + 0.6 * depth), y - speed * t
        )
        picture = over(picture, colour.expand_as(picture), (drops * amount * weight).clamp(0, 1))
    return picture


def _snow(s: Shot, sheets: Tensor, picture: Tensor) -> Tensor:
    amount = s.w(SNOW)
    if float(amount.max()) <= 0:
        return picture
    x, y = _grid(s)
    t = s.t.view(-1, 1, 1)
    white = s.table((0.97, 0.98, 1.0)).view(1, 3, 1, 1) * (0.62 + 0.38 * (s.ambient + s.direct).clamp(0, 1))
    for depth, speed in enumerate(SNOW_ROWS_S):
        sway = 3.0 * torch.sin(t * 1.1 + y * 0.03 + depth) + t * (5 + 6 * depth)
        flakes = tile(
            sheets[2 + depth : 3 + depth], x + sway + s.camera.view(-1, 1, 1) * (0.3 + 0.6 * depth), y - speed * t
        )
        picture = over(picture, white.expand_as(picture), (flakes * amount * (0.75 + 0.2 * depth)).clamp(0, 1))
    return picture


def _fog(s: Shot, picture: Tensor) -> Tensor:
    amount = s.w(FOG)
    if float(amount.max()) <= 0:
        return picture
    x, y = _grid(s)
    t = s.t.view(-1, 1, 1)
    drift = tile(
        held("noise", noise(), s.device)[:1].float(), x * 0.16 + t * 1.6 + s.camera.view(-1, 1, 1) * 0.08, y * 0.55
    )
    rows = s.ys.view(1, 1, -1, 1)
    low = smoothstep(48, 92, rows) * (1 - 0.5 * smoothstep(112, 144, rows))
    band = low * (0.12 + 0.27 * smoothstep(-0.35, 0.65, drift)) + 0.08
    return over(picture, s.fog_colour.expand_as(picture), (band * amount).clamp(0, 0.7))
