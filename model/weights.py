"""The transformer of any checkpoint: told by its form, loaded strictly."""

from __future__ import annotations

import enum
import hashlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from model.devices import default_dtype
from model.pth import AUTHORS_EPS, config_of, read_pth, renamed
from model.source import INDEX, TRANSFORMER, CheckpointError, Source, one_line, read_json, resolve
from model.stream_config import FILE_NAME
from model.transformer import SanaVideoTransformer3DModel, parameter_shapes

CAUSAL_CLASS = "SanaVideoCausalTransformer3DModel"
"""The authors' class for LongSANA (diffusers PR 12723, not in pip's diffusers): same parameters, same config."""
CLASS_NAMES = ("SanaVideoTransformer3DModel", CAUSAL_CLASS)
LONGSANA_PIPELINE = "LongSanaVideoPipeline"
LONGSANA_NAME = re.compile(r"longlive|longsana|long-sana|long_sana", re.IGNORECASE)
WEIGHTS = "diffusion_pytorch_model"
HASHED_PARTS = (TRANSFORMER, "vae", "text_encoder")
DEFAULT_CHANNELS = 16
"""Of latents, in a transformer's config that doesn't say."""
_READ_BYTES = 1 << 20


class Kind(enum.Enum):
    """What a checkpoint was made for."""

    STREAM = "streams as its stream.json says"
    LONGSANA = "LongSANA: streams block by block"
    CLIP = "bidirectional: made for whole clips"


def kind_of(source: Source) -> Kind:
    """What the checkpoint was made for.

    Weights alone don't tell LongSANA from the bidirectional model: a class, a trainer's file or a name does.

    Raises:
        CheckpointError: a file that decides it can't be read.
    """
    if (source.folder / FILE_NAME).is_file():
        return Kind.STREAM
    place = source.place
    names = [place.stem, source.folder.name]
    if source.folder.parent.name == "snapshots":  # the hub's cache: models--owner--name/snapshots/commit
        names.append(source.folder.parent.parent.name)
    if any(LONGSANA_NAME.search(name) for name in names):
        return Kind.LONGSANA
    if source.weights is not None:
        return Kind.LONGSANA if read_pth(source.weights).from_trainer else Kind.CLIP
    index = source.folder / INDEX
    pipeline = read_json(index).get("_class_name") if index.is_file() else None
    net = read_json(source.transformer / "config.json").get("_class_name")
    return Kind.LONGSANA if pipeline == LONGSANA_PIPELINE or net == CAUSAL_CLASS else Kind.CLIP


def load_transformer(
    path: str | Path | Source,
    device: torch.device | str = "cpu",
    dtype: torch.dtype | None = None,
    num_attention_heads: int | None = None,
) -> SanaVideoTransformer3DModel:
    """Load the transformer of any checkpoint, or from its own folder.

    Args:
        path: see `model.source.resolve`.
        device: where it goes.
        dtype: None takes `default_dtype`.
        num_attention_heads: of a `.pth`, whose weights don't tell; None takes width / 112.

    Raises:
        CheckpointError: names the file, or the missing, unexpected or misshapen parameter.
    """
    transformer, tensors = read_transformer(path, num_attention_heads)
    dtype = dtype or default_dtype(device)
    placed = {name: value.to(device=device, dtype=dtype) for name, value in tensors.items()}
    transformer.load_state_dict(placed, assign=True)
    return transformer.eval().requires_grad_(False)


def read_transformer(
    path: str | Path | Source, num_attention_heads: int | None = None
) -> tuple[SanaVideoTransformer3DModel, dict[str, Tensor]]:
    """The transformer without numbers (on `meta`), and its checked tensors as the file has them, by diffusers' names.

    Raises:
        CheckpointError: as `load_transformer`.
    """
    source = resolve(path)
    if source.weights is not None:
        return _read_pth(source.weights, num_attention_heads)
    folder = source.transformer
    config = _diffusers_config(source)
    if num_attention_heads not in (None, config.get("num_attention_heads")):
        raise CheckpointError(
            f"{folder / 'config.json'}: num_attention_heads is {config.get('num_attention_heads')} there, "
            f"not {num_attention_heads}"
        )
    transformer = _build(config, folder / "config.json")
    return transformer, _read_tensors(folder, dict(parameter_shapes(transformer)))


def latent_channels(source: Source) -> int | None:
    """Channels of the latents, without loading the transformer; None where its form doesn't say.

    Raises:
        CheckpointError: a file that can't be read.
    """
    if source.weights is not None:
        embed = read_pth(source.weights).tensors.get("x_embedder.proj.weight")
        return None if embed is None else int(embed.shape[1])
    file = source.transformer / "config.json"
    found = read_json(file).get("in_channels", DEFAULT_CHANNELS) if file.is_file() else None
    return found if isinstance(found, int) else None


def weights_hash(path: str | Path | Source) -> str:
    """SHA-256 of a checkpoint's weight files: names, sizes and bytes, part by part, in order of name."""
    source = resolve(path)
    digest = hashlib.sha256()
    for part in HASHED_PARTS:
        files = sorted((source.folder / part).glob("*.safetensors"))
        if part == TRANSFORMER and source.weights is not None:
            files = [source.weights]
        for file in files:
            digest.update(f"{part}/{file.name}\0{file.stat().st_size}\0".encode())
            with file.open("rb") as stream:
                while chunk := stream.read(_READ_BYTES):
                    digest.update(chunk)
    return digest.hexdigest()


def _diffusers_config(source: Source) -> dict[str, Any]:
    file = source.transformer / "config.json"
    config = read_json(file)
    if config.get("_class_name") not in CLASS_NAMES:
        raise CheckpointError(f"{file}: _class_name is {config.get('_class_name')!r}")
    index = source.folder / INDEX
    authors = config["_class_name"] == CAUSAL_CLASS
    if index.is_file():
        authors |= read_json(index).get("_class_name") == LONGSANA_PIPELINE
    # LongSANA was trained with its authors' net: its eps are the right ones whatever class the folder names.
    return {**AUTHORS_EPS, **config} if authors else config


def _build(config: dict[str, Any], file: Path) -> SanaVideoTransformer3DModel:
    try:
        with torch.device("meta"):
            return SanaVideoTransformer3DModel.from_config(config)
    except (TypeError, ValueError, RuntimeError, ZeroDivisionError) as error:
        raise CheckpointError(f"{file}: {one_line(error)}") from error


def _read_pth(file: Path, heads: int | None) -> tuple[SanaVideoTransformer3DModel, dict[str, Tensor]]:
    tensors = read_pth(file).tensors
    try:
        transformer = _build(config_of(tensors, heads), file)
        return transformer, renamed(tensors, dict(parameter_shapes(transformer)))
    except CheckpointError as error:
        raise error if str(error).startswith(str(file)) else CheckpointError(f"{file}: {error}") from error


def _read_tensors(folder: Path, expected: dict[str, torch.Size]) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    for file in _weight_files(folder):
        try:
            with safe_open(file, "pt") as opened:
                for name in opened.keys():  # noqa: SIM118 (not a mapping)
                    if name not in expected:
                        raise CheckpointError(f"{file}: unexpected parameter {name}")
                    shape = tuple(opened.get_slice(name).get_shape())
                    if shape != tuple(expected[name]):
                        raise CheckpointError(f"{file}: {name} has shape {shape}, not {tuple(expected[name])}")
                    tensors[name] = opened.get_tensor(name)
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"{file}: {one_line(error)}") from error
    for name in expected:
        if name not in tensors:
            raise CheckpointError(f"{folder}: parameter {name} is missing")
    return tensors


def _weight_files(folder: Path) -> Iterator[Path]:
    index = folder / f"{WEIGHTS}.safetensors.index.json"
    if index.is_file():
        names = set(read_json(index).get("weight_map", {}).values())
        yield from (folder / name for name in sorted(names))
    elif (whole := folder / f"{WEIGHTS}.safetensors").is_file():
        yield whole
    else:
        raise CheckpointError(f"{folder}: no {WEIGHTS}.safetensors")
