"""Who gets the worker's slots, what may be asked for, and what events a reader gets."""

from __future__ import annotations

import asyncio

import pytest
from msgspec.structs import replace
from scripted_engine import ScriptedEngine, ScriptedHub, ready
from virtual_clock import VirtualLoop, run

from streamer.session.errors import CapacityFull, ClipsOnly, Invalid, NotReady, StreamUnknown
from streamer.session.events import EventLog
from streamer.session.manager import KEPT_OVER, MAX_RUNNING, OVER_FOR_S, Sessions
from streamer.session.spec import CreateStream
from streamer.session.states import Status
from streamer.settings import Settings


async def _server(capacity: int = 1, settings: Settings | None = None) -> tuple[ScriptedEngine, Sessions]:
    speed = {} if capacity == 1 else {"pass_s": 0.02, "decode_s": 0.01}
    engine = ScriptedEngine(ready(capacity=capacity, **speed))
    sessions = Sessions(engine, settings or Settings(), ScriptedHub)
    assert engine.ready is not None
    await sessions.start(engine.ready)
    return engine, sessions


def test_main_is_open_from_the_start_under_a_prompt_that_the_checkpoint_knows() -> None:
    async def scenario() -> None:
        _, sessions = await _server()
        assert sessions.get("main") is sessions.main
        assert sessions.main.prompt == "the sea"
        assert sessions.get(sessions.main.id) is sessions.main
        assert [session.id for session in sessions.list()] == [sessions.main.id]
        with pytest.raises(StreamUnknown) as refused:
            sessions.get("str_unknown")
        assert refused.value.status == 404

    run(scenario())


def test_before_the_worker_is_warm_everything_is_refused_with_503() -> None:
    async def scenario() -> None:
        engine = ScriptedEngine(ready())
        engine.ready = None
        sessions = Sessions(engine, Settings(), ScriptedHub)
        for ask in (lambda: sessions.main, lambda: sessions.create(CreateStream(prompt="x"))):
            with pytest.raises(NotReady) as refused:
                ask()
            assert (refused.value.status, refused.value.retry_after_s) == (503, 1.0)

    run(scenario())


def test_a_new_stream_takes_the_slot_of_one_that_nobody_watches() -> None:
    async def scenario() -> None:
        engine, sessions = await _server()
        await asyncio.sleep(3)
        new = sessions.create(CreateStream(prompt="new"))
        new.hub.join()
        await asyncio.sleep(3)
        assert sessions.main.status is Status.PARKED
        assert new.status is Status.LIVE
        assert engine.open_streams == {new.id}

    run(scenario())


def test_full_only_when_all_are_watched_and_then_says_what_one_may_join() -> None:
    async def scenario() -> None:
        _engine, sessions = await _server(capacity=2)
        sessions.main.hub.join()
        other = sessions.create(CreateStream(prompt="other"))
        other.hub.join()
        await asyncio.sleep(5)
        with pytest.raises(CapacityFull) as refused:
            sessions.create(CreateStream(prompt="one too many"))
        error = refused.value
        assert (error.status, error.code, error.limit) == (503, "capacity-full", 2)
        assert error.retry_after_s is not None
        assert sorted(error.extra["streams"]) == sorted(["main", other.id])
        other.hub.leave()
        third = sessions.create(CreateStream(prompt="third"))
        third.hub.join()
        await asyncio.sleep(5)
        assert (other.status, third.status) == (Status.PARKED, Status.LIVE)
        assert sessions.main.underruns == 0

    run(scenario())


def test_a_parked_stream_that_is_watched_again_waits_until_somebody_leaves() -> None:
    async def scenario() -> None:
        _, sessions = await _server()
        main = sessions.main
        main.hub.join()
        await asyncio.sleep(4)
        main.hub.leave()
        new = sessions.create(CreateStream(prompt="new"))
        new.hub.join()
        await asyncio.sleep(4)
        main.hub.join()
        await asyncio.sleep(10)
        assert (main.status, main.reason) == (Status.PAUSED, "waits for a slot")
        main.hub.leave()
        assert main.status is Status.PARKED
        main.hub.join()
        new.hub.leave()
        await asyncio.sleep(3)
        assert (new.status, main.status) == (Status.PARKED, Status.LIVE)
        main.hub.leave()
        main.hub.join()
        assert main.status is Status.LIVE, "nobody wants its slot any more, so it has kept it"

    run(scenario())


def test_two_streams_that_run_unwatched_do_not_take_turns() -> None:
    async def scenario() -> None:
        _engine, sessions = await _server()
        one = sessions.create(CreateStream(prompt="one", idle="run"))
        await asyncio.sleep(10)
        two = sessions.create(CreateStream(prompt="two", idle="run"))
        await asyncio.sleep(30)
        assert (one.status, one.reason, two.status) == (Status.PAUSED, "waits for a slot", Status.LIVE)
        await two.end()
        await asyncio.sleep(5)
        assert one.status is Status.LIVE

    run(scenario())


def test_a_stream_that_is_always_late_does_not_keep_another_from_going_on() -> None:
    async def scenario() -> None:
        engine, sessions = await _server(capacity=2)
        sessions.main.hub.join()
        parked = sessions.create(CreateStream(prompt="parked"))
        parked.hub.join()
        await asyncio.sleep(10)
        parked.hub.leave()
        await asyncio.sleep(10)
        assert parked.status is Status.PARKED
        engine.jitter = lambda: 10.0
        await asyncio.sleep(20)
        picture, underruns = parked.picture, sessions.main.underruns
        assert underruns > 0
        parked.hub.join()
        await asyncio.sleep(30)
        assert parked.picture > picture
        assert sessions.main.underruns > underruns

    run(scenario())


def test_streams_that_wait_for_a_new_worker_get_slots_of_those_that_have_shown_nothing_yet() -> None:
    async def scenario() -> None:
        engine, sessions = await _server(capacity=2)
        old = sessions.create(CreateStream(prompt="old"))
        await asyncio.sleep(4)
        loop, made = asyncio.get_running_loop(), []
        assert isinstance(loop, VirtualLoop)
        for _ in range(4):
            loop.advance(0.001)  # the older ones have been unwatched for longer
            made.append(sessions.create(CreateStream(prompt="new")))
        assert sessions.main.leaving
        assert old.leaving
        engine.kill()
        engine.revive()
        for session in made[2:]:
            session.hub.join()
        await asyncio.sleep(5)
        assert [session.status for session in made] == [Status.PARKED] * 2 + [Status.LIVE] * 2

    run(scenario())


def test_a_slot_that_is_counted_on_is_not_taken_back_by_a_late_viewer() -> None:
    async def scenario() -> None:
        _, sessions = await _server()
        main = sessions.main
        main.hub.join()
        await asyncio.sleep(5)
        main.hub.leave()
        while not main.leaving:  # noqa: ASYNC110 - on the virtual clock no time passes
            await asyncio.sleep(0.001)
        new = sessions.create(CreateStream(prompt="new"))
        new.hub.join()
        main.hub.join()
        await asyncio.sleep(5)
        assert (new.status, main.status, main.reason) == (Status.LIVE, Status.PAUSED, "waits for a slot")

    run(scenario())


def test_the_operator_can_allow_fewer_streams_than_the_machine_holds() -> None:
    async def scenario() -> None:
        _, sessions = await _server(capacity=4, settings=Settings(max_streams=1))
        sessions.main.hub.join()
        with pytest.raises(CapacityFull) as refused:
            sessions.create(CreateStream(prompt="x"))
        assert refused.value.limit == 1

    run(scenario())


def test_main_waits_for_ever_where_others_end() -> None:
    async def scenario() -> None:
        _, sessions = await _server()
        main, other = sessions.main, sessions.create(CreateStream(prompt="other"))
        await asyncio.sleep(2 * 3600)
        assert (main.status, other.status) == (Status.PARKED, Status.ENDED)
        assert sessions.main is main

    run(scenario())


def test_main_ended_by_somebody_is_followed_by_a_new_one() -> None:
    async def scenario() -> None:
        _, sessions = await _server()
        old = sessions.main
        await old.end("by a person")
        await asyncio.sleep(0.1)
        assert sessions.main is not old
        assert sessions.get(old.id).over
        await sessions.close()
        assert all(session.over for session in sessions.list())

    run(scenario())


def test_ended_streams_are_kept_for_a_while_and_running_ones_are_bounded() -> None:
    async def scenario() -> None:
        _, sessions = await _server()
        made = [sessions.create(CreateStream(prompt="x", idle_timeout_s=1e6)) for _ in range(MAX_RUNNING + 10)]
        assert sum(not session.over for session in sessions.list()) <= MAX_RUNNING
        assert made[0].over, "the one unwatched for longest ends first"
        assert not made[-1].over
        assert not sessions.main.over
        for session in made:
            await session.end()
        assert len(sessions.list()) <= KEPT_OVER + 1
        await asyncio.sleep(OVER_FOR_S + 1)
        with pytest.raises(StreamUnknown):
            sessions.get(made[-1].id)

    run(scenario())


def test_bad_streams_are_refused_with_field_and_limit() -> None:
    async def scenario() -> None:
        _, sessions = await _server()
        for wanted, code, field, limit in (
            (CreateStream(), "prompt-empty", "prompt", None),
            (CreateStream(prompt="x" * 201), "prompt-too-long", "prompt", 200),
            (CreateStream(prompt="x", seed=-1), "out-of-range", "seed", [0, 2**64 - 1]),
            (CreateStream(prompt="x", size="1920x1080"), "size-unsupported", "size", ["32x16"]),
            (CreateStream(prompt="x", rate_hz=60.0), "rate-unsupported", "rate_hz", 16.0),
            (CreateStream(prompt="x", idle_timeout_s=0.0), "out-of-range", "idle_timeout_s", [1.0, 2592000.0]),
            (CreateStream(prompt="x", metadata={"k" * 65: ""}), "metadata-too-large", "metadata", 512),
        ):
            with pytest.raises(Invalid) as refused:
                sessions.create(wanted)
            assert (refused.value.code, refused.value.field, refused.value.limit) == (code, field, limit)
        assert len(sessions.list()) == 1
        made = sessions.create(CreateStream(prompt=" two  words\n", size="32X16", rate_hz=8.0))
        assert (made.prompt, made.rate_hz, made.seed < 2**32) == ("two words", 8.0, True)
        assert len(made.id) == len("str_") + 32
        assert len(made.control_token) == len("tok_") + 32

    run(scenario())


def test_events_are_numbered_resumed_and_bounded() -> None:
    async def scenario() -> None:
        log = EventLog("str_x", lambda: (7, 5), kept=4)
        fresh = asyncio.create_task(_take(log, None, 1))
        await asyncio.sleep(0)
        for number in range(3):
            log.publish("clock", {"n": number})
        (first,) = await fresh
        assert (first.seq, first.tick, first.picture, first.stream, first.v) == (1, 7, 5, "str_x", 1)
        assert [event.seq for event in await _take(log, 1, 2)] == [2, 3]
        assert [event.seq for event in await _take(log, 99, 3)] == [1, 2, 3], (
            "another life's number: all that is kept"
        )
        for number in range(6):
            log.publish("clock", {"n": number})
        gap, *rest = await _take(log, 2, 5)
        assert (gap.type, gap.data, gap.seq) == ("events.gap", {"missed": 3}, 5)
        assert [event.seq for event in rest] == [6, 7, 8, 9]
        waiting = asyncio.create_task(_take(log, None, 99))
        await asyncio.sleep(0)
        log.publish("stream.status")
        log.close()
        assert [event.type for event in await waiting] == ["stream.status"]

    run(scenario())


async def _take(log: EventLog, after: int | None, count: int) -> list:  # type: ignore[type-arg]
    taken = []
    async for event in log.follow(after):
        taken.append(event)
        if len(taken) == count:
            break
    return taken


def test_a_checkpoint_that_makes_clips_only_has_no_streams_and_says_why() -> None:
    async def scenario() -> None:
        info = ready()
        info = replace(info, model=replace(info.model, streaming="clips only", no_streams="it can't"), slots=0)
        engine = ScriptedEngine(info)
        sessions = Sessions(engine, Settings(), ScriptedHub)
        await sessions.start(info)
        assert (sessions.capacity, sessions.list(), engine.open_streams) == (0, [], set())
        for ask in (lambda: sessions.get("main"), lambda: sessions.create(CreateStream(prompt="x"))):
            with pytest.raises(ClipsOnly, match="makes clips, not streams: it can't; ask for one with") as refused:
                ask()
            assert (refused.value.status, refused.value.extra) == (409, {"instead": "/v1/videos"})
        with pytest.raises(ClipsOnly):
            await Sessions(engine, Settings(prompt="the sea"), ScriptedHub).start(info)

    run(scenario())
