"""A live stream beside a clip that always has work, against a scripted worker with the engine's own scheduler."""

from __future__ import annotations

import asyncio
import random

import pytest
from scripted_engine import ready
from test_session_live import Stage, until
from virtual_clock import run

from streamer.session.states import Status

MINUTE_S = 60.0


async def watched(cuts: bool, unit_passes: float | None) -> tuple[float, int, int]:
    """A steered, watched stream for a minute: mean seconds from steer to picture, underruns, units done."""
    stage = Stage(cuts=cuts)
    dice = random.Random(3)
    stage.engine.jitter = lambda: dice.uniform(0.8, 1.15)
    pass_s = stage.engine.info.timings.pass_s
    session = await stage.live()
    stage.engine.clip_s = None if unit_passes is None else unit_passes * pass_s
    end_s = asyncio.get_running_loop().time() + MINUTE_S
    while asyncio.get_running_loop().time() < end_s:
        session.steer(f"prompt {dice.random()}")
        await asyncio.sleep(dice.uniform(0.1, 3.0))
    stage.check_video()
    released = [event.data["latency_s"] for event in await stage.events("steer.released")]
    assert len(released) >= 20
    return sum(released) / len(released), session.underruns, stage.engine.units


@pytest.mark.parametrize("cuts", [False, True])
def test_a_clip_costs_a_live_stream_no_picture_however_it_is_steered(cuts: bool) -> None:
    alone_s, underruns, _ = run(watched(cuts, None))
    assert underruns == 0
    for unit_passes in (0.5, 1.0, 2.0):
        beside_s, underruns, units = run(watched(cuts, unit_passes))
        assert underruns == 0
        assert units > 5  # so many steers leave little
        assert beside_s < alone_s + 0.5
    # One that needs longer than a steer at the worst moment leaves would be late, so it is not begun.
    assert run(watched(cuts, 40.0))[1:] == (0, 0)


@pytest.mark.parametrize("unit_passes", [0.5, 2.0, 4.0])
def test_a_clip_gets_all_that_a_stream_leaves(unit_passes: float) -> None:
    async def body() -> float:
        stage = Stage()
        session = await stage.live()
        unit_s = stage.engine.clip_s = unit_passes * stage.engine.info.timings.pass_s
        await asyncio.sleep(MINUTE_S)
        assert session.underruns == 0
        return stage.engine.units * unit_s / MINUTE_S

    # Of 0.75 s that a block plays, five passes and three decodes take 0.5.
    assert 0.28 < run(body()) < 0.34


def test_a_clip_runs_flat_out_once_nobody_watches() -> None:
    async def body() -> None:
        stage = Stage(idle_timeout_s=600.0)
        session = await stage.live()
        stage.engine.clip_s = 40 * stage.engine.info.timings.pass_s
        await asyncio.sleep(10)
        assert stage.engine.units == 0
        stage.hub.leave()
        await until(lambda: session.status is Status.PAUSED)
        await until(lambda: stage.engine.units > 0, timeout_s=10.0)

    run(body())


def test_streams_that_take_everything_leave_a_clip_none() -> None:
    # A pass a picture's time and more: the stream is never done, and yet the worker is never late for want of order.
    async def body() -> int:
        stage = Stage()
        stage.engine.info = ready(pass_s=0.15, decode_s=0.05)
        stage.engine.ready = stage.engine.info
        await stage.live()
        stage.engine.clip_s = 0.001
        await asyncio.sleep(MINUTE_S)
        return stage.engine.units

    assert run(body()) == 0
