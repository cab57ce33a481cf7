"""The scheduler of a bidirectional checkpoint: whose noise levels and steps a whole clip is denoised with."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import diffusers
from diffusers import DPMSolverMultistepScheduler
from diffusers.schedulers.scheduling_utils import SchedulerMixin

from model.positions import latent_of
from model.source import CheckpointError, one_line, read_json
from model.stream_config import StreamConfig

FOLDER = "scheduler"
CONFIG = "scheduler_config.json"
CLIP_FLOW_SHIFT = 8.0
CLIP_STEPS = 50
CLIP_GUIDANCE_SCALE = 6.0
CLIP_PICTURES = 81
CLIP_TEXT: dict[str, Any] = {"lowercase": True, "motion_score": 30, "complex_human_instruction": True}
"""Its prompts, as diffusers' pipelines form them; the motion score is the one of their examples."""
CLIP_ASPECT = 832 / 480
"""Of SANA-Video's published five-second checkpoints: 81 pictures of 480x832,"""
CLIP_ASPECT_720P = 1280 / 704
"""and of 704x1280, where a latent pixel has 32 pixels."""


def clip_scheduler() -> DPMSolverMultistepScheduler:
    """Theirs, for a checkpoint that comes without one: DPM-Solver++ over a flow of shift 8."""
    return DPMSolverMultistepScheduler(
        flow_shift=CLIP_FLOW_SHIFT, use_flow_sigmas=True, prediction_type="flow_prediction"
    )


def clip_config(
    config: StreamConfig, scheduler: Any, transformer: Any, spatial_factor: int, temporal_factor: int = 4
) -> StreamConfig:
    """How a bidirectional checkpoint streams, as `model.chain` does it: a block is a clip.

    Args:
        config: of the text, and what else does not depend on how it streams.
        scheduler: diffusers'.
        transformer: its config; `sample_size` tells the short side that it was trained for.
        spatial_factor, temporal_factor: pixels of a latent pixel, pictures of a latent frame.

    Raises:
        ValueError: names the field and its limit.
    """
    scheduler = copy.deepcopy(scheduler)
    scheduler.set_timesteps(CLIP_STEPS)
    own = scheduler.config
    unit = spatial_factor * transformer.patch_size[2]
    side = transformer.sample_size * spatial_factor * transformer.patch_size[1]
    aspect = CLIP_ASPECT_720P if spatial_factor == 32 else CLIP_ASPECT
    latents = latent_of(CLIP_PICTURES - 1, temporal_factor) + 1
    return replace(
        config,
        height=side,
        width=round(side * aspect / unit) * unit,
        block_latent_frames=(latents - 1,),
        first_block_latent_frames=latents,
        sampler="euler",
        timesteps=tuple(float(t) for t in scheduler.timesteps),
        first_block_timesteps=None,
        shift=float(own.get("flow_shift", own.get("shift", CLIP_FLOW_SHIFT))),
        guidance_scale=CLIP_GUIDANCE_SCALE,
        window_blocks=None,
        window_group=1,
        trained_latents=None,
    )


def load_scheduler(folder: str | Path) -> Any:
    """The scheduler in a checkpoint's folder, or `clip_scheduler` where there is none.

    Raises:
        CheckpointError: names the file.
    """
    place = Path(folder) / FOLDER
    if not (place / CONFIG).is_file():
        return clip_scheduler()
    name = read_json(place / CONFIG).get("_class_name")
    found: Any = getattr(diffusers, str(name), None)
    if SchedulerMixin not in getattr(found, "__mro__", ()):
        raise CheckpointError(f"{place / CONFIG}: {name!r} is no scheduler of diffusers")
    try:
        return found.from_pretrained(place, local_files_only=True)
    except (OSError, ValueError, TypeError) as error:
        raise CheckpointError(f"{place}: {one_line(error)}") from error
