"""The parts of a pipeline, from any form of checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import diffusers
import torch
from huggingface_hub import snapshot_download
from transformers import AutoTokenizer, Gemma2Model

from model.schedule import load_scheduler
from model.source import HUB_FILES, INDEX, CheckpointError, Source, is_hub_id, one_line, read_json, resolve
from model.transformer import SanaVideoTransformer3DModel
from model.weights import load_transformer

HUB_OPTIONS = ("cache_dir", "force_download", "local_files_only", "proxies", "revision", "token")
"""Of `from_pretrained`, for ids on the hub."""


def find(path: str | Path | Source, hub: dict[str, Any]) -> Source:
    """The checkpoint on this machine's disk; one on the hub is downloaded with those options.

    Raises:
        CheckpointError: nothing there.
    """
    options = {name: value for name, value in hub.items() if value is not None}
    if isinstance(path, Source) or not is_hub_id(path) or not options:
        return resolve(path)
    options.pop("proxies", None)  # huggingface_hub takes them from the environment
    repository, _, revision = str(path).partition("@")
    options.setdefault("revision", revision or None)
    try:
        return resolve(snapshot_download(repository, allow_patterns=list(HUB_FILES), **options))
    except OSError as error:
        raise CheckpointError(f"{path}: {one_line(error)}") from error


def opens_in_diffusers(source: Source) -> bool:
    """Whether diffusers itself can load what surrounds the transformer."""
    if source.weights is not None or not (source.folder / INDEX).is_file():
        return False
    library, name = (read_json(source.folder / INDEX).get("transformer") or (None, None))[:2]
    return library == "diffusers" and hasattr(diffusers, str(name))


def transformer_of(source: Source, options: dict[str, Any]) -> SanaVideoTransformer3DModel:
    """The transformer, as the options of `from_pretrained` say: dtype, variant, quantisation.

    Raises:
        CheckpointError: see `load_transformer`.
    """
    dtype = dtype_of("transformer", options) or torch.float32
    quantization = options.get("quantization_config")
    wanted = None if quantization is None else quantization._resolve_quant_config(True, "transformer")
    if wanted is None and options.get("variant") is None:
        return load_transformer(source, _device(options), dtype)
    if source.weights is not None:
        raise CheckpointError(
            f"{source.weights}: quantization_config and variant need a diffusers folder: convert it"
        )
    names = ("variant", "low_cpu_mem_usage", "device_map")
    extra = {name: options[name] for name in names if options.get(name) is not None}
    return SanaVideoTransformer3DModel.from_pretrained(
        source.transformer, dtype=dtype, quantization_config=wanted, local_files_only=True, **extra
    )


def _device(options: dict[str, Any]) -> torch.device:
    """Where the transformer goes: diffusers places only the parts that it loads itself."""
    place = options.get("device_map")
    if place == "balanced":
        return torch.accelerator.current_accelerator() or torch.device("cpu")
    return torch.device(place or "cpu")


def parts_of(source: Source, options: dict[str, Any]) -> dict[str, Any]:
    """Tokenizer, text encoder, VAE and scheduler of a checkpoint that diffusers can't open; None for missing ones.

    Raises:
        CheckpointError: a part that is there and can't be loaded.
    """
    folder, found = source.folder, source.parts
    parts: dict[str, Any] = {"tokenizer": None, "text_encoder": None, "vae": None}
    parts |= {name: options[name] for name in (*parts, "scheduler") if name in options}
    try:
        if "tokenizer" in found and "tokenizer" not in options:
            parts["tokenizer"] = AutoTokenizer.from_pretrained(folder / "tokenizer", local_files_only=True)
        if "text_encoder" in found and "text_encoder" not in options:
            parts["text_encoder"] = Gemma2Model.from_pretrained(
                folder / "text_encoder", dtype=dtype_of("text_encoder", options), local_files_only=True
            )
        if "vae" in found and "vae" not in options:
            kind = str(read_json(folder / "vae" / "config.json").get("_class_name"))
            if not hasattr(diffusers, kind):
                raise CheckpointError(f"{folder / 'vae'}: {kind} is no class of diffusers")
            parts["vae"] = getattr(diffusers, kind).from_pretrained(
                folder / "vae", dtype=dtype_of("vae", options), local_files_only=True
            )
    except (OSError, ValueError, TypeError, RuntimeError) as error:
        raise CheckpointError(f"{folder}: {one_line(error)}") from error
    if "scheduler" not in options:
        parts["scheduler"] = load_scheduler(folder)
    return parts


def dtype_of(part: str, options: dict[str, Any]) -> torch.dtype | None:
    """The dtype of a part: one for all, or a dict by part with `default`."""
    dtype = options.get("torch_dtype")
    if dtype is None:
        dtype = options.get("dtype")
    if isinstance(dtype, dict):
        dtype = dtype.get(part, dtype.get("default"))
    return dtype if isinstance(dtype, torch.dtype) else None
