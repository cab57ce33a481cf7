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

PROTOCOL_VERSION = 2
CANNOT_START_EXIT = 2
"""A worker that cannot start ends with this status; its last line on stderr says why, for people."""


def first_picture(latent: int) -> int:
    """Index of the first picture of a latent frame: frame 0 holds picture 0, every later one four pictures."""
    return 0 if latent == 0 else 4 * latent - 3


class Message(msgspec.Struct, tag=True, frozen=True, kw_only=True):
    """Base of all messages; the tag is the class name."""


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
