"""Image and text to video."""

from __future__ import annotations

import functools
import inspect
from typing import Any

import diffusers
import torch

from model.pipelines.common import Prepared
from model.pipelines.native import stream_clips


class SanaImageToVideoPipeline(Prepared, diffusers.SanaImageToVideoPipeline):
    """`diffusers.SanaImageToVideoPipeline` over this project's transformer: the same call, the same latents.

    Of a checkpoint that streams (`stream_config` is set) it makes clips as the checkpoint streams, block by block,
    the image as the first block; arguments not given are the checkpoint's own.
    """

    @torch.no_grad()
    @functools.wraps(diffusers.SanaImageToVideoPipeline.__call__)
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        call = self._prepare(inspect.signature(type(self).__call__), args, kwargs)
        image = call["image"]
        if image is None or (isinstance(image, torch.Tensor) and image.ndim == 4 and len(image) != 1):
            raise ValueError("image: must be one picture, the first of every video of the call")
        if call["latents"] is not None:
            call["latents"] = call["latents"].clone()  # the image is written into them
        if self.stream_config is not None:
            return stream_clips(self, self.stream_config, call)
        return super().__call__(**call)
