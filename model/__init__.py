"""Weights, state and one step at a time: prompts and state in, pictures and state out.

No network, asyncio, threads or clocks. `VideoStream` is the whole of it for one stream:

    from model import VideoStream
    for pictures in VideoStream.from_pretrained("model/starter", prompt="the sea at night", seed=1): ...
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from model.video import VideoStream

__all__ = ["VideoStream"]


def __getattr__(name: str) -> Any:
    # Late: importing torch and diffusers takes seconds, which `model.positions` and its like do not need.
    if name in __all__:
        from model.video import VideoStream

        return VideoStream
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
