"""A shot: some pictures of some clips, with everything that the painters need, as tensors on the device.

Sizes: N = clips * pictures, clip by clip. Rows and columns are in units of 1/144 of the height, so the world looks
the same at any size; a wider picture shows more of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from model.training.world import palettes as p
from model.training.world.attributes import NAMES
from model.training.world.look import FLASHES, Look, column
from model.training.world.scenes import GROUND, HORIZON, NO_WATER, WATERLINE
from model.training.world.timeline import Timeline

ROWS = 144.0
ALIEN = NAMES["scene"].index("alien planet")
RAIN, SNOW, FOG, STORM = (NAMES["weather"].index(w) for w in ("rain", "snow", "fog", "storm"))
SINK = 130.0  # rows that the layers go down
BOLT_S = 0.75  # how long lightning stands, about three latent frames


@dataclass
class Shot:
    """Per picture: (N,) or (N, k); colours (N, 3, 1, 1). xs (W,), ys (H,): pixel centres in rows/columns."""

    clips: int
    pictures: int
    looks: list[Look]
    device: torch.device
    xs: Tensor
    ys: Tensor
    vis: float
    pixel: float
    t: Tensor
    hour: Tensor
    weather: Tensor
    scene: Tensor
    scene_id: Tensor
    slot: Tensor
    sink: Tensor
    camera: Tensor
    facing: Tensor
    subject_id: Tensor
    subject_alpha: Tensor
    water: Tensor
    horizon: Tensor
    ground: Tensor
    alien: Tensor
    sky: Tensor  # (N, 3 stops, 3)
    haze: Tensor
    ambient: Tensor
    direct: Tensor
    fog_colour: Tensor
    lamps: Tensor
    disc: Tensor
    flash: Tensor
    bolt: Tensor  # (N, 2): which bolt, how bright
    subject_colour: Tensor
    neutral: Tensor

    def w(self, weather: int) -> Tensor:
        """Weight of a weather, (N, 1, 1, 1)."""
        return self.weather[:, weather].view(-1, 1, 1, 1)

    def look(self, field: str) -> Tensor:
        """A field of the looks, for each picture: (N, ...)."""
        return column(self.looks, field, self.device).repeat_interleave(self.pictures, 0)

    def colour(self, table: object, weights: Tensor | None = None) -> Tensor:
        """Weights (N, k; default the hours) times a table (k, 3) -> (N, 3, 1, 1)."""
        w = self.hour if weights is None else weights
        return (w @ self.table(table)).view(-1, 3, 1, 1)

    def table(self, values: object) -> Tensor:
        """Numbers as a float32 tensor on the device."""
        return _table(values, self.device)


def _table(values: object, device: torch.device) -> Tensor:
    return torch.tensor(values, dtype=torch.float32, device=device)


def _grey(sky: Tensor, weather: Tensor, hour: Tensor) -> Tensor:
    """Sky stops (N, 3, 3) under the weather."""
    table = partial(_table, device=sky.device)
    lum = (sky * table((0.3, 0.55, 0.15))).sum(-1, keepdim=True)
    dusk = (hour[:, 0] + hour[:, 2])[:, None, None]
    lum = lum * (1 + (table(p.DUSK_GREY) - 1) * dusk)
    grey = weather @ table(p.GREYING)
    bright = (hour[:, :, None] * weather[:, None, :] * table(p.SKY_BRIGHT)).sum((1, 2))
    tint = 1 + (table(p.STORM_TINT) - 1) * (weather[:, STORM, None] + 0.6 * weather[:, RAIN, None])
    return (sky + (lum - sky) * grey[:, None, None]) * bright[:, None, None] * tint[:, None]


def _flashes(t: npt.NDArray[np.float32], looks: list[Look], pictures: int) -> tuple[Tensor, Tensor]:
    """Lightning: (N,) light in the sky, (N, 2) index and brightness of the bolt."""
    starts = np.array([look.flash_times for look in looks], np.float32).repeat(pictures, 0)
    since = t[:, None] % starts[:, -1:] - starts
    since = np.where(since < 0, 99.0, since)
    last = since.argmin(1)
    age = since[np.arange(len(t)), last]
    light = 0.8 * np.clip((age + 0.07) / 0.15, 0, 1) * np.exp(-np.clip(age - 0.3, 0, None) / 0.35)
    bright = np.clip((BOLT_S - age) / 0.2, 0.0, 1.0)
    return torch.from_numpy(light), torch.from_numpy(np.stack([last.astype(np.float32) % FLASHES, bright], 1))


def make_shot(
    line: Timeline, looks: list[Look], clips: slice, span: slice, height: int, width: int, device: torch.device
) -> Shot:
    """The pictures `span` of the clips `clips`."""

    def get(name: str) -> Tensor:
        a = getattr(line, name)[clips, span]
        return torch.from_numpy(np.ascontiguousarray(a.reshape(-1, *a.shape[2:]))).to(device)

    table = partial(_table, device=device)
    looks = looks[clips]
    t = line.seconds[clips, span]
    pictures = t.shape[1]
    hour, weather, scene, rise = get("hour"), get("weather"), get("scene"), get("rise")
    names = NAMES["scene"]
    sink = (1 - rise) * SINK
    scene_id = get("scene_id")
    alien = scene[:, ALIEN]
    sky = torch.einsum("nh,hsc->nsc", hour, table(p.SKY))
    sky = sky + (torch.einsum("nh,hsc->nsc", hour, table(p.ALIEN_SKY)) - sky) * alien[:, None, None]
    sky = _grey(sky, weather, hour)
    flash, bolt = _flashes(t.reshape(-1), looks, pictures)
    flash = flash.to(device) * weather[:, STORM]
    sky = sky + flash[:, None, None] * table((0.11, 0.13, 0.21))
    ambient_bright = (hour[:, :, None] * weather[:, None, :] * table(p.AMBIENT_BRIGHT)).sum((1, 2))
    ambient = hour @ table(p.AMBIENT) * ambient_bright[:, None] + flash[:, None] * table((0.15, 0.17, 0.25))
    direct = hour @ table(p.DIRECT) * (weather @ table(p.DIRECT_BRIGHT))[:, None]
    gloom = weather[:, RAIN] + weather[:, STORM] + 0.5 * weather[:, FOG]
    lamps = (hour @ table(p.LAMPS) + 0.45 * gloom).clamp(0, 1)
    fog_colour = hour @ table(p.FOG)
    fog_colour = fog_colour + (sky[:, 2] - fog_colour) * 0.5 * alien[:, None]
    warm = table([look.warmth for look in looks]).repeat_interleave(pictures, 0)
    pixel = ROWS / height
    water_rows = table([WATERLINE.get(n, NO_WATER) for n in names])[scene_id]
    return Shot(
        clips=len(looks), pictures=pictures, looks=looks, device=device,
        xs=(torch.arange(width, device=device) + 0.5) * pixel, ys=(torch.arange(height, device=device) + 0.5) * pixel,
        vis=width * pixel, pixel=pixel, t=get("seconds"), hour=hour, weather=weather, scene=scene, scene_id=scene_id,
        slot=get("slot"), sink=sink, camera=get("camera_px"), facing=get("facing"), subject_id=get("subject_id"),
        subject_alpha=get("subject_alpha"), water=water_rows + sink * 0.6,
        horizon=scene @ table([HORIZON[n] for n in names]), ground=scene @ table([GROUND[n] for n in names]),
        alien=alien.view(-1, 1, 1, 1), sky=sky * warm[:, None], haze=(sky[:, 2] * warm).view(-1, 3, 1, 1),
        ambient=(ambient * warm).view(-1, 3, 1, 1), direct=direct.view(-1, 3, 1, 1),
        fog_colour=fog_colour.view(-1, 3, 1, 1), lamps=lamps.view(-1, 1, 1, 1),
        disc=(weather @ table(p.DISC)).view(-1, 1, 1, 1), flash=flash.view(-1, 1, 1, 1),
        bolt=bolt.to(device) * torch.stack((torch.ones_like(flash), weather[:, STORM]), 1),
        subject_colour=(get("colour") @ table(p.SUBJECT_COLOURS)).view(-1, 3, 1, 1),
        neutral=(get("colour") @ table(p.NEUTRALS)).view(-1, 3, 1, 1),
    )  # fmt: skip
