"""A stream's log, its recipe: JSON Lines, a header and one line a steer. The video is a function of it.

First `{"type": "header", "format": 1, "weights": …, "seed": …, "prompt": …, …}`, then for every steer
`{"type": "steer", "at_latent": 42, "prompt": …}`.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from typing import Any

import msgspec

from streamer.engine.info import Lora, ModelInfo
from streamer.engine.protocol import Steer
from streamer.session.errors import LogError
from streamer.session.timeline import blocks_of

FORMAT = 1
MAX_LOG_BYTES = 8 << 20
MAX_STEERS = 20_000


class Picture(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The picture that a stream starts from, as it enters the model."""

    png: bytes
    """A PNG of exactly the stream's height and width; base64 in the line."""
    sha256: str
    """Of the PNG, in hex."""

    @classmethod
    def of(cls, png: bytes) -> Picture:
        """The picture with its hash."""
        return cls(png=png, sha256=hashlib.sha256(png).hexdigest())


class Header(msgspec.Struct, frozen=True, kw_only=True, tag="header", forbid_unknown_fields=True):
    """What a video follows from, beside its steers."""

    format: int
    weights: str
    """Hash of the checkpoint's weights."""
    model: str
    dtype: str
    height: int
    width: int
    rate_hz: float
    sampler: str
    state: dict[str, Any]
    """Options of the sampler and the state, as the worker names them."""
    seed: int
    prompt: str
    motion_score: int | None = None
    negative_prompt: str | None = None
    guidance_scale: float | None = None
    loras: tuple[Lora, ...] = ()
    """Adapters in force, by name, weight and the SHA-256 of their files."""
    image: Picture | None = None
    """Latent frame 0, and all of block 0."""

    @property
    def png(self) -> bytes | None:
        """The picture that the stream starts from."""
        return None if self.image is None else self.image.png


class Entry(msgspec.Struct, frozen=True, kw_only=True, tag="steer", forbid_unknown_fields=True, omit_defaults=True):
    """A steer, and the latent frame from which it is in force."""

    at_latent: int
    prompt: str
    motion_score: int | None = None
    negative_prompt: str | None = None
    guidance_scale: float | None = None
    loras: tuple[Lora, ...] = ()


@dataclass(frozen=True)
class Log:
    header: Header
    steers: list[Entry]


_line = msgspec.json.Decoder(Header | Entry)


def encode(line: Header | Entry) -> str:
    """One line, without its newline."""
    return msgspec.json.encode(line).decode()


def header(
    model: ModelInfo,
    *,
    seed: int,
    height: int,
    width: int,
    rate_hz: float,
    prompt: str,
    motion_score: int | None = None,
    negative_prompt: str | None = None,
    guidance_scale: float | None = None,
    loras: tuple[Lora, ...] = (),
    png: bytes | None = None,
) -> Header:
    """The header of a new stream of this model."""
    return Header(
        format=FORMAT,
        weights=model.weights_hash,
        model=model.name,
        dtype=model.dtype,
        height=height,
        width=width,
        rate_hz=rate_hz,
        sampler=model.sampler,
        state=model.state_options,
        seed=seed,
        prompt=prompt,
        motion_score=motion_score,
        negative_prompt=negative_prompt,
        guidance_scale=guidance_scale,
        loras=loras,
        image=None if png is None else Picture.of(png),
    )


def entry(steer: Steer) -> Entry:
    """The line of a steer."""
    return Entry(
        at_latent=steer.at_latent,
        prompt=steer.prompt,
        motion_score=steer.motion_score,
        negative_prompt=steer.negative_prompt,
        guidance_scale=steer.guidance_scale,
        loras=steer.loras,
    )


def parse(text: str) -> Log:
    """Read a log.

    Raises:
        LogError: `log-malformed`, naming the line.
    """
    if len(text.encode()) > MAX_LOG_BYTES:
        raise LogError(f"a log has at most {MAX_LOG_BYTES} bytes", field="log", limit=MAX_LOG_BYTES)
    lines = [(number, line) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
    if not lines:
        raise LogError("the log is empty", field="log")
    if len(lines) > MAX_STEERS:
        raise LogError(f"a log has at most {MAX_STEERS} lines", field="log", limit=MAX_STEERS)
    read: list[Header | Entry] = []
    for number, line in lines:
        try:
            read.append(_line.decode(line))
        except msgspec.DecodeError as error:
            raise LogError(f"line {number} of the log: {error}", field=f"log.{number}") from error
    first, rest = read[0], read[1:]
    if not isinstance(first, Header):
        raise LogError("the log's first line is not its header", field="log.1")
    if first.format != FORMAT:
        raise LogError(f"log format {first.format} is not known", field="log.format", limit=FORMAT)
    if first.image is not None and first.image != Picture.of(first.image.png):
        raise LogError("the picture in the log is not the one whose SHA-256 it names", field="log.image")
    steers: list[Entry] = []
    for (number, _), line_read in zip(lines[1:], rest, strict=True):
        if not isinstance(line_read, Entry):
            raise LogError(f"line {number} of the log is a second header", field=f"log.{number}")
        if line_read.at_latent <= (steers[-1].at_latent if steers else 0):
            raise LogError(f"line {number} of the log: steers must go forward", field=f"log.{number}.at_latent")
        steers.append(line_read)
    return Log(first, steers)


def check(log: Log, model: ModelInfo) -> None:
    """Whether this model makes the log's video.

    Raises:
        LogError: `log-other-weights`, naming what differs; `log-malformed` where a steer stands inside a block.
    """
    height, width = model.height, model.width
    if model.portrait and (log.header.height, log.header.width) == (width, height):
        height, width = width, height
    ours = header(model, seed=0, height=height, width=width, rate_hz=model.rate_hz, prompt="")
    for name in ("weights", "sampler", "state", "dtype", "height", "width"):
        theirs, mine = getattr(log.header, name), getattr(ours, name)
        if not _same(theirs, mine):
            message = f"the log was made with {name} {theirs!r}, this model has {mine!r}"
            raise LogError(message, code="log-other-weights", field=f"log.{name}", limit=mine)
    blocks = blocks_of(model, log.header.image is not None)
    for steer in log.steers:
        if steer.at_latent < blocks.first or not (blocks.cuts or blocks.floor(steer.at_latent) == steer.at_latent):
            message = f"latent frame {steer.at_latent} is no block boundary of this model"
            raise LogError(message, field="log.at_latent")


def _same(theirs: Any, mine: Any) -> bool:
    """Equal after a way through JSON, which makes tuples lists and integers of round floats."""
    if isinstance(mine, float) and isinstance(theirs, int | float):
        return math.isclose(theirs, mine)
    return bool(theirs == msgspec.json.decode(msgspec.json.encode(mine)))
