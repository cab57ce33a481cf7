"""Pictures to judge: streams rolled side by side, and renders of the same wishes."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from benchmarks.quality.judge import Judge, views_of
from benchmarks.quality.prompts import Wish, wishes
from benchmarks.quality.report import Sheet
from model.checkpoint import Checkpoint
from model.stream import LatentStream, advance, new_pool
from model.training.world import make_script, render


@dataclass(frozen=True)
class Options:
    """How much is measured; `minutes` is the length of the endurance streams."""

    prompts: int
    steers: int
    minutes: float
    streams: int
    passes_prompts: int
    batch: int = 8
    seed: int = 0


class Roll:
    """Streams of one checkpoint side by side, one for each prompt; every block is decoded or passed over.

    Args:
        checkpoint: what to run.
        prompts: one a stream.
        seed: of the first stream; the others count up.
        timesteps: of every block, instead of the checkpoint's own.
    """

    def __init__(
        self, checkpoint: Checkpoint, prompts: Sequence[str], seed: int, timesteps: Sequence[float] | None = None
    ) -> None:
        config, vae = checkpoint.config, checkpoint.vae
        height, width = config.height // vae.spatial_factor, config.width // vae.spatial_factor
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
                seed=seed + i,
                timesteps=timesteps,
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

    def latents(self) -> Tensor:
        """The next block of every stream, (streams, channels, frames, h, w), not decoded."""
        while None in (found := advance(self._streams)):
            pass
        return torch.cat([block for block in found if block is not None])

    def skip(self) -> None:
        """Go on by a block without decoding it."""
        keep = self._checkpoint.vae.memory_latent_frames
        self._memory.append(self.latents())
        while sum(block.shape[2] for block in self._memory[1:]) >= keep:
            self._memory.pop(0)

    def pictures(self, blocks: int) -> Tensor:
        """Pictures (streams, t, 3, height, width) uint8 of the next blocks."""
        vae = self._checkpoint.vae
        if self._memory:
            known = torch.cat(self._memory, 2)
            first = self._streams[0].next_frame - known.shape[2]
            for latents, state in zip(known.split(1), self._states, strict=True):
                vae.prime(latents, state, first)
            self._memory = []
        out = []
        for _ in range(blocks):
            block = self.latents().split(1)
            decoded = [vae.decode(latents, state) for latents, state in zip(block, self._states, strict=True)]
            out.append(torch.stack(decoded).permute(0, 1, 4, 2, 3).cpu())
        return torch.cat(out, 1)

    @property
    def next_picture(self) -> int:
        """Number of the picture with which the next block begins."""
        return max(0, 4 * self._streams[0].next_frame - 3)


def rendered(some: Sequence[Wish], pictures: int, seed: int) -> Tensor:
    """Renders (wishes, pictures, 3, 144, 256) uint8 of what the wishes name, 16 a second."""
    rng = random.Random(seed)
    return render([make_script(w.attributes, [], 1, 12, rng) for w in some], pictures)


@dataclass
class Opening:
    """The first two blocks of some streams: their pictures' last two views, and the streams if they may go on."""

    wishes: list[Wish]
    views: Tensor
    roll: Roll | None


@dataclass
class Context:
    """What every part of the measurement needs."""

    checkpoint: Checkpoint
    judge: Judge
    options: Options
    steering: bool
    sheet: Sheet = field(default_factory=Sheet)

    @property
    def block_pictures(self) -> int:
        """Pictures in a block that isn't the first."""
        return 4 * self.checkpoint.config.block

    @cached_property
    def openings(self) -> list[Opening]:
        """Two blocks of every prompt, made once: adherence and Fréchet distance judge them, steering goes on."""
        o = self.options
        asked, steers = wishes(o.prompts, o.seed), o.steers if self.steering else 0
        found: list[Opening] = []
        begin = time.monotonic()
        for start in range(0, len(asked), o.batch):
            some = asked[start : start + o.batch]
            roll = Roll(self.checkpoint, [w.prompt for w in some], o.seed + start)
            pictures = roll.pictures(2)
            last = pictures.shape[1] - 1
            found.append(Opening(some, views_of(pictures, (last - 5, last)), roll if start < steers else None))
        print(f"{len(asked)} prompts, two blocks each: {time.monotonic() - begin:.0f} s", flush=True)
        return found
