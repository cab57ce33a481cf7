"""Checkpoints: diffusers folders, NVlabs' `.pth` and ids on the Hugging Face hub, loaded strictly."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKLWan
from safetensors import SafetensorError

from model.convert import convert
from model.schedule import load_scheduler
from model.source import TRANSFORMER, CheckpointError, Source, one_line, read_json, resolve
from model.stream_config import StreamConfig
from model.text import TextEncoder
from model.transformer import SanaVideoTransformer3DModel
from model.vae import StreamingVAE
from model.weights import Kind, default_dtype, kind_of, load_transformer, weights_hash

__all__ = [
    "Checkpoint",
    "CheckpointError",
    "convert",
    "default_dtype",
    "load_checkpoint",
    "load_text",
    "load_transformer",
    "load_vae",
    "weights_hash",
]

VAE_CLASS = "AutoencoderKLWan"
OTHER_VAES = {
    "AutoencoderKLLTX2Video": "decodes whole clips only (8 pictures a latent frame, not causal)",
    "AutoencoderDC": "decodes single pictures only",
}
LOADING_ERRORS = (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError)


@dataclass(frozen=True)
class Checkpoint:
    """Everything a stream needs of a checkpoint, ready to run."""

    transformer: SanaVideoTransformer3DModel
    vae: StreamingVAE
    text: TextEncoder
    config: StreamConfig
    weights_hash: str
    """SHA-256, hexadecimal, of the weight files."""
    kind: Kind = Kind.STREAM
    """What it was made for."""
    scheduler: Any = None
    """Diffusers' scheduler for whole clips; None takes `model.schedule.clip_scheduler`."""


def load_checkpoint(
    path: str | Path | Source, device: torch.device | str = "cpu", dtype: torch.dtype | None = None
) -> Checkpoint:
    """Load transformer, VAE, text encoder, tokenizer and `stream.json` (where there is none, LongSANA's values).

    Args:
        path: a diffusers folder; a `.pth` with the folders `vae`, `text_encoder` and `tokenizer` beside it; or a hub
            id, `owner/name` or `owner/name@revision`.
        device: where the modules go.
        dtype: of the modules; None takes bfloat16 where the device computes in it, else float32.

    Raises:
        CheckpointError: what is missing or damaged, in one line.
    """
    source = resolve(path)
    _check_parts(source)
    dtype = dtype or default_dtype(device)
    config = load_config(source)
    transformer = load_transformer(source, device, dtype)
    vae = load_vae(source.folder, device, dtype)
    text = load_text(source, config, device)
    if text.width != transformer.config.caption_channels:
        raise CheckpointError(
            f"{source.place}: the text encoder is {text.width} wide, the transformer reads "
            f"{transformer.config.caption_channels}"
        )
    if vae.channels != transformer.config.in_channels:
        raise CheckpointError(
            f"{source.place}: the VAE has {vae.channels} latent channels, "
            f"the transformer {transformer.config.in_channels}"
        )
    kind, scheduler = kind_of(source), load_scheduler(source.folder)
    return Checkpoint(transformer, vae, text, config, weights_hash(source), kind, scheduler)


def load_config(source: Source) -> StreamConfig:
    """`stream.json` of the checkpoint, or LongSANA's values.

    Raises:
        CheckpointError: names the field and its limit.
    """
    try:
        return StreamConfig.load(source.folder)
    except ValueError as error:
        raise CheckpointError(str(error)) from error


def load_text(source: Source, config: StreamConfig, device: torch.device | str = "cpu") -> TextEncoder:
    """Load text encoder and tokenizer.

    Raises:
        CheckpointError: names the folder.
    """
    try:
        return TextEncoder.from_pretrained(source.folder, config, device)
    except LOADING_ERRORS as error:
        raise CheckpointError(f"{source.folder / 'text_encoder'}: {one_line(error)}") from error


def load_vae(path: str | Path, device: torch.device | str = "cpu", dtype: torch.dtype | None = None) -> StreamingVAE:
    """Load the VAE of a diffusers folder.

    Raises:
        CheckpointError: names the folder, its unfit class, or the missing, unexpected or misshapen parameter.
    """
    folder = Path(path) / "vae"
    _check_vae_class(folder)
    try:
        vae, found = AutoencoderKLWan.from_pretrained(
            folder, local_files_only=True, torch_dtype=dtype or default_dtype(device), output_loading_info=True
        )
        for what in ("missing", "unexpected", "mismatched"):
            if names := found[f"{what}_keys"]:
                raise CheckpointError(f"{folder}: {what} parameter {min(map(str, names))}")
        return StreamingVAE(vae.to(device))
    except LOADING_ERRORS as error:
        raise CheckpointError(f"{folder}: {one_line(error)}") from error


def _check_parts(source: Source) -> None:
    missing = source.missing_parts
    if source.weights is None and not (source.folder / TRANSFORMER).is_dir():
        missing = [TRANSFORMER, *missing]
    if missing:
        words = f"the folder {missing[0]} is" if len(missing) == 1 else f"the folders {', '.join(missing)} are"
        where = "" if source.weights is None else f" beside it, in {source.folder}"
        raise CheckpointError(f"{source.place}: {words} missing{where}")
    _check_vae_class(source.folder / "vae")


def _check_vae_class(folder: Path) -> None:
    name = read_json(folder / "config.json").get("_class_name")
    if name != VAE_CLASS:
        why = OTHER_VAES.get(str(name), f"is not {VAE_CLASS}")
        raise CheckpointError(f"{folder}: a {name} {why}, so it can't stream")
