"""Flow matching on blocks: from a batch of clips to the loss of one step.

Convention of the whole project and of diffusers' schedulers: x = (1 - sigma) x0 + sigma noise, the net predicts
v = noise - x0 and is told t = 1000 sigma.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.training.rows import RowsPass, clip_layout

SHIFT = 3.0
DROP_NOISY, DROP_CLEAN = 0.1, 0.03  # share of rows that get the empty caption
WINDOW_BLOCKS = 6


@dataclass(frozen=True)
class Batch:
    """Clips of latents with the captions in force.

    Attributes:
        latents: `(clips, blocks, z, frames, h, w)` normalised.
        ids: `(clips, blocks, tokens)`; `mask` likewise, 1 for real tokens.
    """

    latents: Tensor
    ids: Tensor
    mask: Tensor


@dataclass(frozen=True)
class RowText:
    """Projected captions and how to find each row's: `states` `(captions, tokens, c)`, the last one empty."""

    states: Tensor
    mask: Tensor
    index: Tensor

    def rows(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """Return text and mask of the rows that `index` names."""
        return self.states[index], self.mask[index]


class Net(nn.Module):
    """Transformer and text encoder, trained together."""

    def __init__(self, transformer: Any, text_encoder: Any, compiled: bool) -> None:
        super().__init__()
        self.transformer = transformer
        self.text_encoder = text_encoder
        self.rows = RowsPass(transformer, compiled)

    def split_parameters(self) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
        """Matrices inside blocks and encoder layers for Muon, everything else for AdamW."""
        matrices: list[nn.Parameter] = []
        rest: list[nn.Parameter] = []
        for name, parameter in self.named_parameters():
            inner = "transformer_blocks" in name or "text_encoder.layers" in name
            matrix = parameter.dim() >= 2 and "table" not in name and "conv_depth" not in name
            (matrices if inner and matrix else rest).append(parameter)
        return matrices, rest

    def encode_text(self, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Return encoder states `(captions + 1, tokens, width)` and masks; the last caption is the empty one.

        Args:
            ids: `(captions, tokens)`; `mask` likewise.
        """
        empty_ids, empty_mask = torch.zeros_like(ids[:1]), torch.zeros_like(mask[:1])
        empty_ids[0, 0], empty_mask[0, 0] = self.text_encoder.config.bos_token_id, 1
        ids, mask = torch.cat([ids, empty_ids]), torch.cat([mask, empty_mask])
        with torch.autocast(ids.device.type, torch.bfloat16, enabled=ids.is_cuda):
            states = self.text_encoder(ids, attention_mask=mask).last_hidden_state
        dtype = torch.bfloat16 if ids.is_cuda else torch.float32
        return states.to(dtype), mask


class BlockFlow:
    """Losses over clips laid out as rows.

    Args:
        net: what is trained.
        clips: clips a step.
        blocks: blocks a clip.
        copies: noisy copies of each clip.
        frames: latent frames a block.
        rows: fixed number of rows to pad to, so that one compiled graph serves every stage.
        device: where to run.
    """

    def __init__(
        self, net: Net, clips: int, blocks: int, copies: int, frames: int, rows: int, device: torch.device
    ) -> None:
        plain = clip_layout(clips, blocks, copies, frames, WINDOW_BLOCKS)
        if plain.rows > rows:
            raise ValueError(
                f"{clips} clips of {blocks} blocks in {copies} copies need {plain.rows} rows, not {rows}"
            )
        self.net, self.clips, self.blocks, self.copies = net, clips, blocks, copies
        self.used = plain.rows
        self.layout = plain.padded(rows).to(device)
        next_block = torch.cat([plain.block[: plain.clean] + 1, plain.block[plain.clean :]])
        caption = plain.clip * blocks + next_block  # lazy commit: a block is written under the next block's text
        self._caption = F.pad(caption, (0, rows - plain.rows), value=clips * blocks).to(device)

    def text(self, batch: Batch) -> RowText:
        """Return each row's caption, some replaced by the empty one."""
        hidden, mask = self.net.encode_text(batch.ids.flatten(0, 1), batch.mask.flatten(0, 1))
        states = self.net.rows.project_text(hidden)
        chance = torch.full((self.layout.rows,), DROP_NOISY, device=states.device)
        chance[: self.layout.clean] = DROP_CLEAN
        dropped = torch.rand_like(chance) < chance
        return RowText(states, mask, torch.where(dropped, len(states) - 1, self._caption))

    def predict(self, clean: Tensor, noisy: Tensor, sigma: Tensor, text: RowText) -> Tensor:
        """Return v of the noisy rows.

        Args:
            clean: `(clean rows, z, frames, h, w)`.
            noisy: `(noisy rows, z, frames, h, w)`.
            sigma: `(noisy rows,)`.
            text: each row's caption.
        """
        rows, used, count = self.layout.rows, self.used, self.layout.clean
        filler = torch.zeros((rows - used, *noisy.shape[1:]), dtype=noisy.dtype, device=noisy.device)
        timestep = F.pad(sigma.float() * 1000, (count, rows - used))
        v, _ = self.net.rows(
            torch.cat([clean.to(noisy.dtype), noisy, filler]), timestep, *text.rows(text.index), self.layout
        )
        return v[count:used]

    def loss(self, batch: Batch, self_made: bool) -> Tensor:
        """Return the mean squared error of v over all noisy rows; `self_made`: the past is partly predicted."""
        x0 = batch.latents
        text = self.text(batch)
        clean = x0[:, :-1].flatten(0, 1)
        if self_made:
            clean = self._self_made(x0, clean, text)
        target = x0.flatten(0, 1).repeat(self.copies, 1, 1, 1, 1)
        sigma = sample_sigma(len(target), target.device)
        noisy, noise = add_noise(target, sigma)
        v = self.predict(disturb(clean), noisy, sigma, text)
        return F.mse_loss(v.float(), noise.float() - target.float())

    @torch.no_grad()
    def _self_made(self, x0: Tensor, clean: Tensor, text: RowText) -> Tensor:
        """Replace 70% of the past blocks by one-step predictions from much noise."""
        target = x0.flatten(0, 1).repeat(self.copies, 1, 1, 1, 1)
        sigma = 0.35 + 0.65 * torch.rand(len(target), device=x0.device)
        noisy, _ = add_noise(target, sigma)
        v = self.predict(disturb(clean), noisy, sigma, text)
        made = noisy - wide(sigma).to(v.dtype) * v
        made = made.view(self.copies, *x0.shape)[0][:, :-1].flatten(0, 1)
        replaced = torch.rand(len(clean), device=clean.device) < 0.7
        return torch.where(wide(replaced), made, clean)


def wide(rows: Tensor) -> Tensor:
    """`(rows,)` to `(rows, 1, 1, 1, 1)`."""
    return rows.view(-1, 1, 1, 1, 1)


def add_noise(x0: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
    """Return `(1 - sigma) x0 + sigma noise` and the noise; `x0` `(rows, ...)`, `sigma` `(rows,)`."""
    noise = torch.randn_like(x0)
    s = wide(sigma)
    return ((1 - s) * x0.float() + s * noise.float()).to(x0.dtype), noise


def sample_sigma(count: int, device: torch.device, shift: float = SHIFT, uniform: float = 0.12) -> Tensor:
    """Return noise levels `(count,)`: logit-normal, shifted towards noise, a share of them uniform."""
    level = torch.sigmoid(torch.randn(count, device=device))
    level = shift * level / (1 + (shift - 1) * level)
    flat = torch.rand(count, device=device)
    return torch.where(torch.rand(count, device=device) < uniform, flat, level)


def disturb(clean: Tensor) -> Tensor:
    """Noise on the past: none on 40% of the blocks, else up to a level of 0.35, mostly little.

    The stream's past is its own work, never as clean as a render; without this it drifts.
    """
    level = 0.35 * torch.rand(len(clean), device=clean.device) ** 1.5
    level = torch.where(torch.rand_like(level) < 0.4, torch.zeros_like(level), level)
    return add_noise(clean, level)[0]
