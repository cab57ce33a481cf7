"""Pools of rendered clips: pictures for the VAE, latents and token ids for the transformer.

Rendering takes a set share of the time; training draws from everything that is in the pool, and the oldest
clips make room for new ones.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from model.training.layout import send
from model.training.vae_parallel import VaeParallel

HEIGHT, WIDTH, RATE_HZ = 144, 256, 16
PORTRAIT_SHARE = 0.2  # of the transformer's clips, 144 wide and 256 high
# How often a block of so many latent frames comes: three are what a stream takes, the rest is for steers and cuts.
LENGTH_WEIGHTS = {1: 0.08, 2: 0.2, 3: 0.44, 4: 0.16, 5: 0.12}
# Share of the clips whose first block is latent frame 0 alone, as when a stream starts from a picture.
PICTURE_START = 0.2


@dataclass(frozen=True)
class ClipKind:
    """What the scripts of a pool look like.

    Attributes:
        blocks: blocks a clip, of mixed lengths.
        frames: latent frames a clip; latent frame 0 holds a single picture.
        change_probability: chance of a change at each block border.
        max_changes: most changes in a clip.
    """

    blocks: int
    frames: int
    change_probability: float
    max_changes: int = 3

    @property
    def pictures(self) -> int:
        """Pictures a clip."""
        return 4 * self.frames - 3


def draw_lengths(kind: ClipKind, rng: random.Random) -> list[int]:
    """Latent frames of each block of a clip; `kind.frames` in all."""
    values, weights = list(LENGTH_WEIGHTS), list(LENGTH_WEIGHTS.values())
    while True:
        lengths = rng.choices(values, weights, k=kind.blocks)
        if kind.blocks > 2 and rng.random() < PICTURE_START:
            lengths[0] = 1
        if sum(lengths) == kind.frames:
            return lengths


def render_clips(
    kind: ClipKind, count: int, generator: torch.Generator, device: torch.device, portrait: bool = False
) -> tuple[Tensor, list[list[str]], Tensor]:
    """Return pictures `(count, pictures, 3, height, width)` uint8, the captions in force, one a block, and the
    blocks' lengths `(count, blocks)` in latent frames."""
    from model.training.world import render, sample_scripts

    rng = random.Random(int(torch.randint(2**62, (1,), generator=generator)))
    scripts, lengths = [], []
    for _ in range(count):
        drawn = draw_lengths(kind, rng)
        counts = [4 * drawn[0] - 3, *(4 * length for length in drawn[1:])]
        scripts += sample_scripts(1, kind.blocks, counts, rng, kind.change_probability, max_changes=kind.max_changes)
        lengths.append(drawn)
    height, width = (WIDTH, HEIGHT) if portrait else (HEIGHT, WIDTH)
    pictures = render(scripts, kind.pictures, height=height, width=width, rate_hz=RATE_HZ, device=device)
    return pictures, [list(script.captions) for script in scripts], torch.tensor(lengths)


class Pool:
    """A ring of clips, each a tuple of tensors, filled by `make` in chunks while a share of the time allows.

    Args:
        make: returns tensors with a leading dimension of `chunk` clips.
        capacity: clips kept.
        start: clips made before the first draw.
        share: share of the time spent in `make` from then on.
    """

    def __init__(self, make: Callable[[], tuple[Tensor, ...]], capacity: int, start: int, share: float) -> None:
        self._make, self._share, self._capacity = make, share, capacity
        first = make()
        self.chunk = first[0].shape[0]
        self._rings = [torch.empty((capacity, *t.shape[1:]), dtype=t.dtype, device=t.device) for t in first]
        self._next = self.made = 0
        self._seconds = 0.0
        self._insert(first)
        while self.made < start:
            self._insert(make())
        self._began: float | None = None

    def _insert(self, clips: tuple[Tensor, ...]) -> None:
        count = clips[0].shape[0]
        index = (torch.arange(count) + self._next) % self._capacity
        for ring, new in zip(self._rings, clips, strict=True):
            ring[send(index, ring.device)] = new
        self._next = (self._next + count) % self._capacity
        self.made += count

    @property
    def due(self) -> bool:
        """Whether less than the share of the time went into clips so far."""
        if self._began is None:
            self._began = time.monotonic()
        return self._seconds <= self._share * (time.monotonic() - self._began)

    def refresh(self) -> None:
        """Make one more chunk when it is due."""
        if self.due:
            self.add()

    def add(self) -> None:
        """Make one more chunk."""
        begin = time.monotonic()
        self._insert(self._make())
        if self._rings[0].is_cuda:
            torch.cuda.synchronize()
        self._seconds += time.monotonic() - begin

    def draw(self, count: int) -> list[Tensor]:
        """Return `count` random clips."""
        size = min(self.made, self._capacity)
        index = torch.randint(0, size, (count,))
        return [ring[send(index, ring.device)] for ring in self._rings]


def picture_pool(
    kind: ClipKind, *, chunk: int, capacity: int, start: int, share: float, seed: int, device: torch.device
) -> Pool:
    """A pool of pictures `(clips, pictures, 3, height, width)` uint8."""
    generator = torch.Generator().manual_seed(seed)
    return Pool(lambda: render_clips(kind, chunk, generator, device)[:1], capacity, start, share)


def to_unit(pictures: Tensor, dtype: torch.dtype) -> Tensor:
    """`(clips, pictures, 3, h, w)` uint8 to `(clips, 3, pictures, h, w)` in -1 to 1."""
    return pictures.to(dtype).permute(0, 2, 1, 3, 4) / 127.5 - 1


class Encoder:
    """Turns pictures into normalised latents and captions into token ids.

    Args:
        parallel: the VAE pass.
        mean: `(z,)` latent mean of each channel; `std` likewise its deviation.
        tokenizer: a fast tokenizer of transformers.
        max_tokens: tokens a caption, padded on the right.
        dtype: precision of the VAE pass.
        window: encode in windows of so many latent frames, half a window apart, and keep each one's second half:
            for a VAE that is good only near a clip's start. None encodes clips whole.
    """

    def __init__(
        self, parallel: VaeParallel, mean: Tensor, std: Tensor, tokenizer: Any, max_tokens: int, dtype: torch.dtype,
        window: int | None = None,
    ) -> None:  # fmt: skip
        self._parallel, self._tokenizer = parallel, tokenizer
        self._mean, self._std = mean.view(1, -1, 1, 1, 1), std.view(1, -1, 1, 1, 1)
        self._tokens, self._dtype, self._window = max_tokens, dtype, window

    @torch.no_grad()
    def latents(self, pictures: Tensor, batch: int = 16) -> Tensor:
        """Return normalised latents `(clips, z, latent frames, h / 8, w / 8)` of uint8 pictures."""
        clips, frames = pictures.shape[0], (pictures.shape[1] + 3) // 4
        if self._window is None or frames <= self._window:
            return self._encode(pictures, batch)
        step = self._window // 2
        # A window starts with the last picture of its first latent frame, so that the groups of four agree.
        starts = range(step, frames - step, step)
        span = 4 * self._window - 3
        later = torch.stack([pictures[:, 4 * f : 4 * f + span] for f in starts], dim=1)
        tails = self._encode(later.flatten(0, 1), batch).unflatten(0, (clips, -1))[:, :, :, step:]
        return torch.cat([self._encode(pictures[:, :span], batch), *tails.unbind(1)], dim=2)

    def _encode(self, pictures: Tensor, batch: int) -> Tensor:
        parts = []
        for piece in pictures.split(batch):
            mean = self._parallel.encode(to_unit(piece, self._dtype)).chunk(2, dim=1)[0].float()
            parts.append(((mean - self._mean) / self._std).to(self._dtype))
        return torch.cat(parts)

    def tokens(self, captions: list[str]) -> tuple[Tensor, Tensor]:
        """Return ids and mask `(captions, max_tokens)`."""
        out = self._tokenizer(
            captions, padding="max_length", max_length=self._tokens, truncation=True, return_tensors="pt"
        )
        return out["input_ids"], out["attention_mask"]


def latent_pool(
    kind: ClipKind,
    encoder: Encoder,
    encode_text: Callable[[Tensor, Tensor], Tensor],
    *,
    chunk: int,
    capacity: int,
    start: int,
    share: float,
    seed: int,
    device: torch.device,
    portrait: bool = False,
) -> Pool:
    """A pool of latents `(clips, z, frames, h, w)`, the captions' states `(clips, blocks, tokens, width)` and masks
    `(clips, blocks, tokens)`, and the blocks' lengths `(clips, blocks)`, on the CPU."""
    generator = torch.Generator().manual_seed(seed)

    def make() -> tuple[Tensor, ...]:
        pictures, captions, lengths = render_clips(kind, chunk, generator, device, portrait)
        ids, mask = encoder.tokens([text for clip in captions for text in clip])
        ids, mask = ids.to(device), mask.to(device)
        text, mask = (t.unflatten(0, (chunk, kind.blocks)) for t in (encode_text(ids, mask), mask))
        return encoder.latents(pictures).contiguous(), text, mask, lengths

    return Pool(make, capacity, start, share)
