"""What a session needs of its neighbours, and no more: the engine, a hub, and whoever deals the slots."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from streamer.engine.protocol import Message, Ready, Stats

if TYPE_CHECKING:
    from streamer.session.session import Session


class EngineLike(Protocol):
    """`streamer.engine.process.Engine`."""

    @property
    def ready(self) -> Ready | None: ...
    @property
    def stats(self) -> Stats | None: ...
    def send(self, message: Message) -> bool: ...
    def listen(self, stream: str, callback: Callable[[Message], None]) -> Callable[[], None]: ...
    def on_down(self, callback: Callable[[str], None]) -> None: ...
    def on_up(self, callback: Callable[[Ready], None]) -> None: ...


class MakeHub(Protocol):
    """`streamer.media.hub.Hub`: has `viewers`, `release(i420, tick)` and `close()`, and the ways to watch.

    `on_viewers(count)` and `on_failure(reason)` are called in the event loop.
    """

    def __call__(
        self,
        width: int,
        height: int,
        rate_hz: float,
        on_viewers: Callable[[int], None],
        *,
        on_failure: Callable[[str], None],
    ) -> Any: ...


class Slots(Protocol):
    """Who deals the worker's slots: `Sessions`."""

    def request(self, session: Session) -> None:
        """Call `session.open()` as soon as there is a slot for it."""

    def release(self, session: Session) -> None:
        """The session holds none and wants none."""

    def left(self, session: Session) -> None:
        """Nobody watches the session any more, or it takes more or less of the machine than before."""

    def admit_guidance(self, session: Session) -> None:
        """Whether the session may take a second row. Raises `GuidanceTooCostly`, `CapacityFull`."""
