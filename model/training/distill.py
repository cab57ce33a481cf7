"""From many small Euler steps to a few large ones.

The teacher (the averaged weights, with guidance where asked) walks from noise to a block in `passes * SUBSTEPS`
Euler steps. The student learns the straight line between the points that it will visit itself, so that its few
steps land where the many did. Past blocks are rendered ones in one round and the teacher's own in the next.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from model.training.flow import SHIFT, WINDOW_BLOCKS, Batch, Net, disturb, wide
from model.training.rows import Layout, Past, clip_layout

SUBSTEPS = 4


def euler_sigmas(passes: int, shift: float = SHIFT) -> list[float]:
    """Return `passes + 1` noise levels from 1 to 0, evenly spaced before the shift."""
    return [shift * u / (1 + (shift - 1) * u) for u in (1 - i / passes for i in range(passes + 1))]


@dataclass(frozen=True)
class Walks:
    """What the teacher did with some clips.

    Attributes:
        clean: `(clips, blocks - 1, z, f, h, w)` the past that it read.
        points: `(passes + 1, clips, blocks, z, f, h, w)` where it stood at each of the student's noise levels.
        hidden: `(captions + 1, tokens, width)` encoder states; `mask` likewise.
    """

    clean: Tensor
    points: Tensor
    hidden: Tensor
    mask: Tensor


class Teacher:
    """Walks blocks from noise by many Euler steps.

    Args:
        net: frozen weights.
        clips: clips at a time.
        blocks: blocks a clip.
        frames: latent frames a block.
        passes: the student's passes.
        guidance: 1 for none; above, the text's effect is enlarged.
        rows: rows of a pass, see `BlockFlow`.
        device: where to run.
    """

    def __init__(
        self, net: Net, clips: int, blocks: int, frames: int, passes: int, guidance: float, rows: int,
        device: torch.device,
    ) -> None:  # fmt: skip
        self.net, self.guidance, self._rows = net, guidance, rows
        self._guided = guidance != 1.0
        plain = clip_layout(clips, blocks, 2 if self._guided else 1, frames, WINDOW_BLOCKS)
        self._plain = plain
        self._clean = plain.part(0, plain.clean).padded(rows).to(device)
        self._noisy = plain.part(plain.clean, plain.rows).padded(rows).to(device)
        null = clips * blocks
        clean_caption = plain.clip * blocks + plain.block + 1
        noisy_caption = plain.clip * blocks + plain.block
        self._clean_caption = F.pad(clean_caption[: plain.clean], (0, rows - plain.clean), value=null).to(device)
        asked = noisy_caption[plain.clean : plain.clean + null]
        asked = torch.cat([asked, torch.full_like(asked, null)]) if self._guided else asked
        self._noisy_caption = F.pad(asked, (0, rows - len(asked)), value=null).to(device)
        self._sigmas, self._passes = euler_sigmas(passes * SUBSTEPS), passes

    @torch.no_grad()
    def walk(self, batch: Batch, past: Tensor | None) -> Walks:
        """Walk every block of the clips, reading rendered blocks or `past` `(clips, blocks, ...)`."""
        x0 = batch.latents
        source = x0 if past is None else torch.where(self._replaced(x0), past, x0)
        clean = disturb(source[:, :-1].flatten(0, 1))
        hidden, mask = self.net.encode_text(batch.ids.flatten(0, 1), batch.mask.flatten(0, 1))
        text = self.net.rows.project_text(hidden)
        states = self._read(clean, text, mask)
        x = torch.randn_like(x0.flatten(0, 1))
        points = [x]
        for step, (sigma, after) in enumerate(zip(self._sigmas[:-1], self._sigmas[1:], strict=True)):
            v = self._velocity(x, sigma, text, mask, states)
            x = (x.float() - (sigma - after) * v.float()).to(x.dtype)
            if (step + 1) % SUBSTEPS == 0:
                points.append(x)
        shape = x0.shape
        walked = torch.stack(points).view(len(points), *shape)
        return Walks(clean.view(shape[0], shape[1] - 1, *shape[2:]), walked, hidden, mask)

    def _replaced(self, x0: Tensor) -> Tensor:
        chosen = torch.rand(x0.shape[:2], device=x0.device) < 0.7
        return chosen.view(*x0.shape[:2], 1, 1, 1, 1)

    def _fill(self, rows: Tensor) -> Tensor:
        return torch.cat([rows, rows.new_zeros((self._rows - len(rows), *rows.shape[1:]))])

    def _read(self, clean: Tensor, text: Tensor, mask: Tensor) -> Past | None:
        if not self._plain.clean:
            return None
        at = self._clean_caption
        zero = torch.zeros(self._rows, device=clean.device)
        return self.net.rows(self._fill(clean), zero, text[at], mask[at], self._clean, keep=True)[1]

    def _velocity(self, x: Tensor, sigma: float, text: Tensor, mask: Tensor, states: Past | None) -> Tensor:
        count, at = len(x), self._noisy_caption
        both = torch.cat([x, x]) if self._guided else x
        timestep = torch.full((self._rows,), 1000 * sigma, device=x.device)
        v = self.net.rows(self._fill(both), timestep, text[at], mask[at], self._noisy, past=states)[0]
        if not self._guided:
            return v[:count]
        asked, empty = v[:count].float(), v[count : 2 * count].float()
        return empty + self.guidance * (asked - empty)


class Student:
    """Learns the teacher's chords.

    Args:
        net: what is trained.
        clips: clips a step, drawn from the teacher's.
        blocks: blocks a clip.
        frames: latent frames a block.
        passes: passes of the sampler to come.
        rows: rows of a pass.
        device: where to run.
    """

    def __init__(
        self, net: Net, clips: int, blocks: int, frames: int, passes: int, rows: int, device: torch.device
    ) -> None:
        plain = clip_layout(clips, blocks, passes, frames, WINDOW_BLOCKS)
        if plain.rows > rows:
            raise ValueError(f"{clips} clips in {passes} copies need {plain.rows} rows, not {rows}")
        self.net, self._clips, self._blocks, self._used = net, clips, blocks, plain.rows
        self._plain = plain
        self._layout: Layout = plain.padded(rows).to(device)
        self._sigmas = torch.tensor(euler_sigmas(passes), device=device)

    def loss(self, walks: Walks) -> Tensor:
        """Return the mean squared distance from the teacher's mean velocity over each interval."""
        device = walks.points.device
        pick = torch.randperm(walks.points.shape[1], device=device)[: self._clips]
        passes, rows, blocks, clean = len(self._sigmas) - 1, self._layout.rows, self._blocks, self._plain.clean
        points = walks.points[:, pick].float()
        start = points[:-1].flatten(0, 2)
        chord = (points[:-1] - points[1:]).flatten(0, 2)
        span = (self._sigmas[:-1] - self._sigmas[1:]).repeat_interleave(self._clips * blocks)
        sigma = self._sigmas[:-1].repeat_interleave(self._clips * blocks)
        dtype = walks.points.dtype
        latents = torch.cat([walks.clean[pick].flatten(0, 1), start.to(dtype)])
        latents = torch.cat([latents, latents.new_zeros((rows - len(latents), *latents.shape[1:]))])
        captions = (pick[:, None] * blocks + torch.arange(blocks, device=device)).flatten()
        after = captions.view(-1, blocks)[:, 1:].flatten()
        index = F.pad(
            torch.cat([after, captions.repeat(passes)]), (0, rows - self._used), value=len(walks.hidden) - 1
        )
        text = self.net.rows.project_text(walks.hidden)
        timestep = F.pad(sigma * 1000, (clean, rows - self._used))
        v, _ = self.net.rows(latents, timestep, text[index], walks.mask[index], self._layout)
        return F.mse_loss(v[clean : self._used].float(), chord / wide(span))
