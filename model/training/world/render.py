"""Scripts to pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from model.training.world.attributes import index
from model.training.world.captions import Generator, as_random
from model.training.world.land import NEAR, Land, paint_layer, paint_viaduct
from model.training.world.look import draw_look
from model.training.world.script import Script
from model.training.world.shot import ROWS, Shot, make_shot
from model.training.world.sky import paint_sky
from model.training.world.subject import BOAT, LIGHTHOUSE, TRAIN, paint_reflection, paint_subject, place
from model.training.world.timeline import timeline
from model.training.world.water import make_ripples, paint_water
from model.training.world.weather import paint_weather

CHUNK_PIXELS = {"cuda": 320 * 144 * 256, "cpu": 12 * 144 * 256}
MAX_WIDTH_ROWS = 1000


@torch.no_grad()
def render(
    scripts: Sequence[Script],
    pictures: int,
    *,
    height: int = 144,
    width: int = 256,
    rate_hz: float = 16.0,
    device: torch.device | str = "cpu",
    generator: Generator | None = None,
    first_picture: int = 0,
    chunk_pixels: int | None = None,
) -> Tensor:
    """Pictures first_picture .. first_picture + pictures - 1 of each script.

    Returns uint8 (clips, pictures, 3, height, width) on `device`. The look of a clip follows from its script's seed;
    with `generator` a new look is drawn. Painted in float32 whatever the autocast state, in chunks of at most
    chunk_pixels pixels. ValueError for a size or count that can't be rendered.
    """
    if not scripts or pictures < 1 or first_picture < 0:
        raise ValueError("render needs at least one script and one picture, first_picture >= 0")
    if min(height, width) < 8 or width * ROWS / height > MAX_WIDTH_ROWS:
        raise ValueError(f"cannot render {height} x {width}: sides >= 8, width at most 6 heights")
    device = torch.device(device)
    if generator is not None:
        rng = as_random(generator)
        scripts = [replace(s, seed=rng.getrandbits(62)) for s in scripts]
    looks = [draw_look(s) for s in scripts]
    facing = np.array([look.facing for look in looks], np.float32)
    line = timeline(scripts, pictures, rate_hz, facing, first_picture)
    budget = max(1, (chunk_pixels or CHUNK_PIXELS.get(device.type, CHUNK_PIXELS["cpu"])) // (height * width))
    clip_step, picture_step = max(1, budget // pictures), min(pictures, budget)
    extra = int(width * ROWS / height) + 3
    out = torch.empty(len(scripts), pictures, 3, height, width, dtype=torch.uint8, device=device)
    with torch.autocast(device.type, enabled=False):
        for c in range(0, len(scripts), clip_step):
            clips = slice(c, min(c + clip_step, len(scripts)))
            land = Land(looks[clips], [_slots(s) for s in scripts[clips]], device, extra)
            for p in range(0, pictures, picture_step):
                span = slice(p, min(p + picture_step, pictures))
                shot = make_shot(line, looks, clips, span, height, width, device)
                frame = paint(shot, land)
                shape = out[clips, span].shape
                out[clips, span] = (frame * 255 + 0.5).clamp(0, 255).to(torch.uint8).view(shape)
    return out


def _slots(script: Script) -> list[int]:
    """The scenes of a clip in order."""
    return [
        index("scene", a) for a in (script.start["scene"], *(c["scene"] for _, c in script.changes if "scene" in c))
    ]


def paint(s: Shot, land: Land) -> Tensor:
    """(N, 3, H, W) float32, about 0..1, back to front."""
    picture = paint_sky(s)
    for layer in range(NEAR):
        picture = paint_layer(s, land, layer, picture)
    ripples = make_ripples(s)
    at = place(s)
    picture = paint_reflection(s, at, ripples, paint_water(s, ripples, picture))
    train = (at.kind == TRAIN).float().view(-1, 1, 1, 1)
    behind = ((at.kind == BOAT) | (at.kind == LIGHTHOUSE)).float().view(-1, 1, 1, 1)
    picture = paint_subject(s, at, picture, behind)
    picture = paint_layer(s, land, NEAR, picture)
    picture = paint_viaduct(s, land, train * at.alpha, picture)
    picture = paint_subject(s, at, picture, 1 - behind)
    return _grade(paint_weather(s, picture))


def _grade(picture: Tensor) -> Tensor:
    """A little more colour and contrast."""
    picture = picture.clamp(0, 1)
    lum = picture.mean(1, keepdim=True)
    picture = lum + (picture - lum) * 1.10
    return picture + 0.10 * (picture - 0.45) * (1 - (2 * picture - 1).abs()).clamp_min(0)
