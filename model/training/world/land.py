"""The land: four layers of each clip's scenes as strips, lit by the hour and fading into the air."""

from __future__ import annotations

import torch
from torch import Tensor

from model.training.world import palettes as p
from model.training.world.attributes import NAMES
from model.training.world.canvas import STRIP_HEIGHT, STRIP_TOP, STRIP_WIDTH
from model.training.world.look import Look
from model.training.world.sampling import held, over, slide, smoothstep, wrapped
from model.training.world.scenes import LAYERS, PARALLAX, prepare, strip
from model.training.world.shot import ALIEN, FOG, RAIN, SNOW, STORM, Shot
from model.training.world.textures import viaduct

VIADUCT_PARALLAX = 1.15
# In fog each layer stands in mist that thickens towards its foot: rows below the horizon, and how thick.
MIST_ROWS = (0.0, 12.0, 26.0, 56.0)
MIST = (0.70, 0.70, 0.62, 0.38)
NEAR = LAYERS - 1


class Land:
    """The strips of some clips, on the device: one tensor a layer, a clip's scenes stacked below each other."""

    def __init__(self, looks: list[Look], scenes: list[list[int]], device: torch.device, extra: int) -> None:
        """scenes: for each clip the scene of each slot. extra: columns by which a window may run over the end."""
        slots = max(len(s) for s in scenes)
        prepare(
            (NAMES["scene"][k], layer, look.variants[layer])
            for look, ids in zip(looks, scenes, strict=True)
            for k in ids
            for layer in range(LAYERS)
        )
        self.layers: list[Tensor] = []
        for layer in range(LAYERS):
            clips = []
            for look, ids in zip(looks, scenes, strict=True):
                stack = [self._strip(look, ids[min(k, len(ids) - 1)], layer, device) for k in range(slots)]
                clips.append(torch.cat(stack, 1))
            self.layers.append(wrapped(torch.stack(clips).float(), extra))
        flips = [look.flip for look in looks]
        rail = held("viaduct", viaduct(), device).float()
        self.viaduct = wrapped(torch.stack([rail.flip(-1) if f else rail for f in flips]), extra)

    @staticmethod
    def _strip(look: Look, scene: int, layer: int, device: torch.device) -> Tensor:
        name, variant = NAMES["scene"][scene], look.variants[layer]
        painted = held(f"{name} {layer} {variant}", strip(name, layer, variant), device)
        return painted.flip(-1) if look.flip else painted


def _window(s: Shot, texture: Tensor, offset: int, parallax: float, rows: Tensor) -> Tensor:
    """(N, 5, H, W) of a strip moved with the camera; rows (N, H) texture rows."""
    starts = torch.tensor([look.offsets[offset] for look in s.looks], device=s.device)
    u0 = (starts.repeat_interleave(s.pictures) + s.camera * parallax) % STRIP_WIDTH
    return slide(texture, u0.view(s.clips, s.pictures), s.xs - 0.5, rows.view(s.clips, s.pictures, -1))


def _shaded(
    s: Shot, got: Tensor, base: Tensor, accent: Tensor, haze: Tensor, glow: Tensor, mist: Tensor
) -> tuple[Tensor, Tensor]:
    """(colour, alpha) of a sampled strip; haze, mist: shares of the horizon's and of the fog's colour."""
    alpha = got[:, :1]
    shade, mix, emission, snow = (got[:, i : i + 1] / alpha.clamp_min(1e-3) for i in range(1, 5))
    albedo = over(base, accent, mix)
    albedo = over(albedo, s.table((1.0, 1.02, 1.06)).view(1, 3, 1, 1), (snow * s.w(SNOW) * 1.05).clamp_max(0.96))
    wet = 1 - 0.16 * s.w(RAIN) - 0.10 * s.w(STORM)
    colour = albedo * (s.ambient * wet + s.direct * shade)
    white = s.table((0.84, 0.89, 0.98)).view(1, 3, 1, 1)
    colour = over(over(colour, white, snow * s.w(SNOW) * 0.24), s.haze, haze)
    colour = over(colour, glow.expand_as(colour), emission)
    return over(colour, s.fog_colour, mist), alpha


def _palette(s: Shot, layer: int) -> tuple[Tensor, Tensor]:
    """Base and accent colour (N, 3, 1, 1) of a layer."""
    table = s.table([p.LAND[n][layer] for n in NAMES["scene"]])[s.scene_id]
    base, accent = table[:, 0], table[:, 1]
    if layer == NEAR:
        meadow = (s.scene_id == NAMES["scene"].index("meadow")).float()[:, None]
        accent = accent + (s.look("flower") - accent) * meadow
    if layer >= NEAR - 1:
        accent = accent + (s.look("crystal") - accent) * (s.scene_id == ALIEN).float()[:, None]
    return base.view(-1, 3, 1, 1), accent.view(-1, 3, 1, 1)


def paint_layer(s: Shot, land: Land, layer: int, picture: Tensor) -> Tensor:
    """Lay one layer of land over the picture (N, 3, H, W)."""
    rows = s.ys[None] - STRIP_TOP - s.sink[:, None] - 0.5
    top = (s.slot * STRIP_HEIGHT)[:, None]
    inside = rows.clamp(0, STRIP_HEIGHT - 1)
    got = _window(s, land.layers[layer], layer, PARALLAX[layer], inside + top)
    fog = s.w(FOG)
    haze = (p.HAZE[layer] + (p.FOG_HAZE[layer] - 0.4 * p.HAZE[layer]) * fog).clamp(0, 0.9)
    base, accent = _palette(s, layer)
    alien = (s.scene_id == ALIEN).float().view(-1, 1, 1, 1)
    lamp = s.table(p.LAMP_COLOUR).view(1, 3, 1, 1)
    # Windows by day are dark panes, at night lamps; crystals always glow, at night more.
    dark = over(base * (s.ambient + 0.45 * s.direct) * 0.66, s.haze, haze)
    pane = over(dark, lamp, s.lamps * (1 - 0.35 * p.HAZE[layer]))
    crystal = accent * (0.78 + 0.3 * s.lamps) * over(s.ambient + 0.75 * s.direct, torch.ones_like(s.ambient), s.lamps)
    foot = (s.horizon + MIST_ROWS[layer])[:, None] - s.ys[None]
    mist = smoothstep(42.0, -2.0, foot)[:, None, :, None] * fog * MIST[layer]
    colour, alpha = _shaded(s, got, base, accent, haze, over(pane, crystal, alien), mist)
    return over(picture, colour, alpha)


def paint_viaduct(s: Shot, land: Land, alpha: Tensor, picture: Tensor) -> Tensor:
    """Lay the viaduct over the picture, alpha (N, 1, 1, 1)."""
    if float(alpha.max()) <= 0:
        return picture
    rows = (s.ys - STRIP_TOP - 0.5).clamp(0, STRIP_HEIGHT - 1)[None].expand(len(s.t), -1)
    got = _window(s, land.viaduct, LAYERS + 3, VIADUCT_PARALLAX, rows)
    stone = s.table((0.62, 0.52, 0.48)).view(1, 3, 1, 1)
    haze = 0.1 + 0.2 * s.w(FOG)
    colour, cover = _shaded(s, got, stone, stone, haze, stone, 0.2 * s.w(FOG))
    return over(picture, colour, cover * alpha)
