"""Pictures to judge: streams rolled side by side, and renders of the same wishes."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from benchmarks.quality.judge import Judge, views_of
from benchmarks.quality.noise import NoiseAhead
from benchmarks.quality.prompts import Wish, wishes
from benchmarks.quality.report import Sheet
from model.checkpoint import Checkpoint
from model.image_start import first_latent
from model.positions import PICTURES_PER_LATENT, first_picture
from model.stream import LatentStream, advance, new_pool
from model.training.world import make_script, render


@dataclass(frozen=True)
class Options:
    """How much is measured; `minutes` are those of the endurance streams that are looked at."""

    prompts: int
    steers: int
    minutes: tuple[float, ...]
    streams: int
    passes_prompts: int
    batch: int
    blocks: tuple[int, ...] = ()
    seed: int = 0


class Roll:
    """Streams of one checkpoint side by side, one for each prompt; every block is decoded or passed over.

    Args:
        checkpoint: what to run.
        prompts: one a stream.
        seed: of the first stream; the others count up.
        size: height and width of the pictures; None for the checkpoint's own.
        timesteps: of every block, instead of the checkpoint's own.
        images: pictures (streams, 3, height, width) uint8 to start from.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        prompts: Sequence[str],
        seed: int,
        size: tuple[int, int] | None = None,
        timesteps: Sequence[float] | None = None,
        images: Tensor | None = None,
    ) -> None:
        config, vae, device = checkpoint.config, checkpoint.streaming_vae, checkpoint.transformer.device
        pixels = size or (config.height, config.width)
        height, width = pixels[0] // vae.spatial_factor, pixels[1] // vae.spatial_factor
        pool = new_pool(checkpoint.transformer, height, width, config, slab=len(prompts))
        self._checkpoint = checkpoint
        negative, negative_mask = checkpoint.text.encode_negative("")
        self._streams = []
        for i, prompt in enumerate(prompts):
            text, mask = checkpoint.text.encode(prompt)
            stream = LatentStream(
                checkpoint.transformer,
                text=text,
                text_mask=mask,
                negative_text=negative,
                negative_mask=negative_mask,
                height=height,
                width=width,
                noise=NoiseAhead(seed + i, (vae.channels, height, width), device),
                timesteps=timesteps,
                image=None if images is None else first_latent(vae, images[i].permute(1, 2, 0), *pixels),
                pool=pool,
                config=config,
            )
            self._streams.append(stream)
        self._states = [vae.new_state() for _ in prompts]
        self._memory: list[Tensor] = []

    def steer(self, prompts: Sequence[str]) -> None:
        """New prompts from the next block on."""
        for stream, prompt in zip(self._streams, prompts, strict=True):
            stream.steer(*self._checkpoint.text.encode(prompt))

    def latents(self, frames: int | None = None) -> Tensor:
        """The next block of every stream, (streams, channels, frames, h, w), not decoded.

        `frames`: its length; None for the checkpoint's own. The first block's length stays.
        """
        for stream in self._streams:
            stream.block = frames or self._checkpoint.config.block
        done: list[Tensor] = []
        while not done:  # the streams stand at the same step, so they finish together
            done = [block for block in advance(self._streams) if block is not None]
        return torch.cat(done)

    def skip(self, frames: int | None = None) -> None:
        """Go on by a block without decoding it."""
        keep = self._checkpoint.streaming_vae.memory_latent_frames
        self._memory.append(self.latents(frames))
        while sum(block.shape[2] for block in self._memory[1:]) >= keep:
            self._memory.pop(0)

    def pictures(self, blocks: int | Sequence[int]) -> Tensor:
        """Pictures (streams, t, 3, height, width) uint8, on the device, of so many blocks, or of blocks so long."""
        lengths = [None] * blocks if isinstance(blocks, int) else blocks
        vae = self._checkpoint.streaming_vae
        if self._memory:
            known = torch.cat(self._memory, 2)
            first = self._streams[0].next_frame - known.shape[2]
            for latents, state in zip(known.split(1), self._states, strict=True):
                vae.prime(latents, state, first)
            self._memory = []
        made = torch.cat([self.latents(frames) for frames in lengths], 2)
        decoded = [vae.decode(latents, state) for latents, state in zip(made.split(1), self._states, strict=True)]
        return torch.stack(decoded).permute(0, 1, 4, 2, 3)

    @property
    def next_picture(self) -> int:
        """Number of the picture with which the next block begins."""
        return first_picture(self._streams[0].next_frame)


@dataclass
class Opening:
    """The first two blocks of some streams: their pictures' last two views, and the streams if they may go on."""

    wishes: list[Wish]
    views: Tensor
    roll: Roll | None


@dataclass
class Context:
    """What every part of the measurement needs. `deadline` is of the monotonic clock: then parts come to an end."""

    checkpoint: Checkpoint
    judge: Judge
    options: Options
    steering: bool
    size: tuple[int, int]
    deadline: float = math.inf
    sheet: Sheet = field(default_factory=Sheet)

    @property
    def late(self) -> bool:
        """Whether the time is over."""
        return time.monotonic() >= self.deadline

    @property
    def device(self) -> torch.device:
        """Where streams run and pictures lie."""
        return self.checkpoint.transformer.device

    @property
    def block_pictures(self) -> int:
        """Pictures in a block that isn't the first."""
        return PICTURES_PER_LATENT * self.checkpoint.config.block

    def roll(self, some: Sequence[Wish], seed: int, **options: Any) -> Roll:
        """Streams of the wishes' prompts; options as `Roll`'s."""
        return Roll(self.checkpoint, [w.prompt for w in some], self.options.seed + seed, self.size, **options)

    def rendered(self, some: Sequence[Wish], pictures: int, seed: int = 0) -> Tensor:
        """Renders (wishes, pictures, 3, height, width) uint8 of what the wishes name, 16 a second."""
        rng = random.Random(self.options.seed + seed)
        scripts = [make_script(w.attributes, [], 1, 12, rng) for w in some]
        return render(scripts, pictures, height=self.size[0], width=self.size[1], device=self.device)

    @cached_property
    def openings(self) -> list[Opening]:
        """Two blocks of every prompt, made once: adherence and Fréchet distance judge them, steering goes on.

        Fewer prompts when the time is over, at least one batch.
        """
        o = self.options
        asked, steers = wishes(o.prompts, o.seed), o.steers if self.steering else 0
        found: list[Opening] = []
        begin, start = time.monotonic(), 0
        while start < len(asked) and not (found and self.late):
            stop = start + o.batch
            if start < steers < stop:
                stop = steers
            some = asked[start:stop]
            roll = self.roll(some, start)
            pictures = roll.pictures(2)
            last = pictures.shape[1] - 1
            found.append(Opening(some, views_of(pictures, (last - 5, last)), roll if start < steers else None))
            start = stop
        count = sum(len(opening.wishes) for opening in found)
        print(f"{count} prompts, two blocks each: {time.monotonic() - begin:.0f} s", flush=True)
        return found
