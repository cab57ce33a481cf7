"""The layers of the block linear diffusion transformer, on channels-last tokens.

Parameter names are those of diffusers' `SanaVideoTransformer3DModel`. 1x1 convolutions are held and computed as
linear layers. Nothing here keeps state: what a block reads of the past comes in, what it leaves behind goes out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from diffusers.models.normalization import RMSNorm
from torch import Tensor, nn

from model.adapted import Adapted
from model.linear_attention import attend, attend_rounded, own_sums, rotate
from model.packed import linear, plain, product, usable


@dataclass
class Past:
    """What one layer reads of the state and leaves for it.

    `sums` (batch, heads, head_dim + 1, head_dim) and `tail` (batch, tokens, channels) come in. For the rows that
    commit, `own` and `last`, of the same shapes, go out: the block's own contribution. `key_dtype`: that of the sums
    of k, see `model.state`.
    """

    sums: Tensor
    tail: Tensor
    commits: list[int]
    key_dtype: torch.dtype = torch.float32
    own: Tensor | None = None
    last: Tensor | None = None

    def leave(self, own: Tensor | None = None, last: Tensor | None = None) -> None:
        """Keep copies of the committing rows of either, and nothing where no row commits."""
        if self.commits and own is not None:
            self.own = own[self.commits]
        if self.commits and last is not None:
            self.last = last[self.commits]


@dataclass(frozen=True)
class TextCache:
    """Text as the blocks read it, made once a prompt.

    `keys` and `values`: a layer each (batch, heads, text tokens, head_dim); `bias` (batch, 1, 1, text tokens) is 0 at
    tokens to read and -10000 at padding, or None where every token counts.
    """

    keys: tuple[Tensor, ...]
    values: tuple[Tensor, ...]
    bias: Tensor | None

    @staticmethod
    def stack(rows: list[TextCache]) -> TextCache:
        """One batch of several caches of equal length."""
        if len(rows) == 1:
            return rows[0]
        biases = [row.bias for row in rows]
        if any(bias is not None for bias in biases):
            zeros = torch.zeros_like(next(bias for bias in biases if bias is not None))
            bias = torch.cat([zeros if b is None else b for b in biases])
        else:
            bias = None
        return TextCache(
            tuple(torch.cat(layer) for layer in zip(*(row.keys for row in rows), strict=True)),
            tuple(torch.cat(layer) for layer in zip(*(row.values for row in rows), strict=True)),
            bias,
        )


def joined_product(x: Tensor, parts: tuple[nn.Module, ...]) -> Tensor | None:
    """The outputs of bias-free plain linear layers side by side, by one product; None where that cannot be."""
    joined = tuple(cast(nn.Linear, part) for part in parts if plain(part) and part.bias is None)
    if torch.is_grad_enabled() or len(joined) < len(parts):
        return None
    if usable(x, joined[0], nn.Linear):
        return product(x, joined[0], tuple(part.weight for part in joined), matrix=torch.cat)
    return F.linear(x, joined_weight(joined))


def joined_weight(parts: tuple[nn.Linear, ...]) -> Tensor:
    """The weights of linear layers of one input as one (outputs of all, in) matrix, without a copy.

    The layers' parameters are made views of one buffer, so that loading, saving and fusing LoRAs go on as usual;
    whatever replaces them (a dtype change, say) is noticed by its address.
    """
    first = parts[0].weight
    address, adjacent = first.data_ptr(), True
    for part in parts:
        adjacent = adjacent and part.weight.is_contiguous() and part.weight.data_ptr() == address
        address += part.weight.nbytes
    end = first.untyped_storage().data_ptr() + first.untyped_storage().nbytes()
    if not adjacent or address > end:
        whole = torch.cat([part.weight.detach() for part in parts])
        for part, rows in zip(parts, whole.split([part.out_features for part in parts]), strict=True):
            part.weight.data = rows
    outputs = sum(part.out_features for part in parts)
    return parts[0].weight.detach().as_strided((outputs, parts[0].in_features), (parts[0].in_features, 1))


class Attention(nn.Module):
    """Projections and norms of one attention; the two ways to attend are below."""

    def __init__(
        self,
        dim: int,
        heads: int,
        head_dim: int,
        *,
        context_dim: int | None = None,
        bias: bool,
        out_bias: bool = True,
        qk_norm: str | None,
        norm_eps: float,
        dropout: float,
    ) -> None:
        super().__init__()
        if qk_norm not in (None, "rms_norm_across_heads"):
            raise ValueError(f"qk_norm must be 'rms_norm_across_heads' or None, not {qk_norm!r}")
        inner = heads * head_dim
        self.heads = heads
        self.norm_q = RMSNorm(inner, eps=norm_eps) if qk_norm else None
        self.norm_k = RMSNorm(inner, eps=norm_eps) if qk_norm else None
        self.to_q = nn.Linear(dim, inner, bias=bias)
        self.to_k = nn.Linear(context_dim or dim, inner, bias=bias)
        self.to_v = nn.Linear(context_dim or dim, inner, bias=bias)
        self.to_out = nn.ModuleList([nn.Linear(inner, dim, bias=out_bias), nn.Dropout(dropout)])

    def out(self, x: Tensor) -> Tensor:
        """Project attended values back to the model's width."""
        return self.to_out[1](linear(self.to_out[0], x))


class LinearAttention(Attention):
    """Self-attention by carried sums."""

    def forward(self, x: Tensor, turn: Tensor, past: Past | None, eps: float) -> Tensor:
        """x (batch, tokens, channels), turn (batch or 1, tokens, 1, head_dim / 2) complex64 -> like x."""
        query, key, value = self._project(x)
        if past is not None and past.key_dtype != torch.float32:
            return self.out(self._rounded(query, key, value, turn, past, eps).to(x.dtype))
        query_rotated, key_rotated = rotate(query, turn), rotate(key, turn)
        sums = own_sums(key, key_rotated, value)
        if past is not None:
            past.leave(own=sums)
            sums = sums + past.sums
        return self.out(attend(query, query_rotated, sums, eps).to(x.dtype))

    def _rounded(self, query: Tensor, key: Tensor, value: Tensor, turn: Tensor, past: Past, eps: float) -> Tensor:
        # As LongSANA's released code: queries, keys and their turned copies are rounded, and all made of sums of k.
        def rounded(y: Tensor) -> Tensor:
            return y.to(past.key_dtype).float()

        query, key = rounded(query), rounded(key)
        sums = own_sums(key, rounded(rotate(key, turn)), value)
        sums[:, :, -1] = rounded(sums[:, :, -1])
        past.leave(own=sums)
        sums = sums + past.sums
        return attend_rounded(query, rounded(rotate(query, turn)), sums, eps, past.key_dtype)

    def _project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        # Each (batch, tokens, heads, head_dim) float32; norm, ReLU and rotation run in float32 throughout.
        parts = (self.to_q, self.to_k, self.to_v)
        bases = tuple(part.base if isinstance(part, Adapted) else part for part in parts)
        joined = joined_product(x, bases)
        pieces = [base(x) for base in bases] if joined is None else joined.chunk(3, dim=-1)
        q, k, v = (
            part.add(piece, x) if isinstance(part, Adapted) else piece
            for part, piece in zip(parts, pieces, strict=True)
        )
        return self._positive(q, self.norm_q), self._positive(k, self.norm_k), self._split(v.float())

    def _positive(self, x: Tensor, norm: RMSNorm | None) -> Tensor:
        x = x.float()
        if norm is not None:
            kept = plain(norm, RMSNorm)
            x = F.rms_norm(x, x.shape[-1:], norm.weight.float(), norm.eps) if kept else norm(x).float()
        return self._split(F.relu(x))

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1))


class CrossAttention(Attention):
    """Attention to the text."""

    def text(self, embeds: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values (batch, heads, text tokens, head_dim) of projected text (batch, text tokens, channels).

        On the CPU, where float32 products this small are as fast, they are float32; elsewhere the model's dtype.
        """
        key, value = self.to_k(embeds), self.to_v(embeds)
        if self.norm_k is not None:
            key = self.norm_k(key)
        dtype = torch.float32 if embeds.device.type == "cpu" else embeds.dtype
        return self._split(key.to(dtype)).contiguous(), self._split(value.to(dtype)).contiguous()

    def forward(self, x: Tensor, key: Tensor, value: Tensor, bias: Tensor | None) -> Tensor:
        """x (batch, tokens, channels) -> like x."""
        query, scale = linear(self.to_q, x).to(key.dtype), key.shape[-1] ** -0.5
        if self.norm_q is not None and plain(self.norm_q, RMSNorm):
            weight = self.norm_q.weight.to(key.dtype) * scale
            query = F.rms_norm(query, query.shape[-1:], weight, self.norm_q.eps)
        else:
            query = (query if self.norm_q is None else self.norm_q(query).to(key.dtype)) * scale
        query = self._split(query)
        if x.device.type == "cpu" and not torch.is_grad_enabled():
            # A text is short: its few scores a token cost less than the fused kernel's set-up.
            scores = query @ key.transpose(-1, -2)
            attended = (scores if bias is None else scores.add_(bias)).softmax(-1) @ value
        else:
            attended = F.scaled_dot_product_attention(query, key, value, attn_mask=bias, scale=1.0)
        return self.out(attended.transpose(1, 2).flatten(2).to(x.dtype))

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)


class MixFeedForward(nn.Module):
    """Pointwise, depthwise 3x3, gate, pointwise, then a temporal convolution over three latent frames.

    The temporal convolution sees the previous block's last frame on its left and zeros on its right.
    """

    def __init__(self, dim: int, ratio: float) -> None:
        super().__init__()
        hidden = int(ratio * dim)
        self.conv_inverted = nn.Linear(dim, hidden * 2)
        self.conv_depth = nn.Conv2d(hidden * 2, hidden * 2, 3, 1, 1, groups=hidden * 2)
        self.conv_point = nn.Linear(hidden, dim, bias=False)
        self.conv_temp = nn.Conv2d(dim, dim, (3, 1), 1, (1, 0), bias=False)

    def forward(self, x: Tensor, past: Past | None) -> Tensor:
        """x (batch, frames, height, width, channels) -> like x."""
        batch, frames, height, width, channels = x.shape
        # Linear layers get three dimensions: bitsandbytes' can't take more.
        hidden = linear(self.conv_inverted, x.view(batch * frames, height * width, channels), silu=True)
        # A channels-last tensor seen as NCHW: no copy either way.
        hidden = self.conv_depth(hidden.unflatten(1, (height, width)).permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        hidden, gate = hidden.flatten(1, 2).chunk(2, dim=-1)
        y = linear(self.conv_point, hidden * F.silu(gate)).unflatten(0, (batch, frames))
        if past is not None:
            past.leave(last=y[:, -1])
        return self._mix_frames(y, None if past is None else past.tail).view(x.shape)

    def _mix_frames(self, y: Tensor, tail: Tensor | None) -> Tensor:
        # y + conv_temp(y) as one matrix product over [previous | this | next] frame.
        edge = torch.zeros_like(y[:, :1])
        previous = torch.cat([edge if tail is None else tail.unsqueeze(1), y[:, :-1]], dim=1)
        following = torch.cat([y[:, 1:], edge], dim=1)
        window = torch.cat([previous, y, following], dim=-1)
        if usable(window, self.conv_temp, nn.Conv2d):
            return y + product(window, self.conv_temp, (self.conv_temp.weight,), matrix=lambda kept: _taps(kept[0]))
        if plain(self.conv_temp, nn.Conv2d):
            return y + F.linear(window, _taps(self.conv_temp.weight))
        if isinstance(self.conv_temp, TemporalTaps):
            return y + self.conv_temp.matrix(window.flatten(0, 1)).view_as(y)
        padded = torch.cat([previous[:, :1], y], dim=1).permute(0, 3, 1, 2)
        return y + self.conv_temp(padded).permute(0, 2, 3, 1)[:, 1:]


def _taps(kernel: Tensor) -> Tensor:
    # (out, in, 3, 1) -> (out, 3 * in): the matrix over [previous | this | next] frame
    return kernel.squeeze(-1).transpose(1, 2).flatten(1)


class TemporalTaps(nn.Conv2d):
    """The Mix-FFN's temporal convolution over three frames, its kernel held as one linear layer.

    `matrix` maps [previous | this | next] frame, (..., 3 * channels), to (..., channels).
    """

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__(conv.in_channels, conv.out_channels, (3, 1), padding=(1, 0), bias=False, device="meta")
        del self.weight
        self.matrix = nn.Linear(3 * conv.in_channels, conv.out_channels, bias=False, device="meta")
        self.matrix.weight = nn.Parameter(_taps(conv.weight.detach()).contiguous(), requires_grad=False)
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        """x (batch, channels, frames, tokens) -> like x, with zeros before the first frame and after the last."""
        frames = x.permute(0, 2, 3, 1)
        edge = torch.zeros_like(frames[:, :1])
        before, after = torch.cat([edge, frames[:, :-1]], 1), torch.cat([frames[:, 1:], edge], 1)
        return self.matrix(torch.cat([before, frames, after], -1)).permute(0, 3, 1, 2)


def modulated(norm: nn.LayerNorm, x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """norm(x) (1 + scale) + shift; x (batch, tokens, channels), shift and scale (batch, 1 or tokens, channels)."""
    if norm.weight is None and shift.shape[:2] == (1, 1):
        return F.layer_norm(x, x.shape[-1:], (scale + 1).flatten(), shift.flatten(), norm.eps)
    return torch.addcmul(shift, norm(x), scale + 1)


class TransformerBlock(nn.Module):
    """One layer: linear self-attention, attention to the text, Mix-FFN; the first and last modulated by time."""

    def __init__(
        self,
        dim: int,
        heads: int,
        head_dim: int,
        *,
        cross_heads: int,
        cross_head_dim: int,
        cross_dim: int | None,
        attention_bias: bool,
        norm_affine: bool,
        norm_eps: float,
        qk_norm: str | None,
        qk_norm_eps: tuple[float, float],
        mlp_ratio: float,
        dropout: float,
        attention_eps: float,
    ) -> None:
        super().__init__()
        self.attention_eps = attention_eps
        self.norm1 = nn.LayerNorm(dim, elementwise_affine=False, eps=norm_eps)
        self.attn1 = LinearAttention(
            dim,
            heads,
            head_dim,
            bias=attention_bias,
            qk_norm=qk_norm,
            norm_eps=qk_norm_eps[0],
            dropout=dropout,
        )
        self.attn2: CrossAttention | None = None
        if cross_dim is not None:
            self.attn2 = CrossAttention(
                dim,
                cross_heads,
                cross_head_dim,
                context_dim=cross_dim,
                bias=True,
                qk_norm=qk_norm,
                norm_eps=qk_norm_eps[1],
                dropout=dropout,
            )
        self.norm2 = nn.LayerNorm(dim, elementwise_affine=norm_affine, eps=norm_eps)
        self.ff = MixFeedForward(dim, mlp_ratio)
        self.scale_shift_table = nn.Parameter(torch.randn(6, dim) / dim**0.5)

    def forward(
        self,
        x: Tensor,
        time: Tensor,
        turn: Tensor,
        text: tuple[Tensor, Tensor] | None,
        text_bias: Tensor | None,
        grid: tuple[int, int, int],
        past: Past | None,
    ) -> Tensor:
        """x (batch, tokens, channels), time (batch, 1 or tokens, 6, channels), grid (frames, height, width)."""
        shift1, scale1, gate1, shift2, scale2, gate2 = (self.scale_shift_table + time).unbind(2)
        attended = self.attn1(modulated(self.norm1, x, shift1, scale1), turn, past, self.attention_eps)
        x = torch.addcmul(x, gate1, attended)
        if self.attn2 is not None and text is not None:
            x = x + self.attn2(x, *text, text_bias)
        mixed = modulated(self.norm2, x, shift2, scale2).unflatten(1, grid)
        return torch.addcmul(x, gate2, self.ff(mixed, past).flatten(1, 3))
