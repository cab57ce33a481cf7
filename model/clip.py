"""One clip as a job of small steps, so that a server can run it between the steps of its live streams.

    clip = Clip(checkpoint, ClipSpec(prompt="the sea at night", height=144, width=256, frames=81))
    while not clip.finished:
        clip.step()
        for pictures in clip.pictures():  # uint8 (n, height, width, 3)
            ...

How its latents are made is the checkpoint's own way (`Checkpoint.kind`):

* a checkpoint that streams (`Kind.STREAM`, `Kind.LONGSANA`): a `LatentStream`, cut after the clip's last picture. So
  a clip is what a live stream of the same seed, prompt and size would have shown first. A LongSANA clip differs in
  its first block, which takes the latent frames that don't fill a block, as its authors make clips;
* a bidirectional one (`Kind.CLIP`): all latent frames at once with the checkpoint's scheduler, see `model.denoise`.
  Equal to `SanaVideoPipeline` (or, with an image, `SanaImageToVideoPipeline`) with
  `generator=torch.Generator().manual_seed(seed)`. With the LTX-2 VAE (720p) the first unit of decoding decodes all of
  it, the others only give it out: that VAE can't do parts.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from model.adapted import NO_ADAPTERS, AdapterSet
from model.checkpoint import Checkpoint
from model.denoise import WholeClip
from model.image_start import first_latent
from model.passes import Text
from model.pictures import to_pictures
from model.positions import PICTURES_PER_LATENT, first_picture, latent_of
from model.sampler import spaced_timesteps
from model.schedule import clip_scheduler
from model.state import StatePool
from model.stream import LatentStream, advance
from model.stream_config import StreamConfig
from model.transformer import SanaVideoTransformer3DModel
from model.vae import StreamingVAE
from model.weights import Kind
from model.whole_vae import WholeVAE

MAX_STEPS = 1000
MAX_GUIDANCE_SCALE = 50.0
MAX_MOTION_SCORE = 1000
MAX_SEED = 2**64 - 1

Unit = Literal["pass", "decode"]


@dataclass(frozen=True, kw_only=True)
class ClipSpec:
    """What a clip shall be. None: the checkpoint's own."""

    prompt: str
    negative_prompt: str = ""
    """What guidance leads away from."""
    seed: int = 0
    height: int | None = None
    """Height and width of the pictures in pixels."""
    width: int | None = None
    frames: int = 81
    """Pictures."""
    steps: int | None = None
    """Denoising passes: of the whole clip, or, with a checkpoint that streams, of each block."""
    guidance_scale: float | None = None
    """1 is no guidance; anything else takes two rows a pass. Bidirectional checkpoints are guided above 1 only."""
    motion_score: int | None = None
    image: Tensor | None = None
    """The first picture, uint8 (height, width, 3), of exactly the clip's size: see `model.image_start`."""


class Maker(Protocol):
    """Makes a clip's latents, a transformer pass a step."""

    passes_left: int
    """Steps until all latents are clean."""

    def step(self) -> Tensor | None:
        """One pass; gives latents (1, channels, n, height, width), float32, that are clean now, in order."""
        ...

    def close(self) -> None:
        """Free what it holds; again does nothing."""
        ...


class Clip:
    """One clip under way.

    Args:
        checkpoint: what makes it.
        spec: what it shall be.
        loras: adapters in force, see `model.lora`.
        pool: where the state of a checkpoint that streams lives; None makes one of its own.
        bucket: rows of a pass, see `model.stream.advance`.

    Raises:
        ValueError: names the field and its limit.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        spec: ClipSpec,
        *,
        loras: AdapterSet = NO_ADAPTERS,
        pool: StatePool | None = None,
        bucket: int | None = None,
    ) -> None:
        self.spec = spec = checked(checkpoint, spec)
        self._vae = checkpoint.vae
        self._frames = spec.frames
        self._maker = maker_of(checkpoint, spec, loras=loras, pool=pool, bucket=bucket)
        self._decoder = _WholeDecoder(self._vae) if isinstance(self._vae, WholeVAE) else _Decoder(self._vae)
        self._latents = latent_frames(spec.frames, self._vae.temporal_factor)
        self._clean: deque[Tensor] = deque()  # latent frames (1, channels, 1, h, w), not yet decoded
        self._pictures: deque[Tensor] = deque()
        self._decoded = 0
        self.total = self._maker.passes_left + self._latents
        """Units of work: transformer passes and decoded latent frames."""
        self.done = 0
        """Units of work that are done."""

    @property
    def finished(self) -> bool:
        """Whether every picture is decoded; some may not be given out yet."""
        return self.done == self.total

    @property
    def unit(self) -> Unit:
        """What the next step is: a transformer pass, or decoding a latent frame."""
        return "decode" if self._clean else "pass"

    @torch.no_grad()
    def step(self) -> None:
        """Do one unit of work.

        Raises:
            RuntimeError: it is finished or closed.
            FloatingPointError: the latents are not finite numbers.
        """
        if self.finished:
            raise RuntimeError("the clip is finished")
        if self._clean:
            pictures = self._decoder.next(self._clean)
            self._pictures.append(pictures[: self._frames - self._decoded].cpu())
            self._decoded += len(pictures)
        else:
            latents = self._maker.step()
            if latents is not None:
                if not bool(latents.isfinite().all()):
                    raise FloatingPointError("the clip's latents are not finite numbers")
                self._clean.extend(latents.split(1, dim=2))
        self.done += 1
        if self.finished:
            self._free()

    def pictures(self) -> Iterator[Tensor]:
        """Pictures decoded since they were last asked for: uint8 (n, height, width, 3) on the CPU, n of 1 to 8."""
        while self._pictures:
            yield self._pictures.popleft()

    def close(self) -> None:
        """End it, finished or not, and free what it holds; pictures not given out are dropped. Again does nothing."""
        self._free()
        self._pictures.clear()
        self.total = self.done

    def _free(self) -> None:
        self._maker.close()
        self._decoder.close()
        self._clean.clear()


class _Decoder:
    """Decodes a clip latent frame by latent frame."""

    def __init__(self, vae: StreamingVAE) -> None:
        self._vae, self._state = vae, vae.new_state()

    def next(self, clean: deque[Tensor]) -> Tensor:
        """Take the first of the clean latent frames; its pictures, uint8 (n, height, width, 3)."""
        return self._vae.decode(clean.popleft(), self._state)

    def close(self) -> None:
        """Free what it holds."""
        self._state.reset()


class _WholeDecoder:
    """Decodes a whole clip at the first call, and gives it out latent frame by latent frame."""

    def __init__(self, vae: WholeVAE) -> None:
        self._vae = vae
        self._samples: Tensor | None = None
        self._latent = 0

    def next(self, clean: deque[Tensor]) -> Tensor:
        """As `_Decoder`; the first call needs all of the clip to be clean."""
        if self._samples is None:
            self._samples = self._vae.decode_samples(torch.cat(list(clean), dim=2))
        clean.popleft()
        first, end = (first_picture(latent, self._vae.temporal_factor) for latent in (self._latent, self._latent + 1))
        self._latent += 1
        return to_pictures(self._samples[:, :, first:end])

    def close(self) -> None:
        """Free what it holds."""
        self._samples = None


class StreamMaker:
    """A clip of a checkpoint that streams: the first latent frames of a `LatentStream`.

    Args:
        transformer: the network.
        config: how the checkpoint streams.
        latents: latent frames wanted.
        steps: denoising passes of each block; None for the config's own, others are spaced over its flow schedule.
        longsana: whether the first block takes what doesn't fill a block.
        bucket: rows of a pass.
        options: further arguments of `LatentStream`.

    Raises:
        ValueError: as `LatentStream`.
    """

    def __init__(
        self,
        transformer: SanaVideoTransformer3DModel,
        config: StreamConfig,
        *,
        latents: int,
        steps: int | None = None,
        longsana: bool = False,
        bucket: int | None = None,
        **options: Any,
    ) -> None:
        if steps is not None and steps != len(config.timesteps):
            config = replace(config, timesteps=spaced_timesteps(steps, config.shift), first_block_timesteps=None)
        if longsana:
            config = replace(config, first_block_latent_frames=longsana_first_block(latents, config.block))
        self._left, self._bucket = latents, bucket
        self.stream = LatentStream(transformer, config=config, **options)
        config = self.stream.config
        if options.get("image") is None:
            first, passes = config.first_block_latent_frames, len(config.first_block_timesteps or config.timesteps)
        else:
            first, passes = 1, 1  # given, not denoised, but a step all the same
        later = max(0, -((first - latents) // config.block))
        self.passes_left = passes + later * (len(config.timesteps) + 1)

    def step(self) -> Tensor | None:
        """See `Maker`."""
        (block,) = advance([self.stream], self._bucket)
        self.passes_left -= 1
        if block is None:
            return None
        latents = block[:, :, : self._left]
        self._left -= latents.shape[2]
        return latents

    def close(self) -> None:
        """See `Maker`."""
        self.stream.release()


def longsana_first_block(latents: int, block: int) -> int:
    """Latent frames of a LongSANA clip's first block: whole blocks, and what is left over, as its authors do."""
    return latents if latents < 2 * block else block + latents % block


def latent_frames(frames: int, per_latent: int = PICTURES_PER_LATENT) -> int:
    """Latent frames that hold so many pictures."""
    return latent_of(frames - 1, per_latent) + 1


def maker_of(
    checkpoint: Checkpoint,
    spec: ClipSpec,
    *,
    loras: AdapterSet = NO_ADAPTERS,
    pool: StatePool | None = None,
    bucket: int | None = None,
) -> Maker:
    """What makes the latents of a clip, spec as `checked` gives it."""
    assert spec.height is not None
    assert spec.width is not None
    vae, frames = checkpoint.vae, latent_frames(spec.frames, checkpoint.vae.temporal_factor)
    height, width = spec.height // vae.spatial_factor, spec.width // vae.spatial_factor
    image = None if spec.image is None else first_latent(vae, spec.image, spec.height, spec.width)
    scale = checkpoint.config.guidance_scale if spec.guidance_scale is None else spec.guidance_scale
    text, mask = checkpoint.text.encode(spec.prompt, spec.motion_score)
    bidirectional = checkpoint.kind is Kind.CLIP
    guided = scale > 1 if bidirectional else scale != 1
    negative = checkpoint.text.encode_negative(spec.negative_prompt) if guided else None
    if bidirectional:
        return WholeClip(
            checkpoint.scheduler or clip_scheduler(),
            text=Text.of(checkpoint.transformer, text, mask, loras),
            negative=None if negative is None else Text.of(checkpoint.transformer, *negative, loras),
            guidance_scale=scale,
            steps=spec.steps or len(checkpoint.config.timesteps),
            shape=(frames, height, width),
            seed=spec.seed,
            image=image,
        )
    negative_text, negative_mask = negative or (None, None)
    return StreamMaker(
        checkpoint.transformer,
        checkpoint.config,
        latents=frames,
        steps=spec.steps,
        longsana=checkpoint.kind is Kind.LONGSANA,
        bucket=bucket,
        text=text,
        text_mask=mask,
        height=height,
        width=width,
        guidance_scale=scale,
        negative_text=negative_text,
        negative_mask=negative_mask,
        seed=spec.seed,
        image=image,
        loras=loras,
        pool=pool,
    )


def checked(checkpoint: Checkpoint, spec: ClipSpec) -> ClipSpec:
    """The spec with its size filled in.

    Raises:
        ValueError: names the field and its limit.
    """
    height = checkpoint.config.height if spec.height is None else spec.height
    width = checkpoint.config.width if spec.width is None else spec.width
    _, patch_height, patch_width = checkpoint.transformer.config.patch_size
    for name, pixels, patch in (("height", height, patch_height), ("width", width, patch_width)):
        unit = checkpoint.vae.spatial_factor * patch
        if pixels < unit or pixels % unit:
            raise ValueError(f"{name}: {pixels} is not allowed, must be a multiple of {unit}")
    _between("frames", spec.frames, 1, None)
    _between("steps", spec.steps, 1, MAX_STEPS)
    _between("guidance_scale", spec.guidance_scale, 0, MAX_GUIDANCE_SCALE)
    _between("motion_score", spec.motion_score, 0, MAX_MOTION_SCORE)
    _between("seed", spec.seed, 0, MAX_SEED)
    if not spec.prompt.strip():
        raise ValueError("prompt: must not be empty")
    image = spec.image
    if image is not None and (image.dtype != torch.uint8 or tuple(image.shape) != (height, width, 3)):
        found = f"{str(image.dtype).removeprefix('torch.')} {tuple(image.shape)}"
        raise ValueError(f"image: {found} is not allowed, must be uint8 ({height}, {width}, 3)")
    return replace(spec, height=height, width=width)


def _between(name: str, value: float | None, low: float, high: float | None) -> None:
    if value is None or (low <= value and (high is None or value <= high)):
        return
    limit = f"at least {low:g}" if high is None else f"{low:g} to {high:g}"
    raise ValueError(f"{name}: {value} is not allowed, must be {limit}")
