"""The scheduler of a bidirectional checkpoint: whose noise levels and steps a whole clip is denoised with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import diffusers
from diffusers import DPMSolverMultistepScheduler
from diffusers.schedulers.scheduling_utils import SchedulerMixin

from model.source import CheckpointError, one_line, read_json

FOLDER = "scheduler"
CONFIG = "scheduler_config.json"
CLIP_FLOW_SHIFT = 8.0
CLIP_STEPS = 50
CLIP_GUIDANCE_SCALE = 6.0
"""Of SANA-Video's published five-second checkpoints."""


def clip_scheduler() -> DPMSolverMultistepScheduler:
    """Theirs, for a checkpoint that comes without one: DPM-Solver++ over a flow of shift 8."""
    return DPMSolverMultistepScheduler(
        flow_shift=CLIP_FLOW_SHIFT, use_flow_sigmas=True, prediction_type="flow_prediction"
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
    found = getattr(diffusers, str(name), None)
    if not (isinstance(found, type) and issubclass(found, SchedulerMixin)):
        raise CheckpointError(f"{place / CONFIG}: {name!r} is no scheduler of diffusers")
    try:
        return found.from_pretrained(place, local_files_only=True)
    except (OSError, ValueError, TypeError) as error:
        raise CheckpointError(f"{place}: {one_line(error)}") from error
