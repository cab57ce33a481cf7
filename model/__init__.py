"""Weights, state and one step at a time: prompts and state in, pictures and state out.

No network, asyncio, threads or clocks. `VideoStream` is the whole of it for one stream:

    from model import VideoStream
    for pictures in VideoStream.from_pretrained("model/starter", prompt="the sea at night", seed=1): ...

`SanaVideoPipeline` and `SanaImageToVideoPipeline` make clips, called as in diffusers.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from model.pipelines import SanaImageToVideoPipeline, SanaVideoPipeline
    from model.video import VideoStream

__all__ = ["SanaImageToVideoPipeline", "SanaVideoPipeline", "VideoStream"]

_WHERE = {
    "SanaImageToVideoPipeline": "model.pipelines",
    "SanaVideoPipeline": "model.pipelines",
    "VideoStream": "model.video",
}


def __getattr__(name: str) -> Any:
    # Late: importing torch and diffusers takes seconds, which `model.positions` and its like do not need.
    if name in _WHERE:
        return getattr(importlib.import_module(_WHERE[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
