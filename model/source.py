"""Where a checkpoint's files are: a diffusers folder, a `.pth` of NVlabs, or an id on the Hugging Face hub.

Imports nothing slow, so that a wrong path is told at once.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+(@[\w./-]+)?")
HUB_FILES = ("*.json", "*.safetensors", "*.pth", "*.pt", "*.txt", "*.model", "*.jinja")
TORCH_FILES = (".pth", ".pt", ".bin")
LAID_OUT = (".pth", ".pt")
"""What NVlabs calls them in its repositories; a LongSANA trainer's are `.pt`."""
TRANSFORMER = "transformer"
PARTS = {"vae": "config.json", "text_encoder": "config.json", "tokenizer": "tokenizer_config.json"}
"""What pictures and prompts need: folders, each with the file that makes it one."""
INDEX = "model_index.json"


class CheckpointError(Exception):
    """A checkpoint that is not whole and sound; the message is one line."""


@dataclass(frozen=True)
class Source:
    """A checkpoint on this machine's disk.

    `folder` holds the parts (`vae`, `text_encoder`, `tokenizer`), `stream.json` and, in diffusers' form, the
    transformer; `weights` is the `.pth`, or None in diffusers' form.
    """

    folder: Path
    weights: Path | None = None

    @property
    def place(self) -> Path:
        """What to call it in a message."""
        return self.weights or self.folder

    @property
    def transformer(self) -> Path:
        """The transformer's own folder, which may be the checkpoint's only one."""
        own = self.folder / TRANSFORMER
        return own if own.is_dir() else self.folder

    @property
    def parts(self) -> list[str]:
        """Those of `PARTS` that are there. Beside a `.pth` may lie folders that only happen to be called so."""
        if self.weights is None:
            return [part for part in PARTS if (self.folder / part).is_dir()]
        return [part for part, file in PARTS.items() if (self.folder / part / file).is_file()]

    @property
    def missing_parts(self) -> list[str]:
        """Those of `PARTS` that are not there."""
        return [part for part in PARTS if part not in self.parts]


def is_hub_id(path: str | Path) -> bool:
    """Whether `path` is no local path but has the form of a hub id, `owner/name` or `owner/name@revision`."""
    text = str(path)
    return HUB_ID.fullmatch(text) is not None and not Path(text.partition("/")[0]).exists()


def display_name(path: str | Path) -> str:
    """A checkpoint's short name: its folder's, file's or repository's."""
    if is_hub_id(path):
        return str(path).partition("@")[0].rpartition("/")[2]
    resolved = Path(path).resolve()
    return resolved.stem if resolved.suffix in TORCH_FILES else resolved.name


def resolve(path: str | Path | Source) -> Source:
    """Find a checkpoint; one on the hub is downloaded, or found in the hub's cache.

    A folder without a transformer of its own stands for the one `.pth` (or else `.pt`) in it or in its `checkpoints`,
    as NVlabs lays its repositories out. The parts of a `.pth` stand beside it, or above its folder `checkpoints`.

    Raises:
        CheckpointError: nothing there, or several `.pth` to choose from.
    """
    if isinstance(path, Source):
        return path
    place = Path(path)
    if is_hub_id(path):
        place = download(str(path))
    if place.is_file():
        if place.suffix not in TORCH_FILES:
            raise CheckpointError(f"{place}: neither a folder nor a .pth file")
        return Source(_parts_folder(place.parent), place)
    if not place.is_dir():
        raise CheckpointError(f"{place}: no such folder")
    if not (place / TRANSFORMER).is_dir() and not (place / "config.json").is_file():
        for suffix in LAID_OUT:
            found = sorted([*place.glob(f"*{suffix}"), *place.glob(f"checkpoints/*{suffix}")])
            if found:
                break
        if len(found) > 1:
            names = ", ".join(file.name for file in found[:5])
            raise CheckpointError(f"{place}: several {suffix} files, name one: {names}")
        if found:
            return Source(_parts_folder(found[0].parent), found[0])
    return Source(place)


def _parts_folder(folder: Path) -> Path:
    has_parts = any((folder / part / file).is_file() for part, file in PARTS.items())
    return folder.parent if folder.name == "checkpoints" and not has_parts else folder


def download(name: str, patterns: Sequence[str] = HUB_FILES) -> Path:
    """The folder of a hub id's files, from the hub or its cache.

    Raises:
        CheckpointError: neither has them.
    """
    from huggingface_hub import snapshot_download

    repository, _, revision = name.partition("@")
    try:
        return Path(snapshot_download(repository, revision=revision or None, allow_patterns=list(patterns)))
    except Exception as error:  # the hub's own errors, its HTTP library's and the disk's share no base class
        raise CheckpointError(
            f"{name}: no such folder, and not to be had from the Hugging Face hub nor from its cache on this machine "
            f"({type(error).__name__}); without network, give the folder of a copy"
        ) from error


def read_json(file: Path) -> dict[str, Any]:
    """A JSON object from a file.

    Raises:
        CheckpointError: names the file.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CheckpointError(f"{file}: no such file") from error
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{file}: {one_line(error)}") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{file}: must be a JSON object")
    return content


def one_line(error: Exception) -> str:
    """The error's text on one line, cut to 300 characters."""
    return " ".join(str(error).split())[:300]
