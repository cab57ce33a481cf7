"""Transformer passes over rows of many streams, and the text that they read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from model.adapted import NO_ADAPTERS, AdapterSet, adapted
from model.layers import TextCache
from model.state import NULL_SLOT, StatePool, StateView
from model.transformer import SanaVideoTransformer3DModel


@dataclass(frozen=True)
class Text:
    """A prompt: embeddings (1, tokens, channels), mask (1, tokens), and what the transformer's blocks read of it.

    The adapters in force belong to it, since they may change how it is read: `net` is the transformer under them.
    """

    embeds: Tensor
    mask: Tensor | None
    cache: TextCache
    net: SanaVideoTransformer3DModel
    loras: AdapterSet

    @classmethod
    @torch.no_grad()
    def of(
        cls,
        transformer: SanaVideoTransformer3DModel,
        embeds: Tensor,
        mask: Tensor | None,
        loras: AdapterSet = NO_ADAPTERS,
    ) -> Text:
        """Project a prompt once for all passes."""
        embeds = embeds.detach().to(transformer.device)
        mask = None if mask is None else mask.to(transformer.device)
        net = adapted(transformer, loras)
        return cls(embeds, mask, net.encode_text(embeds, mask), net, loras)


@dataclass(frozen=True)
class Guidance:
    """Classifier-free guidance: flow = negative + scale (positive - negative); a scale of 1 is none.

    Raises:
        ValueError: a scale other than 1 without a negative prompt.
    """

    scale: float
    negative: Text | None

    def __post_init__(self) -> None:
        if self.scale != 1 and self.negative is None:
            raise ValueError("guidance_scale other than 1 needs a negative_text")

    @property
    def rows(self) -> int:
        """Rows and slots that a stream needs."""
        return 1 if self.scale == 1 else 2


@dataclass(frozen=True)
class Row:
    """One row of a pass: latents (1, channels, frames, height, width) and what goes with them.

    `frame` is the absolute latent frame of the first one, `block` the index of the block that a commit writes.
    """

    transformer: SanaVideoTransformer3DModel
    pool: StatePool
    latents: Tensor
    timestep: float
    text: TextCache
    slot: int
    frame: int
    block: int
    commit: bool

    @property
    def kind(self) -> tuple[object, ...]:
        """Rows of one kind fit into one pass."""
        tokens = self.text.keys[0].shape[-2] if self.text.keys else 0
        return (id(self.transformer), id(self.pool), self.latents.shape, tokens, self.text.bias is None)


def run_rows(rows: Sequence[Row], bucket: int | None = None) -> list[Tensor]:
    """The flow (1, channels, frames, height, width) of each row; rows of one kind share passes.

    Args:
        rows: in any order.
        bucket: rows of each pass: fewer are padded with null rows, more are split. None takes what there is.

    Raises:
        ValueError: a bucket below 1.
    """
    if bucket is not None and bucket < 1:
        raise ValueError(f"a bucket holds at least 1 row, not {bucket}")
    kinds: dict[tuple[object, ...], list[int]] = {}
    for index, row in enumerate(rows):
        kinds.setdefault(row.kind, []).append(index)
    flows: dict[int, Tensor] = {}
    for members in kinds.values():
        size = bucket or len(members)
        for start in range(0, len(members), size):
            part = members[start : start + size]
            flows.update(zip(part, _run([rows[i] for i in part], size), strict=True))
    return [flows[index] for index in range(len(rows))]


def _run(rows: list[Row], size: int) -> Sequence[Tensor]:
    first, count = rows[0], len(rows)
    if count < size:
        empty = torch.zeros_like(first.latents)
        null = replace(first, latents=empty, timestep=0.0, slot=NULL_SLOT, frame=0, block=0, commit=False)
        rows = rows + [null] * (size - count)
    state = StateView(
        pool=first.pool,
        slots=[row.slot for row in rows],
        frames=[row.frame for row in rows],
        blocks=[row.block for row in rows],
        commit=[row.commit for row in rows],
    )
    latents = first.latents if size == 1 else torch.cat([row.latents for row in rows])
    (flow,) = first.transformer(
        latents.to(first.transformer.dtype),
        TextCache.stack([row.text for row in rows]),
        torch.tensor([row.timestep for row in rows], device=latents.device),
        return_dict=False,
        state=state,
    )
    return flow.split(1)[:count]
