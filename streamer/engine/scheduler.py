"""Which steps run next: the streams' frontiers and credit in, one job out. Pure: no torch, no clock, no sockets.

A job is one transformer pass for a batch of streams, or one latent frame decoded for one stream. The stream whose
next step has to start soonest goes first: a decode must start `decode_s` before its first picture is due, a pass
`passes left x pass_s + decode_s` before the first picture of its block is. No credit, no work.

A clip gets what streams leave: one unit of its work when no stream has any, and only if it ends before the moment at
which the most urgent stream would have to start, were it steered at the last possible boundary while the unit runs.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass

from streamer.engine.protocol import first_picture

CATCH_UP_SLACK_S = 0.25
"""A stream that runs forward unseen (opened from a log or a snapshot) has this slack at best and at worst: it gives
way to streams that would be late otherwise, and to no others."""
UNIT_MARGIN = 1.2
"""A clip's unit may take this many times as long as it lately did before a stream's work starts late."""
UNIT_SLACK_S = 0.01
"""And this much longer."""
FAIR_OVER_S = 4.0
OVERLOAD, GREEDY, GREEDY_SLACK_S = 0.97, 1.2, 0.1
"""Where the worker had work for so much of the last seconds, a stream that took so many times its share (its log's
steers stand closer than the machine can follow) goes behind those that have to start within the slack."""
MAX_LEAD_LATENTS = 128
"""However much credit there is, a stream goes no further ahead of its decoder: every block boundary there is kept."""


@dataclass(slots=True)
class Frontier:
    """How far one stream is and how far it may go. Latent frames, absolute; times on the worker's monotonic clock."""

    stream: str
    rate_hz: float
    block_start: int
    """First latent frame of the block under way or next."""
    block_latents: int
    passes_left: int
    """Passes that block still needs, its commit included."""
    decode_next: int
    """Next latent frame to decode; those below it were sent or never wanted."""
    block_passes: int = 0
    """Passes of any later block, its commit included: what a steer at a boundary costs."""
    shape: Hashable = None
    """Streams share a pass only when this is equal."""
    rows: int = 1
    """Rows of a pass that it takes: two with guidance."""
    share: float = 0.0
    """Of the time, lately, that was spent on it: 0 to 1."""
    alone: bool = False
    """Share a pass with nobody."""
    primed: bool = True
    """Whether the decoder has heard the latent frames before `decode_next`."""
    denoise_until: int = 0
    decode_until: int = 0
    due_s: float = float("inf")
    """When the first picture of `due_latent` is due."""
    due_latent: int = 0

    def credit(self, denoise_until: int, decode_until: int, due_s: float) -> None:
        """Take a cumulative credit; `due_s` is when the next picture to be sent is due."""
        self.denoise_until = max(self.denoise_until, denoise_until)
        self.decode_until = max(self.decode_until, decode_until)
        self.due_s = due_s
        self.due_latent = self.decode_next

    def latest_start(self, costs: Costs) -> float:
        """The latest moment to start whatever may come next, credited or not: a decode, a block, a steered block."""
        decode_s = self.due(self.decode_next) - costs.decode_s
        block_s = self.due(self.block_start) - self.passes_left * self.rows * costs.pass_s - costs.decode_s
        # The boundary that locks next may be steered until it does, and its block then begins anew.
        steered = max(self.decode_until, self.decode_next)
        steer_s = self.due(steered) - self.block_passes * self.rows * costs.pass_s - costs.decode_s
        return min(decode_s, block_s, steer_s)

    def due(self, latent: int) -> float:
        """When the first picture of a latent frame is due."""
        return self.due_s + (first_picture(latent) - first_picture(self.due_latent)) / self.rate_hz

    @property
    def can_pass(self) -> bool:
        """Whether the block under way, or the next one, may be worked on."""
        ahead = self.block_start - self.decode_next
        return self.block_start < self.denoise_until and ahead < MAX_LEAD_LATENTS

    @property
    def can_decode(self) -> bool:
        """Whether a clean latent frame waits and may be decoded."""
        return self.primed and self.decode_next < min(self.decode_until, self.block_start)

    @property
    def can_prime(self) -> bool:
        """Whether the decoder has to hear the latent frames before the first one wanted, and they are all clean."""
        return not self.primed and self.decode_next < self.decode_until and not self.catching_up

    @property
    def catching_up(self) -> bool:
        """Whether it still has to reach the first latent frame that is wanted."""
        return self.block_start < self.decode_next


@dataclass(frozen=True, slots=True)
class Costs:
    """Recent seconds a pass (of one stream) and a decoded latent frame."""

    pass_s: float
    decode_s: float


@dataclass(frozen=True, slots=True)
class Passes:
    """One transformer pass for these streams together."""

    streams: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Decode:
    """Decode the next latent frame of this stream."""

    stream: str


@dataclass(frozen=True, slots=True)
class Prime:
    """Let the decoder of this stream hear the latent frames before the first one wanted."""

    stream: str


@dataclass(frozen=True, slots=True)
class Unit:
    """One unit of a clip's work: a transformer pass, or a latent frame decoded."""

    clip: str
    cost_s: float
    """Seconds that it is expected to take."""


Job = Passes | Decode | Prime | Unit


def account(frontiers: Iterable[Frontier], job: Job, took_s: float, since_s: float) -> None:
    """Note what a job took of each stream's share of the time.

    Args:
        frontiers: All open streams.
        job: What was done.
        took_s: Seconds.
        since_s: Seconds since the last call, these included.
    """
    streams = job.streams if isinstance(job, Passes) else () if isinstance(job, Unit) else (job.stream,)
    fade = math.exp(-since_s / FAIR_OVER_S)
    for frontier in frontiers:
        spent_s = took_s / len(streams) if frontier.stream in streams else 0.0
        frontier.share = frontier.share * fade + spent_s / FAIR_OVER_S


def next_job(
    frontiers: Sequence[Frontier], now_s: float, costs: Costs, max_batch: int = 1, idle: Unit | None = None
) -> Job | None:
    """The job to run now, or None when no stream has both work and credit, and the clip has no time or no work.

    Args:
        frontiers: All open streams.
        now_s: The worker's monotonic clock.
        costs: What steps take, to know when they have to start.
        max_batch: Most rows in one pass.
        idle: The clip's next unit, if a clip has work.
    """
    best: tuple[float, str] | None = None
    rows = sum(frontier.rows for frontier in frontiers)
    overloaded = sum(frontier.share for frontier in frontiers) > OVERLOAD
    job: Job | None = None
    passes: list[tuple[float, Frontier]] = []
    for frontier in frontiers:
        for start_s, candidate in _candidates(frontier, now_s, costs):
            if isinstance(candidate, Passes):
                passes.append((start_s, frontier))
            greedy = overloaded and frontier.share > GREEDY * frontier.rows / rows
            turn_s = max(start_s, now_s + GREEDY_SLACK_S) if greedy else start_s
            if best is None or (turn_s, frontier.stream) < best:
                best, job = (turn_s, frontier.stream), candidate
    if isinstance(job, Passes) and max_batch > 1:
        return _batch(job.streams[0], passes, max_batch)
    if job is None and idle is not None and _fits(idle, frontiers, now_s, costs):
        return idle
    return job


def _fits(unit: Unit, frontiers: Iterable[Frontier], now_s: float, costs: Costs) -> bool:
    """Whether a clip's unit ends before any stream must start work; those without work are asked."""
    end_s = now_s + UNIT_MARGIN * unit.cost_s + UNIT_SLACK_S
    # A stream whose next picture was due in the past, and that yet has no work, is paused: its clock stands.
    return all(
        end_s <= frontier.latest_start(costs) for frontier in frontiers if frontier.due(frontier.decode_next) > now_s
    )


def _candidates(frontier: Frontier, now_s: float, costs: Costs) -> list[tuple[float, Job]]:
    """What one stream could do next, each with the latest moment to start it; at most a pass and a decode."""
    found: list[tuple[float, Job]] = []
    if frontier.can_prime:
        start_s = frontier.due(frontier.decode_next) - costs.decode_s
        found.append((min(start_s, now_s + CATCH_UP_SLACK_S), Prime(frontier.stream)))
    elif frontier.can_decode:
        found.append((frontier.due(frontier.decode_next) - costs.decode_s, Decode(frontier.stream)))
    if frontier.can_pass:
        if frontier.catching_up:
            start_s = now_s + CATCH_UP_SLACK_S
        else:
            work_s = frontier.passes_left * frontier.rows * costs.pass_s + costs.decode_s
            start_s = frontier.due(frontier.block_start) - work_s
        found.append((start_s, Passes((frontier.stream,))))
        decode_first = found[0][0] <= now_s + frontier.rows * costs.pass_s
        if len(found) == 2 and start_s < now_s and decode_first:
            # The block will be late. Nothing is won if the pictures before it, which are due now, are too.
            found[0] = (min(found[0][0], start_s), found[0][1])
    return found


def _batch(first: str, passes: list[tuple[float, Frontier]], max_batch: int) -> Passes:
    """The most urgent stream and the next most urgent ones that can share its pass."""
    leader = next(frontier for _, frontier in passes if frontier.stream == first)
    if leader.alone:
        return Passes((first,))
    chosen, free = [first], max_batch - leader.rows
    for _, frontier in sorted(passes, key=lambda one: (one[0], one[1].stream)):
        if frontier is leader or frontier.alone or frontier.shape != leader.shape or frontier.rows > free:
            continue
        chosen.append(frontier.stream)
        free -= frontier.rows
    return Passes(tuple(chosen))
