from __future__ import annotations

from pathlib import Path
from typing import Any

import diffusers
import pytest
from calls import KINDS, SCHEDULERS

from model import SanaVideoPipeline
from model.checkpoint import load_checkpoint
from model.transformer import SanaVideoTransformer3DModel


@pytest.fixture(scope="session")
def pipelines(tiny_model: Path) -> dict[str, tuple[Any, Any]]:
    """Ours and diffusers' of each kind, over the same weights; ours makes whole clips."""
    made = {}
    for name, (ours, theirs) in KINDS.items():
        reference = theirs.from_pretrained(tiny_model)
        assert type(reference.transformer) is diffusers.SanaVideoTransformer3DModel
        own = ours.from_pretrained(tiny_model)
        assert type(own.transformer) is SanaVideoTransformer3DModel
        own.stream_config = None
        for pipeline in (own, reference):
            pipeline.set_progress_bar_config(disable=True)
        made[name] = (own, reference)
    return made


@pytest.fixture(autouse=True)
def same_scheduler(pipelines: dict[str, tuple[Any, Any]]) -> None:
    """Each test begins with flow-Euler, whatever the one before has set."""
    for pair in pipelines.values():
        for pipeline in pair:
            pipeline.scheduler = SCHEDULERS["euler"]


@pytest.fixture
def streaming(tiny_model: Path, pipelines: dict[str, tuple[Any, Any]]) -> SanaVideoPipeline:
    pipeline = SanaVideoPipeline(**pipelines["t2v"][0].components)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.stream_config = load_checkpoint(tiny_model).config
    return pipeline
