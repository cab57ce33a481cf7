"""Snapshots of a stream's roll part, and their bytes.

A snapshot is a flat dict of tensors and plain values. `pack` writes it as safetensors with the plain values as JSON
in its header, so reading one never runs code.
"""

from __future__ import annotations

import json
from typing import Any

import safetensors
import safetensors.torch
from torch import Tensor

FORMAT = 1
REQUIRED = frozenset({"next_frame", "block_index", "seed", "guidance_scale", "text"})
"""Entries of every snapshot of a `LatentStream`; those of tensors that may be absent and of its slots come on top."""
Snapshot = dict[str, Any]


def pack(snapshot: Snapshot) -> bytes:
    """A snapshot as bytes, tensors bit for bit."""
    tensors = {name: value.contiguous() for name, value in snapshot.items() if isinstance(value, Tensor)}
    plain = {name: value for name, value in snapshot.items() if not isinstance(value, Tensor)}
    return safetensors.torch.save(tensors, metadata={"plain": json.dumps(plain)})


def unpack(data: bytes) -> Snapshot:
    """What `pack` was given, tensors on the CPU.

    Raises:
        ValueError: not a snapshot.
    """
    try:
        tensors = safetensors.torch.load(data)
        length = int.from_bytes(data[:8], "little")
        plain = json.loads(json.loads(data[8 : 8 + length])["__metadata__"]["plain"])
    except (safetensors.SafetensorError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"not a snapshot: {error}") from error
    if not isinstance(plain, dict) or plain.get("format") != FORMAT:
        raise ValueError("not a snapshot of a known format")
    return {**plain, **tensors}
