"""One clip inside the worker: opened, then made a unit at a time, in the time that streams leave."""

from __future__ import annotations

import io
import time
from collections import deque
from collections.abc import Callable, Iterator

from PIL import Image

from model.checkpoint import Checkpoint
from model.clip import MAX_GUIDANCE_SCALE, Clip, ClipSpec, latent_frames, longsana_first_block
from model.image_start import picture_tensor
from model.positions import first_picture
from model.weights import Kind
from streamer.engine.info import ClipInfo
from streamer.engine.protocol import ClipDone, ClipPictures, ClipProgress, Message, OpenClip, Steer
from streamer.engine.scheduler import Costs, Unit
from streamer.engine.worker_models import Models, StreamError

MAX_CLIP_S = 60.0
"""A checkpoint that streams would go on for ever; a job must end."""
MAX_CLIP_STEPS = 100
KEPT_TIMES = 9
PATIENCE_S = 5.0
"""After this long without a unit the middle one of the times kept counts, not the worst: one stall of the machine
must not stop a clip for good."""


def clip_info(checkpoint: Checkpoint, max_pixels_in_all: int | None = None) -> ClipInfo:
    """What clips the checkpoint makes, for the server; of so many pixels in all at most, None for no such bound."""
    config, transformer = checkpoint.config, checkpoint.transformer.config
    _, patch_height, patch_width = transformer.patch_size
    return ClipInfo(
        height=config.height,
        width=config.width,
        size_step=checkpoint.vae.spatial_factor * max(patch_height, patch_width),
        max_pixels=config.height * config.width,
        max_pixels_in_all=max_pixels_in_all,
        rate_hz=config.rate_hz,
        max_frames=_most_frames(checkpoint),
        steps=len(config.timesteps),
        max_steps=MAX_CLIP_STEPS,
        max_guidance_scale=MAX_GUIDANCE_SCALE,
        guidance_scale=config.guidance_scale,
    )


def _most_frames(checkpoint: Checkpoint) -> int:
    """Pictures of the longest clip: as many as a bidirectional checkpoint was trained for, a minute of another."""
    config = checkpoint.config
    if checkpoint.kind is Kind.CLIP:
        return first_picture(config.first_block_latent_frames, checkpoint.vae.temporal_factor)
    return int(MAX_CLIP_S * config.rate_hz)


class UnitTimes:
    """What the next unit of one kind is expected to take, in seconds: cautious, but not for ever.

    Args:
        prior_s: Expected before one was seen.
    """

    def __init__(self, prior_s: float) -> None:
        self._prior_s = prior_s
        self._seen: deque[float] = deque(maxlen=KEPT_TIMES)

    def saw(self, took_s: float) -> None:
        """One unit took so long."""
        self._seen.append(took_s)

    def expected_s(self, patient: bool) -> float:
        """The worst of the last units; the middle one where nothing ran for a while (`patient`)."""
        if not self._seen:
            return self._prior_s
        return sorted(self._seen)[len(self._seen) // 2] if patient else max(self._seen)


class WorkerClip:
    """A clip under way. Any exception of its methods ends it, and it alone.

    Args:
        models: What makes it.
        message: As received.
        costs: What steps of streams take: the first guess at what its own will.
        text_s: What encoding a prompt takes.
        clock: Seconds, monotonic.
    """

    def __init__(
        self,
        models: Models,
        message: OpenClip,
        costs: Costs,
        text_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.id, self.epoch = message.stream, message.epoch
        self._models, self._message, self._clock = models, message, clock
        checkpoint = models.checkpoint
        self._clip: Clip | None = None
        self._sent = 0
        self._until = message.pictures_until
        share = message.height * message.width / (checkpoint.config.height * checkpoint.config.width)
        decode_s, rows = costs.decode_s * share, _rows(checkpoint, message)
        self._times = {
            # Opening it encodes its texts and, about as dear as decoding it, its picture.
            "open": UnitTimes(rows * text_s + (0.0 if message.image is None else decode_s)),
            "pass": UnitTimes(costs.pass_s * share * rows * _longest(checkpoint, message)),
            "decode": UnitTimes(decode_s),
        }
        self._ran_s = clock()
        self._told_units = 0

    def unit(self) -> Unit | None:
        """Its next unit of work; None while it has no credit. The first one opens it: text, image, state."""
        if self._sent >= self._until:
            return None
        times = self._times[self._clip.unit if self._clip is not None else "open"]
        return Unit(self.id, times.expected_s(self._clock() - self._ran_s > PATIENCE_S))

    def credit(self, pictures_until: int) -> None:
        """Pictures below this may be sent."""
        self._until = max(self._until, pictures_until)

    def step(self, synchronize: Callable[[], None]) -> Iterator[Message]:
        """Do one unit of work; what the server is to be told of it.

        Args:
            synchronize: Waits for the device, so that times mean something.

        Raises:
            StreamError: the clip can't be made; the text says why, for people.
            FloatingPointError, RuntimeError: as `Clip.step`, or the device.
        """
        start_s = self._clock()
        if self._clip is None:
            loras = self._models.loras(Steer(at_latent=0, prompt=self._message.prompt, loras=self._message.loras))
            try:
                self._clip = Clip(self._models.checkpoint, _spec(self._message), loras=loras)
            except ValueError as error:
                raise StreamError(str(error)) from error
        else:
            times = self._times[self._clip.unit]
            self._clip.step()
            synchronize()
            times.saw(self._clock() - start_s)
        self._ran_s = self._clock()
        for pictures in self._clip.pictures():
            rgb = [picture.tobytes() for picture in pictures.numpy()]
            yield ClipPictures(stream=self.id, epoch=self.epoch, first_picture=self._sent, rgb=rgb)
            self._sent += len(rgb)
        yield self.progress()
        if self._clip.finished:
            yield ClipDone(stream=self.id, epoch=self.epoch)

    @property
    def finished(self) -> bool:
        return self._clip is not None and self._clip.finished

    def progress(self, waiting: bool = False) -> ClipProgress:
        """Where it stands."""
        done, total = (self._clip.done, self._clip.total) if self._clip is not None else (0, 1)
        return ClipProgress(stream=self.id, epoch=self.epoch, done=done, total=total, waiting=waiting)

    def waited(self, since_s: float) -> bool:
        """Whether it had work, and ran none of it since then."""
        return self._ran_s < since_s and self._sent < self._until

    def close(self) -> None:
        """Free what it holds."""
        if self._clip is not None:
            self._clip.close()


def _spec(message: OpenClip) -> ClipSpec:
    image = None
    if message.image is not None:
        with Image.open(io.BytesIO(message.image), formats=["PNG"]) as picture:
            image = picture_tensor(picture, message.height, message.width)[0]
    return ClipSpec(
        prompt=message.prompt,
        negative_prompt=message.negative_prompt,
        seed=message.seed,
        height=message.height,
        width=message.width,
        frames=message.frames,
        steps=message.steps,
        guidance_scale=message.guidance_scale,
        motion_score=message.motion_score,
        image=image,
    )


def _rows(checkpoint: Checkpoint, message: OpenClip) -> int:
    """Rows of a pass, against those of a stream under the checkpoint's own guidance."""
    own = checkpoint.config.guidance_scale
    return 2 if own == 1 and message.guidance_scale not in (None, 1) else 1


def _longest(checkpoint: Checkpoint, message: OpenClip) -> float:
    """Latent frames of its longest pass, against those of a stream's default block."""
    config, latents = checkpoint.config, latent_frames(message.frames, checkpoint.vae.temporal_factor)
    longest = {
        Kind.STREAM: max(config.block, config.first_block_latent_frames),
        Kind.LONGSANA: longsana_first_block(latents, config.block),
        Kind.CLIP: latents,
    }
    return max(1.0, longest[checkpoint.kind] / config.block)
