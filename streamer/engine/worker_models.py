"""What all streams of a worker share: the checkpoint, pools of slots, adapters."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from model.adapted import Adapter, AdapterSet, adapter_set
from model.chain import ChainStream, open_stream, stream_vae
from model.chain_vae import ChainVAE
from model.checkpoint import Checkpoint
from model.state import StatePool, layout_of
from model.stream import LatentStream, new_pool
from model.vae import StreamingVAE
from model.weights import Kind
from streamer.engine.info import Lora
from streamer.engine.protocol import Steer


class StreamError(Exception):
    """What ends one stream; the text is for people."""


@dataclass
class Models:
    """What all streams of a worker share: the checkpoint, a pool of slots a latent size, adapters by SHA-256."""

    checkpoint: Checkpoint
    pools: dict[tuple[int, int], StatePool] = field(default_factory=dict)
    adapters: dict[str, Adapter] = field(default_factory=dict)
    default_loras: tuple[Lora, ...] = ()
    """What a new stream has where nobody said, as far as the worker was started with it."""

    def pool(self, height: int, width: int) -> StatePool | None:
        """The pool for latents of this size, in latent pixels; None where clips in a row keep no state.

        Raises:
            ValueError: no size for the checkpoint.
        """
        checkpoint = self.checkpoint
        if self.chained:
            layout_of(checkpoint.transformer.config, height, width)
            return None
        if (height, width) not in self.pools:
            self.pools[height, width] = new_pool(checkpoint.transformer, height, width, checkpoint.config)
        return self.pools[height, width]

    @property
    def chained(self) -> bool:
        """Whether streams are whole clips in a row."""
        return self.checkpoint.kind is Kind.CLIP

    @cached_property
    def vae(self) -> StreamingVAE | ChainVAE:
        """What decodes streams."""
        return stream_vae(self.checkpoint)

    def stream(self, height: int, width: int, **options: Any) -> LatentStream | ChainStream:
        """A stream of latents of this size, in latent pixels.

        Raises:
            ValueError: no size for the checkpoint, or another argument outside its limit.
        """
        pool = self.pool(height, width)
        return open_stream(self.checkpoint, height=height, width=width, pool=pool, adapters=self.adapters, **options)

    def rows(self, steer: Steer) -> int:
        """Rows of a pass, and slots, under a steer; 1 under the checkpoint's own guidance, whatever that is."""
        own = self.checkpoint.config.guidance_scale
        return 2 if own == 1 and steer.guidance_scale not in (None, 1) else 1

    def texts(self, steer: Steer) -> dict[str, Any]:
        """The arguments of `LatentStream` and its `steer` that a steer stands for."""
        text, config = self.checkpoint.text, self.checkpoint.config
        scale = config.guidance_scale if steer.guidance_scale is None else steer.guidance_scale
        embeds, mask = text.encode(steer.prompt, steer.motion_score)
        arguments = {"text": embeds, "text_mask": mask, "guidance_scale": scale}
        if scale != 1:
            negative, negative_mask = text.encode_negative(steer.negative_prompt or "")
            arguments |= {"negative_text": negative, "negative_mask": negative_mask}
        if self.adapters or steer.loras:
            arguments["loras"] = self.loras(steer)
        return arguments

    def loras(self, steer: Steer) -> AdapterSet:
        """The adapters that a steer puts into force.

        Raises:
            StreamError: one of them is not loaded.
        """
        for lora in steer.loras:
            if lora.sha256 not in self.adapters:
                raise StreamError(f"adapter {lora.name} (SHA-256 {lora.sha256[:12]}...) is not loaded")
        return adapter_set((self.adapters[lora.sha256], lora.weight) for lora in steer.loras)
