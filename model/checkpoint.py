"""Checkpoints: diffusers folders, loaded strictly."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKLWan
from safetensors import SafetensorError, safe_open
from torch import Tensor

from model.stream_config import StreamConfig
from model.text import TextEncoder
from model.transformer import SanaVideoTransformer3DModel, parameter_shapes
from model.vae import StreamingVAE

CLASS_NAMES = ("SanaVideoTransformer3DModel", "SanaVideoCausalTransformer3DModel")
WEIGHT_PARTS = ("transformer", "vae", "text_encoder")
WEIGHTS = "diffusion_pytorch_model"
LOADING_ERRORS = (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError)
_READ_BYTES = 1 << 20


class CheckpointError(Exception):
    """A folder that is not a whole, sound checkpoint; the message is one line."""


@dataclass(frozen=True)
class Checkpoint:
    """Everything a stream needs of a checkpoint folder, ready to run."""

    transformer: SanaVideoTransformer3DModel
    vae: StreamingVAE
    text: TextEncoder
    config: StreamConfig
    weights_hash: str
    """SHA-256, hexadecimal, of the safetensors files."""


def load_checkpoint(
    path: str | Path, device: torch.device | str = "cpu", dtype: torch.dtype | None = None
) -> Checkpoint:
    """Load a diffusers folder: transformer, VAE, text encoder, tokenizer and `stream.json`.

    Args:
        path: the folder.
        device: where the modules go.
        dtype: of the modules; None takes bfloat16 where the device computes in it, else float32.

    Raises:
        CheckpointError: what is missing or damaged, in one line.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise CheckpointError(f"{folder}: no such folder")
    for part in (*WEIGHT_PARTS, "tokenizer"):
        if not (folder / part).is_dir():
            raise CheckpointError(f"{folder}: the folder {part} is missing")
    dtype = dtype or default_dtype(device)
    try:
        config = StreamConfig.load(folder)
    except ValueError as error:
        raise CheckpointError(str(error)) from error
    transformer = load_transformer(folder, device, dtype)
    vae = load_vae(folder, device, dtype)
    try:
        text = TextEncoder.from_pretrained(folder, config, device)
    except LOADING_ERRORS as error:
        raise CheckpointError(f"{folder / 'text_encoder'}: {_one_line(error)}") from error
    if text.width != transformer.config.caption_channels:
        raise CheckpointError(
            f"{folder}: the text encoder is {text.width} wide, the transformer reads "
            f"{transformer.config.caption_channels}"
        )
    if vae.channels != transformer.config.in_channels:
        raise CheckpointError(
            f"{folder}: the VAE has {vae.channels} latent channels, the transformer {transformer.config.in_channels}"
        )
    return Checkpoint(transformer, vae, text, config, weights_hash(folder))


def load_vae(path: str | Path, device: torch.device | str = "cpu", dtype: torch.dtype | None = None) -> StreamingVAE:
    """Load the VAE of a diffusers folder.

    Raises:
        CheckpointError: names the folder, or the missing, unexpected or misshapen parameter.
    """
    folder = Path(path) / "vae"
    try:
        vae, found = AutoencoderKLWan.from_pretrained(
            folder, local_files_only=True, torch_dtype=dtype or default_dtype(device), output_loading_info=True
        )
        for what in ("missing", "unexpected", "mismatched"):
            if names := found[f"{what}_keys"]:
                raise CheckpointError(f"{folder}: {what} parameter {min(map(str, names))}")
        return StreamingVAE(vae.to(device))
    except LOADING_ERRORS as error:
        raise CheckpointError(f"{folder}: {_one_line(error)}") from error


def default_dtype(device: torch.device | str) -> torch.dtype:
    """bfloat16 where the device has instructions for it, else float32."""
    kind = torch.device(device).type
    if kind == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    if kind == "cpu":
        fast = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
        return torch.bfloat16 if fast else torch.float32
    return torch.float32


def load_transformer(
    path: str | Path, device: torch.device | str = "cpu", dtype: torch.dtype | None = None
) -> SanaVideoTransformer3DModel:
    """Load the transformer of a diffusers folder, or the transformer's own folder.

    Raises:
        CheckpointError: names the file, or the missing, unexpected or misshapen parameter.
    """
    folder = Path(path)
    if (folder / "transformer").is_dir():
        folder = folder / "transformer"
    config = _read_json(folder / "config.json")
    if config.get("_class_name") not in CLASS_NAMES:
        raise CheckpointError(f"{folder / 'config.json'}: _class_name is {config.get('_class_name')!r}")
    try:
        with torch.device("meta"):
            transformer = SanaVideoTransformer3DModel.from_config(config)
    except (TypeError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{folder / 'config.json'}: {_one_line(error)}") from error
    tensors = _read_tensors(folder, dict(parameter_shapes(transformer)))
    dtype = dtype or default_dtype(device)
    placed = {name: value.to(device=device, dtype=dtype) for name, value in tensors.items()}
    transformer.load_state_dict(placed, assign=True)
    return transformer.eval().requires_grad_(False)


def weights_hash(path: str | Path) -> str:
    """SHA-256 of a checkpoint's safetensors files: names, sizes and bytes, part by part, in order of name."""
    digest = hashlib.sha256()
    for part in WEIGHT_PARTS:
        for file in sorted((Path(path) / part).glob("*.safetensors")):
            digest.update(f"{part}/{file.name}\0{file.stat().st_size}\0".encode())
            with file.open("rb") as stream:
                while chunk := stream.read(_READ_BYTES):
                    digest.update(chunk)
    return digest.hexdigest()


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
            raise CheckpointError(f"{file}: {_one_line(error)}") from error
    for name in expected:
        if name not in tensors:
            raise CheckpointError(f"{folder}: parameter {name} is missing")
    return tensors


def _weight_files(folder: Path) -> Iterator[Path]:
    index = folder / f"{WEIGHTS}.safetensors.index.json"
    if index.is_file():
        names = set(_read_json(index).get("weight_map", {}).values())
        yield from (folder / name for name in sorted(names))
    elif (whole := folder / f"{WEIGHTS}.safetensors").is_file():
        yield whole
    else:
        raise CheckpointError(f"{folder}: no {WEIGHTS}.safetensors")


def _read_json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CheckpointError(f"{file}: no such file") from error
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{file}: {_one_line(error)}") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{file}: must be a JSON object")
    return content


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
