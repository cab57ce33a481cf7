"""One stream with text encoder and VAE: prompts in, pictures out."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from model.chain import open_stream, stream_vae
from model.checkpoint import Checkpoint, load_checkpoint
from model.image_start import Picture, first_latent
from model.snapshot import Snapshot


class VideoStream(Iterator[Tensor]):
    """An endless iterator of uint8 pictures (frames, height, width, 3), latent frame by latent frame.

    The first item is 1 picture, every later one 4.

    Args:
        checkpoint: what to run.
        prompt: what to show.
        seed: 64 bits.
        height, width: of the pictures in pixels; None for the checkpoint's own.
        motion_score: None for the checkpoint's own.
        negative_prompt: what guidance leads away from.
        image: a picture to start from: a PIL image of any size, or uint8 (height, width, 3), see `model.image_start`.
        options: further arguments of `LatentStream`, e.g. guidance_scale, window, pool; of a bidirectional
            checkpoint, which streams as clips in a row, those of `model.chain.ChainStream`.

    Raises:
        ValueError: a size not made of whole patches, an option outside its limit, or a checkpoint of clips only.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        *,
        prompt: str,
        seed: int = 0,
        height: int | None = None,
        width: int | None = None,
        motion_score: int | None = None,
        negative_prompt: str = "",
        image: Picture | None = None,
        **options: Any,
    ) -> None:
        self.checkpoint = checkpoint
        config, factor = checkpoint.config, checkpoint.streaming_vae.spatial_factor
        height, width = height or config.height, width or config.width
        if height % factor or width % factor:
            raise ValueError(f"pictures of {height}x{width} are not multiples of {factor}")
        text, mask = checkpoint.text.encode(prompt, motion_score)
        negative, negative_mask = checkpoint.text.encode_negative(negative_prompt)
        self.latents = open_stream(
            checkpoint,
            text=text,
            text_mask=mask,
            height=height // factor,
            width=width // factor,
            negative_text=negative,
            negative_mask=negative_mask,
            image=None if image is None else first_latent(checkpoint.vae, image, height, width),
            seed=seed,
            **options,
        )
        if self.latents.next_frame:
            raise ValueError("pictures begin at latent frame 0")
        # What may still be decoded or is needed to re-prime: (1, channels, n, h, w), starting at `_first`.
        self._kept: Tensor | None = None
        self._first = 0
        self._vae: Any = stream_vae(checkpoint)
        self._state = self._vae.new_state()

    @classmethod
    def from_pretrained(
        cls,
        path: str | Path,
        *,
        prompt: str,
        seed: int = 0,
        device: torch.device | str = "cpu",
        dtype: torch.dtype | None = None,
        **options: Any,
    ) -> VideoStream:
        """Load a checkpoint folder and start a stream of it.

        Raises:
            CheckpointError: what is wrong with the folder.
            ValueError: as the constructor.
        """
        return cls(load_checkpoint(path, device, dtype), prompt=prompt, seed=seed, **options)

    @property
    def next_latent(self) -> int:
        """The latent frame whose pictures come next."""
        return self._state.position

    def steer(self, prompt: str, motion_score: int | None = None, **options: Any) -> None:
        """Change the prompt from the next block not yet begun; `options` as `LatentStream.steer`."""
        self.latents.steer(*self.checkpoint.text.encode(prompt, motion_score), **options)

    def __next__(self) -> Tensor:
        position = self._state.position
        if self._kept is None or position >= self._first + self._kept.shape[2]:
            self._keep(next(self.latents))
        assert self._kept is not None
        index = position - self._first
        return self._vae.decode(self._kept[:, :, index : index + 1], self._state)

    def _keep(self, block: Tensor) -> None:
        if self._kept is not None:
            memory = self._kept[:, :, -self._vae.memory_latent_frames :]
            self._first += self._kept.shape[2] - memory.shape[2]
            block = torch.cat([memory, block], dim=2)
        self._kept = block

    def snapshot(self) -> Snapshot:
        """Copy of everything that the next picture depends on but a steer that has not taken effect.

        Of the decoder it holds the latents to re-prime it from, not its state.
        """
        content = self.latents.snapshot() | {"first_kept": self._first, "next_latent": self.next_latent}
        if self._kept is not None:
            content["kept"] = self._kept.clone()
        return content

    def restore(self, snapshot: Snapshot) -> None:
        """Stand where a snapshot was taken.

        Raises:
            ValueError: a snapshot of another format or another kind of stream.
        """
        if "next_latent" not in snapshot:
            raise ValueError("not a snapshot of a VideoStream")
        self.latents.restore(snapshot)
        vae, kept = self._vae, snapshot.get("kept")
        self._first, self._kept = snapshot["first_kept"], kept
        self._state = vae.new_state()
        decoded = snapshot["next_latent"] - self._first
        if kept is not None:
            self._kept = kept.to(self.latents.transformer.device, copy=True)
            if decoded:
                vae.prime(self._kept[:, :, :decoded], self._state, self._first)
