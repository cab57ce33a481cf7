"""References that share no code with `model/`: they read diffusers' modules and do the arithmetic in plain sight.

`block_pass` and `AuthorsLoop` follow LongSANA's own code as its authors run it: every block's own sums are kept, the
prefix is summed anew, commits and recaches are passes of their own. `masked_pass` has no state at all: one pass over
all frames with quadratic attention and a weight for each pair of blocks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import SanaVideoTransformer3DModel as DiffusersTransformer
from torch import Tensor

from model.transformer import SanaVideoTransformer3DModel

TEXT_TOKENS, TEXT_CHANNELS = 7, 24


def make_nets(
    seed: int = 0,
    *,
    heads: int = 2,
    head_dim: int = 24,
    layers: int = 3,
    std: float = 0.12,
    authors: bool = False,
    **config: Any,
) -> tuple[DiffusersTransformer, SanaVideoTransformer3DModel]:
    """diffusers' class with random numbers in every parameter, and ours with the same ones.

    `authors` gives both the eps of LongSANA's own net.
    """
    dim = heads * head_dim
    settings: dict[str, Any] = {
        "num_attention_heads": heads,
        "attention_head_dim": head_dim,
        "num_layers": layers,
        "num_cross_attention_heads": heads,
        "cross_attention_head_dim": head_dim,
        "cross_attention_dim": dim,
        "caption_channels": TEXT_CHANNELS,
        "in_channels": 4,
        "out_channels": 4,
        **config,
    }
    theirs = DiffusersTransformer(**settings).eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in theirs.named_parameters():
        is_norm = ".norm_" in name or "caption_norm" in name
        mean = 1.0 if is_norm else 0.0
        parameter.copy_(mean + std * torch.randn(parameter.shape, generator=generator))
    own = {"cross_attention_norm_eps": 1e-6, "linear_attention_eps": 1e-8} if authors else {}
    ours = SanaVideoTransformer3DModel(**settings, **own).eval().requires_grad_(False)
    ours.load_state_dict(theirs.state_dict())
    if authors:
        for block in theirs.transformer_blocks:
            block.attn2.norm_q.eps = block.attn2.norm_k.eps = 1e-6
    return theirs, ours


def make_text(seed: int, length: int = TEXT_TOKENS) -> tuple[Tensor, Tensor]:
    """Random prompt embeddings (1, tokens, channels) and a mask that hides the last two."""
    embeds = torch.randn(1, length, TEXT_CHANNELS, generator=torch.Generator().manual_seed(seed))
    mask = torch.ones(1, length)
    mask[:, -2:] = 0
    return embeds, mask


def make_noise(seed: int, channels: int, height: int, width: int, origin: int = 0) -> Callable[[int, int], Tensor]:
    """noise(frame, pass_) by frame minus `origin`."""

    def noise(frame: int, pass_: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed * 1_000_003 + (frame - origin) * 101 + pass_)
        return torch.randn(channels, height, width, generator=generator)

    return noise


def turn_by(positions: Tensor, dim: int) -> Tensor:
    """(positions,) -> (positions, dim / 2) complex128."""
    frequencies = 10000.0 ** (-torch.arange(0, dim, 2).double() / dim)
    return torch.polar(torch.ones(1).double(), positions.double()[:, None] * frequencies)


def turns(frames: Tensor, height: int, width: int, head_dim: int) -> Tensor:
    """Rotations of all tokens, (frames * height * width, head_dim / 2) complex128."""
    side = 2 * (head_dim // 6)
    grid = (len(frames), height, width)
    t = turn_by(frames, head_dim - 2 * side)[:, None, None].expand(*grid, -1)
    h = turn_by(torch.arange(height), side)[None, :, None].expand(*grid, -1)
    w = turn_by(torch.arange(width), side)[None, None].expand(*grid, -1)
    return torch.cat([t, h, w], -1).flatten(0, 2)


def _rotate(x: Tensor, turn: Tensor) -> Tensor:
    # x (tokens, heads, head_dim)
    pairs = torch.view_as_complex(x.double().unflatten(-1, (-1, 2)))
    return torch.view_as_real(pairs * turn[:, None]).flatten(-2).float()


def _qkv(attn: Any, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    q, k, v = attn.norm_q(attn.to_q(x)), attn.norm_k(attn.to_k(x)), attn.to_v(x)
    q, k, v = (y[0].unflatten(-1, (attn.heads, -1)) for y in (q, k, v))
    return F.relu(q), F.relu(k), v


def _read_text(attn: Any, x: Tensor, text: Tensor, mask: Tensor) -> Tensor:
    q, k, v = attn.norm_q(attn.to_q(x)), attn.norm_k(attn.to_k(text)), attn.to_v(text)
    q, k, v = (y[0].unflatten(-1, (attn.heads, -1)) for y in (q, k, v))
    scores = torch.einsum("nhd,mhd->hnm", q, k) / q.shape[-1] ** 0.5
    weights = scores.masked_fill(mask[0] == 0, -torch.inf).softmax(-1)
    return attn.to_out[0](torch.einsum("hnm,mhd->nhd", weights, v).flatten(1)[None])


def _pointwise_part(ff: Any, x: Tensor) -> Tensor:
    # (frames, height, width, channels) -> (frames, height * width, channels): the Mix-FFN before its t_conv
    hidden = F.silu(ff.conv_inverted(x.permute(0, 3, 1, 2)))
    hidden, gate = ff.conv_depth(hidden).chunk(2, dim=1)
    return ff.conv_point(hidden * F.silu(gate)).permute(0, 2, 3, 1).flatten(1, 2)


def _t_conv(ff: Any, y: Tensor, left: Tensor | None) -> Tensor:
    # y (frames, tokens, channels); zeros on the right, `left` (tokens, channels) or zeros on the left
    taps = ff.conv_temp.weight[..., 0]
    zero = torch.zeros_like(y[0])
    frames = [zero if left is None else left, *y, zero]
    mixed = [sum(frames[i + tap] @ taps[:, :, tap].T for tap in range(3)) for i in range(len(y))]
    return y + torch.stack(mixed)


def _unpatch(net: DiffusersTransformer, x: Tensor, grid: tuple[int, int, int]) -> Tensor:
    _, p_h, p_w = net.config.patch_size
    pieces = x.view(1, *grid, 1, p_h, p_w, -1)
    return torch.einsum("bfhwtpqc->bcfthpwq", pieces).reshape(1, -1, grid[0], grid[1] * p_h, grid[2] * p_w)


@dataclass
class Own:
    """A block's own state: a layer each, (heads, value, key), (heads, key), (tokens, channels)."""

    vk: list[Tensor] = field(default_factory=list)
    k_sum: list[Tensor] = field(default_factory=list)
    tail: list[Tensor] = field(default_factory=list)


def summed(blocks: Sequence[Own]) -> tuple[list[Tensor], list[Tensor]] | None:
    """The prefix: sums over blocks, a layer each."""
    if not blocks:
        return None
    layers = range(len(blocks[0].vk))
    vk = [torch.stack([b.vk[i] for b in blocks]).sum(0) for i in layers]
    return vk, [torch.stack([b.k_sum[i] for b in blocks]).sum(0) for i in layers]


def block_pass(
    net: DiffusersTransformer,
    latents: Tensor,
    timestep: float,
    text: tuple[Tensor, Tensor],
    first_frame: int,
    prefix: tuple[list[Tensor], list[Tensor]] | None,
    left: list[Tensor] | None,
    eps: float,
) -> tuple[Tensor, Own]:
    """One pass of one block (1, channels, frames, height, width) -> its flow and its own state."""
    x = net.patch_embedding(latents)
    grid = tuple(x.shape[2:])
    x = x.flatten(2).transpose(1, 2)
    time, embedded = net.time_embed(torch.tensor([timestep]), batch_size=1, hidden_dtype=x.dtype)
    words = net.caption_norm(net.caption_projection(text[0]))
    frames = torch.arange(first_frame, first_frame + grid[0])
    turn = turns(frames, grid[1], grid[2], net.config.attention_head_dim)
    own = Own()
    for index, block in enumerate(net.transformer_blocks):
        s1, c1, g1, s2, c2, g2 = block.scale_shift_table + time.view(6, -1)
        q, k, v = _qkv(block.attn1, block.norm1(x) * (1 + c1) + s1)
        own.vk.append(torch.einsum("nhv,nhk->hvk", v, _rotate(k, turn)))
        own.k_sum.append(k.sum(0))
        vk, k_sum = own.vk[-1], own.k_sum[-1]
        if prefix is not None:
            vk, k_sum = vk + prefix[0][index], k_sum + prefix[1][index]
        above = torch.einsum("hvk,nhk->nhv", vk, _rotate(q, turn))
        below = torch.einsum("hk,nhk->nh", k_sum, q)[..., None] + eps
        x = x + g1 * block.attn1.to_out[0]((above / below).flatten(1)[None])
        x = x + _read_text(block.attn2, x, words, text[1])
        y = _pointwise_part(block.ff, (block.norm2(x) * (1 + c2) + s2).view(*grid, -1))
        own.tail.append(y[-1])
        x = x + g2 * _t_conv(block.ff, y, None if left is None else left[index]).flatten(0, 1)
    shift, scale = net.scale_shift_table + embedded
    x = net.proj_out(net.norm_out.norm(x) * (1 + scale) + shift)
    return _unpatch(net, x, grid), own


def masked_pass(
    net: DiffusersTransformer,
    latents: Tensor,
    lengths: Sequence[int],
    timesteps: Sequence[float],
    text: tuple[Tensor, Tensor],
    weight: Callable[[int, int], float],
    eps: float = 1e-15,
) -> Tensor:
    """One pass over all blocks at once, (1, channels, sum of lengths, height, width) -> flow.

    Each block has its timestep; block i reads block j with `weight(i, j)`, 0 where it must not.
    """
    x = net.patch_embedding(latents)
    grid = tuple(x.shape[2:])
    tokens = grid[1] * grid[2]
    x = x.flatten(2).transpose(1, 2)
    block_of = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths) * tokens)
    pair = torch.tensor([[weight(i, j) for j in range(len(lengths))] for i in range(len(lengths))])
    pair = pair.double()[block_of][:, block_of]
    time, embedded = net.time_embed(torch.tensor(timesteps), batch_size=1, hidden_dtype=x.dtype)
    time, embedded = time.view(len(lengths), 6, -1)[block_of], embedded[block_of]
    words = net.caption_norm(net.caption_projection(text[0]))
    turn = turns(torch.arange(grid[0]), grid[1], grid[2], net.config.attention_head_dim)
    for block in net.transformer_blocks:
        s1, c1, g1, s2, c2, g2 = (block.scale_shift_table + time).unbind(1)
        q, k, v = _qkv(block.attn1, block.norm1(x) * (1 + c1) + s1)
        above = torch.einsum("nhd,mhd->hnm", _rotate(q, turn).double(), _rotate(k, turn).double()) * pair
        below = (torch.einsum("nhd,mhd->hnm", q.double(), k.double()) * pair).sum(-1) + eps
        read = torch.einsum("hnm,mhd->nhd", above / below[..., None], v.double()).float()
        x = x + g1 * block.attn1.to_out[0](read.flatten(1)[None])
        x = x + _read_text(block.attn2, x, words, text[1])
        y = _pointwise_part(block.ff, (block.norm2(x) * (1 + c2) + s2).view(*grid, -1))
        parts, left = [], None
        for part in y.split(list(lengths)):
            parts.append(_t_conv(block.ff, part, left))
            left = part[-1]
        x = x + g2 * torch.cat(parts).flatten(0, 1)
    shift, scale = (net.scale_shift_table + embedded[:, None]).unbind(1)
    x = net.proj_out(net.norm_out.norm(x) * (1 + scale) + shift)
    return _unpatch(net, x, grid)


class AuthorsLoop:
    """LongSANA's sampling loop: `blocks` gives the clean latents of each block.

    `prompts[i]` is the text of block i. At a change, with `recache`, the block before is run once more under the new
    text, from the prefix before it. `quirk` keeps what the authors' code does at block 1: block 0 is then recached on
    top of itself.
    """

    def __init__(
        self,
        net: DiffusersTransformer,
        noise: Callable[[int, int], Tensor],
        *,
        eps: float,
        timesteps: Sequence[float] = (1000, 960, 889, 727),
        shift: float = 7.0,
        window: int | None = None,
        recache: bool = True,
        quirk: bool = False,
    ) -> None:
        self.net, self.noise, self.eps = net, noise, eps
        self.timesteps, self.window, self.recache, self.quirk = timesteps, window, recache, quirk
        s = 1 - torch.arange(1000, dtype=torch.float32) / 1000
        self.sigmas = shift * s / (1 + (shift - 1) * s)

    def sigma(self, timestep: float) -> Tensor:
        return self.sigmas[(self.sigmas * 1000 - timestep).abs().argmin()]

    def past(self, own: list[Own], block: int) -> tuple[Any, list[Tensor] | None]:
        first = 0 if self.window is None else max(0, block - self.window)
        return summed(own[first:block]), own[block - 1].tail if block else None

    def blocks(self, lengths: Sequence[int], prompts: Sequence[tuple[Tensor, Tensor]]) -> list[Tensor]:
        own: list[Own] = []
        clean: list[Tensor] = []
        starts = [sum(lengths[:i]) for i in range(len(lengths))]
        for b, length in enumerate(lengths):
            if b and self.recache and prompts[b] is not prompts[b - 1]:
                past = self.past(own, b - 1)
                if b == 1 and self.quirk:
                    past = (summed(own[:1]), own[0].tail)
                own[b - 1] = block_pass(self.net, clean[-1], 0, prompts[b], starts[b - 1], *past, self.eps)[1]
            past = self.past(own, b)
            frames = range(starts[b], starts[b] + length)
            x = torch.stack([self.noise(f, 0) for f in frames], 1)[None]
            for index, t in enumerate(self.timesteps):
                flow, _ = block_pass(self.net, x, t, prompts[b], starts[b], *past, self.eps)
                x0 = (x.double() - self.sigma(t).double() * flow.double()).float()
                if index + 1 < len(self.timesteps):
                    fresh = torch.stack([self.noise(f, index + 1) for f in frames], 1)[None]
                    sigma = self.sigma(self.timesteps[index + 1])
                    x = (1 - sigma) * x0 + sigma * fresh
            clean.append(x0)
            own.append(block_pass(self.net, x0, 0, prompts[b], starts[b], *past, self.eps)[1])
        return clean
