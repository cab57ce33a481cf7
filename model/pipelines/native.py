"""Calls of the pipelines on checkpoints that stream: clips block by block, by `LatentStream`."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from diffusers.callbacks import MultiPipelineCallbacks, PipelineCallback
from diffusers.pipelines.sana_video.pipeline_output import SanaVideoPipelineOutput
from diffusers.utils import scale_lora_layers, unscale_lora_layers
from torch import Tensor

from model.clip import StreamMaker
from model.noise import Noise, philox_normal
from model.pipelines.sizes import BINS
from model.sampler import Denoise
from model.stream_config import StreamConfig

logger = logging.getLogger(__name__)

TEXTS = ("prompt_embeds", "prompt_attention_mask", "negative_prompt_embeds", "negative_prompt_attention_mask")
"""What `encode_prompt` gives, in its order."""
Generators = torch.Generator | Sequence[torch.Generator] | None


def stream_clips(pipe: Any, config: StreamConfig, call: dict[str, Any]) -> Any:
    """Do a call: its clips one after another, each the first latent frames of a stream of its own.

    Args:
        pipe: the pipeline.
        config: how its checkpoint streams.
        call: all arguments, as `Prepared._prepare` gives them.

    Returns:
        As diffusers' pipeline.

    Raises:
        ValueError: names the argument and its limit.
    """
    asked = (call["height"], call["width"])
    height, width = asked
    if call["use_resolution_binning"]:
        bins = BINS[pipe.transformer.config.sample_size]
        height, width = pipe.video_processor.classify_height_width_bin(height, width, ratios=bins)
    names = call["callback_on_step_end_tensor_inputs"]
    callback = call["callback_on_step_end"]
    if isinstance(callback, PipelineCallback | MultiPipelineCallbacks):
        names = callback.tensor_inputs
    checked = {name: call[name] for name in ("prompt", "negative_prompt", "image", *TEXTS) if name in call}
    pipe.check_inputs(height=height, width=width, callback_on_step_end_tensor_inputs=names, **checked)
    pipe._guidance_scale, pipe._attention_kwargs = call["guidance_scale"], call["attention_kwargs"]
    pipe._interrupt = False
    passes = len(config.timesteps)
    if call["timesteps"] is None and call["num_inference_steps"] not in (None, passes):
        steps = call["num_inference_steps"]
        logger.warning("num_inference_steps=%d: this checkpoint was trained for %d passes a block", steps, passes)
    if call["guidance_scale"] != config.guidance_scale:
        scale, own = call["guidance_scale"], config.guidance_scale
        logger.warning("guidance_scale=%g: this checkpoint was trained for %g", scale, own)
    text = _encode(pipe, call)
    _onload(pipe.transformer)
    videos = text["prompt_embeds"].shape[0]
    factor, per_latent = pipe.vae_scale_factor_spatial, pipe.vae_scale_factor_temporal
    frames = (call["frames"] - 1) // per_latent + 1
    shape = (pipe.transformer.config.in_channels, frames, height // factor, width // factor)
    given = _given(call["latents"], (videos, *shape))
    if call["timesteps"] is not None:
        config = replace(config, timesteps=tuple(map(float, call["timesteps"])), first_block_timesteps=None)
        call["num_inference_steps"] = len(config.timesteps)
    image = _encode_image(pipe, call["image"], height, width) if "image" in call else None
    clips = []
    with _lora_scale(pipe, call["attention_kwargs"]):
        for index, seed in enumerate(_seeds(call["generator"], videos)):
            maker = StreamMaker(
                pipe.transformer,
                config,
                latents=frames,
                steps=call["num_inference_steps"],
                longsana=pipe.longsana,
                height=shape[2],
                width=shape[3],
                guidance_scale=call["guidance_scale"] if pipe.do_classifier_free_guidance else 1.0,
                seed=seed,
                noise=None if given is None else _noise(given[index], seed),
                image=image,
                **_row(text, index),
            )
            clips.append(_run(pipe, maker, callback, names, text))
            if pipe.interrupt:
                break
    video = torch.cat([clip[:, :, : clips[-1].shape[2]] for clip in clips])
    if call["output_type"] != "latent":
        video = _pictures(pipe, video, asked if call["use_resolution_binning"] else None, call["output_type"])
    pipe.maybe_free_model_hooks()
    return SanaVideoPipelineOutput(frames=video) if call["return_dict"] else (video,)


def _encode(pipe: Any, call: dict[str, Any]) -> dict[str, Any]:
    """Embeddings and masks, (videos, tokens, channels) and (videos, tokens), by diffusers' names."""
    scale = (call["attention_kwargs"] or {}).get("scale")
    encoded = pipe.encode_prompt(
        call["prompt"],
        pipe.do_classifier_free_guidance,
        negative_prompt=call["negative_prompt"],
        device=pipe._execution_device,
        clean_caption=call["clean_caption"],
        max_sequence_length=call["max_sequence_length"],
        complex_human_instruction=call["complex_human_instruction"],
        lora_scale=scale,
        **{name: call[name] for name in TEXTS},
    )
    return dict(zip(TEXTS, encoded, strict=True))


def _onload(transformer: Any) -> None:
    """Bring an offloaded transformer to its device: a stream's state is made there, before the first pass.

    Raises:
        ValueError: its layers are fetched one by one, so that it is nowhere as a whole.
    """
    hook = getattr(transformer, "_hf_hook", None)
    if hook is not None:
        hook.pre_forward(transformer)
    if any(value.is_meta for value in transformer.parameters()):
        raise ValueError(
            "enable_sequential_cpu_offload: a checkpoint that streams is needed whole, use enable_model_cpu_offload"
        )


def _row(text: dict[str, Any], index: int) -> dict[str, Any]:
    """The arguments of `LatentStream` for one video's texts."""
    names = {
        "text": "prompt_embeds",
        "text_mask": "prompt_attention_mask",
        "negative_text": "negative_prompt_embeds",
        "negative_mask": "negative_prompt_attention_mask",
    }
    rows = {name: text[source] for name, source in names.items()}
    return {name: None if value is None else value[index : index + 1] for name, value in rows.items()}


def _run(
    pipe: Any, maker: StreamMaker, callback: Callable[..., Any] | None, names: Sequence[str], text: dict[str, Any]
) -> Tensor:
    """One clip's latents (1, channels, frames, height, width), float32."""
    done = 0

    def told(step: Denoise, latents: Tensor) -> Tensor:
        nonlocal done
        if callback is None:
            return latents
        tensors = {"latents": latents, **text}
        answer = callback(pipe, done, torch.tensor(step.timestep), {name: tensors[name] for name in names}) or {}
        done += 1
        return answer.pop("latents", latents)

    maker.stream.on_pass = told
    parts: list[Tensor] = []
    try:
        with pipe.progress_bar(total=maker.passes_left) as bar:
            while maker.passes_left and not pipe.interrupt:
                latents = maker.step()
                bar.update()
                if latents is not None:
                    parts.append(latents)
    finally:
        maker.close()
    if not parts:
        raise RuntimeError("interrupted before the first block was clean")
    return torch.cat(parts, dim=2)


def _seeds(generator: Generators, videos: int) -> list[int]:
    """A seed for each video: a fresh generator's own first, so that it equals a stream of that seed.

    Raises:
        ValueError: another number of generators than of videos.
    """
    if generator is None:
        return [int(torch.randint(2**63 - 1, ())) for _ in range(videos)]
    if isinstance(generator, torch.Generator):
        return [_next_seed(generator) for _ in range(videos)]
    if len(generator) != videos:
        raise ValueError(f"generator: {len(generator)} given, must be one or {videos}, as many as videos")
    return [_next_seed(each) for each in generator]


def _next_seed(generator: torch.Generator) -> int:
    own = generator.initial_seed()
    fresh = torch.Generator(generator.device).manual_seed(own)
    untouched = torch.equal(fresh.get_state(), generator.get_state())
    drawn = int(torch.randint(2**63 - 1, (), generator=generator, device=generator.device))
    return own if untouched else drawn


def _noise(given: Tensor, seed: int) -> Noise:
    """Noise of a stream whose start is given, (channels, frames, height, width); the rest is drawn from the seed."""

    def noise(frame: int, pass_: int) -> Tensor:
        if pass_ == 0 and frame < given.shape[1]:
            return given[:, frame]
        return philox_normal(seed, frame, pass_, (given.shape[0], *given.shape[2:]), given.device)

    return noise


def _given(latents: Tensor | None, shape: tuple[int, ...]) -> Tensor | None:
    if latents is not None and tuple(latents.shape) != shape:
        raise ValueError(f"latents: {tuple(latents.shape)} is not allowed, must be {shape}")
    return latents


def _encode_image(pipe: Any, image: Any, height: int, width: int) -> Tensor:
    """The normalised latent (1, channels, 1, h, w) of a picture, as diffusers' pipeline prepares it."""
    pixels = pipe.video_processor.preprocess(image, height=height, width=width)
    pixels = pixels.unsqueeze(2).to(pipe._execution_device, pipe.vae.dtype)
    latent = pipe.vae.encode(pixels).latent_dist.mode()
    mean, std = _statistics(pipe.vae, latent)
    return (latent - mean) / std


def _pictures(pipe: Any, latents: Tensor, size: tuple[int, int] | None, output_type: str) -> Any:
    """Decode, as diffusers' pipeline does; `size` (height, width) resizes back from a bin."""
    latents = latents.to(pipe.vae.device, pipe.vae.dtype)
    mean, std = _statistics(pipe.vae, latents)
    video = pipe.vae.decode(latents * std + mean, return_dict=False)[0]
    if size is not None:
        video = pipe.video_processor.resize_and_crop_tensor(video, size[1], size[0])
    return pipe.video_processor.postprocess_video(video, output_type=output_type)


def _statistics(vae: Any, like: Tensor) -> tuple[Tensor, Tensor]:
    values = (vae.config.latents_mean, vae.config.latents_std)
    mean, std = (torch.tensor(value).view(1, -1, 1, 1, 1).to(like) for value in values)
    return mean, std


@contextlib.contextmanager
def _lora_scale(pipe: Any, attention_kwargs: dict[str, Any] | None) -> Iterator[None]:
    scale = (attention_kwargs or {}).get("scale")
    if scale is None:
        yield
        return
    scale_lora_layers(pipe.transformer, scale)
    try:
        yield
    finally:
        unscale_lora_layers(pipe.transformer, scale)
