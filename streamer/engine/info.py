"""What a worker says of its model: parts of the messages in `streamer.engine.protocol`."""

from __future__ import annotations

from typing import Any

import msgspec


class Lora(msgspec.Struct, frozen=True, kw_only=True):
    """An adapter in force. What it is says its hash; the name is for people."""

    name: str
    weight: float
    sha256: str


class LoraInfo(msgspec.Struct, frozen=True, kw_only=True):
    """An adapter that the worker has loaded."""

    name: str
    sha256: str
    """Hexadecimal, of its file."""
    weight: float
    """What a new stream has of it where nobody said; 0: nothing."""
    rank: int
    layers: int
    nbytes: int


def by_default(infos: dict[str, LoraInfo]) -> tuple[Lora, ...]:
    """The adapters that a new stream has where nobody said."""
    return tuple(
        Lora(name=info.name, weight=info.weight, sha256=info.sha256) for info in infos.values() if info.weight != 0
    )


class ClipInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What clips a checkpoint makes."""

    height: int
    """Of the pictures, in pixels, where nobody asked."""
    width: int
    size_step: int
    """Height and width are multiples of this."""
    max_pixels: int
    """Of one picture."""
    max_pixels_in_all: int | None = None
    """Of all pictures of a clip together, where memory bounds them more than the other limits do."""
    rate_hz: float
    max_frames: int
    steps: int
    """Denoising steps where nobody asked: of the whole clip, or of each block where the checkpoint streams."""
    max_steps: int
    max_guidance_scale: float
    guidance_scale: float
    """Where nobody asked."""

    def most_pictures(self, width: int, height: int) -> int:
        """Pictures of the longest clip of a size that there is memory for."""
        most = self.max_pixels_in_all
        return self.max_frames if most is None else min(self.max_frames, most // (width * height))


class ModelInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What the server needs to know of the checkpoint; it never opens the folder itself."""

    name: str
    weights_hash: str
    device: str
    dtype: str
    height: int
    width: int
    rate_hz: float
    """The rate that the checkpoint was made for."""
    streaming: str = "blocks"
    """Or "chained clips", where the checkpoint makes whole clips: a block is one, seams may show; "clips only"."""
    no_streams: str | None = None
    """Where it is "clips only": why, for people. Then `Ready.slots` and `capacity` are 0, and every `Open` fails."""
    block_latent_frames: list[int]
    first_block_latent_frames: int
    steer_block_latent_frames: int | None = None
    """Length of a block that begins at a steer; None: the default's."""
    cut_blocks: bool = False
    """Whether a steer may begin inside a block, see `streamer.engine.blocks`."""
    portrait: bool = False
    """Whether streams may also have height and width exchanged: as many numbers, so the same cost."""
    sampler: str
    state_options: dict[str, Any]
    """sampler, timesteps, shift, window, sink, decay, recache, and where blocks are cut their lengths: what a log's
    header records beside seed and size."""
    max_prompt_chars: int
    max_guidance_scale: float
    guidance_scale: float = 1.0
    """Where nobody asked. Other than 1: `capacity`, `slots` and `timings` count streams with their second row."""
    motion_score: int | None = None
    """Where nobody asked; None: the checkpoint knows no motion scores."""
    prompt: str
    """What a stream shows where nobody said."""
    vocabulary: dict[str, list[dict[str, Any]]]
    known_words: list[str] = []
    """Words that it was trained with beside the vocabulary's; empty: it doesn't say."""
    clips: ClipInfo | None = None
    """None: it makes none."""
    loras: dict[str, LoraInfo] = {}
    """Adapters by name. In the server this is the engine's own dict, which follows what is loaded and dropped."""


class Timings(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds, measured at warm-up for one stream: the quickest of several tries."""

    first_block_s: float
    """All passes of a fresh stream's first block."""
    pass_s: float
    """One transformer pass of a default block (a commit costs the same)."""
    passes: int
    """Denoising passes of a block, without the commit."""
    decode_s: float
    """One latent frame: decoding and conversion to I420."""
    steer_pass_s: float | None = None
    """One transformer pass of a block that begins at a steer; None: as of a default one."""
    guided: float = 2.0
    """How many times as long a pass takes with the second row of guidance."""

    @property
    def block_s(self) -> float:
        """Commit and denoising passes of one default block."""
        return (self.passes + 1) * self.pass_s

    @property
    def steer_block_s(self) -> float:
        """The passes of a block that begins at a steer, and the commit of a default one before it."""
        return self.pass_s + self.passes * (self.pass_s if self.steer_pass_s is None else self.steer_pass_s)
