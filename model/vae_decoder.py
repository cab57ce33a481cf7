"""The decoder of `diffusers.AutoencoderKLWan` as a stream: same weights, cache outside, fewer operations.

A `StreamDecoder` is derived from the named modules of a `WanDecoder3d` and holds no stream: what a stream
remembers are its `tails`, the last two frames each causal convolution has seen, handed in at every call.

Tensors here are `(frames, height, width, channels)`, contiguous: what convolutions like best on CPUs
("channels last"), and time slices are views. A latent frame becomes 1 frame (the first of a video) or
`2 ** (time upsamplings)` frames. The maths is diffusers', with three exact rewritings for speed:

* nearest-neighbour upsampling followed by a 3x3 convolution is four 2x2 convolutions of the small picture,
  one for each parity of row and column (4/9 of the multiplications, no enlarged copy);
* the two halves of a time upsampling are two convolutions, so frames are never interleaved by a copy;
* on CPUs, a kernel of three frames in time computes two frames from four products instead of six
  (Winograd's F(2,3), in time only, where its rounding is harmless).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

TAIL = 2  # frames a causal convolution looks back
Tails = list[Tensor | None]


class Layer(Protocol):
    """One step of the decoder."""

    def __call__(self, x: Tensor, tails: Tails, first: bool) -> Tensor:
        """Decode frames; `first`: they belong to latent frame 0 of the video."""
        ...

    def frames_before(self, frames: int) -> int:
        """How many frames before its input it needs so that `frames` before its output are right."""
        ...


def _channels_last(weight: Tensor) -> Tensor:
    layout = torch.channels_last if weight.dim() == 4 else torch.channels_last_3d
    return weight.detach().contiguous(memory_format=layout)


def _convolve(x: Tensor, kernel: Tensor, bias: Tensor | None, padding: tuple[int, ...]) -> Tensor:
    """A convolution of stride 1, channels last.

    On a CPU torch gives many of float32's, those with few frames or channels foremost, to a kernel of its own that is
    up to twelve times slower than oneDNN's (and bfloat16's all to oneDNN): so oneDNN is asked by name.
    """
    if x.dtype == torch.float32 and x.device.type == "cpu" and torch.backends.mkldnn.is_available():
        ones = (1,) * len(padding)
        return torch.mkldnn_convolution(x, kernel, bias, padding, ones, ones, 1)
    return (F.conv2d if len(padding) == 2 else F.conv3d)(x, kernel, bias, padding=padding)


def _conv2d(x: Tensor, kernel: Tensor, bias: Tensor | None) -> Tensor:
    """(frames, h, w, in) with padding 1 -> (frames, h, w, out); one row and column more for a 2x2 kernel."""
    return _convolve(x.permute(0, 3, 1, 2), kernel, bias, (1, 1)).permute(0, 2, 3, 1)


def _conv3d(history: Tensor, kernel: Tensor, bias: Tensor | None) -> Tensor:
    """(2 + frames, h, w, in), kernel (out, in, 3, k, k) -> (frames, h, w, out)."""
    space = kernel.shape[-1] // 2
    return _convolve(history.permute(3, 0, 1, 2)[None], kernel, bias, (0, space, space))[0].permute(1, 2, 3, 0)


def _wide(weight: Tensor) -> Tensor:
    """At least float32: sums of bfloat16 weights are rounded once."""
    return weight.detach().to(torch.promote_types(weight.dtype, torch.float32))


class Norm:
    """RMS norm over the channels, and SiLU: x / |x| * sqrt(channels) * gamma; the norm is summed in float32."""

    def __init__(self, norm: Any, silu: bool = True) -> None:
        self.gain = norm.gamma.detach().flatten() * norm.scale
        self.silu = silu
        self.least = max(1e-12, torch.finfo(self.gain.dtype).tiny)  # diffusers' 1e-12 is zero in float16

    def __call__(self, x: Tensor, out: Tensor) -> Tensor:
        """Write the result of x into out (same shape) and return out."""
        scale = torch.linalg.vector_norm(x, dim=-1, keepdim=True).clamp_min_(self.least).reciprocal_()
        torch.mul(x, scale, out=out).mul_(self.gain)
        return F.silu(out, inplace=True) if self.silu else out


class History:
    """The past of one causal convolution: what enters it (after norm and SiLU, if given), two frames back."""

    def __init__(self, index: int, norm: Any = None) -> None:
        self.index, self.norm = index, None if norm is None else Norm(norm)

    def __call__(self, x: Tensor, tails: Tails) -> Tensor:
        """Put x behind its tail, which moves on; (frames, h, w, c) -> (2 + frames, h, w, c)."""
        frames = x.shape[0]
        history = x.new_empty(TAIL + frames, *x.shape[1:])
        if self.norm is None:
            history[TAIL:] = x
        else:
            self.norm(x, out=history[TAIL:])
        tail = tails[self.index]
        if tail is None:
            history[:TAIL] = 0
            tails[self.index] = history[frames:].clone()
        else:
            history[:TAIL] = tail
            tail.copy_(history[frames:])
        return history


class CausalConv:
    """A 3-D convolution over three frames, the two of the past included; norm and SiLU before it if given."""

    def __init__(self, conv: Any, index: int, norm: Any = None, pairs: bool = False) -> None:
        self.history = History(index, norm)
        self.kernel, self.bias = _channels_last(conv.weight), conv.bias.detach()
        self.pair_kernels = _pair_kernels(conv.weight) if pairs else None

    def frames_before(self, frames: int) -> int:
        return frames + TAIL

    def __call__(self, x: Tensor, tails: Tails, first: bool) -> Tensor:
        history = self.history(x, tails)
        if self.pair_kernels is not None and x.shape[0] % 2 == 0:
            return _conv_pairs(history, self.pair_kernels, self.bias)
        return _conv3d(history, self.kernel, self.bias)


def _pair_kernels(weight: Tensor) -> tuple[Tensor, ...]:
    """The four 2-D kernels of F(2,3) along time, for a weight (out, in, 3, height, width)."""
    a, b, c = _wide(weight).unbind(2)
    kernels = (a, (a + b + c) / 2, (a - b + c) / 2, c)
    return tuple(_channels_last(k.to(weight.dtype)) for k in kernels)


def _conv_pairs(history: Tensor, kernels: tuple[Tensor, ...], bias: Tensor | None) -> Tensor:
    """Causal convolution of (2 + frames, h, w, in), frames even, two frames at a time -> (frames, h, w, out).

    Frames 2j and 2j+1 of the result come from a, b, c, d = history[2j .. 2j+3] as
    A(a-c) + B(b+c) + C(c-b) and B(b+c) - C(c-b) - D(b-d), with the kernels A..D of `_pair_kernels`.
    """
    frames = history.shape[0] - TAIL
    a, b, c, d = (history[k : k + frames : 2] for k in range(4))
    only_even = _conv2d(a - c, kernels[0], None)
    plus = _conv2d(b + c, kernels[1], bias)
    minus = _conv2d(c - b, kernels[2], None)
    only_odd = _conv2d(b - d, kernels[3], None)
    out = plus.new_empty(frames, *plus.shape[1:])
    torch.add(plus, minus, out=out[0::2]).add_(only_even)
    torch.sub(plus, minus, out=out[1::2]).sub_(only_odd)
    return out


class ResidualBlock:
    """norm, SiLU, convolution twice, plus the input (through a 1x1x1 convolution where the width changes)."""

    def __init__(self, block: Any, indices: Iterator[int], pairs: bool) -> None:
        self.first_conv = CausalConv(block.conv1, next(indices), block.norm1, pairs)
        self.second_conv = CausalConv(block.conv2, next(indices), block.norm2, pairs)
        shortcut = block.conv_shortcut
        self.shortcut: tuple[Tensor, Tensor] | None = None
        if not isinstance(shortcut, nn.Identity):
            self.shortcut = (shortcut.weight.detach().flatten(1), shortcut.bias.detach())

    def frames_before(self, frames: int) -> int:
        return frames + 2 * TAIL

    def __call__(self, x: Tensor, tails: Tails, first: bool) -> Tensor:
        y = self.second_conv(self.first_conv(x, tails, first), tails, first)
        return y.add_(x if self.shortcut is None else F.linear(x, *self.shortcut))


class Attention:
    """Self-attention inside each frame, one head."""

    def __init__(self, block: Any) -> None:
        self.norm = Norm(block.norm, silu=False)
        self.qkv = (block.to_qkv.weight.detach().flatten(1), block.to_qkv.bias.detach())
        self.proj = (block.proj.weight.detach().flatten(1), block.proj.bias.detach())

    def frames_before(self, frames: int) -> int:
        return frames

    def __call__(self, x: Tensor, tails: Tails, first: bool) -> Tensor:
        tokens = self.norm(x, out=torch.empty_like(x)).flatten(1, 2)[:, None]
        q, k, v = F.linear(tokens, *self.qkv).chunk(3, dim=-1)
        y = F.scaled_dot_product_attention(q, k, v)
        return F.linear(y, *self.proj).view_as(x) + x


class Upsample:
    """Twice the height and width, twice the frames where the checkpoint says so (never for the first latent)."""

    def __init__(self, module: Any, indices: Iterator[int]) -> None:
        conv = module.resample[1]
        self.kernel = _parity_kernels(conv.weight)
        self.bias = conv.bias.detach().repeat(4)
        self.history: History | None = None
        if module.mode == "upsample3d":
            self.history = History(next(indices))
            kernels, biases = module.time_conv.weight.chunk(2), module.time_conv.bias.chunk(2)
            self.halves = [(_channels_last(k), b.detach()) for k, b in zip(kernels, biases, strict=True)]

    def frames_before(self, frames: int) -> int:
        return frames if self.history is None else (frames + 1) // 2 + TAIL

    def __call__(
        self, x: Tensor, tails: Tails, first: bool, shortcut: Shortcut | None = None, source: Tensor | None = None
    ) -> Tensor:
        """Upsample x; with a shortcut, add what it makes of `source` (frames and size as x)."""
        phases = [x]
        if self.history is not None and not first:
            history = self.history(x, tails)
            phases = [_conv3d(history, kernel, bias) for kernel, bias in self.halves]
        frames, height, width, _ = x.shape
        channels = self.kernel.shape[0] // 4
        out = x.new_empty(frames, len(phases), height, 2, width, 2, channels)
        for t, phase in enumerate(phases):
            for row, col, part in _parities(_conv2d(phase, self.kernel, self.bias)):
                target = out[:, t, :, row, :, col]
                if shortcut is None or source is None:
                    target.copy_(part)
                else:
                    torch.add(part, shortcut.part(source, t - len(phases), row, col), out=target)
        return out.view(frames * len(phases), 2 * height, 2 * width, channels)


def _parity_kernels(weight: Tensor) -> Tensor:
    """A 3x3 kernel behind x2 nearest upsampling as four 2x2 kernels: (o, i, 3, 3) -> (4 o, i, 2, 2).

    Output row 2y sees the small rows y-1, y, y with its three taps, row 2y+1 sees y, y, y+1.
    """

    def fold(w: Tensor, dim: int) -> tuple[Tensor, Tensor]:
        top, middle, bottom = w.unbind(dim)
        return torch.stack((top, middle + bottom), dim), torch.stack((top + middle, bottom), dim)

    parts = [part for rows in fold(_wide(weight), 2) for part in fold(rows, 3)]
    return _channels_last(torch.cat(parts).to(weight.dtype))


def _parities(y: Tensor) -> Iterator[tuple[int, int, Tensor]]:
    """The four parities of `_parity_kernels`' result (frames, h + 1, w + 1, 4 o): (row, col, (frames, h, w, o))."""
    height, width = y.shape[1] - 1, y.shape[2] - 1
    for i, part in enumerate(y.chunk(4, dim=-1)):
        row, col = divmod(i, 2)
        yield row, col, part[:, row : row + height, col : col + width]


class Shortcut:
    """The parameter-free way around a residual up block: channels spread over time, rows and columns."""

    def __init__(self, module: Any) -> None:
        outputs = torch.arange(module.out_channels)
        place = torch.arange(module.factor).view(module.factor_t, module.factor_s, module.factor_s, 1)
        self.channels = (outputs * module.factor + place) // module.repeats
        self.plain = module.in_channels == module.out_channels and bool((self.channels == outputs).all())

    def part(self, x: Tensor, time: int, row: int, col: int) -> Tensor:
        """What x adds at one place; `time` counts from the end (-1), as the first latent keeps only that one."""
        return x if self.plain else x[..., self.channels[time, row, col].to(x.device)]


class UpBlock:
    """Residual blocks, then upsampling; with a shortcut around all of it where the checkpoint has one."""

    def __init__(self, block: Any, indices: Iterator[int], pairs: bool) -> None:
        self.blocks = [ResidualBlock(b, indices, pairs) for b in block.resnets]
        upsamplers = getattr(block, "upsamplers", None)
        sampler = upsamplers[0] if upsamplers is not None else getattr(block, "upsampler", None)
        self.upsample = None if sampler is None else Upsample(sampler, indices)
        shortcut = getattr(block, "avg_shortcut", None)
        self.shortcut = None if shortcut is None else Shortcut(shortcut)

    @property
    def frame_factor(self) -> int:
        return 1 if self.upsample is None or self.upsample.history is None else 2

    def frames_before(self, frames: int) -> int:
        if self.upsample is not None:
            frames = self.upsample.frames_before(frames)
        for block in reversed(self.blocks):
            frames = block.frames_before(frames)
        return frames

    def __call__(self, x: Tensor, tails: Tails, first: bool) -> Tensor:
        y = x
        for block in self.blocks:
            y = block(y, tails, first)
        return y if self.upsample is None else self.upsample(y, tails, first, self.shortcut, x)


class StreamDecoder:
    """A `WanDecoder3d` whose causal cache is the caller's: a list of `tail_count` tails, None where still empty."""

    def __init__(self, decoder: Any, pairs: bool | None = None) -> None:
        """Derive the layers from the decoder's modules; do it anew when its weights, dtype or device change.

        `pairs`: compute frames in time two by two (see above); by default on CPUs.
        """
        if pairs is None:
            pairs = decoder.conv_in.weight.device.type == "cpu"
        indices = itertools.count()
        mid = decoder.mid_block
        start: list[Layer] = [
            CausalConv(decoder.conv_in, next(indices)),
            ResidualBlock(mid.resnets[0], indices, pairs),
        ]
        for attention, resnet in zip(mid.attentions, mid.resnets[1:], strict=True):
            start += [Attention(attention), ResidualBlock(resnet, indices, pairs)]
        blocks = [UpBlock(block, indices, pairs) for block in decoder.up_blocks]
        self.stages: list[Sequence[Layer]] = [start, *([block] for block in blocks)]
        self.head = CausalConv(decoder.conv_out, next(indices), decoder.norm_out)  # narrow: pairs gain nothing
        self.tail_count = next(indices)
        self.frames_per_latent = math.prod(block.frame_factor for block in blocks)
        self.stage_memory = self._memory([1, *(block.frame_factor for block in blocks)])

    def _memory(self, factors: list[int]) -> list[int]:
        """Latent frames that each stage, and last the head, must have seen for all later pictures to be exact."""
        rate, frames = self.frames_per_latent, self.head.frames_before(0)
        memory = [-(-frames // rate)]
        for stage, factor in zip(reversed(self.stages), reversed(factors), strict=True):
            for layer in reversed(stage):
                frames = layer.frames_before(frames)
            rate //= factor
            memory.append(-(-frames // rate))
        return memory[::-1]

    def decode(self, z: Tensor, tails: Tails, first: bool) -> Tensor:
        """Latents (n, h, w, z channels) that follow those of the tails -> (frames, height, width, out channels).

        `first`: z is latent frame 0 (then n = 1). Frames are n * frames_per_latent, or 1 for the first.
        """
        for layer in itertools.chain(*self.stages):
            z = layer(z, tails, first)
        return self.head(z, tails, first)

    def prime(self, z: Tensor, tails: Tails, first: bool) -> None:
        """Bring empty tails to where they stand after latents (n, h, w, z channels), at less than a decode's cost.

        Each stage runs only over the latents it remembers: the large pictures over the last few. Exact if n is
        at least `stage_memory[0]`, or if z begins with latent frame 0 (`first`).
        """
        for i, frame in enumerate(z):
            x, left = frame[None], len(z) - i
            for stage, memory in zip(self.stages, self.stage_memory, strict=False):
                if left > memory:
                    break
                for layer in stage:
                    x = layer(x, tails, first and i == 0)
            else:
                if left <= self.stage_memory[-1]:
                    self.head.history(x, tails)
