"""Where a stream's blocks begin: a function of the checkpoint's block lengths and the places of its steers. Pure.

The rule, which a replay follows as the live stream did:

* The first block has `first` latent frames, a block that begins at a steer `steer`, every other one `default`.
* Without cuts a steer stands at a boundary of that grid. With cuts it may stand at any latent frame f: the block that
  holds f is denoised in its whole length all the same, keeps its latent frames below f, and is committed as that
  shorter block. The next block begins at f. So it doesn't matter whether the steer came before that block was made,
  meanwhile, or after.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field


@dataclass
class Blocks:
    """Boundaries of a stream's blocks, in latent frames.

    Attributes:
        first: Length of the first block.
        default: Length of a block.
        steer: Length of a block that begins at a steer; None: the default's. Only with cuts.
        cuts: Whether a steer may stand inside a block, which then ends there.
        places: Where steers stand, rising and above 0. Whoever knows the steers keeps it.
    """

    first: int
    default: int
    steer: int | None = None
    cuts: bool = False
    places: list[int] = field(default_factory=list)

    def floor(self, latent: int) -> int:
        """Newest boundary at or below a latent frame."""
        origin, length = self._origin(latent)
        past = latent - origin - length
        return origin if past < 0 else origin + length + past // self.default * self.default

    def whole(self, latent: int) -> int:
        """Where the block that holds a latent frame would end if no steer cut it: up to there it is denoised."""
        origin, length = self._origin(latent)
        start = self.floor(latent)
        return start + (length if start == origin else self.default)

    def cut(self, start: int, end: int) -> int:
        """Where a block from `start` to `end` ends: at the first steer inside it, else at its end."""
        index = bisect_right(self.places, start)
        inside = self.cuts and index < len(self.places)
        return min(end, self.places[index]) if inside else end

    def next(self, latent: int) -> int:
        """First boundary past a latent frame."""
        return self.cut(latent, self.whole(latent))

    def ceil(self, latent: int) -> int:
        """First boundary at or past a latent frame."""
        floor = self.floor(latent)
        return floor if floor == latent else self.next(latent)

    def _origin(self, latent: int) -> tuple[int, int]:
        """Where the grid that holds a latent frame begins, and the length of its first block."""
        index = bisect_right(self.places, latent) if self.cuts else 0
        return (self.places[index - 1], self.steer or self.default) if index else (0, self.first)
