"""What both pipelines add to diffusers' own."""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self, cast

import torch
from diffusers import AutoencoderDC
from diffusers.video_processor import VideoProcessor

from model.checkpoint import Checkpoint, load_config
from model.pipelines.loading import HUB_OPTIONS, find, opens_in_diffusers, parts_of, transformer_of
from model.pipelines.sizes import BINS, SIZE_720P, UNSEEN_FACTORS
from model.schedule import clip_scheduler
from model.source import Source
from model.stream_config import FILE_NAME, StreamConfig
from model.text import instruction_lines
from model.transformer import SanaVideoTransformer3DModel
from model.weights import Kind, kind_of

OUTPUT_TYPES = ("pil", "np", "pt", "latent")
PER_PROMPT = ("prompt_embeds", "prompt_attention_mask", "negative_prompt_embeds", "negative_prompt_attention_mask")


class Prepared:
    """Loads, checks and completes a call; mixed into a pipeline of diffusers, before it."""

    stream_config: StreamConfig | None = None
    """How it streams, if it does. None makes whole clips by the scheduler; may be set."""
    longsana: bool = False
    """Whether a clip's first block takes the latent frames that don't fill one."""
    transformer: Any
    vae: Any
    scheduler: Any
    text_encoder: Any
    video_processor: Any
    vae_scale_factor_spatial: int

    def __init__(self, tokenizer: Any, text_encoder: Any, vae: Any, transformer: Any, scheduler: Any) -> None:
        """Parts as of diffusers' pipeline; `text_encoder`, `tokenizer` and `vae` may be None.

        Raises:
            ValueError: a VAE that makes single pictures.
        """
        if isinstance(vae, AutoencoderDC):
            raise ValueError(
                "vae: an AutoencoderDC makes single pictures, no video; "
                "give vae=None and take the latents (output_type='latent')"
            )
        super().__init__(tokenizer, text_encoder, vae, transformer, scheduler)  # type: ignore[call-arg]
        factors = UNSEEN_FACTORS.get(transformer.config.in_channels) if vae is None and transformer else None
        if factors is not None:
            self.vae_scale_factor_temporal, self.vae_scale_factor_spatial = factors
            self.vae_scale_factor = self.vae_scale_factor_spatial
            self.video_processor = VideoProcessor(vae_scale_factor=self.vae_scale_factor_spatial)

    @classmethod
    def from_pretrained(cls, path: str | Path | Source, **options: Any) -> Self:
        """Load any form of checkpoint: hub id, diffusers folder, NVlabs' `.pth`; see `model.source.resolve`.

        Args:
            path: what to load.
            options: as of diffusers' `from_pretrained`.

        Raises:
            CheckpointError: what is missing or damaged, in one line.
            ValueError: an option outside its limit.
        """
        source = find(path, {name: options.pop(name, None) for name in HUB_OPTIONS})
        kind, config = kind_of(source), load_config(source)
        if "transformer" not in options:
            options["transformer"] = transformer_of(source, options)
        if opens_in_diffusers(source):
            pipeline = cast("Self", super().from_pretrained(str(source.folder), **options))  # type: ignore[misc]
        else:
            pipeline = cls(transformer=options["transformer"], **parts_of(source, options))
        if kind is not Kind.CLIP:
            pipeline.stream_config, pipeline.longsana = config, kind is Kind.LONGSANA
        return pipeline

    @classmethod
    def from_pipe(cls, pipeline: Any, **options: Any) -> Self:
        """As in diffusers: a pipeline over the parts of another; it streams if that one does."""
        parts = pipeline.components | options  # else diffusers drops those whose class is none of its own
        made = cast("Self", super().from_pipe(pipeline, **parts))  # type: ignore[misc]
        if isinstance(pipeline, Prepared):
            made.stream_config, made.longsana = pipeline.stream_config, pipeline.longsana
        return made

    @classmethod
    def from_checkpoint(cls, checkpoint: Checkpoint) -> Self:
        """A pipeline over the parts of a loaded checkpoint, which it shares."""
        pipeline = cls(
            tokenizer=checkpoint.text.tokenizer,
            text_encoder=checkpoint.text.encoder,
            vae=checkpoint.vae.vae,
            transformer=checkpoint.transformer,
            scheduler=checkpoint.scheduler or clip_scheduler(),
        )
        if checkpoint.kind is not Kind.CLIP:
            pipeline.stream_config = checkpoint.config
            pipeline.longsana = checkpoint.kind is Kind.LONGSANA
        return pipeline

    def register_to_config(self, **fields: Any) -> None:
        """As in diffusers; our transformer under the name of theirs, so that a saved folder opens there."""
        if isinstance(getattr(self, "transformer", None), SanaVideoTransformer3DModel) or "transformer" in fields:
            library, name = fields.get("transformer") or (None, None)
            if library == SanaVideoTransformer3DModel.__module__:
                fields["transformer"] = ("diffusers", name)
        super().register_to_config(**fields)  # type: ignore[misc]

    def save_pretrained(self, folder: str | Path, *args: Any, **options: Any) -> None:
        """As in diffusers, and `stream.json` where the checkpoint streams."""
        super().save_pretrained(folder, *args, **options)  # type: ignore[misc]
        if self.stream_config is not None:
            text = json.dumps(self.stream_config.to_dict(), indent=1)
            (Path(folder) / FILE_NAME).write_text(text + "\n", encoding="utf-8")

    # -- calls -------------------------------------------------------------------------------------------------

    def _prepare(self, signature: inspect.Signature, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        """All arguments of a call, checked, completed, and brought to what diffusers' loop can do.

        Raises:
            ValueError: names the argument and its limit.
        """
        if "num_frames" in kwargs:  # so it stands in an example of the documentation
            kwargs = kwargs | {"frames": kwargs["num_frames"]}
            del kwargs["num_frames"]
        bound = signature.bind(self, *args, **kwargs)
        given = set(bound.arguments)
        bound.apply_defaults()
        call = {name: value for name, value in bound.arguments.items() if name != "self"}
        call |= {name: value for name, value in self._own_defaults().items() if name not in given}
        if self.transformer.config.sample_size not in BINS:
            call["use_resolution_binning"] = False
        if call["negative_prompt_embeds"] is not None and call["negative_prompt"] == "":
            call["negative_prompt"] = None
        self._check(call)
        _expand(call, call["num_videos_per_prompt"] or 1)
        return call

    def _own_defaults(self) -> dict[str, Any]:
        """What a call takes where it says nothing and this checkpoint wants something else than diffusers."""
        config = self.stream_config
        if config is None:
            height, width = SIZE_720P
            return {"height": height, "width": width} if self.transformer.config.sample_size == 22 else {}
        own: dict[str, Any] = {
            "height": config.height,
            "width": config.width,
            "guidance_scale": config.guidance_scale,
            "num_inference_steps": len(config.timesteps),
            "max_sequence_length": config.max_tokens,
            "use_resolution_binning": False,
        }
        return own | {"complex_human_instruction": instruction_lines(config.complex_human_instruction) or None}

    def _check(self, call: Mapping[str, Any]) -> None:
        for name, low in (("frames", 1), ("num_inference_steps", 1), ("num_videos_per_prompt", 1)):
            if call[name] is not None and call[name] < low:
                raise ValueError(f"{name}: {call[name]} is not allowed, must be at least {low}")
        output = call["output_type"]
        if output not in OUTPUT_TYPES:
            raise ValueError(f"output_type: {output!r} is not allowed, must be one of {', '.join(OUTPUT_TYPES)}")
        if self.vae is None and (output != "latent" or call.get("image") is not None):
            raise ValueError("output_type: without a VAE there are no pictures, must be latent")
        if self.text_encoder is None and call["prompt_embeds"] is None:
            raise ValueError("prompt: without a text encoder give prompt_embeds and prompt_attention_mask")
        guided = call["guidance_scale"] > 1 and call["negative_prompt_embeds"] is None
        if self.text_encoder is None and guided:
            raise ValueError(
                "negative_prompt: without a text encoder give negative_prompt_embeds, or guidance_scale=1"
            )
        if self.stream_config is None:
            self._check_schedule(call)
        elif call["sigmas"] is not None:
            raise ValueError("sigmas: this checkpoint streams by timesteps, give those")

    def _check_schedule(self, call: Mapping[str, Any]) -> None:
        name = type(self.scheduler).__name__
        takes = inspect.signature(self.scheduler.set_timesteps).parameters
        flow = self.scheduler.config.get("use_flow_sigmas", False)
        for field in ("timesteps", "sigmas"):
            # Diffusers' multistep solvers derive flow sigmas from a number of steps alone.
            if call[field] is not None and (field not in takes or flow):
                raise ValueError(
                    f"{field}: {name} here takes num_inference_steps only; "
                    "FlowMatchEulerDiscreteScheduler takes timesteps and sigmas"
                )

    def check_inputs(self, *args: Any, **kwargs: Any) -> None:
        """As in diffusers, but for sizes: whole patches will do, diffusers' own wants multiples of 32.

        Raises:
            ValueError: names the argument and its limit.
        """
        signature = inspect.signature(super().check_inputs)  # type: ignore[misc]
        bound = signature.bind(*args, **kwargs)
        _, patch_height, patch_width = self.transformer.config.patch_size
        for name, patch in (("height", patch_height), ("width", patch_width)):
            unit, pixels = self.vae_scale_factor_spatial * patch, bound.arguments[name]
            if pixels < unit or pixels % unit:
                raise ValueError(f"{name}: {pixels} is not allowed, must be a multiple of {unit}")
            bound.arguments[name] = 32
        super().check_inputs(*bound.args, **bound.kwargs)  # type: ignore[misc]

    def _text_preprocessing(self, text: Any, clean_caption: bool = False) -> list[str]:
        config = self.stream_config
        if clean_caption or config is None or config.lowercase:
            return list(super()._text_preprocessing(text, clean_caption))  # type: ignore[misc]
        return [line.strip() for line in ([text] if isinstance(text, str) else text)]


def _expand(call: dict[str, Any], videos: int) -> None:
    """Several videos a prompt as several prompts, each with its own mask.

    Diffusers' own repeats embeddings prompt by prompt but masks batch by batch, so that with several prompts they
    don't belong together, and its image-to-video raises.

    Raises:
        ValueError: another number of negative prompts than of prompts.
    """
    prompt, negative = call["prompt"], call["negative_prompt"]
    if isinstance(negative, list) and isinstance(prompt, list | str):
        count = 1 if isinstance(prompt, str) else len(prompt)
        if len(negative) != count:
            raise ValueError(f"negative_prompt: {len(negative)} for {count} prompts, must be as many, or one text")
    call["num_videos_per_prompt"] = 1
    if videos == 1:
        return
    if isinstance(prompt, str | list):
        call["prompt"] = [text for text in ([prompt] if isinstance(prompt, str) else prompt) for _ in range(videos)]
    if isinstance(negative, list):
        call["negative_prompt"] = [text for text in negative for _ in range(videos)]
    for name in PER_PROMPT:
        if isinstance(call[name], torch.Tensor):
            call[name] = call[name].repeat_interleave(videos, dim=0)
