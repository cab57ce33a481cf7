"""The sizes that SANA-Video's checkpoints were published for."""

from __future__ import annotations

from diffusers.pipelines.sana_video import pipeline_sana_video

BINS = {
    30: pipeline_sana_video.ASPECT_RATIO_480_BIN,
    22: pipeline_sana_video.ASPECT_RATIO_720_BIN,
}
"""Heights and widths by aspect ratio, by the transformer's `sample_size`."""
SIZE_720P = (704, 1280)
UNSEEN_FACTORS = {128: (8, 32), 32: (4, 32)}
"""Pictures a latent frame, and pixels a latent pixel, of a checkpoint without its VAE, by latent channels."""
