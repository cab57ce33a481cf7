"""Checkpoints: diffusers folders, NVlabs' `.pth` and ids on the Hugging Face hub, loaded strictly."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch
from diffusers import AutoencoderKLLTX2Video, AutoencoderKLWan
from safetensors import SafetensorError

from model.convert import convert
from model.devices import Placement, default_dtype
from model.precision import Precision
from model.quantize import Share, require_schemes
from model.quantize import quantize as apply_scheme
from model.schedule import CLIP_TEXT, clip_config, load_scheduler
from model.source import TRANSFORMER, CheckpointError, Source, one_line, read_json, resolve
from model.stream_config import StreamConfig
from model.text import TextEncoder
from model.transformer import SanaVideoTransformer3DModel
from model.vae import StreamingVAE
from model.weights import Kind, kind_of, latent_channels, load_transformer, weights_hash
from model.whole_vae import NO_STREAMS, WholeVAE

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

VAES: Mapping[str, tuple[Any, Any]] = {
    "AutoencoderKLWan": (AutoencoderKLWan, StreamingVAE),
    "AutoencoderKLLTX2Video": (AutoencoderKLLTX2Video, WholeVAE),
}
"""diffusers' classes by name, and ours over them."""
DC_AE = "AutoencoderDC"
DC_AE_CHANNELS = 32
TRANSFORMER_ONLY = (
    "DC-AE form (32 latent channels), transformer only: no video VAE for it is in diffusers, so it makes neither "
    "streams nor clips; model.SanaVideoPipeline gives its latents (vae=None, output_type='latent')"
)
Window = int | Literal["none"] | None
LOADING_ERRORS = (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError)


class TransformerOnly(CheckpointError):
    """A checkpoint of the DC-AE form: there are no pictures to be had of it."""


@dataclass(frozen=True)
class Checkpoint:
    """Everything a stream or a clip needs of a checkpoint, ready to run."""

    transformer: SanaVideoTransformer3DModel
    vae: StreamingVAE | WholeVAE
    text: TextEncoder
    config: StreamConfig
    weights_hash: str
    """SHA-256, hexadecimal, of the weight files."""
    kind: Kind = Kind.STREAM
    """What it was made for."""
    scheduler: Any = None
    """Diffusers' scheduler for whole clips; None takes `model.schedule.clip_scheduler`."""
    quantised: Mapping[str, Share] = field(default_factory=dict)
    """Of the parts that run in fewer bits."""

    @property
    def no_streams(self) -> str | None:
        """Why it makes clips only, in words for people; None where it streams too."""
        return NO_STREAMS if isinstance(self.vae, WholeVAE) else None

    @property
    def streaming_vae(self) -> StreamingVAE:
        """The VAE of a checkpoint that streams. Raises ValueError for one that makes clips only."""
        if isinstance(self.vae, WholeVAE):
            raise ValueError(f"clips only: {NO_STREAMS}")
        return self.vae


def load_checkpoint(
    path: str | Path | Source,
    device: torch.device | str = "cpu",
    dtype: torch.dtype | None = None,
    *,
    num_attention_heads: int | None = None,
    placement: Placement | None = None,
    precision: Precision | None = None,
    window: Window = None,
    quantize: Mapping[str, str] | None = None,
) -> Checkpoint:
    """Load transformer, VAE, text encoder, tokenizer and `stream.json` (where there is none, LongSANA's values).

    A bidirectional checkpoint with the LTX-2 VAE (720p) makes clips only, see `Checkpoint.no_streams`.

    Args:
        path: a diffusers folder; a `.pth` with the folders `vae`, `text_encoder` and `tokenizer` beside it; or a hub
            id, `owner/name` or `owner/name@revision`.
        device, dtype: where the modules go, and the transformer's dtype; the rest as `Placement.of` chooses.
        num_attention_heads: of a `.pth`, whose weights don't tell; None takes width / 112.
        placement: devices and dtypes part by part, in place of those two.
        precision, window: see `load_config`.
        quantize: the scheme of each part, see `model.quantize`.

    Raises:
        CheckpointError: what is missing or damaged, in one line.
    """
    source = resolve(path)
    _check_parts(source)
    placement = placement or Placement.of(device, dtype)
    schemes = quantize or {}
    require_schemes(schemes, placement)
    config = load_config(source, precision, window)
    transformer = load_transformer(source, placement.device, placement.dtype, num_attention_heads)
    shares: dict[str, Share] = {}
    if "transformer" in schemes:
        shares["transformer"] = apply_scheme(transformer, schemes["transformer"])
    vae = load_vae(source.folder, placement.device, placement.vae_dtype)
    text = load_text(source, config, placement)
    if "text_encoder" in schemes:
        shares["text_encoder"] = apply_scheme(text.encoder, schemes["text_encoder"])
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
    if kind is Kind.CLIP:
        config = clip_config(config, scheduler, transformer.config, vae.spatial_factor, vae.temporal_factor)
    return Checkpoint(transformer, vae, text, config, weights_hash(source), kind, scheduler, shares)


def load_config(source: Source, precision: Precision | None = None, window: Window = None) -> StreamConfig:
    """`stream.json` of the checkpoint, or LongSANA's values, for streams without an end.

    A checkpoint made for whole clips forms its prompts as diffusers' pipelines do.

    Args:
        source: the checkpoint.
        precision: see `model.precision`; None takes the checkpoint's.
        window: blocks that a stream remembers; "none": all of them, however long it runs; None takes the
            checkpoint's, or where it has none what `StreamConfig.endless` makes of its training.

    Raises:
        CheckpointError: names the field and its limit.
    """
    try:
        config = StreamConfig.load(source.folder)
        if kind_of(source) is Kind.CLIP:
            config = replace(config, **CLIP_TEXT)
            for name, given in (("precision reference", precision == "reference"), ("window", window is not None)):
                if given:
                    raise ValueError(
                        f"{name}: {source.place.name} is made for whole clips, its streams are clips in a row"
                    )
        if window == "none":
            config = replace(config, window_blocks=None, window_group=1, trained_latents=None)
        elif window is not None:
            config = replace(config, window_blocks=window, window_group=1)
        return replace(config, precision=precision or config.precision).endless()
    except ValueError as error:
        raise CheckpointError(str(error)) from error


def load_text(source: Source, config: StreamConfig, placement: Placement | None = None) -> TextEncoder:
    """Load text encoder and tokenizer; embeddings go to the placement's device wherever the encoder is.

    Raises:
        CheckpointError: names the folder.
    """
    place = placement or Placement.of()
    try:
        return TextEncoder.from_pretrained(source.folder, config, place.text_device, place.text_dtype, place.device)
    except LOADING_ERRORS as error:
        raise CheckpointError(f"{source.folder / 'text_encoder'}: {one_line(error)}") from error


def load_vae(
    path: str | Path, device: torch.device | str = "cpu", dtype: torch.dtype | None = None
) -> StreamingVAE | WholeVAE:
    """Load the VAE of a diffusers folder.

    Raises:
        TransformerOnly: it makes single pictures.
        CheckpointError: names the folder, its unfit class, or the missing, unexpected or misshapen parameter.
    """
    folder = Path(path) / "vae"
    theirs, ours = _vae_classes(folder)
    try:
        vae, found = theirs.from_pretrained(
            folder,
            local_files_only=True,
            use_safetensors=True,
            torch_dtype=dtype or default_dtype(device),
            output_loading_info=True,
        )
        for what in ("missing", "unexpected", "mismatched"):
            if names := found[f"{what}_keys"]:
                raise CheckpointError(f"{folder}: {what} parameter {min(map(str, names))}")
        wrapped: StreamingVAE | WholeVAE = ours(vae.to(device))
        return wrapped
    except LOADING_ERRORS as error:
        raise CheckpointError(f"{folder}: {one_line(error)}") from error


def _check_parts(source: Source) -> None:
    missing = source.missing_parts
    if "vae" in missing and latent_channels(source) == DC_AE_CHANNELS:
        raise TransformerOnly(f"{source.place}: the VAE is missing: {TRANSFORMER_ONLY}")
    if source.weights is None and not (source.folder / TRANSFORMER).is_dir():
        missing = [TRANSFORMER, *missing]
    if missing:
        words = f"the folder {missing[0]} is" if len(missing) == 1 else f"the folders {', '.join(missing)} are"
        where = "" if source.weights is None else f" beside it, in {source.folder}"
        raise CheckpointError(f"{source.place}: {words} missing{where}")
    kind, (_, ours) = kind_of(source), _vae_classes(source.folder / "vae")
    if ours is WholeVAE and kind is not Kind.CLIP:
        raise CheckpointError(f"{source.place}: {kind.value}, but {NO_STREAMS}")


def _vae_classes(folder: Path) -> tuple[Any, Any]:
    name = str(read_json(folder / "config.json").get("_class_name"))
    if name == DC_AE:
        raise TransformerOnly(
            f"{folder}: an {name} makes single pictures, the video VAE is missing: {TRANSFORMER_ONLY}"
        )
    if name not in VAES:
        raise CheckpointError(f"{folder}: {name} is none of {', '.join(VAES)}")
    return VAES[name]
