"""The messages between the server and a model worker, and their contract.

One socket a worker, both directions, in order. Whoever changes a message changes this text with it.

Server to worker:
    `Open` starts a stream: fresh (no snapshot), or at `snapshot` (bytes of an earlier `Snapshot`). The worker runs
    the schedule forward from there without showing anything up to `decode_from` (a latent frame), re-primes the
    decoder with the latent frames before it, and sends pictures from that latent frame on. With `image` (a PNG of
    exactly this height and width) latent frame 0 is that picture and block 0 has that latent frame alone; it is sent
    with a snapshot too.
    `Reschedule` replaces every steer at or past `from_latent` and throws away what was generated at or past it
    (`from_latent` is not locked, i.e. not below the decode credit, and a block boundary unless blocks may be cut;
    otherwise the stream fails). Idempotent. A block begins at every steer and the steer is in force from it on; where
    blocks begin follows from the steers' latent frames alone, as `streamer.engine.blocks` says. A steer that cuts a
    clean block keeps its latent frames below; with that steer taken back they are all there again.
    `Credit` is cumulative: denoise blocks that begin before `denoise_until`, decode latent frames below
    `decode_until`; the first picture not sent yet is due in `due_s`. A lower value than before changes nothing,
    so a repeated or reordered credit does no harm. No credit, no work.
    `TakeSnapshot` asks for one `Snapshot` of the newest block boundary at or below `at_most` (a latent frame). The
    worker keeps the boundaries from the newest one at or below its next undecoded latent frame on; if all of them lie
    above `at_most` the oldest is sent. A snapshot holds the latent frames before its boundary that the decoder needs,
    and 16 more: `decode_from` may lie up to 16 below the boundary.
    `Close` ends the stream and frees its slot, or ends the clip.
    `OpenClip` makes a clip, whole, in the time that streams leave. A worker makes one at a time: another is answered
    `Failed`. `ClipCredit` is cumulative: send pictures below `pictures_until`. No credit, no work.
    `LoadLora` loads an adapter beside the running streams, answered by `LoraLoaded` or `LoraFailed`; with `sha256`
    (a restarted worker's first messages) it is loaded before the next message is read, and fails if it is another
    one. `DropLora` forgets one that no stream's steers name.

Worker to server:
    `Progress` while it loads and warms up, then `Ready` once. `Opened` when a stream holds a slot.
    `Denoised` after each block: it may still be thrown away. Again, with `compute_s` 0, when a `Reschedule` makes a
    block end elsewhere. `Pictures` for one latent frame: never taken back.
    `Snapshot`, `Failed` (that stream alone is gone; the worker goes on), `Stats` about once a second.
    Of a clip: `ClipProgress` when it is open, after each unit of work, and about once a second while streams leave it
    no time; `ClipPictures` in order, from picture 0 on; `ClipDone` after the last; `Failed` as for a stream. A worker
    that dies takes the clip with it: the server opens it anew, from the start.

Every message about a stream carries (stream, epoch). `Reschedule` and `Open` raise the epoch. A `Denoised` of an
older epoch is dropped when it lies at or past the newer epoch's `from_latent`; `Pictures` are locked and so valid
in every epoch of one `Open`. A clip's id stands in `stream`; its epoch counts how often it was opened.
"""

from __future__ import annotations

from typing import Any

import msgspec

from streamer.engine.info import Lora, LoraInfo, ModelInfo, Timings

PROTOCOL_VERSION = 2
CANNOT_START_EXIT = 2
"""A worker that cannot start ends with this status; its last line on stderr says why, for people."""


def first_picture(latent: int) -> int:
    """Index of the first picture of a latent frame: frame 0 holds picture 0, every later one four pictures."""
    return 0 if latent == 0 else 4 * latent - 3


class Message(msgspec.Struct, tag=True, frozen=True, kw_only=True):
    """Base of all messages; the tag is the class name."""


class Steer(msgspec.Struct, frozen=True, kw_only=True):
    """What is in force from latent frame `at_latent` on. The first one of a stream stands at 0."""

    at_latent: int
    prompt: str
    motion_score: int | None = None
    negative_prompt: str | None = None
    guidance_scale: float | None = None
    loras: tuple[Lora, ...] = ()
    """All adapters in force."""


class Open(Message, frozen=True, kw_only=True):
    stream: str
    epoch: int
    seed: int
    height: int
    """Picture height and width in pixels."""
    width: int
    rate_hz: float
    """Pictures a second that the stream shows: says when pictures after the one in `Credit.due_s` are due."""
    steers: list[Steer]
    """The whole schedule, by `at_latent`."""
    image: bytes | None = None
    """PNG: the picture that the stream starts from."""
    snapshot: bytes | None = None
    decode_from: int = 0
    """First latent frame whose pictures are wanted."""


class Reschedule(Message, frozen=True, kw_only=True):
    stream: str
    epoch: int
    from_latent: int
    steers: list[Steer]


class Credit(Message, frozen=True, kw_only=True):
    stream: str
    epoch: int
    denoise_until: int
    decode_until: int
    due_s: float


class TakeSnapshot(Message, frozen=True, kw_only=True):
    stream: str
    epoch: int
    at_most: int


class Close(Message, frozen=True, kw_only=True):
    stream: str
    epoch: int


class OpenClip(Message, frozen=True, kw_only=True):
    stream: str
    epoch: int
    prompt: str
    seed: int
    height: int
    width: int
    frames: int
    """Pictures."""
    pictures_until: int
    """The first credit."""
    negative_prompt: str = ""
    steps: int | None = None
    """Denoising steps; None: the checkpoint's."""
    guidance_scale: float | None = None
    motion_score: int | None = None
    image: bytes | None = None
    """The first picture, as in `Open`."""
    loras: tuple[Lora, ...] = ()


class ClipCredit(Message, frozen=True, kw_only=True):
    stream: str
    epoch: int
    pictures_until: int


class LoadLora(Message, frozen=True, kw_only=True):
    name: str
    path: str
    weight: float
    sha256: str | None = None
    """What it must be, where it was loaded before."""


class DropLora(Message, frozen=True, kw_only=True):
    sha256: str


class Progress(Message, frozen=True, kw_only=True):
    fraction: float
    what: str
    vocabulary: dict[str, list[dict[str, Any]]] | None = None
    """What the checkpoint knows, as soon as that is known: pads are there before the model is."""


class Ready(Message, frozen=True, kw_only=True):
    version: int
    pid: int
    model: ModelInfo
    timings: Timings
    slots: int
    """Streams that memory allows."""
    capacity: int
    """Streams that run in real time at the chosen rate, at least 1, or 0 where there are none."""
    rate_hz: float
    """Highest of 16, 12, 8 Hz (or the checkpoint's own rate) that this machine holds for one stream."""
    rate_reason: str = ""
    """Why this rate, in one line for people."""


class Opened(Message, frozen=True, kw_only=True):
    stream: str
    epoch: int


class Denoised(Message, frozen=True, kw_only=True):
    stream: str
    epoch: int
    block: int
    first_latent: int
    latents: int
    compute_s: float
    """Time the worker spent in this block's passes."""


class Pictures(Message, frozen=True, kw_only=True):
    stream: str
    epoch: int
    latent: int
    first_picture: int
    i420: list[bytes]
    """One BT.709 limited-range planar 4:2:0 picture each: Y (height x width), U, V (height/2 x width/2)."""


class Snapshot(Message, frozen=True, kw_only=True):
    stream: str
    epoch: int
    latent: int
    """The block boundary it stands at."""
    data: bytes


class ClipProgress(Message, frozen=True, kw_only=True):
    stream: str
    epoch: int
    done: int
    """Units of work, of `total`."""
    total: int
    waiting: bool = False
    """Streams leave it no time."""


class ClipPictures(Message, frozen=True, kw_only=True):
    stream: str
    epoch: int
    first_picture: int
    rgb: list[bytes]
    """One picture each: RGB, 8 bit, (height, width, 3)."""


class ClipDone(Message, frozen=True, kw_only=True):
    stream: str
    epoch: int


class LoraLoaded(Message, frozen=True, kw_only=True):
    info: LoraInfo


class LoraFailed(Message, frozen=True, kw_only=True):
    name: str
    reason: str


class Failed(Message, frozen=True, kw_only=True):
    stream: str
    epoch: int
    reason: str


class Stats(Message, frozen=True, kw_only=True):
    streams: int
    pass_s: float
    """Recent mean seconds a transformer pass and a decoded latent frame."""
    decode_s: float
    busy: float
    """Share of the last second that the worker computed, 0 to 1."""
    pool_bytes: int
    """What streams take: slots, decoders, boundaries they can go back to, kept latents."""
    rss_bytes: int


ToWorker = Open | Reschedule | Credit | TakeSnapshot | Close | OpenClip | ClipCredit | LoadLora | DropLora
ToServer = (
    Progress
    | Ready
    | Opened
    | Denoised
    | Pictures
    | Snapshot
    | ClipProgress
    | ClipPictures
    | ClipDone
    | LoraLoaded
    | LoraFailed
    | Failed
    | Stats
)
