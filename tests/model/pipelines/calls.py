"""Cheap calls of the pipelines, ours beside diffusers'."""

from __future__ import annotations

import inspect
from typing import Any

import diffusers
import torch
from torch import Tensor

from model import SanaImageToVideoPipeline, SanaVideoPipeline

SCHEDULERS = {
    "dpm": diffusers.DPMSolverMultistepScheduler(
        flow_shift=8.0, use_flow_sigmas=True, prediction_type="flow_prediction"
    ),
    "euler": diffusers.FlowMatchEulerDiscreteScheduler(shift=8.0),
}
KINDS = {
    "t2v": (SanaVideoPipeline, diffusers.SanaVideoPipeline),
    "i2v": (SanaImageToVideoPipeline, diffusers.SanaImageToVideoPipeline),
}
CHEAP: dict[str, Any] = {
    "num_inference_steps": 3,
    "guidance_scale": 4.0,
    "height": 64,
    "width": 96,
    "frames": 9,
    "output_type": "latent",
    "complex_human_instruction": None,
    "max_sequence_length": 24,
    "use_resolution_binning": False,
}
PICTURE = torch.rand(1, 3, 64, 96, generator=torch.Generator().manual_seed(1))
TWO = ["the sea", "a red sailboat on the sea at sunset"]


def seeded(seed: int = 5) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def call(pipeline: Any, prompt: Any = "the sea", **changed: Any) -> Any:
    if "Image" in type(pipeline).__name__:
        changed.setdefault("image", PICTURE)
    return pipeline(prompt=prompt, **({"generator": seeded()} | CHEAP | changed)).frames


def both(
    pipelines: dict[str, tuple[Any, Any]], name: str = "t2v", scheduler: str = "euler", **changed: Any
) -> Tensor:
    """The latents of ours, checked against diffusers'."""
    results = []
    for pipeline in pipelines[name]:
        pipeline.scheduler = SCHEDULERS[scheduler]
        fresh = {k: v() if inspect.isfunction(v) and k != "callback_on_step_end" else v for k, v in changed.items()}
        results.append(call(pipeline, **fresh))
    ours, theirs = results
    assert (ours - theirs).norm() < 1e-4 * theirs.norm()
    return ours
