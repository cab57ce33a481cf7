"""Guidance takes a second row of every pass: who may have it, and that the video goes on."""

from __future__ import annotations

import asyncio

import msgspec
import pytest
from scripted_engine import ScriptedEngine, ScriptedHub, ready, video
from virtual_clock import run

from streamer.session.capacity import Share, fits, guided_rate_hz, share
from streamer.session.errors import CapacityFull, GuidanceTooCostly, Invalid
from streamer.session.manager import Sessions
from streamer.session.session import Session
from streamer.session.spec import CreateStream
from streamer.session.states import Status
from streamer.session.steers import SteerStatus
from streamer.settings import Settings

QUICK = {"pass_s": 0.02, "decode_s": 0.01}


async def serve(capacity: int, *, cuts: bool = False) -> tuple[ScriptedEngine, Sessions]:
    speed = {} if capacity == 1 else QUICK
    engine = ScriptedEngine(ready(capacity=capacity, cuts=cuts, **speed))
    sessions = Sessions(engine, Settings(), ScriptedHub)
    assert engine.ready is not None
    await sessions.start(engine.ready)
    return engine, sessions


def watch(sessions: Sessions, **wanted: object) -> Session:
    session = sessions.create(CreateStream(**{"prompt": "start", "seed": 1} | wanted))
    session.hub.join()
    return session


def check(session: Session, engine: ScriptedEngine) -> None:
    assert session.underruns == 0
    assert session.hub.pictures == video(session.log_lines(), session.picture + 1, engine.info)


def test_what_streams_take() -> None:
    one, two = ready(), ready(capacity=2)
    assert share(False, 16.0, one) == Share(1, 1.0)
    assert share(False, 4.0, one) == Share(1, 1.0)
    assert share(True, 16.0, one) == Share(2, 2.0)
    assert share(True, 12.0, one) == Share(2, 1.5)
    assert share(True, 8.0, one) == Share(2, 1.0)
    assert (guided_rate_hz(one), guided_rate_hz(two)) == (8.0, 16.0)
    assert fits([Share(2, 2.0)], two, 1)
    assert not fits([Share(1, 1.0), Share(1, 1.0)], two, 1)
    narrow = msgspec.structs.replace(two, slots=1)
    assert guided_rate_hz(narrow) is None
    assert not fits([Share(2, 1.0)], narrow, None)
    # What guides by default was measured with both rows.
    always = msgspec.structs.replace(one, model=msgspec.structs.replace(one.model, guidance_scale=6.0))
    assert share(True, 16.0, always) == share(False, 16.0, always) == Share(1, 1.0)
    assert guided_rate_hz(always) == 16.0


def test_a_machine_of_one_stream_guides_at_half_its_rate() -> None:
    async def scenario() -> None:
        engine, sessions = await serve(1)
        with pytest.raises(GuidanceTooCostly, match="at most 8") as refused:
            sessions.create(CreateStream(prompt="sea", guidance_scale=3.0))
        error = refused.value
        assert (error.status, error.code, error.field, error.limit) == (
            409,
            "guidance-too-costly",
            "guidance_scale",
            1.0,
        )
        assert error.extra == {"rate_hz": 8.0}
        plain = watch(sessions)
        await asyncio.sleep(4)
        with pytest.raises(GuidanceTooCostly):
            plain.steer("sea", guidance_scale=3.0)
        with pytest.raises(Invalid):
            plain.steer("sea", guidance_scale=30.0)
        assert list(plain.steers) == []
        plain.hub.leave()
        guided = watch(sessions, guidance_scale=3.0, rate_hz=8.0)
        await asyncio.sleep(15)
        assert guided.steer("the sea at night").guidance_scale == 3.0
        await asyncio.sleep(15)
        check(guided, engine)
        await sessions.close()

    run(scenario())


def test_a_guided_stream_takes_two_places() -> None:
    async def scenario() -> None:
        engine, sessions = await serve(3)
        guided = watch(sessions, guidance_scale=3.0)
        main = sessions.main
        main.hub.join()
        await asyncio.sleep(5)
        assert (guided.status, main.status) == (Status.LIVE, Status.LIVE)
        for wanted, field in (({}, None), ({"guidance_scale": 2.0}, "guidance_scale")):
            with pytest.raises(CapacityFull) as full:
                sessions.create(CreateStream(prompt="third", **wanted))
            assert (full.value.status, full.value.field, full.value.limit) == (503, field, 3)
        with pytest.raises(CapacityFull, match="two of 3 places"):
            main.steer("sea", guidance_scale=2.0)
        # When all that is still to be made is without guidance there is room again.
        plain = guided.steer("sea", guidance_scale=1.0)
        await asyncio.sleep(5)
        assert plain.status is SteerStatus.RELEASED
        third = watch(sessions)
        await asyncio.sleep(5)
        assert third.status is Status.LIVE
        check(guided, engine)
        check(main, engine)
        await sessions.close()

    run(scenario())


@pytest.mark.parametrize("cuts", [False, True])
def test_guidance_that_begins_while_the_video_runs_makes_room_and_no_underrun(cuts: bool) -> None:
    async def scenario() -> None:
        engine, sessions = await serve(2, cuts=cuts)
        session = watch(sessions)
        await asyncio.sleep(5)
        for scale in (3.0, 1.0, 5.0):
            before_s = session.lock_s
            steer = session.steer(f"prompt {scale}", guidance_scale=scale)
            if scale > 1:
                assert session.lock_s > 1.5 * before_s, "its first block takes twice as long"
                assert sessions.main.leaving or sessions.main.status is Status.PARKED
            await asyncio.sleep(6)
            assert steer.status is SteerStatus.RELEASED
            assert engine.frontier(session.id).decode_next > steer.at_latent
        # Asked for and taken back: nothing is taken.
        session.steer("plain", guidance_scale=1.0)
        await asyncio.sleep(5)
        session.cancel_steer(session.steer("later", {"in_s": 20.0}, guidance_scale=2.0).id)
        assert session.share == Share(1, 1.0)
        check(session, engine)
        await sessions.close()

    run(scenario())


def test_what_has_no_effect_is_said() -> None:
    async def scenario() -> None:
        _, sessions = await serve(2)
        session = watch(sessions)
        await asyncio.sleep(3)
        (warning,) = session.steer("sea", negative_prompt="fog").info()["warnings"]
        assert "negative_prompt has no effect" in warning
        (warning,) = session.steer("sea", negative_prompt="", motion_score=5).info()["warnings"]
        assert "motion scores" in warning
        await asyncio.sleep(3)
        guided = session.steer("sea", negative_prompt="fog", guidance_scale=2.0)
        assert guided.motion_score == 5
        assert len(guided.info()["warnings"]) == 1
        await sessions.close()

    run(scenario())
