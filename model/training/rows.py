"""Many blocks of many clips through the SANA-Video transformer in one pass, as rows.

A row is one latent frame, so that blocks of any length share one compiled graph. *Clean* rows run at t = 0 and write
state; *noisy* rows only read it. Which rows' sums a row reads is a matrix of zeros and ones, which rows stand to its
left and right in the temporal convolution are indices. So a fixed number of rows serves short clips, long clips,
mixed blocks, several noisy copies and distillation alike, and states can be kept and read again by later passes
(`Past`).

The arithmetic is that of streaming with a window of w blocks: block i reads its own sums and those of blocks
i - w .. i - 1, which were committed at t = 0 under the text then in force (`model.stream`). For a single block
without past it is diffusers' `SanaVideoTransformer3DModel`. Both are tested (tests/model/training/test_rows.py).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from model.training.depthwise import gated
from model.training.layout import Layout

ATTENTION_EPS = 1e-15


@dataclass
class Past:
    """What clean rows wrote, layer by layer: sums `(clean, heads, d, d + 1)` and frames `(clean, hw, c)`."""

    sums: list[Tensor]
    frames: list[Tensor]


def rope_tables(frame: Tensor, height: int, width: int, head_dim: int) -> tuple[Tensor, Tensor]:
    """Return cosines and sines `(rows, 1, height * width, head_dim / 2)` at absolute latent frames `(rows,)`.

    Angles are taken in float64, as the stream does.
    """
    side = 2 * (head_dim // 6)
    device = frame.device

    def angles(positions: Tensor, size: int) -> Tensor:
        exponent = torch.arange(0, size, 2, dtype=torch.float64, device=device) / size
        return positions.double()[..., None] * 10000.0**-exponent

    shape = (frame.shape[0], height, width)
    parts = [
        angles(frame, head_dim - 2 * side)[:, None, None].expand(*shape, -1),
        angles(torch.arange(height, device=device), side)[None, :, None].expand(*shape, -1),
        angles(torch.arange(width, device=device), side)[None, None].expand(*shape, -1),
    ]
    angle = torch.cat(parts, dim=-1).reshape(shape[0], 1, height * width, head_dim // 2)
    return angle.cos().float(), angle.sin().float()


def _rms(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    wide = x.float()
    return (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps) * weight.float()).to(x.dtype)


def _modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    wide = F.layer_norm(x.float(), (x.shape[-1],), eps=1e-6)
    return (wide * (1 + scale.float()) + shift.float()).to(x.dtype)


def _linear(layer: Any, x: Tensor) -> Tensor:
    bias = layer.bias
    return F.linear(x, layer.weight.to(x.dtype), None if bias is None else bias.to(x.dtype))


def _joined(layers: list[Any], x: Tensor) -> tuple[Tensor, ...]:
    """Apply layers of equal size as one product, which reads `x` and writes its gradient once."""
    weight = torch.cat([layer.weight for layer in layers]).to(x.dtype)
    biases = [layer.bias for layer in layers if layer.bias is not None]
    return F.linear(x, weight, torch.cat(biases).to(x.dtype) if biases else None).chunk(len(layers), dim=-1)


def _heads(x: Tensor, heads: int) -> Tensor:
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = x.float().unflatten(-1, (-1, 2)).unbind(-1)
    return torch.stack([first * cos - second * sin, first * sin + second * cos], dim=-1).flatten(-2).to(x.dtype)


def layer_sums(block: Any, x: Tensor, table: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """First third of a layer: queries, rotated queries and the rows' own sums.

    Args:
        block: a transformer block with diffusers' parameter names.
        x: `(rows, tokens, channels)`.
        table: `(rows, 6, channels)` modulation.
        cos: rope cosines, see `rope_tables`; `sin` likewise.

    Returns:
        `(rows, heads, tokens, d)` twice and `(rows, heads, d, d + 1)` in float32: v k^T beside the sum of k.
    """
    attention = block.attn1
    h = _modulate(x, table[:, 0:1], table[:, 1:2])
    heads = attention.heads
    query, key, value = _joined([attention.to_q, attention.to_k, attention.to_v], h)
    query = F.relu(_rms(query, attention.norm_q.weight, attention.norm_q.eps))
    key = F.relu(_rms(key, attention.norm_k.weight, attention.norm_k.eps))
    query, key, value = _heads(query, heads), _heads(key, heads), _heads(value, heads)
    products = value.transpose(-1, -2) @ _rotate(key, cos, sin)
    total = key.float().sum(2)
    return query, _rotate(query, cos, sin), torch.cat([products.float(), total[..., None]], dim=-1)


def layer_mix(
    block: Any,
    x: Tensor,
    table: Tensor,
    queries: tuple[Tensor, Tensor],
    sums: Tensor,
    text: Tensor,
    bias: Tensor,
    size: tuple[int, int],
) -> tuple[Tensor, Tensor]:
    """Second third: attention over the sums, text attention, the FFN up to its temporal convolution.

    Args:
        block: the transformer block.
        x: `(rows, tokens, channels)`.
        table: `(rows, 6, channels)`.
        queries: plain and rotated queries of `layer_sums`.
        sums: `(rows, heads, d, d + 1)` own and past.
        text: `(rows, text tokens, channels)` projected and normalised.
        bias: `(rows, 1, 1, text tokens)` added to text scores.
        size: token rows, token columns.

    Returns:
        The residual and y, `(rows, tokens, channels)` each.
    """
    attention, query, rotated = block.attn1, *queries
    products, total = sums[..., :-1].to(x.dtype), sums[..., -1:].to(x.dtype)
    mixed = (rotated @ products.transpose(-1, -2)).float()
    mixed = (mixed / ((query @ total).float() + ATTENTION_EPS)).to(x.dtype)
    out = _linear(attention.to_out[0], mixed.transpose(1, 2).flatten(2))
    x = x + table[:, 2:3] * out

    cross = block.attn2
    q = _heads(_rms(_linear(cross.to_q, x), cross.norm_q.weight, cross.norm_q.eps), cross.heads)
    k = _heads(_rms(_linear(cross.to_k, text), cross.norm_k.weight, cross.norm_k.eps), cross.heads)
    v = _heads(_linear(cross.to_v, text), cross.heads)
    seen = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
    x = x + _linear(cross.to_out[0], seen.transpose(1, 2).flatten(2))

    h = _modulate(x, table[:, 3:4], table[:, 4:5])
    return x, _ffn(block.ff, h, size)


def _ffn(ff: Any, h: Tensor, size: tuple[int, int]) -> Tensor:
    hidden = F.linear(h, ff.conv_inverted.weight.to(h.dtype).flatten(1)).unflatten(1, size)
    inside = gated(hidden, ff.conv_inverted.bias, ff.conv_depth.weight, ff.conv_depth.bias)
    return F.linear(inside, ff.conv_point.weight.to(h.dtype).flatten(1)).flatten(1, 2)


def layer_end(
    block: Any, x: Tensor, table: Tensor, y: Tensor, beside: tuple[Tensor, Tensor], there: Tensor
) -> Tensor:
    """Last third: temporal convolution and the residual.

    Args:
        block: the transformer block.
        x: `(rows, tokens, channels)`.
        table: `(rows, 6, channels)`.
        y: `(rows, tokens, channels)` from `layer_mix`.
        beside: left and right neighbours, shaped like `y`.
        there: `(2, rows, 1, 1)` whether there is one.
    """
    weight = block.ff.conv_temp.weight.to(x.dtype)[..., 0]
    left, right = torch.where(there[0], beside[0], 0), torch.where(there[1], beside[1], 0)
    moved = F.linear(torch.cat([left, y, right], dim=-1), weight.permute(0, 2, 1).flatten(1))
    return x + table[:, 5:6] * (y + moved)


class _Take(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, source: Tensor, index: Tensor) -> Tensor:
        ctx.save_for_backward(index)
        ctx.count = len(source)
        return source.index_select(0, index.clamp(max=len(source) - 1))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (index,) = ctx.saved_tensors
        chosen = torch.arange(ctx.count, device=index.device)[:, None] == index
        return (chosen.to(gradient.dtype) @ gradient.flatten(1)).view(-1, *gradient.shape[1:]), None


def take(source: Tensor, index: Tensor) -> Tensor:
    """Return `source[index]`, undefined where `index` is past the end; the gradient is a product, not atomic sums.

    Args:
        source: `(count, ...)`.
        index: `(rows,)`.
    """
    taken: Tensor = _Take.apply(source, index)
    return taken


@cache
def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile once a process: teacher, student and later stages share the graphs."""
    compiled: Callable[..., Any] = torch.compile(function, dynamic=False)
    return compiled


class RowsPass:
    """Runs rows through a transformer with diffusers' parameter names.

    Args:
        transformer: the module (`patch_size` (1, 2, 2)).
        compiled: compile the three thirds of a layer for the row counts that come.
    """

    def __init__(self, transformer: Any, compiled: bool = False) -> None:
        self.net = transformer
        wrap: Callable[[Any], Any] = _compiled if compiled else (lambda f: f)
        self._sums, self._mix, self._end = wrap(layer_sums), wrap(layer_mix), wrap(layer_end)

    def project_text(self, states: Tensor) -> Tensor:
        """Return encoder states `(n, tokens, caption channels)` projected and normalised to the net's width."""
        projection, norm = self.net.caption_projection, self.net.caption_norm
        hidden = F.gelu(_linear(projection.linear_1, states), approximate="tanh")
        return _rms(_linear(projection.linear_2, hidden), norm.weight, norm.eps)

    def __call__(
        self,
        latents: Tensor,
        timestep: Tensor,
        text: Tensor,
        mask: Tensor,
        layout: Layout,
        past: Past | None = None,
        keep: bool = False,
    ) -> tuple[Tensor, Past | None]:
        """Predict v = noise - x0 for every row.

        Args:
            latents: `(rows, channels, height, width)`, clean rows first.
            timestep: `(rows,)` 1000 sigma; 0 for clean rows.
            text: `(rows, text tokens, channels)` from `project_text`.
            mask: `(rows, text tokens)` 1 for real tokens.
            layout: what each row reads.
            past: states to read instead of this call's clean rows; `layout` is then a `noisy_part`.
            keep: return the clean rows' states.

        Returns:
            v, shaped like `latents`, and the kept states.
        """
        net, dtype = self.net, latents.dtype
        height, width = latents.shape[2] // 2, latents.shape[3] // 2
        size = (height, width)
        x = _patches(latents)
        weight = net.patch_embedding.weight.to(dtype).flatten(1)
        x = F.linear(x, weight, net.patch_embedding.bias.to(dtype))
        modulation, embedded = self._time(timestep, dtype)
        cos, sin = rope_tables(layout.frame, height, width, net.config.attention_head_dim)
        bias = torch.where(mask.bool(), 0.0, -10000.0).to(dtype)[:, None, None, :]
        kept = Past([], [])
        for index, block in enumerate(net.transformer_blocks):
            table = (block.scale_shift_table.float() + modulation).to(dtype)
            *queries, own = self._sums(block, x, table, cos, sin)
            source = own if past is None else torch.cat([past.sums[index], own])
            sums = (layout.reads @ source.flatten(1)).view_as(own)
            x, y = self._mix(block, x, table, tuple(queries), sums, text, bias, size)
            frames = y if past is None else torch.cat([past.frames[index], y])
            x = self._end(block, x, table, y, (take(frames, layout.left), take(frames, layout.right)), layout.there)
            if keep:
                kept.sums.append(own[: layout.clean])
                kept.frames.append(y[: layout.clean])
        shift, scale = (net.scale_shift_table.float() + embedded.float()[:, None]).to(dtype).chunk(2, dim=1)
        out = _linear(net.proj_out, _modulate(x, shift, scale))
        return _unpatches(out, size), kept if keep else None

    def _time(self, timestep: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Return modulation `(rows, 6, channels)` and the embedding `(rows, channels)`, both float32."""
        time = self.net.time_embed
        wave = time.emb.time_proj(timestep.float())
        embedder = time.emb.timestep_embedder
        embedded = F.linear(wave, embedder.linear_1.weight, embedder.linear_1.bias)
        embedded = F.linear(F.silu(embedded), embedder.linear_2.weight, embedder.linear_2.bias)
        modulation = F.linear(F.silu(embedded), time.linear.weight, time.linear.bias)
        return modulation.unflatten(-1, (6, -1)), embedded


def _patches(latents: Tensor) -> Tensor:
    """`(rows, c, h, w)` to tokens `(rows, h/2 w/2, 4 c)`, ordered like a flattened (1, 2, 2) kernel."""
    r, c, h, w = latents.shape
    y = latents.reshape(r, c, h // 2, 2, w // 2, 2).permute(0, 2, 4, 1, 3, 5)
    return y.reshape(r, (h // 2) * (w // 2), c * 4)


def _unpatches(tokens: Tensor, size: tuple[int, int]) -> Tensor:
    """Tokens `(rows, tokens, 4 c)` with channels last inside a patch to `(rows, c, h, w)`."""
    h, w = size
    y = tokens.reshape(tokens.shape[0], h, w, 2, 2, -1).permute(0, 5, 1, 3, 2, 4)
    return y.reshape(tokens.shape[0], -1, 2 * h, 2 * w)


def initialise(transformer: Any) -> None:
    """Start a fresh net near the identity: zero outputs and modulation, gates open, a quiet FFN."""
    net = transformer
    zeros = [net.proj_out, net.time_embed.linear]
    with torch.no_grad():
        net.scale_shift_table.zero_()
        for block in net.transformer_blocks:
            zeros += [block.attn1.to_out[0], block.attn2.to_out[0]]
            block.scale_shift_table.zero_()
            block.scale_shift_table[2].fill_(1.0)
            block.scale_shift_table[5].fill_(1.0)
            block.ff.conv_point.weight.mul_(0.1)
        for layer in zeros:
            layer.weight.zero_()
            layer.bias.zero_()
