"""Whole clips chained to an endless stream: how a bidirectional checkpoint streams.

Such a checkpoint denoises five seconds at once and has no state to roll on. So a stream of it is clips in a row: the
last picture of a clip is encoded and is the first latent frame, given, of the next one, which then is made as
diffusers' `SanaImageToVideoPipeline` makes it. Nothing else of a clip reaches the next: colours and motion may jump
at the seams, and what has left the picture is forgotten. A steer takes effect at the next clip.

`ChainStream` has the interface of `LatentStream`: a block is a clip. The first one has 21 latent frames (81 pictures)
unless the config says otherwise, every later one 20 (80 pictures): its given latent frame shows the picture that was
shown already, and is left out. Steps of a block: the link (decode the clip before to its last picture, encode that;
none before the first), then a pass a step of the scheduler.

A block carries twice the VAE's channels: latent frames, and beside each the given latent frame of its clip (zeros in
a clip without one), which its decoding needs. `model.chain_vae.ChainVAE` decodes them.

Block b draws its noise as `torch.Generator().manual_seed(seed + b)`: block 0 equals `Clip` and the pipeline of that
seed, and block b the image-to-video pipeline with the last picture of block b - 1.
"""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping, Sequence
from typing import Any

import torch
from torch import Tensor

from model.adapted import NO_ADAPTERS, Adapter, AdapterSet
from model.chain_vae import ChainVAE
from model.checkpoint import Checkpoint
from model.conditioning import Conditioning, given_latent
from model.denoise import WholeClip
from model.schedule import clip_scheduler
from model.snapshot import Snapshot
from model.state import StatePool
from model.stream import LatentStream
from model.stream import advance as advance_latents
from model.stream_config import StreamConfig
from model.transformer import SanaVideoTransformer3DModel
from model.vae import StreamingVAE
from model.weights import Kind


class ChainStream(Iterator[Tensor]):
    """An endless iterator of clips' latents, each (1, 2 channels, frames, height, width), float32; see the module.

    Args:
        transformer: the network.
        vae: makes and encodes the pictures that link clips.
        scheduler: diffusers'.
        text, text_mask: prompt embeddings (1, tokens, channels) and mask (1, tokens), 1 = read.
        height, width: of the latents.
        config: block lengths, passes a clip, guidance.
        guidance_scale: None for the config's; guided above 1.
        negative_text, negative_mask: what guidance leads away from.
        image: latent (1, channels, 1, height, width) of a picture to start from: block 0, one latent frame long.
        loras: adapters in force from the start, see `model.lora`.
        adapters: where `restore` finds the adapters of a snapshot, by SHA-256; it is added to.
        seed: 64 bits.

    Raises:
        ValueError: an argument outside its limit.
    """

    def __init__(
        self,
        transformer: SanaVideoTransformer3DModel,
        vae: StreamingVAE,
        scheduler: Any,
        *,
        text: Tensor,
        text_mask: Tensor | None,
        height: int,
        width: int,
        config: StreamConfig,
        guidance_scale: float | None = None,
        negative_text: Tensor | None = None,
        negative_mask: Tensor | None = None,
        image: Tensor | None = None,
        loras: AdapterSet = NO_ADAPTERS,
        adapters: MutableMapping[str, Adapter] | None = None,
        seed: int = 0,
    ) -> None:
        self.transformer, self._vae, self._scheduler = transformer, vae, scheduler
        self.height, self.width, self.config, self.seed = height, width, config, seed
        self.block = config.block
        self._told = Conditioning(
            transformer,
            text=text,
            text_mask=text_mask,
            guidance_scale=config.guidance_scale if guidance_scale is None else guidance_scale,
            negative_text=negative_text,
            negative_mask=negative_mask,
            loras=loras,
            adapters=adapters,
        )
        self._start = None if image is None else self._checked(image)
        self._given: Tensor | None = None  # of the clip under way
        self._clip: WholeClip | None = None
        self._clean: Tensor | None = None
        self._next_frame = self._block_index = 0
        self._released = False

    def _checked(self, image: Tensor) -> Tensor:
        return given_latent(image, self._vae.channels, self.height, self.width, self.transformer.device)

    # -- where it stands ---------------------------------------------------------------------------------------

    @property
    def next_frame(self) -> int:
        """Absolute latent frame where the clip under way or to come begins."""
        return self._next_frame

    @property
    def block_index(self) -> int:
        """Index, from 0, of the clip under way or to come."""
        return self._block_index

    @property
    def at_boundary(self) -> bool:
        """Whether no clip is under way."""
        return self._clip is None

    @property
    def next_block(self) -> int:
        """Latent frames of the clip under way or to come, without its given one."""
        if self._start is not None:
            return 1
        return self.config.first_block_latent_frames if self._block_index == 0 else self.block

    @property
    def passes_ahead(self) -> int:
        """Steps to the end of the clip under way or to come, the link included."""
        if self._start is not None:
            return 0
        if self._clip is not None:
            return self._clip.passes_left
        return len(self.config.timesteps) + (self._clean is not None)

    # -- steering ----------------------------------------------------------------------------------------------

    def steer(
        self,
        text: Tensor,
        text_mask: Tensor | None = None,
        *,
        guidance_scale: float | None = None,
        negative_text: Tensor | None = None,
        negative_mask: Tensor | None = None,
        loras: AdapterSet | None = None,
    ) -> None:
        """Change the prompt from the next clip not yet begun; as `LatentStream.steer`.

        Raises:
            ValueError: guidance without a negative text.
        """
        self._told.steer(
            text,
            text_mask,
            guidance_scale=guidance_scale,
            negative_text=negative_text,
            negative_mask=negative_mask,
            loras=loras,
        )

    # -- snapshots ---------------------------------------------------------------------------------------------

    def snapshot(self) -> Snapshot:
        """Copy of everything that the next clip depends on but a steer that has not taken effect.

        Raises:
            RuntimeError: a clip is under way.
        """
        if not self.at_boundary:
            raise RuntimeError("a snapshot is taken between clips")
        plain = {"next_frame": self._next_frame, "block_index": self._block_index, "seed": self.seed}
        held = {"clean": self._clean, "image": self._start}
        return (
            self._told.snapshot() | plain | {name: value.clone() for name, value in held.items() if value is not None}
        )

    def restore(self, snapshot: Snapshot) -> None:
        """Stand where a snapshot of this or a like stream was taken; drops the clip under way and a waiting steer.

        Raises:
            ValueError: a snapshot of another format or another kind of stream; the stream stays as it was.
        """
        text, guidance = self._told.read(snapshot)
        clean, image = snapshot.get("clean"), snapshot.get("image")
        expected = (2 * self._vae.channels, self.height, self.width)
        if clean is not None and (clean.shape[1], *clean.shape[3:]) != expected:
            raise ValueError(f"the snapshot's latents are {tuple(clean.shape)}")
        start = None if image is None else self._checked(image)
        self._told.put(text, guidance)
        self._start = start
        self._clean = None if clean is None else clean.to(self.transformer.device, copy=True)
        self._next_frame, self._block_index = snapshot["next_frame"], snapshot["block_index"]
        self.seed = snapshot["seed"]
        self._clip = self._given = None

    def release(self) -> None:
        """Free what it holds; the stream is over."""
        self._clip = self._given = self._clean = self._start = None
        self._released = True

    # -- running -----------------------------------------------------------------------------------------------

    def __next__(self) -> Tensor:
        while (block := self.step()) is None:
            pass
        return block

    @torch.no_grad()
    def step(self) -> Tensor | None:
        """The next step; the clip's latents if they are clean now.

        Raises:
            RuntimeError: it was released.
        """
        if self._released:
            raise RuntimeError("the stream was released")
        if self._start is not None:
            image, self._start = self._start, None
            return self._end(image)
        if self._clip is None:
            self._begin()
            if self._given is not None:
                return None
        assert self._clip is not None
        latents = self._clip.step()
        if latents is None:
            return None
        self._clip = None
        return self._end(latents if self._given is None else latents[:, :, 1:])

    def _begin(self) -> None:
        """Start the next clip: the steer takes effect, the picture before becomes its first latent frame."""
        self._told.take()
        text, guidance = self._told.text, self._told.guidance
        self._given = None if self._clean is None else self._link(self._clean)
        self._clip = WholeClip(
            self._scheduler,
            text=text,
            negative=guidance.negative if guidance.scale > 1 else None,
            guidance_scale=guidance.scale,
            steps=len(self.config.timesteps),
            shape=(self.next_block + (self._given is not None), self.height, self.width),
            seed=(self.seed + self._block_index) % 2**64,
            image=self._given,
        )

    def _link(self, block: Tensor) -> Tensor:
        """The latent (1, channels, 1, height, width) of a clip's last picture."""
        own, given = block.chunk(2, dim=1)
        first = self._next_frame == block.shape[2]
        clip = own if first else torch.cat([given[:, :, :1], own], dim=2)
        if clip.shape[2] == 1:
            return clip  # a picture it is already
        state = self._vae.new_state()
        self._vae.prime(clip[:, :, :-1], state, 0)
        return self._vae.encode(self._vae.decode(clip[:, :, -1:], state)[-1:])

    def _end(self, latents: Tensor) -> Tensor:
        given = torch.zeros_like(latents) if self._given is None else self._given.expand_as(latents)
        self._clean, self._given = torch.cat([latents, given], dim=1), None
        self._next_frame += latents.shape[2]
        self._block_index += 1
        return self._clean.clone()


def advance(streams: Sequence[LatentStream | ChainStream], bucket: int | None = None) -> list[Tensor | None]:
    """Do the next step of every stream, of either kind; see `model.stream.advance`. Clips share no pass."""
    rolling = [stream for stream in streams if isinstance(stream, LatentStream)]
    blocks = iter(advance_latents(rolling, bucket) if rolling else [])
    return [stream.step() if isinstance(stream, ChainStream) else next(blocks) for stream in streams]


def open_stream(
    checkpoint: Checkpoint, *, pool: StatePool | None = None, **options: Any
) -> LatentStream | ChainStream:
    """A stream of a checkpoint, the way it streams.

    Args:
        checkpoint: what to run.
        pool: where the state of a `LatentStream` lives.
        options: further arguments of `LatentStream` or `ChainStream`; `config` is the checkpoint's unless given.

    Raises:
        ValueError: an argument outside its limit, or a checkpoint that makes clips only.
    """
    options.setdefault("config", checkpoint.config)
    if checkpoint.kind is not Kind.CLIP:
        return LatentStream(checkpoint.transformer, pool=pool, **options)
    scheduler = checkpoint.scheduler or clip_scheduler()
    return ChainStream(checkpoint.transformer, checkpoint.streaming_vae, scheduler, **options)


def stream_vae(checkpoint: Checkpoint) -> StreamingVAE | ChainVAE:
    """What decodes a checkpoint's streams. Raises ValueError for one that makes clips only."""
    if checkpoint.kind is not Kind.CLIP:
        return checkpoint.streaming_vae
    return ChainVAE(checkpoint.streaming_vae, checkpoint.config.block)
