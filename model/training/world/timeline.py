"""Scripts as numbers over time: blend weights, fades and the camera's way, for each (clip, picture).

Everything starts at the first picture of its block, already visible in that picture, and is over soon: a steer
must show within a second.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from model.training.world.attributes import NAMES, index
from model.training.world.script import Script

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]

BLEND_S = 0.5  # time of day, weather, colour, camera
SCENE_S = 0.35  # layers sink, then as long again to rise
FADE_S = 0.3  # subject out, then as long again in
CAMERA_PX_S = 26.0  # of the nearest layer, in picture pixels at height 144


@dataclass(frozen=True)
class Timeline:
    """Arrays of (clips, pictures, ...). Weights sum to 1 over their last axis.

    seconds: time of the picture. hour, weather, colour, scene: blend weights over the bank's values.
    scene_id, slot: the scene whose layers stand, and how many scenes came before. rise: 0 sunk, 1 risen.
    subject_id, subject_alpha: who is shown and how opaque. camera_px: way of the nearest layer. facing: -1 left,
    1 right, between while turning.
    """

    seconds: Floats
    hour: Floats
    weather: Floats
    colour: Floats
    scene: Floats
    scene_id: Ints
    slot: Ints
    rise: Floats
    subject_id: Ints
    subject_alpha: Floats
    camera_px: Floats
    facing: Floats


def smooth(x: Floats) -> Floats:
    """Smoothstep of x clipped to 0..1."""
    x = np.clip(x, 0.0, 1.0)
    return (x * x * (3.0 - 2.0 * x)).astype(np.float32)


def _changes(script: Script, key: str) -> list[tuple[int, int]]:
    """(first picture, index of the new value) for each change of `key`."""
    return [(script.first_picture(b), index(key, c[key])) for b, c in script.changes if key in c]


def _weights(script: Script, key: str, seconds: Floats, rate_hz: float, duration: float = BLEND_S) -> Floats:
    """(pictures, values) blend weights."""
    eye = np.eye(len(NAMES[key]), dtype=np.float32)
    w = np.repeat(eye[index(key, script.start[key])][None], len(seconds), 0)
    for picture, new in _changes(script, key):
        a = smooth((seconds * rate_hz - picture + 1.0) / (duration * rate_hz))[:, None]
        w = w * (1.0 - a) + eye[new] * a
    return w


def _switch(script: Script, key: str, seconds: Floats, rate_hz: float, half_s: float) -> tuple[Ints, Ints, Floats]:
    """(value, number of switches before, level 0..1): the old value goes down for half_s, the new one comes up."""
    value = np.full(len(seconds), index(key, script.start[key]), np.int64)
    count = np.zeros(len(seconds), np.int64)
    level = np.ones(len(seconds), np.float32)
    for picture, new in _changes(script, key):
        since = (seconds * rate_hz - picture + 1.0) / (half_s * rate_hz)
        begun, over = since > 0.5 / (half_s * rate_hz), since >= 1.0
        up = np.clip(np.where(over, since - 1.0, 1.0 - since), 0.0, 1.0)
        level = np.where(begun, 1.0 - (1.0 - up) ** 2, level)
        value = np.where(over, new, value)
        count = count + over
    return value, count, level.astype(np.float32)


def _camera(script: Script, seconds: Floats, rate_hz: float, facing: float) -> tuple[Floats, Floats]:
    """(way of the nearest layer in px, facing -1..1). Negative is left."""
    signs = (0.0, -1.0, 1.0)
    changes = _changes(script, "camera")
    last = round(float(seconds[-1]) * rate_hz) + 1
    clock = (np.arange(last) / rate_hz).astype(np.float32)
    weights = _weights(script, "camera", clock, rate_hz)
    speed = weights @ np.array(signs, np.float32)
    way = np.cumsum(speed) * CAMERA_PX_S / rate_hz
    turn = np.full(last, signs[index("camera", script.start["camera"])] or facing, np.float32)
    for picture, new in changes:
        if signs[new]:
            a = smooth((clock * rate_hz - picture + 1.0) / (BLEND_S * rate_hz))
            turn = turn * (1.0 - a) + signs[new] * a
    shown = np.clip(np.rint(seconds * rate_hz).astype(np.int64), 0, last - 1)
    return way[shown].astype(np.float32), turn[shown].astype(np.float32)


def timeline(
    scripts: Sequence[Script], pictures: int, rate_hz: float, facing: Floats, first_picture: int = 0
) -> Timeline:
    """Pictures first_picture.. of every script. facing: (clips,) -1 or 1, for a camera that stands still."""
    seconds = ((np.arange(pictures) + first_picture) / rate_hz).astype(np.float32)
    weights = {
        key: np.stack([_weights(s, key, seconds, rate_hz) for s in scripts])
        for key in ("time of day", "weather", "colour")
    }
    scene = np.stack([_weights(s, "scene", seconds, rate_hz, 2 * SCENE_S) for s in scripts])
    scenes = [_switch(s, "scene", seconds, rate_hz, SCENE_S) for s in scripts]
    subjects = [_switch(s, "subject", seconds, rate_hz, FADE_S) for s in scripts]
    cameras = [_camera(s, seconds, rate_hz, float(f)) for s, f in zip(scripts, facing, strict=True)]
    return Timeline(
        seconds=np.repeat(seconds[None], len(scripts), 0),
        hour=weights["time of day"],
        weather=weights["weather"],
        colour=weights["colour"],
        scene=scene,
        scene_id=np.stack([s[0] for s in scenes]),
        slot=np.stack([s[1] for s in scenes]),
        rise=np.stack([s[2] for s in scenes]),
        subject_id=np.stack([s[0] for s in subjects]),
        subject_alpha=np.stack([s[2] for s in subjects]),
        camera_px=np.stack([c[0] for c in cameras]),
        facing=np.stack([c[1] for c in cameras]),
    )
