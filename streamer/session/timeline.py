"""Where a stream stands: pictures, latent frames, blocks, and the three frontiers. Pure arithmetic, no clock.

    released <= received <= first picture of locked <= first picture of denoised

Picture n, latent frame f, block b and tick k are never mixed: a name says which one it counts.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from streamer.engine.protocol import first_picture

PICTURES_PER_LATENT = 4


def latent_of(picture: int) -> int:
    """The latent frame that holds a picture."""
    return (picture + PICTURES_PER_LATENT - 1) // PICTURES_PER_LATENT


@dataclass(frozen=True)
class Blocks:
    """Boundaries of a stream's blocks: one first length, then always the same one (in latent frames)."""

    first: int
    default: int

    def start(self, block: int) -> int:
        """First latent frame of block b."""
        return 0 if block == 0 else self.first + (block - 1) * self.default

    def block_of(self, latent: int) -> int:
        """The block that holds a latent frame."""
        return 0 if latent < self.first else 1 + (latent - self.first) // self.default

    def floor(self, latent: int) -> int:
        """Newest boundary at or below a latent frame."""
        return self.start(self.block_of(latent))

    def ceil(self, latent: int) -> int:
        """First boundary at or past a latent frame."""
        floor = self.floor(latent)
        return floor if floor == latent else self.next(latent)

    def next(self, latent: int) -> int:
        """First boundary past a latent frame."""
        return self.start(self.block_of(latent) + 1)


@dataclass
class Timeline:
    """The frontiers of one stream. All only grow, except `denoised`, which a steer takes back as far as `locked`.

    Attributes:
        next_picture: First picture that was not released yet.
        tick: Ticks so far (pictures that entered the encoder, repeats included): the next tick's number.
        next_latent: First latent frame whose pictures did not arrive yet.
        locked: Latent frames below this can't change any more; always a block boundary.
        denoised: Latent frames below this are known to be clean; they may be thrown away down to `locked`.
    """

    blocks: Blocks
    rate_hz: float
    next_picture: int = 0
    tick: int = 0
    next_latent: int = 0
    locked: int = field(default=0)
    denoised: int = 0

    def __post_init__(self) -> None:
        # Whatever comes first can't be steered away: the first block is locked from the start.
        self.locked = max(self.locked, self.blocks.start(1))

    @property
    def waiting_pictures(self) -> int:
        """Pictures that arrived and were not released yet."""
        return first_picture(self.next_latent) - self.next_picture

    @property
    def lead_s(self) -> float:
        """Seconds of video beyond the released picture that exist as clean latent frames."""
        ahead = first_picture(max(self.denoised, self.next_latent)) - self.next_picture
        return max(0, ahead) / self.rate_hz

    def until_s(self, picture: int) -> float:
        """Seconds of video between the next picture to release and `picture`."""
        return (picture - self.next_picture) / self.rate_hz

    def took(self, latent: int) -> None:
        """The pictures of a latent frame arrived."""
        self.next_latent = max(self.next_latent, latent + 1)
        self.denoised = max(self.denoised, latent + 1)
