"""From many small Euler steps to a few large ones.

The teacher (the averaged weights, with guidance where asked) walks from noise to a block in `passes * SUBSTEPS`
Euler steps. The student learns the straight line between the points that it will visit itself, so that its few
steps land where the many did. A stream's first block, which nothing waits for, gets more passes; their noise levels
lie between the others', so that the timestep tells them apart. Past blocks are rendered ones in one round and the
teacher's own in the next.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from model.training.flow import SHIFT, WINDOW_BLOCKS, Batch, Net, Placed, disturb, filled, wide
from model.training.layout import clip_layout, send
from model.training.rows import take

SUBSTEPS = 4
OPENING_COPIES = 4
"""Of the first block's intervals, so many are trained a step, drawn anew."""


def euler_sigmas(passes: int, shift: float = SHIFT) -> list[float]:
    """Return `passes + 1` noise levels from 1 to 0, evenly spaced before the shift."""
    return [shift * u / (1 + (shift - 1) * u) for u in (1 - i / passes for i in range(passes + 1))]


def usual_points(passes: int) -> list[int]:
    """Which of the teacher's points a block's passes visit: every fourth."""
    return list(range(0, passes * SUBSTEPS + 1, SUBSTEPS))


def opening_points(passes: int) -> list[int]:
    """Which of them the first block's passes visit: the odd ones, and both ends."""
    last = passes * SUBSTEPS
    return [0, *range(1, last, 2), last]


@dataclass(frozen=True)
class Walks:
    """What the teacher did with some clips.

    Attributes:
        clean: `(clips, frames, z, h, w)` the past that it read.
        points: `(steps + 1, clips, frames, z, h, w)` where it stood at each noise level.
        lengths: `(clips, blocks)` of the blocks, on the CPU.
        hidden: `(captions + 1, tokens, width)` encoder states; `mask` likewise.
    """

    clean: Tensor
    points: Tensor
    lengths: Tensor
    hidden: Tensor
    mask: Tensor


class Teacher:
    """Walks blocks from noise by many Euler steps.

    Args:
        net: frozen weights.
        passes: the student's passes.
        guidance: 1 for none; above, the text's effect is enlarged.
        rows: rows of a pass, see `BlockFlow`.
        device: where to run.
    """

    def __init__(self, net: Net, passes: int, guidance: float, rows: int, device: torch.device) -> None:
        self.net, self.guidance, self._rows, self._device = net, guidance, rows, device
        self._guided = guidance != 1.0
        self._sigmas = euler_sigmas(passes * SUBSTEPS)

    @torch.no_grad()
    def walk(self, batch: Batch, past: Tensor | None) -> Walks:
        """Walk every block of the clips, reading rendered blocks or, mostly, `past` `(clips, frames, z, h, w)`."""
        rows, device = self._rows, self._device
        layout = clip_layout(batch.lengths, 2 if self._guided else 1, WINDOW_BLOCKS)
        at = Placed(layout, batch.lengths, layout.rows, device)
        x0 = batch.frames
        source = x0.flatten(0, 1)
        if past is not None:
            replaced = (torch.rand(at.groups, device=device) < 0.7)[at.group[: at.clean]]
            mixed = torch.where(wide(replaced), past.flatten(0, 1)[at.past], source[at.past])
            source = source.index_copy(0, at.past, mixed)
        source = source.index_copy(0, at.past, disturb(source[at.past], at))
        hidden, mask = self.net.with_empty(batch.text.flatten(0, 1), batch.mask.flatten(0, 1))
        text, null = self.net.rows.project_text(hidden), len(hidden) - 1
        zero = torch.zeros(rows, device=device)
        caption = filled(at.caption[: at.clean], rows, null)
        clean = layout.clean_part().padded(rows).to(device)
        _, states = self.net.rows(filled(source[at.past], rows), zero, text[caption], mask[caption], clean, keep=True)
        assert states is not None
        noisy = layout.noisy_part().padded(rows).to(device)
        asked = at.caption[at.clean :]
        if self._guided:
            asked = torch.cat([asked[: len(asked) // 2], torch.full_like(asked[len(asked) // 2 :], null)])
        asked = filled(asked, rows, null)
        told = (text[asked], mask[asked])
        x = torch.randn_like(x0.flatten(0, 1))
        points = [x]
        for sigma, after in zip(self._sigmas[:-1], self._sigmas[1:], strict=True):
            both = filled(torch.cat([x, x]) if self._guided else x, rows)
            v, _ = self.net.rows(both, zero + 1000 * sigma, *told, noisy, past=states)
            x = (x.float() - (sigma - after) * self._guide(v, len(x))).to(x.dtype)
            points.append(x)
        walked = torch.stack(points).view(len(points), *x0.shape)
        return Walks(source.view_as(x0), walked, batch.lengths, hidden, mask)

    def _guide(self, v: Tensor, count: int) -> Tensor:
        asked = v[:count].float()
        if not self._guided:
            return asked
        empty = v[count : 2 * count].float()
        return empty + self.guidance * (asked - empty)


class Student:
    """Learns the teacher's chords.

    Args:
        net: what is trained.
        clips: clips a step, drawn from the teacher's.
        passes: passes of the sampler to come.
        rows: rows of a pass; clips that don't fit are left out.
        device: where to run.
    """

    def __init__(self, net: Net, clips: int, passes: int, rows: int, device: torch.device) -> None:
        self.net, self._clips, self._passes, self._rows, self._device = net, clips, passes, rows, device
        self._sigmas = torch.tensor(euler_sigmas(passes * SUBSTEPS))
        self._there = self._sigmas.to(device)

    def loss(self, walks: Walks) -> Tensor:
        """Return the mean squared distance from the teacher's mean velocity over each interval."""
        passes, device = self._passes, self._device
        pick = torch.randperm(len(walks.lengths))[: self._clips]
        pick = pick[self._needed(walks.lengths[pick]).cumsum(0) <= self._rows]
        opening = opening_points(passes)
        drawn = torch.randperm(len(opening) - 1)[:OPENING_COPIES].tolist()
        intervals = list(zip(usual_points(passes)[:-1], usual_points(passes)[1:], strict=True))
        intervals += [(opening[i], opening[i + 1]) for i in drawn]
        begin, end = (torch.tensor(side) for side in zip(*intervals, strict=True))

        layout = clip_layout(walks.lengths[pick], len(intervals), WINDOW_BLOCKS)
        layout = layout.kept((layout.copy < passes) | (layout.block == 0))
        at = Placed(layout, walks.lengths[pick], self._rows, device)
        copy, clip, frame = (t[at.clean :] for t in (layout.copy, pick[layout.clip], layout.frame))
        begin, end = begin[copy], end[copy]
        begin, end, clip, frame = send(torch.stack([begin, end, clip, frame]), device)
        span = self._there[begin] - self._there[end]
        start = walks.points[begin, clip, frame]
        chord = start.float() - walks.points[end, clip, frame].float()
        clean = walks.clean[send(pick, device)].flatten(0, 1)[at.past]
        latents = filled(torch.cat([clean, start]), self._rows)
        timestep = F.pad(self._there[begin] * 1000, (at.clean, self._rows - at.used))
        blocks, null = walks.lengths.shape[1], len(walks.hidden) - 1
        captions = (pick[:, None] * blocks + torch.arange(blocks)).flatten()
        told = send(F.pad(captions, (0, 1), value=null), device)[at.caption]
        text = self.net.rows.project_text(walks.hidden)
        v, _ = self.net.rows(latents, timestep, take(text, told), walks.mask[told], at.layout)
        return F.mse_loss(v[at.clean : at.used].float(), chord / wide(span))

    def _needed(self, lengths: Tensor) -> Tensor:
        """Return the rows that each clip takes, `(clips,)`."""
        frames = lengths.sum(1)
        return frames - lengths[:, -1] + self._passes * frames + OPENING_COPIES * lengths[:, 0]
