"""A past as a stream makes it: the sampler's own passes over all blocks of a clip at once, round after round.

A block reads what the round before made of the blocks before it, so after as many rounds as blocks the clip is what
a stream would have drawn (tests/model/training/test_rollout.py). Few rounds suffice to show training a stream's
mistakes, and mistakes built upon those, where the picture that is aimed at is still the render.
"""

from __future__ import annotations

import torch
from torch import Tensor

from model.sampler import adams_bashforth, euler, renoise, sigma_of
from model.training.flow import PLAIN_TIMESTEPS, SHIFT, WINDOW_BLOCKS, Batch, Net, Placed, disturb, filled, wide
from model.training.layout import clip_layout

ANCHORED = 0.5


class RollOut:
    """Makes the blocks of clips anew.

    Args:
        net: weights, as they are.
        rows: of a pass, at least the latent frames of all blocks but each clip's last, which nobody reads.
        device: where to run.
        anchored: share of the blocks that are led back to the render after the first pass. That pass knows next to
            nothing, so the rest is the net's own, but where things stand stays the render's. First blocks always are:
            without a past they would be of another scene.
    """

    def __init__(self, net: Net, rows: int, device: torch.device, anchored: float = ANCHORED) -> None:
        self._net, self._rows, self._device, self._anchored = net, rows, device, anchored

    @torch.no_grad()
    def __call__(self, batch: Batch, rounds: int) -> Tensor:
        """Return `(clips, frames, z, h, w)`: all blocks but the last made anew, after so many rounds."""
        layout = clip_layout(batch.lengths, 1, WINDOW_BLOCKS)
        layout = layout.kept(layout.block < batch.lengths.shape[1] - 1)
        at = Placed(layout, batch.lengths, layout.rows, self._device)
        frames = batch.frames
        truth = frames.flatten(0, 1)[at.past]
        hidden, mask = self._net.with_empty(batch.text.flatten(0, 1), batch.mask.flatten(0, 1))
        text, null = self._net.rows.project_text(hidden), len(hidden) - 1
        captions = (filled(part, self._rows, null) for part in at.caption.split(at.clean))
        committed, asked = ((text[caption], mask[caption]) for caption in captions)
        clean = layout.clean_part().padded(self._rows).to(self._device)
        noisy = layout.noisy_part().padded(self._rows).to(self._device)
        first = (layout.block[at.clean :] == 0).to(self._device)
        led = wide(first | (torch.rand(at.groups, device=self._device) < self._anchored)[at.noisy_group])
        noise = torch.randn_like(truth, dtype=torch.float32)
        zero = torch.zeros(self._rows, device=self._device)

        made = disturb(truth, at)
        for _ in range(rounds):
            _, states = self._net.rows(filled(made, self._rows), zero, *committed, clean, keep=True)
            x, before = noise, None
            for timestep, after in zip(PLAIN_TIMESTEPS, [*PLAIN_TIMESTEPS[1:], None], strict=True):
                latents = filled(x.to(truth.dtype), self._rows)
                v, _ = self._net.rows(latents, zero + timestep, *asked, noisy, past=states)
                flow, sigma = v[: at.clean].float(), sigma_of(timestep, SHIFT)
                following = 0.0 if after is None else sigma_of(after, SHIFT)
                if before is None:
                    x = torch.where(led, renoise(truth.float(), noise, following), euler(x, flow, sigma, following))
                else:
                    x = adams_bashforth(x, flow, *before, sigma, following)
                before = flow, sigma
            made = x.to(truth.dtype)
        return frames.flatten(0, 1).index_copy(0, at.past, made).view_as(frames)
