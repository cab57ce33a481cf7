"""The pool that the state of streams lives in, by their network, latent size and options."""

from __future__ import annotations

import torch

from model.precision import rounded_dtype
from model.state import StateLayout, StatePool, layout_of
from model.stream_config import StreamConfig
from model.transformer import SanaVideoTransformer3DModel


def new_pool(
    transformer: SanaVideoTransformer3DModel,
    height: int,
    width: int,
    config: StreamConfig | None = None,
    *,
    slab: int = 2,
) -> StatePool:
    """An empty pool for streams of one latent size.

    Args:
        transformer: whose state it holds; gives dtype and device.
        height, width: of the latents.
        config: gives window, sink and decay; None for LongSANA's.
        slab: by how many slots it grows.
    """
    layout = stream_layout(transformer, height, width, config or StreamConfig())
    return StatePool(layout, transformer.dtype, transformer.device, slab)


def stream_layout(
    transformer: SanaVideoTransformer3DModel, height: int, width: int, config: StreamConfig
) -> StateLayout:
    """What one slot of such a pool holds; arguments as of `new_pool`."""
    return layout_of(
        transformer.config,
        height,
        width,
        window=config.window_blocks,
        window_group=config.window_group,
        sink=config.sink_blocks,
        decay=config.decay,
        key_dtype=rounded_dtype(config.precision, transformer.dtype) or torch.float32,
    )
