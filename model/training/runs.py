"""What a training run keeps: a resumable state, shards small enough to carry, and a clock."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

SHARD_BYTES = 15 * 2**20


def say(text: str) -> None:
    """Print one line at once."""
    print(text, flush=True)


class Clock:
    """The time budget of a stage that may run in several pieces.

    Args:
        seconds: limit of this piece.
        stage_seconds: planned length of the whole stage; the learning-rate curve follows it.
        spent: seconds of earlier pieces.
    """

    def __init__(self, seconds: float, stage_seconds: float | None = None, spent: float = 0.0) -> None:
        self._start = time.monotonic()
        self._limit = seconds
        self._stage = stage_seconds if stage_seconds is not None else spent + seconds
        self._spent = spent

    @property
    def elapsed(self) -> float:
        """Seconds in this piece."""
        return time.monotonic() - self._start

    @property
    def spent(self) -> float:
        """Seconds in all pieces."""
        return self._spent + self.elapsed

    @property
    def progress(self) -> float:
        """Share of the stage that is done, 0 to 1."""
        return min(1.0, self.spent / self._stage)

    @property
    def over(self) -> bool:
        """Whether this piece has used its limit."""
        return self.elapsed >= self._limit


def save_state(path: Path, state: dict[str, Any]) -> None:
    """Write a resumable state, replacing the old one only when the new one is complete."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    torch.save(state, partial)
    partial.replace(path)


def load_state(path: Path, device: torch.device) -> dict[str, Any] | None:
    """Return the state saved at `path`, or None where there is none."""
    if not path.exists():
        return None
    state: dict[str, Any] = torch.load(path, map_location=device, weights_only=False)
    return state


def write_shards(folder: Path, name: str, tensors: dict[str, Tensor]) -> None:
    """Write `tensors` in half precision as `name.N.safetensors`, each below 16 MiB."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob(f"{name}.[0-9]*.safetensors"):
        old.unlink()
    shard: dict[str, Tensor] = {}
    size = count = 0
    for key, tensor in tensors.items():
        half = tensor.detach().to("cpu", torch.float16).contiguous()
        if shard and size + half.nbytes > SHARD_BYTES:
            save_file(shard, folder / f"{name}.{count}.safetensors")
            shard, size, count = {}, 0, count + 1
        shard[key] = half
        size += half.nbytes
    save_file(shard, folder / f"{name}.{count}.safetensors")


def read_shards(folder: Path, name: str) -> dict[str, Tensor]:
    """Return the tensors that `write_shards` wrote.

    Raises:
        FileNotFoundError: no shard of that name is in `folder`.
    """
    files = sorted(folder.glob(f"{name}.[0-9]*.safetensors"))
    if not files:
        raise FileNotFoundError(f"no {name}.N.safetensors in {folder}")
    tensors: dict[str, Tensor] = {}
    for file in files:
        tensors.update(load_file(file))
    return tensors


def pick_device() -> torch.device:
    """Return the first accelerator, else the CPU, with fast float32 products allowed."""
    torch.set_float32_matmul_precision("high")
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
