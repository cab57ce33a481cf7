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

from model.training.layout import Layout, clip_layout, send
from model.training.rows import RowsPass, take

SHIFT = 3.0
PLAIN_TIMESTEPS = (1000, 880, 500)
"""At which weights that were not distilled are asked, with the Adams-Bashforth sampler: by eye and by
`benchmarks.quality`, three passes do as well as four."""
ASKED_SHARE, ASKED_SPREAD = 0.4, 0.03  # of the noise levels, near those; how near
DROP_NOISY, DROP_CLEAN = 0.1, 0.03  # share of rows that get the empty caption
WINDOW_BLOCKS = 6


@dataclass(frozen=True)
class Batch:
    """Clips of latents with the captions in force.

    Attributes:
        latents: `(clips, z, frames, h, w)` normalised.
        text: `(clips, blocks, tokens, width)` encoder states of the captions.
        mask: `(clips, blocks, tokens)` 1 for real tokens.
        lengths: `(clips, blocks)` latent frames of each block, on the CPU.
    """

    latents: Tensor
    text: Tensor
    mask: Tensor
    lengths: Tensor

    @property
    def frames(self) -> Tensor:
        """`(clips, frames, z, h, w)`: latent frames as rows have them."""
        return self.latents.transpose(1, 2)


@dataclass(frozen=True)
class RowText:
    """Projected captions and how to find each row's: `states` `(captions, tokens, c)`, the last one empty."""

    states: Tensor
    mask: Tensor
    index: Tensor

    def rows(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """Return text and mask of the rows that `index` names."""
        return take(self.states, index), self.mask[index]


class Net(nn.Module):
    """The transformer, which is trained, and the text encoder, which is not.

    The encoder stays as its own training left it: a word that no caption has keeps its place beside its neighbours.
    """

    def __init__(self, transformer: Any, text_encoder: Any, compiled: bool) -> None:
        super().__init__()
        self.transformer = transformer
        self.text_encoder = text_encoder.requires_grad_(False)
        self.rows = RowsPass(transformer, compiled)
        self._empty: tuple[Tensor, Tensor] | None = None

    def split_parameters(self) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
        """Matrices inside the transformer's blocks for Muon, everything else of it for AdamW."""
        matrices: list[nn.Parameter] = []
        rest: list[nn.Parameter] = []
        for name, parameter in self.transformer.named_parameters():
            matrix = parameter.dim() >= 2 and "table" not in name and "conv_depth" not in name
            (matrices if "transformer_blocks" in name and matrix else rest).append(parameter)
        return matrices, rest

    @torch.no_grad()
    def encode_text(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Return encoder states `(captions, tokens, width)`; `ids` and `mask` `(captions, tokens)`."""
        with torch.autocast(ids.device.type, torch.bfloat16, enabled=ids.is_cuda):
            states = self.text_encoder(ids, attention_mask=mask).last_hidden_state
        dtype = torch.bfloat16 if ids.is_cuda else torch.float32
        return states.to(dtype)

    def with_empty(self, text: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Return states `(captions + 1, tokens, width)` and masks of the captions and, last, the empty one.

        Args:
            text: `(captions, tokens, width)` from `encode_text`.
            mask: `(captions, tokens)`.
        """
        if self._empty is None:
            ids, alone = torch.zeros_like(mask[:1]), torch.zeros_like(mask[:1])
            ids[0, 0], alone[0, 0] = self.text_encoder.config.bos_token_id, 1
            self._empty = self.encode_text(ids, alone), alone
        states, alone = self._empty
        return torch.cat([text, states]), torch.cat([mask, alone])


class Placed:
    """A layout on the device, padded to a fixed number of rows, with what training needs of each row.

    Args:
        layout: unpadded.
        lengths: `(clips, blocks)` of the clips laid out.
        rows: rows after padding.
        device: where to.

    Attributes:
        used, clean: rows in use, and clean ones among them.
        caption: `(rows,)` index of each row's caption among `clips * blocks`, then the empty one: a noisy block has
            its own, a clean one its successor's (a commit is lazy), filler the empty one.
        group: `(used,)` number of each row's block: rows of one block and copy share noise level and fate.
        groups: how many there are at most.
        past: `(clean,)` index of each clean row's latent frame among `clips * frames`.
    """

    def __init__(self, layout: Layout, lengths: Tensor, rows: int, device: torch.device) -> None:
        clips, blocks = lengths.shape
        frames = int(lengths[0].sum())
        clean = layout.clean
        later = (layout.copy < 0).long()
        caption = layout.clip * blocks + layout.block + later
        self.clean, self.used = clean, layout.rows
        self.layout = layout.padded(rows).to(device)
        self.caption = send(F.pad(caption, (0, rows - layout.rows), value=clips * blocks), device)
        copy = layout.copy + 1
        self.group = send((copy * clips + layout.clip) * blocks + layout.block, device)
        self.groups = (int(copy.max()) + 1) * clips * blocks
        self.past = send((layout.clip * frames + layout.frame)[:clean], device)

    @property
    def noisy_group(self) -> Tensor:
        """`group` of the noisy rows."""
        return self.group[self.clean :]


class BlockFlow:
    """Losses over clips laid out as rows.

    Args:
        net: what is trained.
        copies: noisy copies of each clip.
        rows: fixed number of rows to pad to, so that one compiled graph serves every stage.
        device: where to run.
    """

    def __init__(self, net: Net, copies: int, rows: int, device: torch.device) -> None:
        self.net, self.copies, self.rows, self.device = net, copies, rows, device

    def place(self, batch: Batch) -> Placed:
        """Lay a batch out as rows."""
        return Placed(clip_layout(batch.lengths, self.copies, WINDOW_BLOCKS), batch.lengths, self.rows, self.device)

    def text(self, batch: Batch, at: Placed) -> RowText:
        """Return each row's caption, some blocks' replaced by the empty one."""
        hidden, mask = self.net.with_empty(batch.text.flatten(0, 1), batch.mask.flatten(0, 1))
        states = self.net.rows.project_text(hidden)
        chance = torch.full((at.used,), DROP_NOISY, device=states.device)
        chance[: at.clean] = DROP_CLEAN
        dropped = torch.rand(at.groups, device=states.device)[at.group] < chance
        dropped = F.pad(dropped, (0, self.rows - at.used))
        return RowText(states, mask, torch.where(dropped, len(states) - 1, at.caption))

    def predict(self, clean: Tensor, noisy: Tensor, sigma: Tensor, text: RowText, at: Placed) -> Tensor:
        """Return v of the noisy rows.

        Args:
            clean: `(clean rows, z, h, w)`.
            noisy: `(noisy rows, z, h, w)`.
            sigma: `(noisy rows,)`.
            text: each row's caption.
            at: where the rows stand.
        """
        timestep = F.pad(sigma.float() * 1000, (at.clean, self.rows - at.used))
        latents = filled(torch.cat([clean.to(noisy.dtype), noisy]), self.rows)
        v, _ = self.net.rows(latents, timestep, *text.rows(text.index), at.layout)
        return v[at.clean : at.used]

    def loss(self, batch: Batch, past: Tensor | None = None) -> Tensor:
        """Return the mean squared error of v over all noisy rows.

        Args:
            batch: clips to aim at.
            past: `(clips, frames, z, h, w)` what blocks read instead of the clips' own, a little disturbed, frames,
                see `model.training.rollout`.
        """
        at = self.place(batch)
        x0 = batch.frames.flatten(0, 1)
        text = self.text(batch, at)
        clean = disturb(x0[at.past], at) if past is None else past.flatten(0, 1)[at.past]
        target = x0.repeat(self.copies, 1, 1, 1)
        sigma = sample_sigma(at.groups, target.device)[at.noisy_group]
        noisy, noise = add_noise(target, sigma)
        v = self.predict(clean, noisy, sigma, text, at)
        return F.mse_loss(v.float(), noise.float() - target.float())


def wide(rows: Tensor) -> Tensor:
    """`(rows,)` to `(rows, 1, 1, 1)`."""
    return rows.view(-1, 1, 1, 1)


def filled(rows: Tensor, count: int, value: int = 0) -> Tensor:
    """`rows` and filler of that value behind them, `count` in all."""
    return torch.cat([rows, rows.new_full((count - len(rows), *rows.shape[1:]), value)])


def add_noise(x0: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
    """Return `(1 - sigma) x0 + sigma noise` and the noise; `x0` `(rows, ...)`, `sigma` `(rows,)`."""
    noise = torch.randn_like(x0)
    s = wide(sigma)
    return ((1 - s) * x0.float() + s * noise.float()).to(x0.dtype), noise


def sample_sigma(count: int, device: torch.device, shift: float = SHIFT, uniform: float = 0.12) -> Tensor:
    """Return noise levels `(count,)`: logit-normal, shifted towards noise, a share of them uniform, and a larger one
    near those at which a stream asks."""
    level = torch.sigmoid(torch.randn(count, device=device))
    level = shift * level / (1 + (shift - 1) * level)
    asked = torch.tensor(PLAIN_TIMESTEPS, device=device)[torch.randint(len(PLAIN_TIMESTEPS), (count,), device=device)]
    near = asked / 1000 + ASKED_SPREAD * (2 * torch.rand(count, device=device) - 1)
    flat, dice = torch.rand(2, count, device=device)
    level = torch.where(dice < ASKED_SHARE + uniform, flat, level)
    return torch.where(dice < ASKED_SHARE, near.clamp(max=1.0), level)


def disturb(clean: Tensor, at: Placed) -> Tensor:
    """Noise on the past `(clean rows, z, h, w)`: none on 40% of the blocks, else up to 0.35, mostly little.

    The stream's past is its own work, never as clean as a render; without this it drifts.
    """
    level = 0.35 * torch.rand(at.groups, device=clean.device) ** 1.5
    level = torch.where(torch.rand_like(level) < 0.4, torch.zeros_like(level), level)
    return add_noise(clean, level[at.group[: at.clean]])[0]
