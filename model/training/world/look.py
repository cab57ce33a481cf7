"""What differs from clip to clip beside the script: which painted variants, where the sun stands, phases."""

from __future__ import annotations

import random
from dataclasses import dataclass

import torch
from torch import Tensor

from model.training.world.palettes import CRYSTALS, FLOWERS
from model.training.world.scenes import LAYERS, VARIANTS
from model.training.world.script import Script
from model.training.world.textures import CLOUD_VARIANTS

FLASHES = 64


@dataclass(frozen=True)
class Look:
    """One clip's choices. Lengths are in picture rows (144 a picture), places across are shares of the width."""

    variants: tuple[int, ...]  # of each layer
    offsets: tuple[float, ...]  # columns of each layer's strip, then of three cloud strips and the viaduct
    flip: bool  # the sun stands on the right
    cloud: int
    sun_x: float
    sun_y: float
    moon_x: float
    planet_x: float
    planet_y: float
    planet_size: float
    planet_colour: tuple[float, float, float]
    home_x: float
    home_y: float
    size: float
    facing: float
    phase: float
    flower: tuple[float, float, float]
    crystal: tuple[float, float, float]
    warmth: tuple[float, float, float]
    flash_times: tuple[float, ...]
    wind: float


def draw_look(script: Script) -> Look:
    """The look that the script's seed stands for."""
    rng = random.Random(script.seed)
    flip = rng.random() < 0.5
    sun_x = rng.uniform(0.14, 0.44)
    moon_x = rng.uniform(0.14, 0.4)
    planet_x = rng.uniform(0.62, 0.84)
    if flip:
        sun_x, moon_x, planet_x = 1 - sun_x, 1 - moon_x, 1 - planet_x
    shift = rng.uniform(-0.03, 0.03)
    times, now = [], rng.uniform(0.1, 0.9)
    for _ in range(FLASHES):
        times.append(now)
        now += rng.uniform(1.5, 2.3)
    return Look(
        variants=tuple(rng.randrange(VARIANTS) for _ in range(LAYERS)),
        offsets=tuple(rng.uniform(0, 1024) for _ in range(LAYERS + 4)),
        flip=flip,
        cloud=rng.randrange(CLOUD_VARIANTS),
        sun_x=sun_x,
        sun_y=rng.uniform(-5, 5),
        moon_x=moon_x,
        planet_x=planet_x,
        planet_y=rng.uniform(30, 44),
        planet_size=rng.uniform(0.42, 0.6),
        planet_colour=rng.choice(
            ((0.95, 0.6, 0.3), (0.4, 0.8, 0.6), (0.8, 0.5, 0.9), (0.95, 0.5, 0.5), (0.5, 0.65, 1.0))
        ),
        home_x=rng.uniform(0.36, 0.64),
        home_y=rng.uniform(-5, 5),
        size=rng.uniform(0.92, 1.12),
        facing=rng.choice((-1.0, 1.0)),
        phase=rng.random(),
        flower=rng.choice(FLOWERS),
        crystal=rng.choice(CRYSTALS),
        warmth=(1 + shift, 1.0, 1 - shift),
        flash_times=tuple(times),
        wind=rng.uniform(2.0, 5.0) * rng.choice((-1, 1)),
    )


def column(looks: list[Look], field: str, device: torch.device) -> Tensor:
    """One field of every look as a float32 tensor (clips, ...)."""
    return torch.tensor([getattr(look, field) for look in looks], dtype=torch.float32, device=device)
