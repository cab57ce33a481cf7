"""Sessions over the real worker (a tiny checkpoint) and the real hub: what was shown is what the log says."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import io
import json
import os
import signal
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import pytest_asyncio
from PIL import Image
from tiny import save_tiny_model
from tiny_lora import save_tiny_lora

from streamer.engine.blocks import Blocks
from streamer.engine.process import Engine
from streamer.media.hub import Hub
from streamer.session import playback as playback_module
from streamer.session import session as session_module
from streamer.session.manager import Sessions
from streamer.session.session import Session
from streamer.session.spec import CreateStream
from streamer.session.states import Status
from streamer.session.steers import Steer, SteerStatus
from streamer.settings import Settings

pytestmark = pytest.mark.asyncio(loop_scope="module")
TIMEOUT_S = 60.0


class RecordingHub(Hub):
    """The real hub, and hashes of what was released to it."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.hashes: list[bytes] = []
        self.ticks: list[int] = []

    def release(self, i420: bytes, tick: int) -> None:
        digest = hashlib.sha256(i420).digest()
        # Equal neighbours are taken for repeats: a tiny model never makes two equal pictures in a row.
        if not self.hashes or self.hashes[-1] != digest:
            self.hashes.append(digest)
        self.ticks.append(tick)
        super().release(i420, tick)


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[tuple[Engine, Sessions]]:
    """One server for this file: a worker takes seconds to start. Steers may cut blocks."""
    cuts = {"block_latent_frames": [3, 1, 2], "steer_block_latent_frames": 2, "cut_blocks": True}
    engine = await Engine.start(save_tiny_model(tmp_path_factory.mktemp("cuts"), **cuts), rate_hz=16, threads=1)
    sessions = Sessions(engine, Settings(prompt="the sea by day", seed=5), RecordingHub)
    try:
        await sessions.start(await engine.wait_ready())
        yield engine, sessions
    finally:
        await sessions.close()
        await engine.close()


@contextlib.asynccontextmanager
async def watched(session: Session) -> AsyncIterator[None]:
    """Somebody watches: takes the video as a browser would."""

    async def watch() -> None:
        with session.hub.fragments() as viewer:
            await viewer.start()
            async for _ in viewer:
                pass

    watching = asyncio.create_task(watch())
    try:
        yield
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)


async def seen(session: Session, wanted: Callable[[], bool]) -> None:
    """Wait until something is so, looking at each event (there is at least one a second)."""
    async with asyncio.timeout(TIMEOUT_S):
        if wanted():
            return
        async for _ in session.events.follow(after=session.events.seq):
            if wanted():
                return
        assert wanted()


async def reached(session: Session, picture: int) -> None:
    await seen(session, lambda: session.picture >= picture)


async def released(session: Session, steer: Steer) -> None:
    await seen(session, lambda: steer.status is SteerStatus.RELEASED)


async def cut(session: Session) -> None:
    """Steer until a steer has cut a block: of three latent frames one is a boundary anyway."""
    while True:
        before = Blocks(3, 3, 2, True, [steer.at_latent for steer in session.steers])
        steer = session.steer(f"a forest {len(before.places)}")
        await released(session, steer)
        if before.floor(steer.at_latent) != steer.at_latent:
            return


async def check_replay(sessions: Sessions, session: Session) -> None:
    """A stream from the log shows the same pictures, bit for bit."""
    log, shown = session.log_lines(), list(session.hub.hashes)
    assert len(shown) == session.picture + 1, "each picture once, and no two alike"
    assert session.hub.ticks == list(range(len(session.hub.ticks)))
    await session.end("seen enough")
    again = sessions.create(CreateStream(log="\n".join(log)))
    async with watched(again):
        await reached(again, len(shown) - 1)
        assert again.hub.hashes[: len(shown)] == shown
        assert again.log_lines() == log
    await again.end()


async def test_a_log_run_again_gives_bit_identical_pictures(server: tuple[Engine, Sessions]) -> None:
    _, sessions = server
    session = sessions.create(CreateStream(prompt="the sea by day", seed=11))
    async with watched(session):
        await released(session, session.steer("the sea at night"))
        await cut(session)
        await reached(session, 40)
    first, *_, last = session.steers
    assert first.latency_s is not None
    assert last.at_latent > first.at_latent
    await check_replay(sessions, session)


async def test_parked_and_watched_again_goes_on_bit_for_bit(
    server: tuple[Engine, Sessions], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session_module, "PARK_AFTER_S", 0.05)
    _, sessions = server
    session = sessions.create(CreateStream(prompt="the sea by day", seed=12))
    for picture in (25, 47, 70):
        async with watched(session):
            await reached(session, picture)
            session.steer(f"the sea at night {picture}")
        await seen(session, lambda: session.status is Status.PARKED)
    async with watched(session):
        await reached(session, 90)
    await check_replay(sessions, session)


async def test_from_a_picture_parked_and_replayed_bit_for_bit(
    server: tuple[Engine, Sessions], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session_module, "PARK_AFTER_S", 0.05)
    _, sessions = server
    file = io.BytesIO()
    Image.linear_gradient("L").resize((64, 64)).convert("RGB").save(file, "PNG")
    session = sessions.create(CreateStream(prompt="the sea by day", seed=14, image=file.getvalue()))
    first = session.steer("the sea at night")
    assert first.at_latent == 1, "the picture alone is locked from the start"
    for picture in (3, 30):
        async with watched(session):
            await reached(session, picture)
            session.steer(f"snowy mountains {picture}")
        await seen(session, lambda: session.status is Status.PARKED)
    async with watched(session):
        await reached(session, 50)
    await check_replay(sessions, session)


async def test_adapters_turned_while_the_video_runs_are_in_its_log(
    server: tuple[Engine, Sessions], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """They come as a slider gives them, faster than boundaries: the last one before each boundary counts."""
    engine, sessions = server
    folder = save_tiny_lora(tmp_path_factory.mktemp("adapter") / "ink")
    session = sessions.create(CreateStream(prompt="the sea by day", seed=13))
    async with watched(session):
        await reached(session, 5)
        ink = await engine.loras.load("ink", str(folder), 0.0)
        turned = [
            session.steer("the sea by day", loras=[{"name": "ink", "weight": weight / 10}]) for weight in range(1, 9)
        ]
        await released(session, turned[-1])
        off = session.steer("the sea by day", loras=[])
        await released(session, off)
        await reached(session, session.picture + 20)
    counted = [steer for steer in turned if steer.status is SteerStatus.RELEASED]
    assert counted[-1] is turned[-1]
    assert all(steer.status is SteerStatus.SUPERSEDED for steer in turned if steer not in counted)
    lines = [json.loads(line) for line in session.log_lines()]
    expected = [[{"name": "ink", "weight": steer.loras[0].weight, "sha256": ink.sha256}] for steer in counted]
    assert [line.get("loras", []) for line in lines] == [[], *expected, []]
    await check_replay(sessions, session)


async def test_main_outlives_its_worker_bit_for_bit(
    server: tuple[Engine, Sessions], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(playback_module, "SNAPSHOT_EVERY_S", 1.0)
    engine, sessions = server
    main = sessions.main
    other = sessions.create(CreateStream(prompt="the sea"))
    async with watched(main), watched(other):
        await reached(main, 50)
        await reached(other, 5)
        await cut(main)
        main.steer("the sea at night")
        assert engine.ready is not None
        assert engine.ready.capacity > 1
        pid = engine.ready.pid
        os.kill(pid, signal.SIGKILL)
        await seen(main, lambda: main.status is Status.STARTING)
        assert other.status is Status.FAILED
        assert other.log_lines()
        await released(main, main.steer("snowy mountains by day"))
        assert engine.ready.pid != pid
        await reached(main, main.picture + 20)
    await check_replay(sessions, main)
    assert sessions.main is not main


async def test_an_adapter_loaded_later_is_there_after_a_restart(server: tuple[Engine, Sessions]) -> None:
    engine, sessions = server
    assert engine.restarts == 1
    session = sessions.create(CreateStream(prompt="the sea", loras=[{"name": "ink", "weight": 1}]))
    async with watched(session):
        await reached(session, 1)
    await session.end()
