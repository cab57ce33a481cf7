"""A session's line to the worker: its slot, its epochs, and which of the worker's messages still count."""

from __future__ import annotations

from collections.abc import Callable

from streamer.engine import protocol
from streamer.engine.protocol import Close, Denoised, Message, Open, Reschedule, TakeSnapshot
from streamer.session.pacing import Credit
from streamer.session.ports import EngineLike

KEPT_RESCHEDULES = 64
"""The worker is never this many behind: one pass lies between two looks at its messages."""


class WorkerLink:
    """Sends for one stream while it holds a slot, and drops what comes from an earlier life.

    Args:
        engine: Where messages go.
        stream: Id of the stream.
        receive: Takes the messages that count.
    """

    def __init__(self, engine: EngineLike, stream: str, receive: Callable[[Message], None]) -> None:
        self._engine = engine
        self._stream = stream
        self._receive = receive
        self._epoch = 0
        self._opened_epoch = 0
        self._rescheduled: list[tuple[int, int]] = []
        self._stop = engine.listen(stream, self._filter)
        self.open = False
        """Whether the stream holds a slot."""

    @property
    def decode_s(self) -> float | None:
        """The worker's recent seconds a decoded latent frame."""
        stats = self._engine.stats
        return stats.decode_s if stats is not None and stats.decode_s > 0 else None

    def start(
        self,
        *,
        seed: int,
        height: int,
        width: int,
        rate_hz: float,
        steers: list[protocol.Steer],
        image: bytes | None,
        snapshot: bytes | None,
        decode_from: int,
    ) -> None:
        """Open the stream on the worker; see `protocol.Open`."""
        self.open = True
        self._epoch += 1
        self._opened_epoch = self._epoch
        self._rescheduled = []
        message = Open(
            stream=self._stream,
            epoch=self._epoch,
            seed=seed,
            height=height,
            width=width,
            rate_hz=rate_hz,
            steers=steers,
            image=image,
            snapshot=snapshot,
            decode_from=decode_from,
        )
        self._engine.send(message)

    def reschedule(self, from_latent: int, steers: list[protocol.Steer]) -> None:
        """Replace the steers at or past a boundary; what was made past it counts no more."""
        if self.open:
            self._epoch += 1
            self._rescheduled = [*self._rescheduled[1 - KEPT_RESCHEDULES :], (self._epoch, from_latent)]
            message = Reschedule(stream=self._stream, epoch=self._epoch, from_latent=from_latent, steers=steers)
            self._engine.send(message)

    def credit(self, credit: Credit) -> None:
        """Say how far the worker may go."""
        if self.open:
            message = protocol.Credit(
                stream=self._stream,
                epoch=self._epoch,
                denoise_until=credit.denoise_until,
                decode_until=credit.decode_until,
                due_s=credit.due_s,
            )
            self._engine.send(message)

    def ask_snapshot(self, at_most: int) -> None:
        """Ask for the newest boundary at or below a latent frame."""
        if self.open:
            self._engine.send(TakeSnapshot(stream=self._stream, epoch=self._epoch, at_most=at_most))

    def close(self) -> None:
        """Give the slot back."""
        if self.open:
            self._engine.send(Close(stream=self._stream, epoch=self._epoch))
            self.open = False

    def lost(self) -> None:
        """The worker holds the stream no more."""
        self.open = False

    def stop(self) -> None:
        """Listen no more."""
        self.close()
        self._stop()

    def _filter(self, message: Message) -> None:
        if not self.open or getattr(message, "epoch", 0) < self._opened_epoch:
            return
        if isinstance(message, Denoised) and any(
            epoch > message.epoch and message.first_latent >= latent for epoch, latent in self._rescheduled
        ):
            return
        self._receive(message)
