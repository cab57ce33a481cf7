"""`GET /v1/model`: what the checkpoint is, what it knows, what may be asked of it."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from streamer.api import images, loras
from streamer.api.state import StateOf
from streamer.engine.info import ClipInfo
from streamer.session import spec, steers
from streamer.session.capacity import guided_rate_hz
from streamer.session.loras import MAX_LORAS, MAX_WEIGHT

router = APIRouter(tags=["model"])


@router.get("/model")
async def model(state: StateOf) -> dict[str, Any]:
    """The checkpoint, as the worker that holds it describes it. 503 until it is warm."""
    ready = state.ready
    info = ready.model
    return {
        "checkpoint": info.name,
        "weights_hash": info.weights_hash,
        "device": info.device,
        "dtype": info.dtype,
        "sizes": [*spec.sizes(info)],
        "rate_hz": ready.rate_hz,
        "model_rate_hz": info.rate_hz,
        "streaming": info.streaming,
        "no_streams": info.no_streams,
        "block_lengths": info.block_latent_frames,
        "first_block_length": info.first_block_latent_frames,
        "steer_block_length": info.steer_block_latent_frames or info.block_latent_frames[0],
        "cuts_blocks": info.cut_blocks,
        "sampler": info.sampler,
        "state_options": info.state_options,
        "vocabulary": info.vocabulary,
        "prompt": state.settings.prompt or info.prompt,
        "known_words": info.known_words,
        "loras": [loras.shown(each) for each in info.loras.values()],
        "capacity": ready.capacity,
        "clips": _clips(info.clips),
        "limits": {
            "prompt_chars": info.max_prompt_chars,
            "guidance_scale": info.max_guidance_scale,
            "guidance_rate_hz": None if info.no_streams else guided_rate_hz(ready),
            "wait_s": spec.MAX_WAIT_S,
            "duration_s": spec.MAX_DURATION_S,
            "pending_steers": steers.MAX_PENDING,
            "seed": spec.MAX_SEED,
            "loras": MAX_LORAS,
            "lora_weight": [-MAX_WEIGHT, MAX_WEIGHT],
            "image_bytes": images.MAX_IMAGE_BYTES,
            "image_pixels": images.MAX_PIXELS,
            "image_types": [*images.FORMATS],
        },
    }


def _clips(info: ClipInfo | None) -> dict[str, Any] | None:
    """What may be asked of `POST /v1/videos`; None where the checkpoint makes no clips."""
    if info is None:
        return None
    return {
        "size": f"{info.width}x{info.height}",
        "size_multiple_of": info.size_step,
        "size_pixels": info.max_pixels,
        "pixels_in_all": info.max_pixels_in_all,
        "rate_hz": info.rate_hz,
        "seconds": info.max_frames / info.rate_hz,
        "steps": info.steps,
        "max_steps": info.max_steps,
        "guidance_scale": info.guidance_scale,
        "max_guidance_scale": info.max_guidance_scale,
    }
