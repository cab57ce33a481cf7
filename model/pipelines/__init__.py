"""Diffusers' SANA-Video pipelines, with this project's transformer in them.

`SanaVideoPipeline` and `SanaImageToVideoPipeline` are subclasses of diffusers' own: the same calls, the same latents.
What differs is stated in docs/diffusers.md: they load every form of checkpoint, run checkpoints that stream block by
block, and take what diffusers' own raise on.
"""

from model.pipelines.image_to_video import SanaImageToVideoPipeline
from model.pipelines.text_to_video import SanaVideoPipeline

__all__ = ["SanaImageToVideoPipeline", "SanaVideoPipeline"]
