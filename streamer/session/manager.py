"""All streams of a server: who exists, who holds a slot of the worker, and `main`, which everybody shares."""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Sequence

import msgspec

from streamer.engine.protocol import Ready
from streamer.media.hub import Hub
from streamer.session.capacity import Share, fits, guidance_too_costly, is_guided, share
from streamer.session.errors import CapacityFull, ClipsOnly, NotReady, StreamUnknown
from streamer.session.ports import EngineLike, MakeHub
from streamer.session.session import Session
from streamer.session.spec import CreateStream, stream_spec
from streamer.session.states import Status
from streamer.settings import Settings

logger = logging.getLogger(__name__)

MAIN = "main"
MAX_RUNNING = 64
"""Streams that are not over; the one nobody has watched for longest ends for a new one."""
MAX_KEPT_BYTES = 2 << 30
KEPT_OVER = 256
KEPT_LOG_BYTES = 64 << 20
OVER_FOR_S = 3600.0
"""Ended streams answer 410 and give their log for this long, unless newer ones need the room."""
RETRY_AFTER_S = 5.0
MAIN_BACK_S = 5.0
"""When `main` is lost for good, a new one opens after this long."""


class Sessions:
    """Creates and finds streams, and deals the worker's slots.

    Args:
        engine: The worker's handle.
        settings: The server's.
        make_hub: Makes a stream's hub.
    """

    def __init__(self, engine: EngineLike, settings: Settings, make_hub: MakeHub = Hub) -> None:
        self._engine = engine
        self._settings = settings
        self._make_hub = make_hub
        self._sessions: OrderedDict[str, Session] = OrderedDict()
        self._over: OrderedDict[str, float] = OrderedDict()
        self._over_bytes = 0
        self._main: Session | None = None
        self._holders: set[Session] = set()
        self._waiting: list[Session] = []
        self._main_prompt = settings.prompt or ""
        self._main_timer: asyncio.TimerHandle | None = None
        self._no_streams: str | None = None
        self._closed = False

    async def start(self, ready: Ready) -> None:
        """Open `main`, if the checkpoint streams. Call once, when the engine is ready.

        Raises:
            ClipsOnly: a first prompt is given for a `main` that there can't be.
        """
        self._no_streams = ready.model.no_streams
        if self._no_streams is not None:
            if self._main_prompt:
                self.require_streams()
            return
        self._main_prompt = self._main_prompt or ready.model.prompt
        self._engine.on_down(self._worker_down)
        self._engine.on_up(self._worker_up)
        self._open_main()

    async def close(self) -> None:
        """End all streams and tell their viewers."""
        self._closed = True
        if self._main_timer is not None:
            self._main_timer.cancel()
        await asyncio.gather(*(session.end("the server stops") for session in self._sessions.values()))

    @property
    def capacity(self) -> int:
        """Streams that may run at once; 0 while there is no worker, and where there are none."""
        ready = self._engine.ready
        if ready is None or self._no_streams is not None:
            return 0
        most = min(ready.capacity, ready.slots)
        return max(1, most if self._settings.max_streams is None else min(most, self._settings.max_streams))

    @property
    def main(self) -> Session:
        """The stream that everybody shares.

        Raises:
            NotReady: the model is warming up.
        """
        if self._main is None:
            raise NotReady("the model is warming up", retry_after_s=1.0)
        return self._main

    def require_streams(self) -> None:
        """Raise `ClipsOnly` where the checkpoint makes no streams; says why and what to ask for instead."""
        if self._no_streams is not None:
            message = (
                f"this checkpoint makes clips, not streams: {self._no_streams}; ask for one with POST /v1/videos"
            )
            raise ClipsOnly(message, instead="/v1/videos")

    def is_main(self, session: Session) -> bool:
        """Whether this is the stream that everybody shares."""
        return session is self._main

    def create(self, wanted: CreateStream) -> Session:
        """Create a stream; it starts as soon as the stream whose slot it gets has given it up.

        Raises:
            NotReady: the worker is not up.
            ClipsOnly: the checkpoint makes no streams.
            Invalid, LogError: the request can't be met by this model.
            CapacityFull: streams that somebody watches leave no room.
            GuidanceTooCostly: at its rate there is never room for its guidance.
        """
        ready = self._engine.ready
        if ready is None or self._closed:
            raise NotReady("the model is warming up", retry_after_s=1.0)
        self.require_streams()
        checked = stream_spec(wanted, ready)
        lines = (checked.header, *(checked.log.steers if checked.log else ()))
        guided = any(is_guided(line.guidance_scale, ready.model) for line in lines)
        self._admit(share(guided, checked.header.rate_hz, ready), None, ready)
        self._make_room()
        session = Session(checked, ready, self._engine, self._make_hub, self)
        self._sessions[session.id] = session
        self.request(session)
        return session

    def get(self, id: str) -> Session:
        """A stream by its id or `main`, also one that is over.

        Raises:
            StreamUnknown: there is none, or it ended long ago.
            NotReady: `main` is asked for while the model warms up.
            ClipsOnly: the checkpoint makes no streams.
        """
        self.require_streams()
        if id == MAIN:
            return self.main
        self._forget()
        session = self._sessions.get(id)
        if session is None:
            raise StreamUnknown(f"no stream {id!r} here", field="stream")
        return session

    def list(self) -> Sequence[Session]:
        """All streams, those that ended lately included, oldest first."""
        self._forget()
        return [*self._sessions.values()]

    # Slots: what a session calls

    def request(self, session: Session) -> None:
        """Open the session as soon as there is a slot for it."""
        if session not in self._holders and session not in self._waiting:
            self._waiting.append(session)
        self._deal()

    def release(self, session: Session) -> None:
        """The session holds no slot and waits for none."""
        self._holders.discard(session)
        if session in self._waiting:
            self._waiting.remove(session)
        if session.over and session.id in self._sessions and session.id not in self._over:
            self._over[session.id] = asyncio.get_running_loop().time()
            self._over_bytes += session.log_bytes
            self._forget()
            if session is self._main and not self._closed:
                self._replace_main(session)
        self._deal()

    def left(self, session: Session) -> None:
        """Nobody watches the session any more, or it takes more or less of the machine: others may have its slot."""
        self._deal()

    def admit_guidance(self, session: Session) -> None:
        """Whether the session may take a second row.

        Raises:
            NotReady, GuidanceTooCostly, CapacityFull.
        """
        ready = self._engine.ready
        if ready is None:
            raise NotReady("the model is warming up", retry_after_s=1.0)
        self._admit(share(True, session.rate_hz, ready), session, ready)

    def _admit(self, wanted: Share, session: Session | None, ready: Ready) -> None:
        """Raise unless there is room beside the other streams that are watched."""
        most = self._settings.max_streams
        guided = wanted != share(False, ready.rate_hz, ready)
        if not fits([wanted], ready, most):
            raise guidance_too_costly(ready)
        taken = [one for one in (*self._holders, *self._waiting) if one.watched and one is not session]
        if fits([*(one.share for one in taken), wanted], ready, most):
            return
        places = f"all {self.capacity} places are watched"
        if guided:
            places = f"guidance takes two of {self.capacity} places, others hold {len(taken)} that are watched"
        raise CapacityFull(
            places,
            field="guidance_scale" if guided else None,
            limit=self.capacity,
            retry_after_s=RETRY_AFTER_S,
            streams=[MAIN if one is self._main else one.id for one in taken],
        )

    def _deal(self) -> None:
        """Give free slots to those who wait; ask those whom nobody watches to yield theirs."""
        ready, most = self._engine.ready, self._settings.max_streams
        if ready is None:
            return
        self._waiting.sort(key=lambda session: not session.watched)
        for session in [*self._waiting]:
            held = [holder.share for holder in self._holders]
            # Alone it may run even where guidance is more than the machine holds: another machine let it begin.
            if session in self._waiting and (not held or fits([*held, session.share], ready, most)):
                self._waiting.remove(session)
                self._holders.add(session)
                session.open()
        # Whoever waits unwatched, without being new, takes no slot away: two such streams would take turns for ever.
        urgent = [session for session in self._waiting if session.watched or session.status is Status.STARTING]
        leaving = self._leaving()
        needed = [one.share for one in (*urgent, *self._holders) if not one.leaving]
        for index, session in enumerate(leaving):
            if fits([*needed, *(one.share for one in leaving[index:])], ready, most):
                break
            session.park(evicted=True)  # its slot is counted on from now
        if not fits(needed, ready, most) and (free := self._unwatched()):
            free[0].park(evicted=True)
            self._deal()  # anew: a stream without a picture yields at once, and who waits has its slot already

    def _unwatched(self) -> Sequence[Session]:
        """Slot holders that can yield, the longest unwatched first."""
        free = [session for session in self._holders if not session.watched and not session.leaving]
        return sorted(free, key=lambda session: session.unwatched_since_s or 0.0)

    def _leaving(self) -> Sequence[Session]:
        return [session for session in self._holders if session.leaving]

    # The worker's life

    def _worker_down(self, reason: str) -> None:
        holders = [*self._holders]
        self._holders.clear()
        for session in holders:
            session.lost(reason)

    def _worker_up(self, ready: Ready) -> None:
        self._deal()

    # Main, and what is kept

    def _open_main(self) -> None:
        ready = self._engine.ready
        if ready is None or self._closed:
            self._main_timer = asyncio.get_running_loop().call_later(MAIN_BACK_S, self._open_main)
            return
        checked = stream_spec(CreateStream(prompt=self._main_prompt, seed=self._settings.seed), ready)
        checked = msgspec.structs.replace(checked, idle_timeout_s=None)
        main = Session(checked, ready, self._engine, self._make_hub, self, keeps_on=True)
        self._sessions[main.id] = self._main = main
        self.request(main)

    def _replace_main(self, old: Session) -> None:
        logger.warning("main is %s (%s): a new one opens", old.status, old.reason)
        delay_s = MAIN_BACK_S if old.status is Status.FAILED else 0.0
        self._main_timer = asyncio.get_running_loop().call_later(delay_s, self._open_main)

    def _make_room(self) -> None:
        """Bound the streams that are not over, by number and by what they keep while parked."""
        running = [session for session in self._sessions.values() if not session.over]
        idle = [session for session in running if not session.watched and session is not self._main]
        idle.sort(key=lambda session: session.unwatched_since_s or 0.0)
        kept = sum(session.kept_bytes for session in running)
        count = len(running)
        for session in idle:
            if count < MAX_RUNNING and kept <= MAX_KEPT_BYTES:
                return
            count, kept = count - 1, kept - session.kept_bytes
            session.finish(Status.ENDED, "nobody watched, and newer streams needed the room")

    def _forget(self) -> None:
        """Drop streams that have been over for long, or the oldest of too many."""
        now_s = asyncio.get_running_loop().time()
        while self._over:
            id, at_s = next(iter(self._over.items()))
            room = len(self._over) <= KEPT_OVER and (self._over_bytes <= KEPT_LOG_BYTES or len(self._over) == 1)
            if now_s - at_s < OVER_FOR_S and room:
                return
            del self._over[id]
            self._over_bytes -= self._sessions.pop(id).log_bytes
