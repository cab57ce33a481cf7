"""What a checkpoint is and whether it runs here: loads the parts that are there and runs one block of them."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil
import torch
from torch import Tensor

from model.adapted import Adapter, adapted, adapter_set
from model.checkpoint import TransformerOnly, Window, load_config, load_text, load_transformer, load_vae
from model.devices import Placement, name_of
from model.lora_source import LoraOption
from model.positions import first_picture, latent_of
from model.precision import Precision
from model.quantize import quantize as apply_scheme
from model.quantize import require_schemes
from model.schedule import CLIP_PICTURES, CLIP_STEPS
from model.source import CheckpointError, Source, resolve
from model.stream import LatentStream, new_pool
from model.stream_config import StreamConfig
from model.text import TextEncoder
from model.transformer import SanaVideoTransformer3DModel
from model.vae import StreamingVAE
from model.weights import Kind, kind_of
from model.whole_vae import NO_STREAMS, WholeVAE

PROMPT = "the sea at sunset"
GIB = 1 << 30
MIB = 1 << 20
CLIP_LATENTS = latent_of(CLIP_PICTURES - 1) + 1
CLIP_PASSES = 2 * CLIP_STEPS
"""Of a clip: 50 steps, each with and without the prompt."""


@dataclass(frozen=True)
class Form:
    """A latent space of the family, known by its channels."""

    name: str
    spatial_factor: int
    size: tuple[int, int]
    """Height and width of the pictures it was published for."""
    note: str = ""
    temporal_factor: int = 4
    tried: tuple[int, int] | None = None
    """Height and width that are tried where nothing else is asked for, with two latent frames; None: a whole clip."""

    @property
    def clip_latents(self) -> int:
        """Latent frames of a whole clip."""
        return latent_of(CLIP_PICTURES - 1, self.temporal_factor) + 1


FORMS = {
    16: Form("480p, Wan 2.1 VAE", 8, (480, 832)),
    128: Form(
        "720p, LTX-2 VAE", 32, (704, 1280), "8 pictures a latent frame, not causal: whole clips only", 8, (128, 224)
    ),
    32: Form("DC-AE, an image VAE", 32, (480, 832), "transformer only"),
}


def check(
    path: str | Path | Source,
    device: torch.device | str = "cpu",
    dtype: torch.dtype | None = None,
    *,
    num_attention_heads: int | None = None,
    height: int | None = None,
    width: int | None = None,
    latent_frames: int | None = None,
    loras: Sequence[LoraOption] = (),
    placement: Placement | None = None,
    precision: Precision | None = None,
    window: Window = None,
    quantize: Mapping[str, str] | None = None,
) -> Iterator[str]:
    """Load a checkpoint and run one block of it, or a pass of a clip; yields lines for people as it goes.

    Args:
        path, device, dtype, num_attention_heads: see `model.weights.load_transformer`.
        placement, precision, window, quantize: see `model.checkpoint.load_checkpoint`.
        height, width: of the pictures, in pixels; None takes the checkpoint's own, or of a 720p one a small size.
        latent_frames: of the block; None takes the checkpoint's own, or of a 720p one two.
        loras: adapters to run the block under.

    Raises:
        CheckpointError: what can't be loaded, or a size that can't be made.
    """
    source = resolve(path)
    kind = kind_of(source)
    config = load_config(source, precision, window)
    placement = placement or Placement.of(device, dtype)
    yield _line("found", f"{source.place}: {'diffusers form' if source.weights is None else 'NVlabs .pth'}")
    yield _line("kind", kind.value)
    schemes = quantize or {}
    require_schemes(schemes, placement)
    net = load_transformer(source, placement.device, placement.dtype, num_attention_heads)
    yield from _describe_net(net)
    if "transformer" in schemes:
        yield _line("", f"quantised, {apply_scheme(net, schemes['transformer'])}")
    members = [_lora(net, each) for each in loras]
    for adapter, weight in members:
        size = f"{len(adapter.layers)} layers, {adapter.nbytes / MIB:.1f} MiB"
        yield _line("lora", f"{adapter.name} at {weight:g}: rank {adapter.rank}, {size}, SHA-256 {adapter.sha256}")
    net = adapted(net, adapter_set(members))
    form = FORMS.get(net.config.in_channels)
    yield _line("form", _form_line(form))
    vae = text = None
    missing = source.missing_parts
    if "vae" in missing:
        yield _line("vae", "missing: no pictures")
    else:
        vae, said = _try_vae(source, placement, net.config.in_channels)
        yield _line("vae", said)
    if {"text_encoder", "tokenizer"} & set(missing):
        gone = ", ".join(part for part in missing if part != "vae")
        yield _line("text encoder", f"missing ({gone}): random numbers stand for a prompt")
    else:
        text = load_text(source, config, placement)
        count = _parameters(text.encoder)
        yield _line("text encoder", f"{count:,} parameters, {_text_line(text)}")
        if "text_encoder" in schemes:
            yield _line("", f"quantised, {apply_scheme(text.encoder, schemes['text_encoder'])}")
        if text.width != net.config.caption_channels:
            raise CheckpointError(
                f"the text encoder is {text.width} wide, the transformer {net.config.caption_channels}"
            )
    factor = vae.spatial_factor if vae is not None else form.spatial_factor if form is not None else 8
    try:
        config = _tried(config, kind, form, height, width, latent_frames)
        yield from _run(net, vae, text, config, kind, factor)
        if isinstance(vae, WholeVAE) and form is not None:
            yield from _whole_clip(vae, form)
    except ValueError as error:
        raise CheckpointError(str(error)) from error


def _tried(
    config: StreamConfig,
    kind: Kind,
    form: Form | None,
    height: int | None,
    width: int | None,
    latent_frames: int | None,
) -> StreamConfig:
    """The size and length that are run: those asked for, else the checkpoint's own, else its form's."""
    if kind is not Kind.STREAM and form is not None:
        own = form.tried or form.size
        config = replace(config, height=own[0], width=own[1])
    own_frames = config.block
    if kind is Kind.CLIP:
        own_frames = CLIP_LATENTS if form is None else 2 if form.tried else form.clip_latents
    return replace(
        config,
        height=config.height if height is None else height,
        width=config.width if width is None else width,
        first_block_latent_frames=own_frames if latent_frames is None else latent_frames,
        first_block_timesteps=None,
    )


def _run(
    net: SanaVideoTransformer3DModel,
    vae: StreamingVAE | WholeVAE | None,
    text: TextEncoder | None,
    config: StreamConfig,
    kind: Kind,
    factor: int,
) -> Iterator[str]:
    patch = net.config.patch_size
    for name, pixels, side in (("height", config.height, patch[1]), ("width", config.width, patch[2])):
        if pixels % (factor * side):
            raise CheckpointError(f"{name} {pixels}: must be a multiple of {factor * side}")
    size = (config.height // factor, config.width // factor)
    frames = config.first_block_latent_frames
    tokens = frames // patch[0] * (size[0] // patch[1]) * (size[1] // patch[2])
    yield _line(
        "size", f"{config.height}x{config.width}, latents {size[0]}x{size[1]}, {frames} frames = {tokens:,} tokens"
    )
    embeds, mask = _embeds(net, text, config)
    _one_pass(net, embeds, mask, patch[0], (patch[1], patch[2]))  # what only a first pass costs
    if net.device.type != "cpu":  # an accelerator chooses its kernels when it first sees a size
        _one_pass(net, embeds, mask, frames, size)
    if net.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(net.device)
    began = _now(net)
    if kind is Kind.CLIP:
        latents = _one_pass(net, embeds, mask, frames, size)
        spent_s = _now(net) - began
        yield _line("pass", f"{spent_s:.2f} s; a clip of {frames} latent frames takes {CLIP_PASSES}")
        spent_s *= CLIP_PASSES
    else:
        pool = new_pool(net, *size, config, slab=1)
        stream = LatentStream(
            net, text=embeds, text_mask=mask, height=size[0], width=size[1], config=config, pool=pool,
            negative_text=torch.zeros_like(embeds), negative_mask=mask,
        )  # fmt: skip
        passes = stream.passes_ahead
        latents = next(stream)
        spent_s = _now(net) - began
        yield _line("block", f"{passes} passes in {spent_s:.2f} s, {spent_s / passes:.3f} s a pass")
        spent_s += spent_s / passes  # the pass that commits it
        yield _line("state", f"{pool.nbytes / (pool.capacity + 1) / MIB:.1f} MiB a slot, {_memory_rule(config)}")
    finite = bool(latents.isfinite().all())
    yield _line("latents", f"{tuple(latents.shape)}, from {latents.min():.2f} to {latents.max():.2f}")
    if not finite:
        raise CheckpointError("the latents are not finite numbers")
    if vae is not None:
        began = _now(net)
        pictures, said = _decode(vae, latents)
        decode_s = _now(net) - began
        yield _line("pictures", f"{pictures}, decoded in {decode_s:.2f} s; {said}")
        spent_s += decode_s
    rate_hz = first_picture(frames, 4 if vae is None else vae.temporal_factor) / spent_s
    if kind is not Kind.CLIP:
        counted = "its commit and decoding counted" if vae is not None else "its commit counted, decoding not"
        yield _line("speed", f"{rate_hz:.1f} pictures a second, {counted}; made for {config.rate_hz:g}")
    elif vae is not None:
        yield _line("speed", f"{spent_s:.0f} s a clip, {rate_hz:.2f} pictures a second; shown at {config.rate_hz:g}")
        chained = "chained clips: each begins with the last picture of the one before"
        yield _line("streaming", f"none: {NO_STREAMS}" if isinstance(vae, WholeVAE) else chained)
    yield _line("memory", _memory(net))


def _decode(vae: StreamingVAE | WholeVAE, latents: Tensor) -> tuple[int, str]:
    """Pictures decoded, and what that takes of memory."""
    if isinstance(vae, WholeVAE):
        taken = vae.decode_nbytes(*latents.shape[2:])
        return len(vae.decode(latents)), f"{taken / MIB:.1f} MiB of activations"
    state = vae.new_state()
    pictures = sum(len(vae.decode(frame, state)) for frame in latents.split(1, dim=2))
    return pictures, f"{state.nbytes / MIB:.1f} MiB of decoder state"


def _whole_clip(vae: WholeVAE, form: Form) -> Iterator[str]:
    """What a clip as the form was published takes, which was not tried unless it was asked for."""
    height, width = form.size
    taken = vae.decode_nbytes(form.clip_latents, height // form.spatial_factor, width // form.spatial_factor)
    yield _line(
        "whole clip", f"{height}x{width}, {CLIP_PICTURES} pictures: decoding takes {taken / GIB:.1f} GiB more"
    )
    yield _line("", f"try it: --height {height} --width {width} --latent-frames {form.clip_latents}")


def _lora(net: SanaVideoTransformer3DModel, option: LoraOption) -> tuple[Adapter, float]:
    from model.lora import load_adapter  # imports peft, which takes seconds

    try:
        return load_adapter(option.path, net, option.name), option.weight
    except CheckpointError as error:
        raise CheckpointError(f"--lora {option.name}: {error}") from error


def _describe_net(net: SanaVideoTransformer3DModel) -> Iterator[str]:
    config = net.config
    dtypes = ", ".join(sorted({name_of(value.dtype) for value in net.parameters()}))
    yield _line("transformer", f"{_parameters(net):,} parameters, {dtypes}, on {net.device}")
    patch = "x".join(map(str, config.patch_size))
    heads = f"{config.num_attention_heads} heads x {config.attention_head_dim}"
    yield _line("", f"{config.num_layers} layers, {heads}, feed-forward x {config.mlp_ratio:g}, patch {patch}")
    yield _line("", f"{config.in_channels} latent channels, text {config.caption_channels} wide")
    eps = f"{config.cross_attention_norm_eps:g} and {config.linear_attention_eps:g}"
    yield _line("", f"eps of text attention's norms and of linear attention: {eps}")


def _form_line(form: Form | None) -> str:
    if form is None:
        return "none of the family's latent spaces"
    return f"{form.name}; {form.note}" if form.note else form.name


def _text_line(text: TextEncoder) -> str:
    return f"{name_of(text.encoder.dtype)}, {text.width} wide, on {text.encoder.device}"


def _memory_rule(config: StreamConfig) -> str:
    """What a stream remembers, and how exactly."""
    remembers = (
        "remembers every block" if config.window_blocks is None else f"remembers {config.window_blocks} blocks"
    )
    return f"{remembers}, precision {config.precision}"


def _try_vae(source: Source, placement: Placement, channels: int) -> tuple[StreamingVAE | WholeVAE | None, str]:
    try:
        vae = load_vae(source.folder, placement.device, placement.vae_dtype)
    except TransformerOnly as error:
        return None, str(error)
    if vae.channels != channels:
        raise CheckpointError(f"the VAE has {vae.channels} latent channels, the transformer {channels}")
    memory = (
        "decodes whole clips" if isinstance(vae, WholeVAE) else f"remembers {vae.memory_latent_frames} latent frames"
    )
    factors = f"{vae.spatial_factor}x{vae.spatial_factor} pixels, {vae.temporal_factor} pictures a latent"
    return vae, f"{_parameters(vae.vae):,} parameters, {name_of(vae.dtype)}, {factors}, {memory}"


def _embeds(
    net: SanaVideoTransformer3DModel, text: TextEncoder | None, config: StreamConfig
) -> tuple[Tensor, Tensor]:
    if text is not None:
        return text.encode(PROMPT)
    shape = (1, config.max_tokens, net.config.caption_channels)
    embeds = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(net.device)
    return embeds, torch.ones(shape[:2], dtype=torch.long, device=net.device)


@torch.no_grad()
def _one_pass(
    net: SanaVideoTransformer3DModel, embeds: Tensor, mask: Tensor, frames: int, size: tuple[int, int]
) -> Tensor:
    shape = (1, net.config.in_channels, frames, *size)
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(net.device, net.dtype)
    timestep = torch.tensor([1000], device=net.device)
    (flow,) = net(noise, embeds, timestep, encoder_attention_mask=mask, return_dict=False)
    return (noise[:, : flow.shape[1]] - flow).float()


def _now(net: SanaVideoTransformer3DModel) -> float:
    if net.device.type == "cuda":
        torch.cuda.synchronize(net.device)
    elif net.device.type == "mps":
        torch.mps.synchronize()
    return time.perf_counter()


def _memory(net: SanaVideoTransformer3DModel) -> str:
    host = psutil.Process().memory_info().rss
    if net.device.type != "cuda":
        return f"{host / GIB:.2f} GiB of this process"
    peak, total = (
        torch.cuda.max_memory_allocated(net.device),
        torch.cuda.get_device_properties(net.device).total_memory,
    )
    return f"peak {peak / GIB:.2f} of {total / GIB:.1f} GiB on the device, {host / GIB:.2f} GiB on the host"


def _parameters(module: Any) -> int:
    return sum(value.numel() for value in module.parameters())


def _line(what: str, value: str) -> str:
    return f"{what:<13} {value}"
