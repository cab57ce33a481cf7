"""From a prompt to the boundary where it takes effect, to the log."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from streamer.engine.info import ModelInfo
from streamer.engine.protocol import Denoised
from streamer.session import log, loras, spec
from streamer.session.capacity import is_guided
from streamer.session.errors import LogCut
from streamer.session.pacing import Pacer
from streamer.session.reports import Reports
from streamer.session.spec import StreamSpec
from streamer.session.steers import FROM_LOG, MAX_LOCKED, Steer, SteerBook


class Steering:
    """Places a stream's steers, locks them, and keeps the log.

    Args:
        wanted: The stream's first prompt, and the steers of the log that it was created from.
        model: What prompts are checked against.
        pacer: Where steers may go.
        reports: Where their ways are told.
        admit_guidance: Raises if the machine has no room for a second row of this stream.
        endless: Whether it takes steers for ever, at the price of its log. Only where snapshots are taken: without
            one the log alone can open the stream again.
    """

    def __init__(
        self,
        wanted: StreamSpec,
        model: ModelInfo,
        pacer: Pacer,
        reports: Reports,
        admit_guidance: Callable[[], None],
        *,
        endless: bool = False,
    ) -> None:
        self._model = model
        self._pacer = pacer
        self._reports = reports
        self.book = SteerBook(_steer(wanted.header, 0), pacer.timeline.blocks.places)
        for entry in wanted.log.steers if wanted.log else ():
            self.book.add(_steer(entry, entry.at_latent))
        self._admit_guidance = admit_guidance
        self._endless = endless
        self._log: list[str] | None = [log.encode(wanted.header)]
        self._weigh()

    @property
    def log(self) -> list[str]:
        """The recipe so far, a line each.

        Raises:
            LogCut: it grew too long to keep.
        """
        if self._log is None:
            raise LogCut(f"no log: the stream has had over {MAX_LOCKED} steers, and goes on without one")
        return self._log

    @property
    def log_bytes(self) -> int:
        return sum(map(len, self._log or ()))

    @property
    def guided(self) -> bool:
        """Whether what is made now, or will be as far as is known, takes the second row of guidance."""
        return self._pacer.costs.guided

    def is_guided(self, latent: int) -> bool:
        """Whether a block that begins at a latent frame is."""
        return is_guided(self.book.in_force(latent).guidance_scale, self._model)

    def _weigh(self) -> bool:
        """Whether it has just become guided, or no longer is."""
        costs = self._pacer.costs
        before = costs.guided
        coming = self.book.from_(self._pacer.timeline.next_latent)
        costs.guided = any(is_guided(steer.guidance_scale, self._model) for steer in coming)
        return costs.guided != before

    def ask(
        self,
        prompt: str,
        at: object,
        actor: str,
        now_s: float,
        next_tick_s: float | None,
        *,
        motion_score: int | None,
        negative_prompt: str | None,
        guidance_scale: float | None,
        adapters: loras.Wanted | None,
    ) -> Steer:
        """Put a steer at its boundary, and tell; see `Session.steer`. `next_tick_s` is None while nothing plays."""
        spec.steer_values(self._model, prompt, motion_score, negative_prompt, guidance_scale)
        wait_s = spec.wait_s(at)
        timeline = self._pacer.timeline
        picture = timeline.next_picture + math.ceil(wait_s * timeline.rate_hz) if wait_s > 0 else 0
        tick_s = math.inf if next_tick_s is None else next_tick_s
        if guidance_scale is not None and is_guided(guidance_scale, self._model) and not self.guided:
            self._admit_guidance()
            self._pacer.costs.guided = True  # its first block is the first that takes so long
        latent = self._pacer.boundary(picture, now_s, tick_s)
        before = self.book.in_force(latent)
        due_s = self._pacer.due_s(latent, tick_s)
        steer = Steer(
            spec.prompt(prompt, self._model),
            actor,
            latent,
            motion_score=before.motion_score if motion_score is None else motion_score,
            negative_prompt=before.negative_prompt if negative_prompt is None else negative_prompt,
            guidance_scale=before.guidance_scale if guidance_scale is None else guidance_scale,
            loras=loras.chosen(adapters, self._model, before.loras),
            asked_s=now_s,
            urgent=wait_s == 0,
            eta_s=due_s - now_s if math.isfinite(due_s) else None,
        )
        steer.warnings = spec.warnings(self._model, steer.motion_score, steer.negative_prompt, steer.guidance_scale)
        if self._endless and self.book.full:
            self.book.forget()
            self._log = None
        try:
            replaced = self.book.add(steer)
        finally:
            self._weigh()
        if replaced is not None:
            self._reports.steer(replaced, by=steer.id)
        self._reports.steer(steer)
        return steer

    def cancel(self, id: str, actor: str) -> Steer:
        """Take back a steer that waits, and tell. Raises SteerUnknown, SteerLocked."""
        steer = self.book.cancel(id)
        self._weigh()
        self._reports.steer(steer, actor=actor)
        return steer

    def sent(self, from_latent: int, now_s: float) -> None:
        """The worker makes everything past a boundary anew."""
        for steer in self.book.pending:
            if steer.at_latent >= from_latent:
                steer.sent_s, steer.clean_s = now_s, None

    def clean(self, block: Denoised, now_s: float, playing: bool) -> Steer:
        """A block was made; gives the steer it was made under."""
        steer = self.book.in_force(block.first_latent)
        if steer.at_latent == block.first_latent and steer.clean_s is None and steer.sent_s is not None:
            steer.clean_s = now_s
            if steer.urgent and playing:
                self._pacer.costs.saw_steer(now_s - steer.sent_s, is_guided(steer.guidance_scale, self._model))
        return steer

    def lock(self) -> None:
        """Write the steers below the locked frontier into the log."""
        for steer in self.book.lock(self._pacer.timeline.locked):
            if self._log is not None:
                self._log.append(log.encode(log.entry(steer.message())))
            self._reports.steer(steer)

    def released(self, picture: int, now_s: float) -> bool:
        """A picture was released: perhaps the first one of a steer. Whether the stream is guided no longer."""
        steers = self.book.release(picture)
        for steer in steers:
            timing: dict[str, Any] = {}
            if steer.actor != FROM_LOG:
                timing["latency_s"] = steer.latency_s = round(now_s - steer.asked_s, 4)
            if steer.latency_s is not None and steer.sent_s is not None and steer.clean_s is not None:
                compute_s = steer.clean_s - steer.sent_s + self._pacer.costs.decode_s
                timing["compute_s"] = round(compute_s, 4)
                timing["wait_s"] = round(max(0.0, steer.latency_s - compute_s), 4)
            self._reports.steer(steer, **timing)
        return bool(steers) and self._weigh()

    def fail(self, reason: str) -> None:
        """The stream is over."""
        for steer in self.book.fail(reason):
            if steer.actor != FROM_LOG:  # nobody was told of those, and there may be thousands
                self._reports.steer(steer)


def _steer(line: log.Header | log.Entry, at_latent: int) -> Steer:
    return Steer(
        line.prompt,
        FROM_LOG,
        at_latent,
        motion_score=line.motion_score,
        negative_prompt=line.negative_prompt,
        guidance_scale=line.guidance_scale,
        loras=line.loras,
    )
