"""The subject: where it is, how it moves, its light, its beam and its reflection."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from model.training.world import palettes as p
from model.training.world.attributes import NAMES
from model.training.world.sampling import held, over, stamp
from model.training.world.shot import FOG, ROWS, STORM, Shot
from model.training.world.sprites import CELL_HEIGHT, CELL_WIDTH, FRAMES, SPRITES, atlas
from model.training.world.textures import DECK_ROW
from model.training.world.water import Ripples

_NAMES = NAMES["subject"]
NONE, BOAT, UFO, TRAIN, LIGHTHOUSE = (_NAMES.index(n) for n in ("none", "sailboat", "ufo", "train", "lighthouse"))


@dataclass(frozen=True)
class Ways:
    """How a subject is shown. size: scale of its cell; width: cell columns that it fills; cycles: of its animation a
    second; row: its centre's row in the air; sway: (across, up) in rows; period of the sway in s; foot: cell row of
    the foot of one that stands; aside: how far from the middle it keeps, as a share of the width."""

    size: float
    width: float
    cycles: float
    row: float
    sway: tuple[float, float]
    period: float
    foot: float = 90.0
    aside: float = 0.0


_LOOP = 1 / 3  # Hz: one frame a picture at 16 Hz

WAYS = {
    "none": Ways(1.0, 160, 0.0, 50, (0, 0), 9),
    "sailboat": Ways(0.70, 130, _LOOP / 2, 60, (14, 1.0), 13, 90),
    "balloon": Ways(0.78, 74, _LOOP / 2, 50, (12, 3.5), 10),
    "birds": Ways(0.92, 156, 2 * _LOOP, 48, (10, 3.0), 10),
    "train": Ways(0.87, 158, _LOOP, 90, (12, 0.0), 14, 94),
    "whale": Ways(0.80, 156, _LOOP, 50, (12, 3.5), 10),
    "ufo": Ways(0.66, 156, _LOOP, 44, (14, 3.0), 8),
    "lighthouse": Ways(0.86, 92, 0.0, 90, (0, 0.0), 9, 94, 0.17),
    "dragon": Ways(0.88, 158, _LOOP, 52, (12, 3.5), 9),
}
LAMP = 28.0  # cell rows from the lighthouse's centre up to its lamp
MARGIN = 0.96  # share of the width that a subject may fill, its sway included


@dataclass(frozen=True)
class Placed:
    """Of each picture: centre cx, cy and scale (N,), its drawing (N, 5, 96, 160), opacity (N, 1, 1, 1), subject
    id, its foot's row, and whether water there mirrors it (N,)."""

    cx: Tensor
    cy: Tensor
    scale: Tensor
    cells: Tensor
    alpha: Tensor
    kind: Tensor
    foot: Tensor
    wet: Tensor


def place(s: Shot) -> Placed:
    """Where the subject is in every picture."""
    kind = s.subject_id
    ways = [WAYS[n] for n in _NAMES]
    rows = [(w.size, w.width, w.cycles, w.row, *w.sway, w.period, w.foot, w.aside) for w in ways]
    size, broad, cycles, row, across, up, period, sole, aside = s.table(rows)[kind].unbind(1)
    across = across * min(1.0, s.vis / 256)
    scale = torch.minimum(size * s.look("size"), (s.vis * MARGIN - 2 * across) / broad)
    room = (s.vis * MARGIN - scale * broad).clamp_min(0) / 2 - across
    phase = s.look("phase") * 6.2832
    swing = torch.sin(6.2832 * s.t / period + phase)
    home = (s.look("home_x") - 0.5) * (1 - 1.5 * aside)
    home = (home + aside * torch.where(home < 0, -1.0, 1.0)) * s.vis
    cx = s.vis / 2 + torch.minimum(torch.maximum(home, -room), room) + across * swing
    bob = up * torch.sin(6.2832 * s.t / (period * 0.37) + phase * 2)
    floats = (s.water < ROWS).float()
    foot_row = torch.where(kind == TRAIN, torch.full_like(s.ground, DECK_ROW + 0.6), s.ground)
    grounded = ((kind == TRAIN) | (kind == LIGHTHOUSE)).float() + (kind == BOAT).float() * floats
    in_air = row + s.look("home_y") + bob
    stands = foot_row + bob - (sole - CELL_HEIGHT / 2) * scale
    cy = in_air + (stands - in_air) * grounded
    turn = (s.t * cycles + s.look("phase")) % 1
    sheet = s.table([SPRITES.index(n) if n in SPRITES else 0 for n in _NAMES]).long()[kind]
    frame = (turn * FRAMES).long() % FRAMES
    cells = held("atlas", atlas(), s.device).flatten(0, 1)[sheet * FRAMES + frame].float()
    alpha = (s.subject_alpha * (kind != NONE)).view(-1, 1, 1, 1)
    foot = torch.where(grounded > 0.5, foot_row + bob * 0.5, s.water)
    wet = floats * (1 - (kind == TRAIN).float())
    return Placed(cx, cy, scale, cells, alpha, kind, foot, wet)


def _look_up(s: Shot, at: Placed, x: Tensor, y: Tensor) -> Tensor:
    """(N, 5, H, W) of the sprite at picture places x, y."""
    turn = s.facing.sign() * s.facing.abs().clamp_min(0.1)
    turn = torch.where(turn == 0, torch.full_like(turn, 0.1), turn)
    u = (x - at.cx.view(-1, 1, 1)) / (at.scale * turn).view(-1, 1, 1) + CELL_WIDTH / 2 - 0.5
    v = (y - at.cy.view(-1, 1, 1)) / at.scale.view(-1, 1, 1) + CELL_HEIGHT / 2 - 0.5
    u, v = torch.broadcast_tensors(u, v)
    return stamp(at.cells, u, v)


def _lit(s: Shot, got: Tensor) -> tuple[Tensor, Tensor]:
    """(colour, alpha) of a sampled sprite: lit by the hour, but never so dark that its colour is lost."""
    alpha = got[:, :1]
    over_alpha = alpha.clamp_min(1e-3)
    light = 0.70 + 0.32 * (s.ambient + 0.72 * s.direct).clamp(0, 1.15)
    grey = light.mean(1, keepdim=True)
    light = grey + (light - grey) * 0.35  # a yellow balloon stays yellow in a red evening
    colour = (got[:, 1:2] * s.neutral + got[:, 2:3] * s.subject_colour) / over_alpha * light
    colour = over(colour, s.haze, 0.03 + 0.05 * s.w(FOG))
    night = s.hour[:, 3].view(-1, 1, 1, 1)
    rim = got[:, 4:] / over_alpha * (0.28 + 0.30 * night)
    colour = over(colour, (s.haze * 0.5 + 0.55).clamp(0, 1), rim.clamp(0, 0.6))
    glow = got[:, 3:4] / over_alpha * (0.25 + 0.75 * s.lamps)
    return over(colour, s.table((1.0, 0.90, 0.62)).view(1, 3, 1, 1).expand_as(colour), glow.clamp(0, 1)), alpha


def paint_subject(s: Shot, at: Placed, picture: Tensor, share: Tensor) -> Tensor:
    """Lay the subject, its opacity times `share` (N, 1, 1, 1), over the picture."""
    alpha = at.alpha * share
    if float(alpha.max()) <= 0:
        return picture
    picture = _beams(s, at, picture, alpha)
    got = _look_up(s, at, s.xs.view(1, 1, -1), s.ys.view(1, -1, 1))
    colour, cover = _lit(s, got)
    return over(picture, colour, cover * alpha)


def paint_reflection(s: Shot, at: Placed, ripples: Ripples | None, picture: Tensor) -> Tensor:
    """The subject mirrored in the water at its foot (or, in the air, at the waterline)."""
    if ripples is None:
        return picture
    waves = torch.zeros(len(s.t), 2, len(s.ys), len(s.xs), device=s.device)
    waves = waves.index_copy(0, ripples.index, ripples.height * ripples.rough)
    below = (s.ys.view(1, -1, 1) - at.foot.view(-1, 1, 1)).clamp_min(0)
    y = at.foot.view(-1, 1, 1) - below * 0.92 - waves[:, 0] * (0.6 + 0.13 * below)
    x = s.xs.view(1, 1, -1) + waves[:, 1] * (0.8 + 0.08 * below)
    colour, cover = _lit(s, _look_up(s, at, x, y))
    deep = s.colour(p.WATER)
    seen = (below > 0).float()[:, None] * at.wet.view(-1, 1, 1, 1) * at.alpha
    return over(picture, over(colour, deep, 0.34), cover * seen * 0.62)


def _beams(s: Shot, at: Placed, picture: Tensor, alpha: Tensor) -> Tensor:
    """The ufo's cone of light and the lighthouse's turning beam."""
    dusk = (0.25 + 0.75 * s.lamps) * (1 + 0.25 * s.w(STORM))
    scale = at.scale.view(-1, 1, 1, 1)
    x = s.xs.view(1, 1, 1, -1) - at.cx.view(-1, 1, 1, 1)
    y = s.ys.view(1, 1, -1, 1) - at.cy.view(-1, 1, 1, 1)
    down = y - 31 * scale
    wide = 18 * scale + down * 0.34
    cone = ((wide - x.abs()) / 2.5).clamp(0, 1) * (down > 0) * torch.exp(-down / 48)
    is_ufo = (at.kind == UFO).float().view(-1, 1, 1, 1)
    pale = s.table((0.92, 1.0, 0.86)).view(1, 3, 1, 1).expand_as(picture)
    picture = over(picture, pale, (cone * is_ufo * alpha * (0.10 + 0.48 * dusk)).clamp(0, 0.8))
    up = y + LAMP * scale
    angle = 6.2832 * (s.t * 0.14 + s.look("phase")).view(-1, 1, 1, 1)
    reach = torch.cos(angle)
    along = x * reach.sign()
    width = 5 * scale + along.clamp_min(0) * 0.17
    beam = ((width - (up - along * 0.05).abs()) / 2.0).clamp(0, 1) * (along > 0) * torch.exp(-along.clamp_min(0) / 95)
    beam = beam * reach.abs().sqrt() + torch.exp(-(x * x + up * up) / (150 * scale)) * (0.8 - 0.3 * reach.abs())
    is_tower = (at.kind == LIGHTHOUSE).float().view(-1, 1, 1, 1)
    warm = s.table((1.0, 0.95, 0.74)).view(1, 3, 1, 1).expand_as(picture)
    return over(picture, warm, (beam * is_tower * alpha * (0.30 + 0.55 * dusk)).clamp(0, 0.85))
