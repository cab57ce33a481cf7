"""The authors' net in plain arithmetic on a `.pth`'s own tensors.

Written from the description of NVlabs/Sana's code (commit 5498e5b2), not from `model/` nor diffusers: joined
projections, their names, their eps.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from reference import turns
from torch import Tensor

TIMESTEPS = (1000, 960, 889, 727)


@dataclass
class Own:
    """A block's own state: a layer each (heads, value, key), (heads, key), (frames' last, width)."""

    vk: list[Tensor]
    k_sum: list[Tensor]
    tail: list[Tensor]


def authors_pass(
    weights: dict[str, Tensor],
    heads: int,
    latents: Tensor,
    timestep: float,
    text: tuple[Tensor, Tensor],
    first_frame: int = 0,
    past: Sequence[Own] = (),
) -> tuple[Tensor, Own]:
    """One pass of a block (1, channels, frames, height, width): its flow, its own state; `past` = blocks before."""

    def linear(x: Tensor, name: str) -> Tensor:
        return F.linear(x, weights[f"{name}.weight"].flatten(1), weights.get(f"{name}.bias"))

    def rms(x: Tensor, name: str, eps: float) -> Tensor:
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps) * weights[f"{name}.weight"]

    def split(x: Tensor) -> Tensor:
        return x.unflatten(-1, (heads, -1)).transpose(0, 1)  # (heads, tokens, head)

    def turned(x: Tensor) -> Tensor:
        pairs = torch.view_as_complex(x.double().unflatten(-1, (-1, 2)).contiguous()) * turn
        return torch.view_as_real(pairs).flatten(-2).float()

    def layer_norm(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], eps=1e-6) * (1 + scale) + shift

    patch = weights["x_embedder.proj.weight"].shape[2:]
    x = F.conv3d(latents, weights["x_embedder.proj.weight"], weights["x_embedder.proj.bias"], stride=tuple(patch))[0]
    frames, height, width = x.shape[1:]
    x = x.flatten(1).T
    turn = turns(torch.arange(first_frame, first_frame + frames), height, width, x.shape[1] // heads)
    angles = int(timestep) * torch.exp(-math.log(10000) * torch.arange(128) / 128)
    time = linear(torch.cat([angles.cos(), angles.sin()]), "t_embedder.mlp.0")
    time = linear(F.silu(time), "t_embedder.mlp.2")
    modulation = linear(F.silu(time), "t_block.1").view(6, -1)
    words = F.gelu(linear(text[0][0], "y_embedder.y_proj.fc1"), approximate="tanh")
    words = rms(linear(words, "y_embedder.y_proj.fc2"), "attention_y_norm", 1e-5)
    own = Own([], [], [])
    layers = sum(name.endswith("attn.qkv.weight") for name in weights)
    for i in range(layers):
        name = f"blocks.{i}"
        s1, c1, g1, s2, c2, g2 = weights[f"{name}.scale_shift_table"] + modulation
        q, k, v = linear(layer_norm(x, c1, s1), f"{name}.attn.qkv").chunk(3, -1)
        q, k = (split(F.relu(rms(y, f"{name}.attn.{n}_norm", 1e-5))) for y, n in ((q, "q"), (k, "k")))
        v = split(v)
        own.vk.append(v.transpose(1, 2) @ turned(k))
        own.k_sum.append(k.sum(1))
        vk = sum((p.vk[i] for p in past), own.vk[i])
        k_sum = sum((p.k_sum[i] for p in past), own.k_sum[i])
        read = turned(q) @ vk.transpose(1, 2) / ((q * k_sum[:, None]).sum(-1, keepdim=True) + 1e-8)
        x = x + g1 * linear(read.transpose(0, 1).flatten(1), f"{name}.attn.proj")

        k, v = linear(words, f"{name}.cross_attn.kv_linear").chunk(2, -1)
        q = split(rms(linear(x, f"{name}.cross_attn.q_linear"), f"{name}.cross_attn.q_norm", 1e-6))
        k, v = split(rms(k, f"{name}.cross_attn.k_norm", 1e-6)), split(v)
        scores = (q @ k.transpose(1, 2) / q.shape[-1] ** 0.5).masked_fill(text[1][0] == 0, -torch.inf)
        x = x + linear((scores.softmax(-1) @ v).transpose(0, 1).flatten(1), f"{name}.cross_attn.proj")

        hidden = F.silu(linear(layer_norm(x, c2, s2), f"{name}.mlp.inverted_conv.conv"))
        hidden = hidden.view(frames, height, width, -1).permute(0, 3, 1, 2)
        depth = f"{name}.mlp.depth_conv.conv"
        hidden = F.conv2d(
            hidden, weights[f"{depth}.weight"], weights[f"{depth}.bias"], padding=1, groups=hidden.shape[1]
        )
        value, gate = hidden.permute(0, 2, 3, 1).chunk(2, -1)
        y = linear(value * F.silu(gate), f"{name}.mlp.point_conv.conv").view(frames, height * width, -1)
        own.tail.append(y[-1])
        edge = torch.zeros_like(y[:1])
        padded = torch.cat([past[-1].tail[i][None] if past else edge, y, edge])
        taps = weights[f"{name}.mlp.t_conv.weight"][..., 0]
        mixed = sum(padded[tap : tap + frames] @ taps[:, :, tap].T for tap in range(3))
        x = x + g2 * (y + mixed).flatten(0, 1)
    shift, scale = weights["final_layer.scale_shift_table"] + time
    x = linear(layer_norm(x, scale, shift), "final_layer.linear")
    x = x.view(frames, height, width, *patch, -1)
    flow = torch.einsum("fhwtpqc->cfthpwq", x)
    return flow.reshape(1, x.shape[-1], frames * patch[0], height * patch[1], width * patch[2]), own


def authors_stream(
    weights: dict[str, Tensor],
    heads: int,
    lengths: Sequence[int],
    text: tuple[Tensor, Tensor],
    noise: Callable[[int, int], Tensor],
) -> list[Tensor]:
    """LongSANA's loop under one prompt: the clean latents of each block."""
    ramp = 1 - torch.arange(1000, dtype=torch.float32) / 1000
    table = 7 * ramp / (1 + 6 * ramp)
    sigmas = [table[(table * 1000 - t).abs().argmin()] for t in TIMESTEPS]
    past: list[Own] = []
    clean: list[Tensor] = []
    start = 0
    for length in lengths:
        x0 = torch.zeros(())
        for step, (t, sigma) in enumerate(zip(TIMESTEPS, sigmas, strict=True)):
            fresh = torch.stack([noise(start + f, step) for f in range(length)], 1)[None]
            x = fresh if step == 0 else (1 - sigma) * x0 + sigma * fresh
            flow, _ = authors_pass(weights, heads, x, t, text, start, past)
            x0 = (x.double() - sigma.double() * flow.double()).float()
        past.append(authors_pass(weights, heads, x0, 0, text, start, past)[1])
        clean.append(x0)
        start += length
    return clean
