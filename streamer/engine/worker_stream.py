"""One stream inside the worker: its latents, its decoder, its schedule, and the boundaries it can go back to."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import torch
from PIL import Image
from torch import Tensor

from model.image_start import first_latent
from model.snapshot import Snapshot, pack, unpack
from streamer.engine import protocol
from streamer.engine.blocks import Blocks
from streamer.engine.protocol import Steer, first_picture
from streamer.engine.scheduler import Frontier
from streamer.engine.worker_models import Models, StreamError

KEPT_EXTRA_LATENTS = 16
"""Kept beyond the decoder's memory, so that a snapshot can also start decoding a little before its boundary."""
OWN = "engine."
"""Prefix of the entries that this file adds to the model's snapshot."""


@dataclass(eq=False)
class Boundary:
    """Where a block begins: the roll state there, and what was in force before it.

    The roll holds the block before in its whole length, though a steer may have cut it: the cut moves, or goes, with
    the steers.
    """

    latent: int
    roll: Snapshot
    steer: Steer

    @property
    def whole(self) -> int:
        """Where the block before ends if nothing cuts it."""
        return int(self.roll["next_frame"])

    @property
    def before(self) -> int:
        """Where the block before begins; `whole` if there is none."""
        clean = self.roll.get("clean")
        return self.whole if clean is None else self.whole - int(clean.shape[2])


class WorkerStream:
    """A stream that holds a slot. Any exception of its methods ends it, and it alone.

    Args:
        models: Shared by all streams.
        message: As received.

    Raises:
        StreamError: sizes that don't fit, no schedule, a snapshot of other weights or damaged.
    """

    def __init__(self, models: Models, message: protocol.Open) -> None:
        self.id, self.epoch = message.stream, message.epoch
        self._models = models
        checkpoint = models.checkpoint
        self._vae: Any = models.vae
        config = checkpoint.config
        self._blocks = Blocks(
            config.first_block_latent_frames if message.image is None else 1,
            config.block,
            config.steer_block_latent_frames,
            config.cut_blocks,
        )
        self._plan(message.steers)
        if not self._schedule or self._schedule[0].at_latent != 0:
            raise StreamError("the schedule must begin at latent frame 0")
        if message.decode_from < 0:
            raise StreamError(f"decode_from is {message.decode_from}, there are no latent frames below 0")
        self._steer = self._in_force(0)
        factor = self._vae.spatial_factor
        height, width = message.height // factor, message.width // factor
        try:
            models.pool(height, width)
        except ValueError as error:
            raise StreamError(f"{message.width}x{message.height} is no size for this checkpoint: {error}") from error
        if (height * factor, width * factor) != (message.height, message.width):
            raise StreamError(f"{message.width}x{message.height}: not multiples of {factor}")
        self._kept: dict[int, Tensor] = {}
        self._compute_s = 0.0
        self.latents: Any = models.stream(
            height,
            width,
            seed=message.seed,
            image=None if message.image is None or message.snapshot else self._first_latent(message),
            **models.texts(self._steer),
        )
        try:
            if message.snapshot is not None:
                self._restore(message.snapshot)
                self.latents.seed = message.seed
            boundary = Boundary(self.latents.next_frame, self.latents.snapshot(), self._steer)
            self._cut(boundary)
            self._decoder = self._vae.new_state()
            self.frontier = Frontier(
                stream=self.id,
                rate_hz=message.rate_hz,
                block_start=0,
                block_latents=0,
                passes_left=0,
                decode_next=message.decode_from,
                block_passes=len(checkpoint.config.timesteps) + 1,
                primed=message.decode_from == 0,
            )
            self._boundaries = [boundary]
            self._sync()
            self._kept_for_decoder(message.decode_from)
        except BaseException:
            self.latents.release()
            raise

    @property
    def nbytes(self) -> int:
        """Bytes that it holds beside its slot: decoder, boundaries, kept latents."""
        tensors = [value for known in self._boundaries for value in known.roll.values() if isinstance(value, Tensor)]
        return self._decoder.nbytes + sum(tensor.nbytes for tensor in (*tensors, *self._kept.values()))

    def close(self) -> None:
        """Give the slot back."""
        self.latents.release()
        self._decoder.reset()
        self._boundaries.clear()
        self._kept.clear()

    # Passes

    def begin_pass(self) -> None:
        """Before each pass: at a boundary, put the steer that is in force there into effect."""
        if not self.latents.at_boundary:
            return
        steer = self._in_force(self.latents.next_frame)
        if not _same(steer, self._steer):
            self.latents.steer(**self._models.texts(steer))
        self._steer = steer

    def end_pass(self, block: Tensor | None, compute_s: float) -> protocol.Denoised | None:
        """After each pass: `block` is (1, channels, frames, height, width) if the pass has finished one.

        Raises:
            StreamError: the block is not finite.
        """
        self._compute_s += compute_s
        self._sync()
        if block is None:
            return None
        frames = int(block.shape[2])
        first = self.latents.next_frame - frames
        if not bool(torch.isfinite(block).all()):
            raise StreamError(f"latent frames {first} to {first + frames - 1} are not finite numbers")
        boundary = Boundary(first + frames, self.latents.snapshot(), self._steer)
        self._boundaries.append(boundary)
        self._cut(boundary)
        done = self._denoised(boundary)
        self._compute_s = 0.0
        self.frontier.alone = False
        self._sync()
        self._prune()
        return done

    def restart_block(self) -> None:
        """Begin the block under way anew, and run it alone: a pass that it shared has failed."""
        self._go_to(self._boundaries[-1])
        self.frontier.alone = True

    # Decoding

    def prime(self) -> None:
        """Let the decoder hear the latent frames before the first one wanted."""
        start = self.frontier.decode_next
        frames = [self._kept[latent] for latent in self._kept_for_decoder(start)]
        self._vae.prime(torch.cat(frames, dim=2), self._decoder, start - len(frames))
        self.frontier.primed = True

    def decode(self) -> protocol.Pictures:
        """Decode the next latent frame."""
        latent = self.frontier.decode_next
        pictures = self._vae.decode_yuv(self._kept[latent], self._decoder)
        self.frontier.decode_next += 1
        self._prune()
        return protocol.Pictures(
            stream=self.id,
            epoch=self.epoch,
            latent=latent,
            first_picture=first_picture(latent),
            i420=pictures,
        )

    # The schedule

    def credit(self, message: protocol.Credit, now_s: float) -> None:
        """Take a credit; `now_s` is the worker's clock."""
        self.frontier.credit(message.denoise_until, message.decode_until, now_s + message.due_s)

    def reschedule(self, message: protocol.Reschedule) -> protocol.Denoised | None:
        """Replace the steers from a latent frame on, and drop what was made from there on.

        Returns:
            The block before, where it ends elsewhere now.

        Raises:
            StreamError: the latent frame is locked, or no block of this stream can begin there.
        """
        if message.epoch <= self.epoch:
            return None
        start = message.from_latent
        if start < max(self.frontier.decode_until, self.frontier.decode_next):
            raise StreamError(f"latent frame {start} is locked, it cannot be made anew")
        boundary = self._boundary_at(start) if start <= self.latents.next_frame else None
        before = [steer for steer in self._schedule if steer.at_latent < start]
        # Nothing goes back beyond the oldest boundary: what was over there is forgotten, or it grew for ever.
        oldest = self._boundaries[0].before
        over = sum(steer.at_latent <= oldest for steer in before) - 1
        self._plan([*before[max(0, over) :], *(steer for steer in message.steers if steer.at_latent >= start)])
        self.epoch = message.epoch
        moved = boundary is not None and boundary.latent != self._end(boundary)
        if boundary is not None and (moved or start < self.latents.next_frame or not self.latents.at_boundary):
            self._go_to(boundary)
        self._sync()
        return self._denoised(boundary) if boundary is not None and moved else None

    def snapshot(self, at_most: int) -> protocol.Snapshot:
        """The newest boundary at or below a latent frame, or else the oldest that is left."""
        boundary = self._boundaries[0]
        for later in self._boundaries[1:]:
            if later.latent <= at_most:
                boundary = later
        kept = [latent for latent in sorted(self._kept) if latent < boundary.latent]
        kept = kept[-self._memory :]
        content: Snapshot = boundary.roll | {
            f"{OWN}weights_hash": self._models.checkpoint.weights_hash,
            f"{OWN}steer": msgspec.to_builtins(boundary.steer),
            f"{OWN}kept_from": kept[0] if kept else boundary.latent,
        }
        if kept:
            content[f"{OWN}kept"] = torch.cat([self._kept[latent] for latent in kept], dim=2)
        return protocol.Snapshot(stream=self.id, epoch=self.epoch, latent=boundary.latent, data=pack(content))

    # Inside

    @property
    def _memory(self) -> int:
        return self._vae.memory_latent_frames + KEPT_EXTRA_LATENTS

    def _plan(self, steers: Sequence[Steer]) -> None:
        self._schedule = sorted(steers, key=lambda steer: steer.at_latent)
        self._blocks.places[:] = [steer.at_latent for steer in self._schedule if steer.at_latent > 0]

    def _end(self, boundary: Boundary) -> int:
        """Where the block before a boundary ends under the schedule as it is."""
        return self._blocks.cut(boundary.before, boundary.whole)

    def _denoised(self, boundary: Boundary) -> protocol.Denoised:
        """What there is to tell of the block before a boundary."""
        return protocol.Denoised(
            stream=self.id,
            epoch=self.epoch,
            block=int(boundary.roll["block_index"]) - 1,
            first_latent=boundary.before,
            latents=boundary.latent - boundary.before,
            compute_s=self._compute_s,
        )

    def _in_force(self, latent: int) -> Steer:
        return [steer for steer in self._schedule if steer.at_latent <= latent][-1]

    def _sync(self) -> None:
        frontier, latents = self.frontier, self.latents
        if latents.at_boundary:
            latents.block = self._blocks.whole(latents.next_frame) - latents.next_frame
        frontier.block_start = latents.next_frame
        frontier.block_latents = latents.next_block
        frontier.passes_left = latents.passes_ahead
        frontier.rows = self._models.rows(self._in_force(latents.next_frame))
        frontier.shape = (latents.height, latents.width, latents.next_block, self._steer.loras)

    def _boundary_at(self, latent: int) -> Boundary:
        """The boundary that stands at a latent frame, or that a cut can put there."""
        for boundary in reversed(self._boundaries):
            movable = self._blocks.cuts and boundary.before < latent <= boundary.whole
            if boundary.latent == latent or movable:
                return boundary
        known = ", ".join(str(boundary.latent) for boundary in self._boundaries)
        raise StreamError(f"no block begins at latent frame {latent}; those that may be made anew begin at {known}")

    def _go_to(self, boundary: Boundary) -> None:
        self.latents.restore(boundary.roll)
        self._steer = boundary.steer
        self._compute_s = 0.0
        del self._boundaries[self._boundaries.index(boundary) + 1 :]
        self._cut(boundary)
        self.frontier.alone = False
        self._sync()

    def _cut(self, boundary: Boundary) -> None:
        """End the block before a boundary, which was the last one made, where the schedule says."""
        boundary.latent = end = self._end(boundary)
        before, clean = boundary.before, boundary.roll.get("clean")
        self._kept = {latent: frame for latent, frame in self._kept.items() if latent < before}
        if clean is not None:
            self._kept |= {before + i: clean[:, :, i : i + 1].clone() for i in range(end - before)}
            if end < boundary.whole:
                self.latents.cut(end - before)

    def _prune(self) -> None:
        """Forget boundaries and latent frames that nothing can ask for any more."""
        floor = self.frontier.decode_next
        while len(self._boundaries) > 1 and self._boundaries[1].latent <= floor:
            del self._boundaries[0]
        floor = min(floor, self._boundaries[0].latent) - self._memory
        for latent in [latent for latent in self._kept if latent < floor]:
            del self._kept[latent]

    def _kept_for_decoder(self, start: int) -> Sequence[int]:
        """The latent frames that the decoder must hear before `start`.

        Raises:
            StreamError: one of them is neither kept nor still to be made.
        """
        needed = range(max(0, start - self._vae.memory_latent_frames), start)
        for latent in needed:
            if latent < self.latents.next_frame and latent not in self._kept:
                raise StreamError(f"decoding from latent frame {start} needs frame {latent}, which is not kept")
        return needed

    def _first_latent(self, message: protocol.Open) -> Tensor:
        """The picture that the stream starts from, encoded. Raises `StreamError`."""
        try:
            with Image.open(io.BytesIO(message.image or b""), formats=["PNG"]) as picture:
                if picture.size != (message.width, message.height):
                    raise StreamError(f"the picture to start from is not {message.width}x{message.height}")
                return first_latent(self._vae, picture, message.height, message.width)
        except (OSError, SyntaxError, ValueError) as error:
            raise StreamError(f"the picture to start from cannot be read: {error}") from error

    def _restore(self, data: bytes) -> None:
        try:
            content = unpack(data)
            if content[f"{OWN}weights_hash"] != self._models.checkpoint.weights_hash:
                raise StreamError("the snapshot was made with other weights")
            steer = msgspec.convert(content[f"{OWN}steer"], Steer)
            kept_from, kept = int(content[f"{OWN}kept_from"]), content.get(f"{OWN}kept")
            self.latents.restore(content)
        except (ValueError, KeyError, TypeError, msgspec.ValidationError) as error:
            raise StreamError(f"the snapshot cannot be read: {error!r}") from error
        self._steer = steer
        if kept is not None:
            kept = kept.to(self._models.checkpoint.transformer.device)
            self._kept = {kept_from + i: kept[:, :, i : i + 1].clone() for i in range(kept.shape[2])}


def _same(one: Steer, other: Steer) -> bool:
    """Whether two steers ask for the same, wherever they stand."""
    return msgspec.structs.replace(one, at_latent=0) == msgspec.structs.replace(other, at_latent=0)


def first_steer(message: protocol.Open) -> Steer:
    """What is in force where the pictures that are wanted begin.

    Raises:
        StreamError: nothing is.
    """
    known = [steer for steer in message.steers if steer.at_latent <= max(0, message.decode_from)]
    if not known:
        raise StreamError("the schedule must begin at latent frame 0")
    return max(known, key=lambda steer: steer.at_latent)
