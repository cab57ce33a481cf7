"""One stream: embeddings and state in, clean latent blocks out.

The unit of work is a step, one transformer pass. `advance` runs one step of many streams as one batch, though they
may stand at different denoising steps, positions and prompts; iterating one stream is `advance([stream])` in a loop.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, MutableMapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from model.adapted import NO_ADAPTERS, Adapter, AdapterSet
from model.block import Block
from model.conditioning import Conditioning, given_latent
from model.noise import Noise, block_noise
from model.passes import Row, run_rows
from model.precision import REFERENCE_BLOCKS, Precision, PrecisionError, rounded_dtype
from model.sampler import Commit, Denoise, SamplerName, block_steps
from model.snapshot import Snapshot
from model.state import StatePool
from model.stream_config import StreamConfig
from model.stream_pool import new_pool, stream_layout
from model.transformer import SanaVideoTransformer3DModel

__all__ = ["LatentStream", "advance", "new_pool"]


class LatentStream(Iterator[Tensor]):
    """An endless iterator of clean latent blocks, each (1, channels, frames, height, width), float32.

    Arguments left at None come from `config`, whose own defaults are LongSANA's.

    Args:
        transformer: the network; its device and dtype are the stream's.
        text, text_mask: prompt embeddings (1, tokens, channels) and mask (1, tokens), 1 = read.
        height, width: of the latents.
        block, first_block: latent frames of a block, and of the first one. The attribute `block` may be set to what
            the next block not yet begun shall have.
        timesteps: of the denoising passes, falling; first_timesteps: those of the first block.
        shift: of the sigma table.
        sampler: "renoise", "euler" or "adams-bashforth".
        window, sink, decay: what the state remembers, see `model.state`.
        precision: "precise" or "reference", see `model.precision`.
        recache: commit the last block before a steer under the new text, as LongSANA does.
        guidance_scale: other than 1 runs a second row and slot a stream.
        negative_text, negative_mask: what guidance leads away from.
        noise: noise from outside; None draws it from `seed`.
        seed: 64 bits.
        first_frame: absolute latent frame at which the stream begins.
        image: latent of a picture to start from, see `model.image_start`: it is block 0, given and not denoised.
        loras: adapters in force from the start, see `model.lora`.
        adapters: where `restore` finds the adapters of a snapshot, by SHA-256; it is added to. None for those that
            this stream was given itself.
        pool: where its state lives; None makes one of its own.
        config: see above.

    Raises:
        ValueError: an argument outside its limit.
    """

    def __init__(
        self,
        transformer: SanaVideoTransformer3DModel,
        *,
        text: Tensor,
        text_mask: Tensor | None,
        height: int,
        width: int,
        block: int | None = None,
        first_block: int | None = None,
        timesteps: Sequence[float] | None = None,
        first_timesteps: Sequence[float] | None = None,
        shift: float | None = None,
        sampler: SamplerName | None = None,
        window: int | None = None,
        sink: int | None = None,
        decay: float | None = None,
        precision: Precision | None = None,
        recache: bool | None = None,
        guidance_scale: float | None = None,
        negative_text: Tensor | None = None,
        negative_mask: Tensor | None = None,
        noise: Noise | None = None,
        seed: int = 0,
        first_frame: int = 0,
        image: Tensor | None = None,
        loras: AdapterSet = NO_ADAPTERS,
        adapters: MutableMapping[str, Adapter] | None = None,
        pool: StatePool | None = None,
        config: StreamConfig | None = None,
    ) -> None:
        given: dict[str, Any] = {
            "block_latent_frames": None if block is None else (block,),
            "first_block_latent_frames": block if first_block is None else first_block,
            "timesteps": None if timesteps is None else tuple(timesteps),
            "shift": shift,
            "sampler": sampler,
            "window_blocks": window,
            "window_group": None if window is None else 1,
            "sink_blocks": sink,
            "decay": decay,
            "precision": precision,
            "recache": recache,
            "guidance_scale": guidance_scale,
        }
        config = config or StreamConfig()
        opening = first_timesteps or (config.first_block_timesteps if timesteps is None else None)
        config = replace(config, **{name: value for name, value in given.items() if value is not None})
        self.config = replace(config, first_block_timesteps=tuple(opening or config.timesteps))
        self.transformer = transformer
        self.height, self.width = height, width
        self.block = self.config.block
        self.seed = seed
        # Sees the latents after each denoising pass, gives what they become.
        self.on_pass: Callable[[Denoise, Tensor], Tensor] | None = None
        self._noise = noise
        self._rounding = rounded_dtype(self.config.precision, transformer.dtype)
        layout = stream_layout(transformer, height, width, self.config)
        self.pool = pool or StatePool(layout, transformer.dtype, transformer.device, slab=1)
        if self.pool.layout != layout:
            raise ValueError(f"the pool is for {self.pool.layout}, the stream needs {layout}")

        self._told = Conditioning(
            transformer,
            text=text,
            text_mask=text_mask,
            guidance_scale=config.guidance_scale,
            negative_text=negative_text,
            negative_mask=negative_mask,
            loras=loras,
            adapters=adapters,
        )
        self._image = None if image is None else self._given(image)
        self._text_before = self._commit_text = self._told.text
        self._slots = [self.pool.acquire() for _ in range(self._told.guidance.rows)]
        self._next_frame = first_frame
        self._block_index = 0
        self._making: Block | None = None
        self._clean: Tensor | None = None

    # -- where it stands ---------------------------------------------------------------------------------------

    @property
    def next_frame(self) -> int:
        """Absolute latent frame of the first frame not yet clean: where the block under way or to come begins."""
        return self._next_frame

    @property
    def block_index(self) -> int:
        """Index, from 0, of the block under way or to come."""
        return self._block_index

    @property
    def at_boundary(self) -> bool:
        """Whether no block is under way."""
        return self._making is None

    @property
    def steps_left(self) -> int:
        """Transformer passes left in the block under way, commit included; 0 at a boundary."""
        return 0 if self._making is None else len(self._making.steps)

    @property
    def next_block(self) -> int:
        """Latent frames of the block under way or to come."""
        known = self._image if self._making is None else self._making.latents
        if known is not None:
            return int(known.shape[2])
        return self.config.first_block_latent_frames if self._block_index == 0 else self.block

    @property
    def passes_ahead(self) -> int:
        """Transformer passes, commit included, to the end of the block under way or to come."""
        if self._making is not None or self._image is not None:
            return self.steps_left
        return len(self._next_timesteps) + (self._clean is not None)

    @property
    def _next_timesteps(self) -> tuple[float, ...]:
        opening = self.config.first_block_timesteps if self._block_index == 0 else None
        return opening or self.config.timesteps

    @property
    def slots(self) -> tuple[int, ...]:
        """The pool's slots that it holds: one, two with guidance, none after `release`."""
        return tuple(self._slots)

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
        """Change the prompt from the next block not yet begun; a later call for the same block replaces it.

        Args:
            text, text_mask: as at the start.
            guidance_scale: new scale, None keeps it. Guidance that begins here starts from the stream's own past.
            negative_text, negative_mask: new negative prompt, None keeps it.
            loras: new set of adapters, None keeps it. With `recache` the last block is committed under it too.

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

    def _given(self, image: Tensor) -> Tensor:
        channels = self.transformer.config.in_channels
        return given_latent(image, channels, self.height, self.width, self.transformer.device)

    def cut(self, frames: int) -> None:
        """Keep only the first `frames` latent frames of the last block; the next block begins right after them.

        The last block is not committed yet, so this costs no pass: its commit, the first step of the next block, is
        then that of the shorter block.

        Raises:
            RuntimeError: a block is under way, or there is none yet.
            ValueError: more latent frames than the block has, or none.
        """
        if self._clean is None or not self.at_boundary:
            raise RuntimeError("a block is cut before the next one begins")
        held = self._clean.shape[2]
        if not 1 <= frames <= held:
            raise ValueError(f"frames must be 1 to {held}, not {frames}")
        self._clean = self._clean[:, :, :frames].clone()
        self._next_frame -= held - frames

    # -- snapshots ---------------------------------------------------------------------------------------------

    def snapshot(self) -> Snapshot:
        """Copy of everything that the next block depends on but a steer that has not taken effect.

        Raises:
            RuntimeError: a block is under way.
        """
        if not self.at_boundary:
            raise RuntimeError("a snapshot is taken between blocks")
        content = self._told.snapshot()
        content |= {"next_frame": self._next_frame, "block_index": self._block_index, "seed": self.seed}
        held = {"clean": self._clean, "image": self._image}
        content |= {name: value.clone() for name, value in held.items() if value is not None}
        for index, slot in enumerate(self._slots):
            content.update({f"slot{index}.{name}": value for name, value in self.pool.read(slot).items()})
        return content

    def restore(self, snapshot: Snapshot) -> None:
        """Stand where a snapshot of this or a like stream was taken; drops the block under way and a waiting steer.

        Raises:
            ValueError: a snapshot of another format or another kind of stream; the stream stays as it was.
        """
        text, guidance = self._told.read(snapshot)
        clean = snapshot.get("clean")
        channels = self.transformer.config.in_channels
        if clean is not None and (clean.shape[1], *clean.shape[3:]) != (channels, self.height, self.width):
            raise ValueError(f"the snapshot's latents are {tuple(clean.shape)}")
        image = self._given(snapshot["image"]) if "image" in snapshot else None
        count = guidance.rows
        parts = [
            {name.removeprefix(f"slot{i}."): v for name, v in snapshot.items() if name.startswith(f"slot{i}.")}
            for i in range(count)
        ]
        for part in parts:
            self.pool.check(part)
        self._hold(count)
        for slot, part in zip(self._slots, parts, strict=True):
            self.pool.write(slot, part)
        self._told.put(text, guidance)
        self._clean = None if clean is None else clean.to(self.transformer.device, copy=True)
        self._image = image
        self._next_frame, self._block_index = snapshot["next_frame"], snapshot["block_index"]
        self.seed = snapshot["seed"]
        self._making = None

    def _hold(self, count: int) -> None:
        while len(self._slots) > count:
            self.pool.release(self._slots.pop())
        while len(self._slots) < count:
            self._slots.append(self.pool.acquire())

    def release(self) -> None:
        """Give the slots back; the stream is over."""
        self._hold(0)
        self._making = self._clean = self._image = None

    # -- running -----------------------------------------------------------------------------------------------

    def __next__(self) -> Tensor:
        while True:
            (block,) = advance([self])
            if block is not None:
                return block

    def _begin(self) -> None:
        """Start the next block if none is under way: the steer takes effect, its noise is drawn."""
        if not self._slots:
            raise RuntimeError("the stream was released")
        if self._making is not None:
            return
        if self._rounding is not None and self.config.sums_run and self._block_index >= REFERENCE_BLOCKS:
            raise PrecisionError
        self._text_before = self._commit_text = self._told.text
        steered = self._told.take()
        if steered:
            if self.config.recache:
                self._commit_text = self._told.text
            held, needed = len(self._slots), self._told.guidance.rows
            self._hold(needed)
            if needed > held:
                self.pool.copy(self._slots[0], self._slots[1])
        if self._image is not None:
            return
        commit = self._clean is not None
        steps = block_steps(self._next_timesteps, self.config.shift, commit=commit, rounded_to=self._rounding)
        if steered and self._block_index == 1 and self.config.recache and self.config.precision == "reference":
            steps.insert(0, Commit(before_steer=True))  # block 0 is recached on top of itself, as the authors do
        self._making = Block(steps, partial(self._draw, self.next_block), self.config.sampler, self._rounding)

    def _draw(self, frames: int, pass_: int) -> Tensor:
        source = self.seed if self._noise is None else self._noise
        shape = (self.transformer.config.in_channels, self.height, self.width)
        return block_noise(source, self._next_frame, frames, pass_, shape, self.transformer.device)

    def _rows(self) -> list[Row]:
        """The rows of the step to do: one a slot, the conditional one first; none for a given block."""
        if self._making is None:
            return []
        step = self._making.steps[0]
        texts = [self._told.text]
        if isinstance(step, Commit):
            texts = [self._text_before if step.before_steer else self._commit_text]
        negative = self._told.guidance.negative
        if len(self._slots) == 2 and negative is not None:
            texts.append(negative)
        if isinstance(step, Commit):
            assert self._clean is not None
            latents, timestep = self._clean, 0.0
            frame, block = self._next_frame - latents.shape[2], self._block_index - 1
        else:
            latents, timestep = self._making.latents, step.timestep
            frame, block = self._next_frame, self._block_index
        commit = isinstance(step, Commit)
        return [
            Row(text.net, self.pool, latents, timestep, text.cache, slot, frame, block, commit)
            for text, slot in zip(texts, self._slots, strict=True)
        ]

    def _finish(self, flows: list[Tensor]) -> Tensor | None:
        """Take the flow of each row, (1, channels, frames, height, width); gives the block if it is clean now."""
        block = self._making
        if block is None:
            assert self._image is not None
            clean, self._image = self._image, None
            return self._end_block(clean)
        step = block.steps.popleft()
        if isinstance(step, Commit):
            return None
        flow = flows[0].float()
        if len(flows) == 2:
            aside = flows[1].float()
            flow = aside + self._told.guidance.scale * (flow - aside)
        block.denoise(step, flow)
        if self.on_pass is not None:
            block.latents = self.on_pass(step, block.latents)
        return None if block.steps else self._end_block(block.latents)

    def _end_block(self, clean: Tensor) -> Tensor:
        self._making, self._clean = None, clean
        self._next_frame += clean.shape[2]
        self._block_index += 1
        return clean.clone()


@torch.no_grad()
def advance(streams: Sequence[LatentStream], bucket: int | None = None) -> list[Tensor | None]:
    """Do the next step of every stream, rows that fit together in one transformer pass.

    Rows fit together when transformer, pool, latent frames and text length agree; else they go in further passes.

    Args:
        streams: different streams, each at any step.
        bucket: rows of each pass: fewer are padded with null rows, more are split. None takes what there is.
            A stream's bits depend on its bucket, not on who shares it.

    Returns:
        For each stream the clean block (1, channels, frames, height, width), float32, if it has just finished one.
    """
    if len({id(stream) for stream in streams}) != len(streams):
        raise ValueError("a stream stands twice in the batch")
    rows: list[Row] = []
    counts: list[int] = []
    for stream in streams:
        stream._begin()
        own = stream._rows()
        rows += own
        counts.append(len(own))
    flows = iter(run_rows(rows, bucket))
    return [stream._finish(list(islice(flows, count))) for stream, count in zip(streams, counts, strict=True)]
