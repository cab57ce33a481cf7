"""Where an adapter's file is, and what the command line says of one.

Imports nothing slow, so that what is wrong is told at once.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from model.source import CheckpointError, download, is_hub_id

CONFIG = "adapter_config.json"
FILES = ("adapter_model.safetensors", "pytorch_lora_weights.safetensors")
"""peft's and diffusers' names for the file of a folder; one file of another name is taken too."""
NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,63}")
MAX_WEIGHT = 4.0
_READ_BYTES = 1 << 20


class AdapterError(CheckpointError):
    """An adapter that can't be loaded; the message is one line."""


@dataclass(frozen=True)
class LoraOption:
    """An adapter as the command line names it; `weight` is what new streams have of it."""

    name: str
    path: str
    weight: float = 1.0

    @classmethod
    def parse(cls, text: str) -> LoraOption:
        """`NAME=PATH` or `NAME=PATH:WEIGHT`.

        Raises:
            AdapterError: names the option and what it takes.
        """
        name, _, place = text.partition("=")
        path, _, last = place.rpartition(":")
        try:
            weight = float(last) if path else 1.0
        except ValueError:
            path, weight = place, 1.0
        path = path or place
        if NAME.fullmatch(name) is None or not path:
            raise AdapterError(f"--lora {text}: must be NAME=PATH or NAME=PATH:WEIGHT, a name of letters and digits")
        if not -MAX_WEIGHT <= weight <= MAX_WEIGHT:
            raise AdapterError(f"--lora {text}: the weight must be {-MAX_WEIGHT:g} to {MAX_WEIGHT:g}")
        return cls(name, path, weight)


def located(texts: Sequence[str]) -> list[LoraOption]:
    """What the command line says of adapters, each with its file as its path.

    Raises:
        AdapterError: names the option.
    """
    options = [LoraOption.parse(text) for text in texts]
    found: dict[str, LoraOption] = {}
    for option in options:
        if option.name in found:
            raise AdapterError(f"--lora {option.name}: there are two of that name")
        try:
            found[option.name] = replace(option, path=str(adapter_file(option.path)))
        except AdapterError as error:
            raise AdapterError(f"--lora {option.name}: {error}") from error
    return list(found.values())


def adapter_file(path: str | Path) -> Path:
    """The adapter's `.safetensors`; one on the hub is downloaded, or found in the hub's cache.

    Raises:
        AdapterError: there is none, or there are several to choose from.
    """
    place = Path(path)
    if is_hub_id(path) and not place.exists():
        try:
            place = download(str(path), ("*.safetensors", CONFIG))
        except CheckpointError as error:
            raise AdapterError(str(error)) from error
    if place.is_dir():
        known = [place / name for name in FILES if (place / name).is_file()]
        found = known or sorted(place.glob("*.safetensors"))
        if len(found) > 1:
            raise AdapterError(f"{place}: several adapters, name one: {', '.join(file.name for file in found[:5])}")
        if not found:
            raise AdapterError(f"{place}: no .safetensors in it, and nothing else is read")
        return found[0]
    if not place.is_file():
        raise AdapterError(f"{place}: no such file or folder")
    if place.suffix != ".safetensors":
        raise AdapterError(f"{place}: no .safetensors, and nothing else is read")
    return place


def adapter_hash(file: Path) -> str:
    """SHA-256 of the file's bytes, and after them of `adapter_config.json` where one lies beside it."""
    digest = hashlib.sha256()
    for part in (file, file.with_name(CONFIG)):
        if part == file or part.is_file():
            with part.open("rb") as stream:
                while chunk := stream.read(_READ_BYTES):
                    digest.update(chunk)
    return digest.hexdigest()
