"""Triton kernels of `depthwise`, and their launches.

A program walks along one axis of a picture (the *walk*) and holds the other (the *line*) for some channels in
registers. A line is loaded three times, shifted by -1, 0 and +1, and added to the three sums that it concerns: memory
is read once, caches serve the rest. The longer axis becomes the line: 16 of 16 lanes work.

Backward: `_convolve` runs again and writes the gradient of the convolution's output in the hidden tensor's precision;
`_transpose` turns it into the gradient of the hidden tensor and adds up those of weights and biases.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor


@dataclass(frozen=True)
class Tile:
    """Channels and warps of a program, and the rows (pictures) it goes through."""

    channels: int
    warps: int
    rows: int = 1


CONVOLVE = Tile(channels=32, warps=4)
TRANSPOSE = Tile(channels=32, warps=4, rows=4)
SUMS = 11
"""What `_transpose` adds up a channel: nine weights, the bias, the hidden bias."""


@triton.jit
def _sigmoid(x):  # type: ignore[no-untyped-def]
    return 1.0 / (1.0 + tl.exp(-x))


@triton.jit
def _three(pointer, stride, known):  # type: ignore[no-untyped-def]
    """The kernel's weights of one line: left, middle, right."""
    return (
        tl.load(pointer, mask=known, other=0.0),
        tl.load(pointer + stride, mask=known, other=0.0),
        tl.load(pointer + 2 * stride, mask=known, other=0.0),
    )


@triton.jit
def _silu(pointer, ok, bias):  # type: ignore[no-untyped-def]
    """silu(loaded + bias), zero where `ok` doesn't hold."""
    x = tl.load(pointer, mask=ok, other=0.0).to(tl.float32) + bias
    return tl.where(ok, x * _sigmoid(x), 0.0)


@triton.jit
def _convolve(  # type: ignore[no-untyped-def]
    hidden, hidden_bias, weight, bias, gradient, out, half, walk_stride, line_stride,
    WALK: tl.constexpr, LINE: tl.constexpr, LANES: tl.constexpr, CHANNELS: tl.constexpr, BACKWARD: tl.constexpr,
):  # fmt: skip
    """Forwards: write value * silu(gate) `(.., half)`. Backwards: the gradients of value and gate `(.., 2 half)`.

    Strides count pixels. `weight` is `(9, 2 half)`, walk before line.
    """
    channel = tl.program_id(0) * CHANNELS + tl.arange(0, CHANNELS)[None, :]
    lane = tl.arange(0, LANES)[:, None]
    known = channel < half
    here = known & (lane < LINE)
    left, right = here & (lane >= 1), here & (lane + 1 < LINE)
    pixel = tl.program_id(1).to(tl.int64) * (WALK * LINE)
    value_bias = tl.load(bias + channel, mask=known, other=0.0)
    gate_bias = tl.load(bias + half + channel, mask=known, other=0.0)
    value_shift = tl.load(hidden_bias + channel, mask=known, other=0.0)
    gate_shift = tl.load(hidden_bias + half + channel, mask=known, other=0.0)
    w = weight + channel
    v0, v1, v2 = _three(w, 2 * half, known)
    v3, v4, v5 = _three(w + 6 * half, 2 * half, known)
    v6, v7, v8 = _three(w + 12 * half, 2 * half, known)
    g0, g1, g2 = _three(w + half, 2 * half, known)
    g3, g4, g5 = _three(w + 7 * half, 2 * half, known)
    g6, g7, g8 = _three(w + 13 * half, 2 * half, known)
    zero = tl.zeros([LANES, CHANNELS], tl.float32)
    value_before, gate_before = zero, zero
    value_now, gate_now = zero + value_bias, zero + gate_bias
    step = line_stride * 2 * half
    for walk in range(WALK + 1):
        at = hidden + (pixel + walk * walk_stride + lane * line_stride) * 2 * half + channel
        a = _silu(at - step, left & (walk < WALK), value_shift)
        b = _silu(at, here & (walk < WALK), value_shift)
        c = _silu(at + step, right & (walk < WALK), value_shift)
        value_before += a * v6 + b * v7 + c * v8
        value_now += a * v3 + b * v4 + c * v5
        value_next = value_bias + a * v0 + b * v1 + c * v2
        a = _silu(at - step + half, left & (walk < WALK), gate_shift)
        b = _silu(at + half, here & (walk < WALK), gate_shift)
        c = _silu(at + step + half, right & (walk < WALK), gate_shift)
        gate_before += a * g6 + b * g7 + c * g8
        gate_now += a * g3 + b * g4 + c * g5
        gate_next = gate_bias + a * g0 + b * g1 + c * g2
        done = pixel + (walk - 1) * walk_stride + lane * line_stride
        ok = here & (walk >= 1)
        share = _sigmoid(gate_before)
        if BACKWARD:
            g = tl.load(gradient + done * half + channel, mask=ok, other=0.0).to(tl.float32)
            to = out + done * 2 * half + channel
            tl.store(to, g * gate_before * share, mask=ok)
            tl.store(to + half, g * value_before * share * (1.0 + gate_before * (1.0 - share)), mask=ok)
        else:
            tl.store(out + done * half + channel, value_before * gate_before * share, mask=ok)
        value_before, gate_before = value_now, gate_now
        value_now, gate_now = value_next, gate_next


@triton.jit
def _transpose(  # type: ignore[no-untyped-def]
    gradient, hidden, hidden_bias, weight, out, sums, rows, channels, walk_stride, line_stride,
    WALK: tl.constexpr, LINE: tl.constexpr, LANES: tl.constexpr, CHANNELS: tl.constexpr, ROWS: tl.constexpr,
    SUMS: tl.constexpr,
):  # fmt: skip
    """Write the gradient of the hidden tensor, and of weights and biases the sums over this program's rows.

    `gradient` is that of the convolution's output. `sums` is `(programs, SUMS, channels)`.
    """
    channel = tl.program_id(0) * CHANNELS + tl.arange(0, CHANNELS)[None, :]
    lane = tl.arange(0, LANES)[:, None]
    known = channel < channels
    here = known & (lane < LINE)
    left, right = here & (lane >= 1), here & (lane + 1 < LINE)
    shift = tl.load(hidden_bias + channel, mask=known, other=0.0)
    w = weight + channel
    w0, w1, w2 = _three(w, channels, known)
    w3, w4, w5 = _three(w + 3 * channels, channels, known)
    w6, w7, w8 = _three(w + 6 * channels, channels, known)
    zero = tl.zeros([LANES, CHANNELS], tl.float32)
    s0, s1, s2, s3, s4, s5, s6, s7, s8 = zero, zero, zero, zero, zero, zero, zero, zero, zero
    total, hidden_total = zero, zero
    step = line_stride * channels
    for index in range(ROWS):
        row = tl.program_id(1) * ROWS + index
        exists = here & (row < rows)
        pixel = row.to(tl.int64) * (WALK * LINE)
        before, now = zero, zero
        silu_before, slope_before = zero, zero
        x = tl.load(hidden + (pixel + lane * line_stride) * channels + channel, mask=exists, other=0.0)
        x = x.to(tl.float32) + shift
        share = _sigmoid(x)
        silu_now, slope_now = tl.where(exists, x * share, 0.0), share * (1.0 + x * (1.0 - share))
        for walk in range(WALK + 1):
            at = (pixel + walk * walk_stride + lane * line_stride) * channels + channel
            more = exists & (walk + 1 < WALK)
            x = tl.load(hidden + at + walk_stride * channels, mask=more, other=0.0).to(tl.float32) + shift
            share = _sigmoid(x)
            silu_next, slope_next = tl.where(more, x * share, 0.0), share * (1.0 + x * (1.0 - share))
            # What a pixel gave to its right neighbour by the left weight comes back from there by the same.
            inside = exists & (walk < WALK)
            a = tl.load(gradient + at + step, mask=right & inside, other=0.0).to(tl.float32)
            b = tl.load(gradient + at, mask=inside, other=0.0).to(tl.float32)
            c = tl.load(gradient + at - step, mask=left & inside, other=0.0).to(tl.float32)
            before += a * w0 + b * w1 + c * w2
            now += a * w3 + b * w4 + c * w5
            after = a * w6 + b * w7 + c * w8
            s0 += a * silu_before
            s1 += b * silu_before
            s2 += c * silu_before
            s3 += a * silu_now
            s4 += b * silu_now
            s5 += c * silu_now
            s6 += a * silu_next
            s7 += b * silu_next
            s8 += c * silu_next
            total += b
            ok = exists & (walk >= 1)
            result = tl.where(ok, before * slope_before, 0.0)
            hidden_total += result
            tl.store(out + at - walk_stride * channels, result, mask=ok)
            before, now = now, after
            silu_before, slope_before = silu_now, slope_now
            silu_now, slope_now = silu_next, slope_next
    end = tl.program_id(0) * CHANNELS + tl.arange(0, CHANNELS)
    to = sums + tl.program_id(1) * SUMS * channels + end
    tl.store(to, tl.sum(s0, 0), mask=end < channels)
    tl.store(to + channels, tl.sum(s1, 0), mask=end < channels)
    tl.store(to + 2 * channels, tl.sum(s2, 0), mask=end < channels)
    tl.store(to + 3 * channels, tl.sum(s3, 0), mask=end < channels)
    tl.store(to + 4 * channels, tl.sum(s4, 0), mask=end < channels)
    tl.store(to + 5 * channels, tl.sum(s5, 0), mask=end < channels)
    tl.store(to + 6 * channels, tl.sum(s6, 0), mask=end < channels)
    tl.store(to + 7 * channels, tl.sum(s7, 0), mask=end < channels)
    tl.store(to + 8 * channels, tl.sum(s8, 0), mask=end < channels)
    tl.store(to + 9 * channels, tl.sum(total, 0), mask=end < channels)
    tl.store(to + 10 * channels, tl.sum(hidden_total, 0), mask=end < channels)


@dataclass(frozen=True)
class _Axes:
    """Which axis is walked and which is the line; see the module's text. Strides count pixels."""

    upright: bool
    sizes: dict[str, int]
    strides: tuple[int, int]

    @classmethod
    def of(cls, height: int, width: int) -> _Axes:
        upright = height > width
        walk, line = (width, height) if upright else (height, width)
        sizes = {"WALK": walk, "LINE": line, "LANES": triton.next_power_of_2(line)}
        return cls(upright, sizes, (1, width) if upright else (width, 1))

    def kernels(self, weight: Tensor) -> Tensor:
        """`(channels, 1, 3, 3)` to `(9, channels)`, walk before line."""
        order = (2, 1, 0) if self.upright else (1, 2, 0)
        return weight[:, 0].float().permute(order).reshape(9, -1).contiguous()

    def gradient(self, sums: Tensor) -> Tensor:
        """`kernels` backwards."""
        picture = sums.view(3, 3, -1)
        return picture.permute((2, 1, 0) if self.upright else (2, 0, 1))[:, None].contiguous()


def _launch_convolve(
    axes: _Axes,
    hidden: Tensor,
    hidden_bias: Tensor,
    kernels: Tensor,
    bias: Tensor,
    gradient: Tensor | None,
    out: Tensor,
) -> None:
    half = hidden.shape[-1] // 2
    grid = (triton.cdiv(half, CONVOLVE.channels), hidden.shape[0])
    launch: Any = _convolve[grid]
    launch(
        hidden, hidden_bias, kernels, bias, hidden if gradient is None else gradient, out, half, *axes.strides,
        **axes.sizes, CHANNELS=CONVOLVE.channels, BACKWARD=gradient is not None, num_warps=CONVOLVE.warps,
    )  # fmt: skip


def forward(hidden: Tensor, hidden_bias: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Return what `depthwise.gated` says; biases and weights in float32."""
    hidden = hidden.contiguous()
    rows, height, width, channels = hidden.shape
    out = hidden.new_empty((rows, height, width, channels // 2))
    axes = _Axes.of(height, width)
    _launch_convolve(axes, hidden, hidden_bias, axes.kernels(weight), bias, None, out)
    return out


def backward(
    gradient: Tensor, hidden: Tensor, hidden_bias: Tensor, weight: Tensor, bias: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the gradients of the arguments of `forward` from that of its result."""
    gradient, hidden = gradient.contiguous(), hidden.contiguous()
    rows, height, width, channels = hidden.shape
    axes, tile = _Axes.of(height, width), TRANSPOSE
    kernels = axes.kernels(weight)
    convolved = torch.empty_like(hidden)
    _launch_convolve(axes, hidden, hidden_bias, kernels, bias, gradient, convolved)
    out = torch.empty_like(hidden)
    groups = triton.cdiv(rows, tile.rows)
    sums = hidden.new_empty((groups, SUMS, channels), dtype=torch.float32)
    launch: Any = _transpose[(triton.cdiv(channels, tile.channels), groups)]
    launch(
        convolved, hidden, hidden_bias, kernels, out, sums, rows, channels, *axes.strides, **axes.sizes,
        CHANNELS=tile.channels, ROWS=tile.rows, SUMS=SUMS, num_warps=tile.warps,
    )  # fmt: skip
    added = sums.sum(0)
    return out, added[10].clone(), axes.gradient(added[:9]).to(weight.dtype), added[9].clone()
