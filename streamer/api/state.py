"""What the routes work on, and how they reach it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from fastapi import Depends
from starlette.requests import HTTPConnection

from streamer.api.idempotency import Idempotency
from streamer.api.rates import SteerRates
from streamer.clips.manager import Clips
from streamer.engine.process import Engine
from streamer.engine.protocol import Ready
from streamer.media.whep import WhepResource
from streamer.session.errors import NotReady
from streamer.session.manager import Sessions
from streamer.session.session import Session
from streamer.settings import Settings


@dataclass(frozen=True)
class State:
    settings: Settings
    sessions: Sessions
    engine: Engine
    clips: Clips
    idempotency: Idempotency = field(default_factory=Idempotency)
    rates: SteerRates = field(default_factory=SteerRates)
    connections: dict[str, WhepResource] = field(default_factory=dict)
    """WebRTC viewers by the id of their WHEP resource."""

    @property
    def ready(self) -> Ready:
        """The warm worker's word. Raises `NotReady`."""
        if self.engine.ready is None:
            raise NotReady(f"the model is warming up: {self.engine.progress.what}", retry_after_s=1.0)
        return self.engine.ready


def state_of(connection: HTTPConnection) -> State:
    state: State = connection.app.state.streamer
    return state


async def session_of(stream: str, connection: HTTPConnection) -> Session:
    """The running session of a path's `{stream}`: an id, or `main`. Raises `StreamUnknown`, `StreamEnded`."""
    session = state_of(connection).sessions.get(stream)
    session.check_running()
    return session


async def _state(connection: HTTPConnection) -> State:
    # A coroutine: plain functions are run in threads, and everything here belongs to the event loop.
    return state_of(connection)


StateOf = Annotated[State, Depends(_state)]
SessionOf = Annotated[Session, Depends(session_of)]
