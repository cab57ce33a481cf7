"""What may be asked of a clip, and the one place where it is checked."""

from __future__ import annotations

import re
import secrets

import msgspec

from streamer.engine.info import ClipInfo, Lora
from streamer.engine.protocol import OpenClip, Ready
from streamer.session.errors import Invalid
from streamer.session.loras import Wanted, chosen
from streamer.session.spec import MAX_MOTION, MAX_SEED, number, prompt

DEFAULT_S = 4.0
"""OpenAI's."""
MIN_SIDE = 32
_SIZE = re.compile(r"(\d{1,5})\s*[x×]\s*(\d{1,5})", re.IGNORECASE)


class CreateClip(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A clip as it is asked for."""

    prompt: str | None = None
    model: str | None = None
    """The checkpoint's name; there is one a server."""
    seconds: float | None = None
    size: str | None = None
    """`WIDTHxHEIGHT` in pixels."""
    seed: int | None = None
    negative_prompt: str | None = None
    guidance_scale: float | None = None
    steps: int | None = None
    """Denoising steps: of the whole clip, or of each block where the checkpoint streams."""
    motion_score: int | None = None
    loras: Wanted | None = None
    """The whole set of adapters; None: those that new streams have."""


class ClipOrder(msgspec.Struct, frozen=True, kw_only=True):
    """A clip as it will be: checked, with every default filled in that the model doesn't fill in itself."""

    model: str
    prompt: str
    seconds: float
    frames: int
    rate_hz: float
    width: int
    height: int
    seed: int
    negative_prompt: str | None = None
    guidance_scale: float | None = None
    steps: int | None = None
    motion_score: int | None = None
    loras: tuple[Lora, ...] = ()
    image: bytes | None = None
    """PNG of this size: the picture it starts from."""

    def message(self, id: str, epoch: int, pictures_until: int) -> OpenClip:
        """What the worker is told."""
        return OpenClip(
            stream=id,
            epoch=epoch,
            prompt=self.prompt,
            seed=self.seed,
            height=self.height,
            width=self.width,
            frames=self.frames,
            pictures_until=pictures_until,
            negative_prompt=self.negative_prompt or "",
            steps=self.steps,
            guidance_scale=self.guidance_scale,
            motion_score=self.motion_score,
            loras=self.loras,
            image=self.image,
        )


def clip_order(wanted: CreateClip, ready: Ready) -> ClipOrder:
    """Check a clip against the model.

    Raises:
        Invalid: names the field and its limit.
    """
    model, info = ready.model, ready.model.clips
    if info is None:
        raise Invalid(f"{model.name} makes no clips", code="clips-unsupported", field="model")
    if wanted.model is not None and wanted.model != model.name:
        raise Invalid(f"this server's model is {model.name}", code="model-unknown", field="model", limit=[model.name])
    text = prompt(wanted.prompt, model)
    negative = prompt(wanted.negative_prompt, model, "negative_prompt") if wanted.negative_prompt else None
    longest_s = info.max_frames / info.rate_hz
    width, height = _size(wanted.size, info)
    if wanted.seconds is None:
        seconds = min(DEFAULT_S, longest_s, info.most_pictures(width, height) / info.rate_hz)
    else:
        seconds = number("seconds", wanted.seconds, 1 / info.rate_hz, longest_s)
    if wanted.guidance_scale is not None:
        number("guidance_scale", wanted.guidance_scale, 1.0, info.max_guidance_scale)
    if wanted.steps is not None:
        number("steps", wanted.steps, 1, info.max_steps)
    if wanted.motion_score is not None:
        number("motion_score", wanted.motion_score, 0, MAX_MOTION)
    frames = max(1, min(round(seconds * info.rate_hz), info.max_frames))
    _check_memory(width, height, frames, info)
    return ClipOrder(
        model=model.name,
        prompt=text,
        seconds=seconds,
        frames=frames,
        rate_hz=info.rate_hz,
        width=width,
        height=height,
        seed=number("seed", secrets.randbits(32) if wanted.seed is None else wanted.seed, 0, MAX_SEED),
        negative_prompt=negative,
        guidance_scale=wanted.guidance_scale,
        steps=wanted.steps,
        motion_score=wanted.motion_score,
        loras=chosen(wanted.loras, model),
    )


def _check_memory(width: int, height: int, frames: int, info: ClipInfo) -> None:
    """Raise `Invalid` for more pixels than the device has memory for; says what would do."""
    most = info.most_pictures(width, height)
    if frames <= most:
        return
    longest_s = most / info.rate_hz
    instead = f"{width}x{height} for {longest_s:.2f} s at most, or a smaller size" if longest_s else "a smaller size"
    raise Invalid(
        f"{frames} pictures of {width}x{height} are more than the device has memory for: {instead}",
        code="clip-too-large",
        field="seconds" if longest_s else "size",
        limit={"pixels_in_all": info.max_pixels_in_all, "seconds": longest_s},
    )


def _size(size: str | None, info: ClipInfo) -> tuple[int, int]:
    if size is None:
        return info.width, info.height
    match = _SIZE.fullmatch(size.strip())
    width, height = (int(match[1]), int(match[2])) if match else (0, 0)
    step, most = info.size_step, info.max_pixels
    if min(width, height) >= MIN_SIDE and width % step == height % step == 0 and width * height <= most:
        return width, height
    raise Invalid(
        f"size must be WIDTHxHEIGHT, both multiples of {step}, at least {MIN_SIDE}, and {most} pixels together at "
        f"most: {info.width}x{info.height}",
        code="size-unsupported",
        field="size",
        limit={"default": f"{info.width}x{info.height}", "multiple_of": step, "min_side": MIN_SIDE, "pixels": most},
    )
