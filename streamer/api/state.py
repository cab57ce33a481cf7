"""What the routes work on, and how they reach it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends
from starlette.requests import HTTPConnection

from streamer.engine.process import Engine
from streamer.session.manager import Sessions
from streamer.session.session import Session
from streamer.settings import Settings


@dataclass(frozen=True)
class State:
    settings: Settings
    sessions: Sessions
    engine: Engine


def state_of(connection: HTTPConnection) -> State:
    state: State = connection.app.state.streamer
    return state


def session_of(stream: str, connection: HTTPConnection) -> Session:
    """The session of a path's `{stream}`: an id, or `main`."""
    return state_of(connection).sessions.get(stream)


StateOf = Annotated[State, Depends(state_of)]
SessionOf = Annotated[Session, Depends(session_of)]
