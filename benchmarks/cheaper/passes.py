"""Ways to do the transformer passes of a block: what plain classes do, and what makes it cheaper.

Each way begins a round from the same past, with the same noise, and makes the same block; `run` is what is timed.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import torch
from diffusers import SanaVideoTransformer3DModel as PlainTransformer
from torch import Tensor

from benchmarks.int8_products import use_int8
from model import packed
from model.checkpoint import Checkpoint, load_checkpoint, load_transformer
from model.devices import name_of, onednn_takes_bf16
from model.layers import TextCache
from model.noise import block_noise
from model.passes import Text
from model.quantize import quantize
from model.sampler import Commit, SamplerName, adams_bashforth, block_steps, euler, spaced_timesteps
from model.snapshot import Snapshot
from model.source import resolve
from model.state import StateView
from model.stream import LatentStream, new_pool
from model.stream_config import StreamConfig
from model.transformer import SanaVideoTransformer3DModel

PROMPT = "a city by day, a red train, clear sky"
TRUTH_PASSES, PLAIN_PASSES = 32, 4
SEED = 1


class Unavailable(Exception):
    """A way that can't be gone on this machine; the message says why."""


class Way(Protocol):
    """One way to do the passes."""

    def begin(self, past: Snapshot) -> None:
        """Stand at the boundary of a snapshot; not timed."""
        ...

    def run(self) -> Tensor | None:
        """The next block, (1, channels, frames, height, width); None where there is no picture to be had."""
        ...


@dataclass(frozen=True)
class World:
    """What all ways have in common: the checkpoint, in float32, and one prompt."""

    folder: Path
    checkpoint: Checkpoint
    text: Tensor
    mask: Tensor | None

    @classmethod
    def of(cls, folder: Path) -> World:
        """Load the folder and encode the prompt."""
        checkpoint = load_checkpoint(folder, "cpu", torch.float32)
        return cls(folder, checkpoint, *checkpoint.text.encode(PROMPT))

    @property
    def config(self) -> StreamConfig:
        """The checkpoint's, with a first block like the others, unguided."""
        config = self.checkpoint.config
        return replace(config, first_block_latent_frames=config.block, guidance_scale=1.0)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the latents."""
        config, factor = self.config, self.checkpoint.streaming_vae.spatial_factor
        return config.height // factor, config.width // factor

    def net(self, dtype: torch.dtype) -> SanaVideoTransformer3DModel:
        """Our transformer, a copy of its own."""
        return load_transformer(resolve(self.folder), torch.device("cpu"), dtype)


class Ours:
    """A `LatentStream`.

    Args:
        world: see there.
        net: its transformer.
        timesteps, sampler: None takes the checkpoint's, the opening block's own excepted.
        packs: whether it may run on packed weights.
    """

    def __init__(
        self,
        world: World,
        net: SanaVideoTransformer3DModel,
        *,
        timesteps: Sequence[float] | None = None,
        sampler: SamplerName | None = None,
        packs: bool = True,
    ) -> None:
        height, width = world.size
        self.packs = packs
        self.stream = LatentStream(
            net,
            text=world.text,
            text_mask=world.mask,
            height=height,
            width=width,
            timesteps=timesteps or world.config.timesteps,
            sampler=sampler,
            seed=SEED,
            config=world.config,
        )

    def begin(self, past: Snapshot) -> None:
        dtype = self.stream.pool.dtype
        mine = {name: value.to(dtype) if name.endswith(".tail") else value for name, value in past.items()}
        with packing(self.packs):
            self.stream.restore(mine)

    def run(self) -> Tensor | None:
        with packing(self.packs):
            return next(self.stream)


class Plain:
    """Diffusers' class: as many passes over the same shapes, but without a past. Its picture is that of block 0."""

    def __init__(self, world: World, dtype: torch.dtype, channels_last: bool = False) -> None:
        self._net: Any = PlainTransformer.from_pretrained(world.folder / "transformer", torch_dtype=dtype)
        for parameter in self._net.parameters():
            if channels_last and parameter.dim() == 4:
                parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
        self._dtype, self._mask, self._text = dtype, world.mask, world.text.to(dtype)
        self._config = config = world.config
        shape = (self._net.config.in_channels, *world.size)
        self._noise = block_noise(SEED, 0, config.block, 0, shape, torch.device("cpu"))

    def begin(self, past: Snapshot) -> None:
        pass

    def run(self) -> Tensor | None:
        x, before = self._noise, None
        for step in block_steps(self._config.timesteps, self._config.shift, commit=True):
            if isinstance(step, Commit):
                self._pass(x, 0.0)
                continue
            flow = self._pass(x, step.timestep)
            if before is None or self._config.sampler != "adams-bashforth":
                x = euler(x, flow, step.sigma, step.next_sigma)
            else:
                x = adams_bashforth(x, flow, *before, step.sigma, step.next_sigma)
            before = flow, step.sigma
        return x

    def _pass(self, x: Tensor, timestep: float) -> Tensor:
        (flow,) = self._net(
            x.to(self._dtype),
            encoder_hidden_states=self._text,
            timestep=torch.tensor([timestep]),
            encoder_attention_mask=self._mask,
            return_dict=False,
        )
        return flow.float()


class Calls:
    """The transformer's calls of a block and nothing else.

    `joined`: the commit and the first pass as two rows of one call. What is not done then is to let the second row
    read in each layer what the first one has just left there: it is the most that joining them could save.
    """

    def __init__(self, world: World, net: SanaVideoTransformer3DModel, *, joined: bool) -> None:
        self._net, self._config, self._joined = net, world.config, joined
        self._pool = new_pool(net, *world.size, self._config)
        self._slots = [self._pool.acquire(), self._pool.acquire()]
        self._text = Text.of(net, world.text, world.mask).cache
        self._latents = torch.randn(1, net.config.in_channels, self._config.block, *world.size).to(net.dtype)

    def begin(self, past: Snapshot) -> None:
        pass

    def run(self) -> Tensor | None:
        first, *others = self._config.timesteps
        if self._joined:
            self._pass([0.0, first], [True, False])
        else:
            self._pass([0.0], [True])
            self._pass([first], [False])
        for timestep in others:
            self._pass([timestep], [False])
        return None

    def _pass(self, timesteps: list[float], commit: list[bool]) -> None:
        rows, block = len(timesteps), self._config.block
        frames = [8 * block + row * block for row in range(rows)]
        state = StateView(self._pool, self._slots[:rows], frames, [8 + row for row in range(rows)], commit)
        self._net(
            self._latents.expand(rows, -1, -1, -1, -1),
            TextCache.stack([self._text] * rows),
            torch.tensor(timesteps),
            return_dict=False,
            state=state,
        )


class Compiled(Ours):
    """Through inductor, block by block, with its weights frozen into the code; `start_up_s` is what that takes."""

    def __init__(self, world: World, net: SanaVideoTransformer3DModel, past: Snapshot) -> None:
        """Raises `Unavailable` where there is no C++ compiler."""
        if not any(map(shutil.which, ("c++", "g++", "clang++", "cl"))):
            raise Unavailable("no C++ compiler on this machine")
        super().__init__(world, net, packs=False)
        for block in net.transformer_blocks:
            block.compile(dynamic=False)
        kept = os.environ.get("TORCHINDUCTOR_CACHE_DIR")
        with tempfile.TemporaryDirectory() as folder:  # as on a machine that has not seen the model
            os.environ["TORCHINDUCTOR_CACHE_DIR"] = folder
            start_s = time.perf_counter()
            self.begin(past)
            self.run()
            self.start_up_s = time.perf_counter() - start_s
        os.environ.pop("TORCHINDUCTOR_CACHE_DIR")
        if kept is not None:
            os.environ["TORCHINDUCTOR_CACHE_DIR"] = kept

    def run(self) -> Tensor | None:
        import torch._dynamo.config as tracing
        import torch._inductor.config as inductor

        # A graph for each block's weights, and one more where it commits.
        with inductor.patch(freezing=True), tracing.patch(recompile_limit=256):
            return super().run()


@contextmanager
def packing(on: bool) -> Iterator[None]:
    """Let linear layers run on packed weights, or not."""
    kept, packed._AVAILABLE = packed._AVAILABLE, packed._AVAILABLE and on
    try:
        yield
    finally:
        packed._AVAILABLE = kept


def ways(
    world: World, dtype: torch.dtype, past: Snapshot, schemes: Sequence[str], inductor: bool
) -> Iterator[tuple[str, Callable[[], Way]]]:
    """(name, what makes it): the first is the plain form; `dtype` is what a server takes here."""
    bf16, own = torch.bfloat16, f"ours, {name_of(dtype)}"
    yield "diffusers' class, float32", partial(Plain, world, torch.float32)
    yield "diffusers' class, float32, channels last", partial(Plain, world, torch.float32, channels_last=True)
    yield "diffusers' class, bfloat16", partial(Plain, world, bf16)
    yield "ours, float32", lambda: Ours(world, world.checkpoint.transformer)
    yield "ours, bfloat16, weights not packed", lambda: Ours(world, world.net(bf16), packs=False)
    yield "ours, bfloat16", partial(_packed, world)
    yield f"{own}, bare calls", lambda: Calls(world, world.net(dtype), joined=False)
    yield f"{own}, bare calls, first two joined (bound)", lambda: Calls(world, world.net(dtype), joined=True)
    yield f"{own}, int8 products (oneDNN)", lambda: Ours(world, use_int8(world.net(dtype)))
    for scheme in schemes:
        yield f"{own}, torchao {scheme}", partial(_quantized, world, dtype, scheme)
    if inductor:
        yield f"{own}, inductor", lambda: Compiled(world, world.net(dtype), past)


def _packed(world: World) -> Way:
    if not onednn_takes_bf16():
        raise Unavailable("oneDNN has no bfloat16 on this processor")
    return Ours(world, world.net(torch.bfloat16))


def _quantized(world: World, dtype: torch.dtype, scheme: str) -> Way:
    net = world.net(dtype)
    quantize(net, scheme)
    return Ours(world, net)


def samplers(world: World, dtype: torch.dtype) -> Iterator[tuple[str, Callable[[], Way]]]:
    """(name, what makes it): the first takes so many passes that more would change nothing."""
    config, net = world.config, world.net(dtype)
    if config.sampler == "renoise":
        return  # weights that were taught their own steps
    kinds: list[tuple[SamplerName, tuple[float, ...]]] = [
        ("euler", spaced_timesteps(TRUTH_PASSES, config.shift)),
        ("euler", spaced_timesteps(PLAIN_PASSES, config.shift)),
        ("euler", config.timesteps),
        ("adams-bashforth", config.timesteps),
        ("adams-bashforth", spaced_timesteps(2, config.shift)),
    ]
    for sampler, steps in dict.fromkeys(kinds):
        shown = f" at {'/'.join(f'{t:.0f}' for t in steps)}" if len(steps) <= PLAIN_PASSES else ""
        name = f"{len(steps)} {'Euler' if sampler == 'euler' else 'Adams-Bashforth'} passes{shown}"
        yield name, partial(Ours, world, net, timesteps=steps, sampler=sampler)
