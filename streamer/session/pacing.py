"""What locks when, where a steer begins, how far the worker may go. Pure: the caller tells the time.

C, the lock time, is what it takes from a steer to its first decoded picture, with a margin. A boundary locks C before
its first picture is due; a steer takes the first boundary that isn't locked. So whatever a steer throws away can be
made anew in time, and since a locked boundary stays locked, no flood of steers can starve the stream: each boundary
locks in its turn, with the last steer that came before.

Where blocks may be cut, each latent frame locks, and a steer begins at the first that isn't locked: inside a block if
that is clean, for then the cut costs nothing. A block that is under way or still to be made isn't cut, or the worker
would make most of it for nothing while the steer's own block waits: the steer begins after it. That keeps floods in
check too, since the block of the steer before has to be clean first.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from streamer.engine.blocks import Blocks
from streamer.engine.info import Timings
from streamer.engine.protocol import first_picture
from streamer.session.timeline import PICTURES_PER_LATENT, Timeline

MARGIN = 1.3
"""Work may take this many times as long as it usually does before a picture comes late."""
SLACK_S = 0.04
"""And this much later on top: sockets, the event loop, and what else the machine has to do."""
LEAD_S = 1.5
"""Lead kept beyond what is locked; at least one block."""
RISE, FALL = 0.25, 0.05
"""How fast an estimate follows a slower and a quicker sample: settles near the 83rd percentile."""
OUTLIER = 2.0
"""One sample counts as at most this many times the estimate."""
SHARED = 1.5
"""Among other streams a steered block may be seen to take longer, but the worker also lets it wait because it can:
so what is seen counts up to this many times the work."""
SHARED_CUT = 2.0
"""The same where blocks may be cut: a steer then finds no boundary half a block away that gives it slack."""
MOST = 4.0
"""C grows to at most this many times its value at warm-up, however slow the worker gets: it bounds what is decoded
ahead, and a worker that slow can't keep up anyway."""


class Estimate:
    """A cautious running estimate of a duration in seconds."""

    def __init__(self, seed_s: float) -> None:
        self.value_s = max(seed_s, 1e-6)

    def update(self, sample_s: float) -> None:
        sample_s = min(sample_s, OUTLIER * self.value_s)
        self.value_s += (RISE if sample_s > self.value_s else FALL) * (sample_s - self.value_s)


class Costs:
    """What the worker's steps take, seeded from its warm-up and corrected by what is seen.

    Args:
        timings: Measured at the worker's warm-up.
        blocks: Their lengths.
        rate_hz: Pictures a second of the stream.
    """

    def __init__(self, timings: Timings, blocks: Blocks, rate_hz: float) -> None:
        self._passes = timings.passes + 1
        self._latents = {blocks.default, blocks.steer or blocks.default}
        self._shared = SHARED_CUT if blocks.cuts else SHARED
        self._latent_s = PICTURES_PER_LATENT / rate_hz
        self._block = Estimate(timings.block_s)
        self._decode = Estimate(timings.decode_s)
        self._guided = timings.guided
        self.guided = False
        """Whether passes have the second row of guidance."""
        self._steer_share = timings.steer_block_s / timings.block_s
        # From a steer's sending to its clean block, seen only when steers come.
        self._steer = Estimate(timings.steer_block_s + timings.pass_s)
        self.most_s = MOST * self._lock_s()
        """Most that C, and a hold, can grow to."""

    @property
    def block_s(self) -> float:
        """Commit and denoising passes of one default block."""
        return self._block.value_s * self._factor

    @property
    def _factor(self) -> float:
        return self._guided if self.guided else 1.0

    @property
    def pass_s(self) -> float:
        """One pass of a default block."""
        return self.block_s / self._passes

    @property
    def steer_block_s(self) -> float:
        """Commit and denoising passes of a block that begins at a steer."""
        return self._steer_share * self.block_s

    @property
    def decode_s(self) -> float:
        """One latent frame."""
        return self._decode.value_s

    @property
    def lock_s(self) -> float:
        """C. The pass under way when a steer comes has to end first; then commit, passes, one decode.

        Decodes of locked latent frames go first, as they are due first. As long as a block and all its decodes fit in
        the time that it plays they are done early enough to take nothing from C; what doesn't fit is added. A steer's
        block may be shorter, and then leaves less time for the next one.
        """
        return min(self._lock_s(), self.most_s)

    def _lock_s(self) -> float:
        alone_s = self.steer_block_s + self.pass_s
        steer_s = min(max(alone_s, self._steer.value_s * self._factor), self._shared * alone_s)
        overloads_s = (MARGIN * (self.block_s + n * self.decode_s) - n * self._latent_s for n in self._latents)
        return MARGIN * (steer_s + self.decode_s) + SLACK_S + max(0.0, *overloads_s)

    def saw_block(self, compute_s: float, guided: bool = False) -> None:
        """A default block's passes took `compute_s` of the worker's time."""
        self._block.update(compute_s / self._guided if guided else compute_s)

    def saw_decode(self, decode_s: float) -> None:
        """A latent frame's decoding took `decode_s`."""
        self._decode.update(decode_s)

    def saw_steer(self, wall_s: float, guided: bool = False) -> None:
        """A block was clean `wall_s` after the steer that it serves was sent to the worker."""
        self._steer.update(wall_s / self._guided if guided else wall_s)


@dataclass(frozen=True)
class Credit:
    """How far the worker may go (latent frames), and when the next picture that it owes is due."""

    denoise_until: int
    decode_until: int
    due_s: float


class Pacer:
    """Locks in time and places steers. `next_tick_s` is when the next picture is to be released.

    Args:
        timeline: The frontiers; this moves `locked`.
        costs: What work takes.
        lead_s: Lead beyond `locked`.
    """

    def __init__(self, timeline: Timeline, costs: Costs, lead_s: float = LEAD_S) -> None:
        self.timeline = timeline
        self.costs = costs
        latents = timeline.rate_hz * lead_s / PICTURES_PER_LATENT
        self.lead_blocks = max(1, math.ceil(latents / timeline.blocks.default))

    def due_s(self, latent: int, next_tick_s: float) -> float:
        """When the first picture of a latent frame is due, if nothing holds the stream up before."""
        return next_tick_s + self.timeline.until_s(first_picture(latent))

    def lock(self, now_s: float, next_tick_s: float) -> bool:
        """Lock what is due within C, and what is due at the next tick; whether there was anything.

        Locks are made at ticks, so where C is less than a tick, the next one would be too late.
        """
        timeline, before = self.timeline, self.timeline.locked
        while (
            first_picture(timeline.locked) <= timeline.next_picture
            or self.due_s(timeline.locked, next_tick_s) - now_s <= self.costs.lock_s
        ):
            timeline.locked = timeline.next_lock(timeline.locked)
        return timeline.locked != before

    def boundary(self, picture: int = 0, now_s: float = 0.0, next_tick_s: float = math.inf) -> int:
        """The latent frame from which a steer is in force: the first that it can take at or past a picture."""
        timeline, blocks = self.timeline, self.timeline.blocks
        wanted = max(timeline.locked, -(-(picture + 3) // PICTURES_PER_LATENT) if picture > 0 else 0)
        # What isn't locked leaves C, unless guidance has just made that longer. Where each latent frame locks, some
        # decodes may still be owed, and they go first.
        owed = timeline.locked - timeline.next_latent if blocks.cuts else 0
        need_s = self.costs.lock_s + MARGIN * self.costs.decode_s * owed
        wanted = wanted if blocks.cuts else blocks.ceil(wanted)
        while self.due_s(wanted, next_tick_s) - now_s < need_s:
            wanted = timeline.next_lock(wanted)
        return wanted if blocks.cuts and timeline.denoised >= blocks.next(wanted) else blocks.ceil(wanted)

    def credit(self, now_s: float, next_tick_s: float) -> Credit:
        """Decode what is locked; denoise a bounded lead beyond."""
        timeline = self.timeline
        end = timeline.blocks.ceil(timeline.locked)
        for _ in range(self.lead_blocks):
            end = timeline.blocks.next(end)
        due_s = self.due_s(timeline.next_latent, next_tick_s) - now_s
        return Credit(end, timeline.locked, due_s)

    def hold_s(self, latent: int) -> float:
        """How long to hold the picture after a (re)start, when the pictures of `latent` have just arrived.

        The next latent frame needs a decode, perhaps after a pass. The next block, if it isn't clean yet, needs a
        commit, its passes and a decode, after this block's decodes. Until these can be on time, waiting now is better
        than stalling in a moment; but not for ever, where the worker has become too slow to keep up anyway.
        """
        timeline, costs = self.timeline, self.costs
        holds_s = [MARGIN * (costs.pass_s + costs.decode_s) + SLACK_S - timeline.until_s(first_picture(latent + 1))]
        end = timeline.blocks.next(latent)
        if timeline.denoised <= end:
            need_s = MARGIN * (costs.block_s + (end - latent + 1) * costs.decode_s) + SLACK_S
            holds_s.append(need_s - timeline.until_s(first_picture(end)))
        return min(max(0.0, *holds_s), costs.most_s)
