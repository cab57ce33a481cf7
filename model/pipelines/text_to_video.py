"""Text to video."""

from __future__ import annotations

import functools
import inspect
from typing import Any

import diffusers
import torch

from model.pipelines.common import Prepared
from model.pipelines.native import stream_clips


class SanaVideoPipeline(Prepared, diffusers.SanaVideoPipeline):
    """`diffusers.SanaVideoPipeline` over this project's transformer: the same call, the same latents.

    Of a checkpoint that streams (`stream_config` is set) it makes clips as the checkpoint streams, block by block;
    arguments not given are the checkpoint's own.
    """

    @torch.no_grad()
    @functools.wraps(diffusers.SanaVideoPipeline.__call__)
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        call = self._prepare(inspect.signature(type(self).__call__), args, kwargs)
        if self.stream_config is not None:
            return stream_clips(self, self.stream_config, call)
        return super().__call__(**call)
