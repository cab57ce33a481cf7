"""Where a stream stands: pictures, latent frames, blocks, and the three frontiers. Pure arithmetic, no clock.

    released <= received <= first picture of locked <= first picture of denoised

Picture n, latent frame f, block b and tick k are never mixed: a name says which one it counts.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from streamer.engine.blocks import Blocks
from streamer.engine.info import ModelInfo
from streamer.engine.protocol import first_picture

PICTURES_PER_LATENT = 4
KEPT_NUMBERS = 64
"""Ticks whose pictures' numbers are known: the encoder is never this many behind."""


def latent_of(picture: int) -> int:
    """The latent frame that holds a picture."""
    return (picture + PICTURES_PER_LATENT - 1) // PICTURES_PER_LATENT


def blocks_of(model: ModelInfo, image: bool = False) -> Blocks:
    """The blocks of a model's stream that nobody has steered yet; `image`: whether it starts from a picture."""
    return Blocks(
        1 if image else model.first_block_latent_frames,
        model.block_latent_frames[0],
        model.steer_block_latent_frames,
        model.cut_blocks,
    )


@dataclass
class Timeline:
    """The frontiers of one stream. All only grow, except `denoised`, which a steer takes back as far as `locked`.

    Attributes:
        next_picture: First picture that was not released yet.
        tick: Ticks so far (pictures that entered the encoder, repeats included): the next tick's number.
        next_latent: First latent frame whose pictures did not arrive yet.
        locked: Latent frames below this can't change any more. A block boundary, or where blocks may be cut any one.
        denoised: Latent frames below this are known to be clean; they may be thrown away down to `locked`.
    """

    blocks: Blocks
    rate_hz: float
    next_picture: int = 0
    tick: int = 0
    next_latent: int = 0
    locked: int = field(default=0)
    denoised: int = 0
    _shown: deque[int] = field(default_factory=lambda: deque(maxlen=KEPT_NUMBERS))

    def __post_init__(self) -> None:
        # Whatever comes first can't be steered away: the first block is locked from the start.
        self.locked = max(self.locked, self.blocks.first)

    @property
    def waiting_pictures(self) -> int:
        """Pictures that arrived and were not released yet."""
        return first_picture(self.next_latent) - self.next_picture

    @property
    def lead_s(self) -> float:
        """Seconds of video beyond the released picture that exist as clean latent frames."""
        ahead = first_picture(max(self.denoised, self.next_latent)) - self.next_picture
        return max(0, ahead) / self.rate_hz

    def ticked(self, new: bool) -> int:
        """A tick shows the next picture, or if not `new` the last one again; gives the tick."""
        self.next_picture += new
        self.tick += 1
        self._shown.append(self.next_picture - 1)
        return self.tick - 1

    def picture_at(self, tick: int) -> int:
        """The picture that a recent tick showed; -1 before the first."""
        if not self._shown:
            return self.next_picture - 1
        back = min(max(0, self.tick - 1 - tick), len(self._shown) - 1)
        return self._shown[-1 - back]

    def until_s(self, picture: int) -> float:
        """Seconds of video between the next picture to release and `picture`."""
        return (picture - self.next_picture) / self.rate_hz

    def next_lock(self, latent: int) -> int:
        """Where `locked` may stand next after a latent frame."""
        return latent + 1 if self.blocks.cuts else self.blocks.next(latent)

    def took(self, latent: int) -> None:
        """The pictures of a latent frame arrived."""
        self.next_latent = max(self.next_latent, latent + 1)
        self.denoised = max(self.denoised, latent + 1)
