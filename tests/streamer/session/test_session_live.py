"""A stream's life against a scripted worker: steers, pauses, parking, failures, and always the video of its log."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from datetime import timedelta

import pytest
from scripted_engine import ScriptedEngine, ScriptedHub, ready, video
from virtual_clock import run

from streamer.engine.protocol import Close, Credit, Denoised, Open, Reschedule, TakeSnapshot
from streamer.session import log, states, steers
from streamer.session.errors import Invalid, LogCut, LogError, SteerLocked, SteerUnknown, StreamEnded, TooMany
from streamer.session.events import Event
from streamer.session.manager import Sessions
from streamer.session.session import Session
from streamer.session.spec import CreateStream
from streamer.session.states import TRANSITIONS, Status
from streamer.session.steers import KEPT_STEERS, MAX_PENDING, Steer, SteerStatus
from streamer.settings import Settings


class Stage:
    """A server with one stream."""

    def __init__(self, *, capacity: int = 1, main: bool = False, cuts: bool = False, **wanted: object) -> None:
        # Two streams need a machine that holds two.
        speed = {} if capacity == 1 else {"pass_s": 0.02, "decode_s": 0.01}
        self.engine = ScriptedEngine(ready(capacity=capacity, cuts=cuts, steer=2 if cuts else None, **speed))
        self.sessions = Sessions(self.engine, Settings(prompt="main prompt", seed=3), ScriptedHub)
        self._wanted = {"prompt": "start", "seed": 1} | wanted
        self._main = main

    async def start(self) -> Session:
        assert self.engine.ready is not None
        if self._main:
            await self.sessions.start(self.engine.ready)
            self.session = self.sessions.main
        else:
            self.session = self.sessions.create(CreateStream(**self._wanted))
        self.hub: ScriptedHub = self.session.hub
        return self.session

    async def live(self) -> Session:
        await self.start()
        self.hub.join()
        await until(lambda: self.session.status is Status.LIVE)
        await asyncio.sleep(1)
        return self.session

    def check_video(self) -> None:
        session = self.session
        assert self.hub.pictures == video(session.log_lines(), session.picture + 1, self.engine.info)
        assert self.hub.ticks == list(range(len(self.hub.ticks)))

    async def events(self, prefix: str = "") -> list[Event]:
        """Events so far."""
        found, last = [], self.session.events.seq
        async for event in self.session.events.follow(after=0):
            if event.type.startswith(prefix):
                found.append(event)
            if event.seq >= last:
                break
        return found


async def until(condition: Callable[[], bool], timeout_s: float = 60.0) -> None:
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110 - on the virtual clock no time passes
            await asyncio.sleep(0.01)


def virtual(test: Callable[[], Awaitable[None]]) -> Callable[[], None]:
    """Run an asynchronous test on the virtual clock."""

    def wrapped() -> None:
        async def body() -> None:
            await test()

        run(body())

    wrapped.__name__ = test.__name__
    wrapped.__doc__ = test.__doc__
    return wrapped


# Starting


@virtual
async def test_the_first_picture_comes_as_soon_as_it_exists_and_ticks_never_stop() -> None:
    stage = Stage()
    session = await stage.start()
    stage.hub.join()
    assert session.status is Status.STARTING
    await until(lambda: bool(stage.hub.shown))
    # 21 passes for the first block in the scripted worker, one decode.
    info = stage.engine.ready
    assert info is not None
    start_s = stage.hub.at_s[0] - 1000.0
    assert start_s == pytest.approx(info.timings.first_block_s + info.timings.decode_s, abs=0.1)
    await asyncio.sleep(30)
    assert session.underruns == 0
    stage.check_video()
    assert [event.data["status"] for event in await stage.events("stream.status")] == ["starting", "live"]


@virtual
async def test_the_clock_tells_tick_and_picture_once_a_second() -> None:
    stage = Stage()
    session = await stage.live()
    await asyncio.sleep(10)
    clocks = await stage.events("clock")
    assert len(clocks) == pytest.approx((session.tick + 1) / 16, abs=1)
    for event in clocks:
        assert event.data["media_time_s"] == pytest.approx(event.data["tick"] / 16)
        assert event.data["tick"] == event.tick


@virtual
async def test_a_recent_tick_gives_its_picture_though_pictures_were_repeated() -> None:
    stage = Stage()
    session = await stage.live()
    stage.hub.leave()
    await until(lambda: session.status is Status.PARKED)
    stage.hub.join()
    before = session.picture
    await until(lambda: session.picture > before)
    shown = stage.hub.shown
    numbers = [len(set(shown[: tick + 1])) - 1 for tick in range(len(shown))]
    assert numbers[-1] < session.tick  # some were repeated
    recent = range(len(shown) - 20, len(shown))
    assert [session.picture_at(tick) for tick in recent] == [numbers[tick] for tick in recent]


@virtual
async def test_every_block_is_announced_with_its_pictures() -> None:
    stage = Stage()
    await stage.live()
    await asyncio.sleep(5)
    blocks = await stage.events("block.ready")
    assert [event.data["block"] for event in blocks] == list(range(len(blocks)))
    assert [event.data["first_picture"] for event in blocks[:3]] == [0, 9, 21]
    assert [event.data["pictures"] for event in blocks[:3]] == [9, 12, 12]


# Steering


@virtual
async def test_a_steer_is_queued_locked_and_released_in_this_order() -> None:
    stage = Stage()
    session = await stage.live()
    steer = session.steer("night falls", actor="page")
    assert steer.status is SteerStatus.QUEUED
    assert steer.eta_s is not None
    await until(lambda: steer.status is SteerStatus.RELEASED)
    events = [event for event in await stage.events("steer.") if event.data["id"] == steer.id]
    assert [event.type for event in events] == ["steer.queued", "steer.locked", "steer.released"]
    assert all(event.data["actor"] == "page" for event in events)
    assert events[-1].picture == steer.at_picture
    assert steer.latency_s == pytest.approx(steer.eta_s, abs=1e-3), "nothing held it up, so the estimate was right"
    timing = events[-1].data
    assert timing["compute_s"] + timing["wait_s"] == pytest.approx(timing["latency_s"], abs=1e-3)
    assert session.prompt == "night falls"
    stage.check_video()


@virtual
async def test_a_later_steer_for_the_same_boundary_supersedes_the_earlier_one() -> None:
    stage = Stage()
    session = await stage.live()
    first = session.steer("one")
    second = session.steer("two")
    assert (first.status, first.at_latent) == (SteerStatus.SUPERSEDED, second.at_latent)
    (event,) = await stage.events("steer.superseded")
    assert (event.data["id"], event.data["by"]) == (first.id, second.id)
    await until(lambda: second.status is SteerStatus.RELEASED)
    assert "one" not in "".join(session.log_lines())
    stage.check_video()


@virtual
async def test_a_steer_after_the_lock_takes_the_next_boundary() -> None:
    stage = Stage()
    session = await stage.live()
    first = session.steer("one")
    await until(lambda: first.status is SteerStatus.LOCKED)
    second = session.steer("two")
    assert second.at_latent == first.at_latent + 3
    with pytest.raises(SteerLocked) as refused:
        session.cancel_steer(first.id)
    assert refused.value.status == 409
    await until(lambda: second.status is SteerStatus.RELEASED)
    assert session.underruns == 0
    stage.check_video()


@virtual
async def test_a_steer_for_later_waits_can_be_cancelled_and_leaves_no_trace() -> None:
    stage = Stage()
    session = await stage.live()
    later = session.steer("later", {"in_s": 4.0})
    kept = session.steer("kept", {"in_s": 6.0})
    assert later.at_picture - session.picture == pytest.approx(4 * 16, abs=13)
    assert later.at_picture > session.picture + 4 * 16
    now = session.steer("now")
    assert now.at_latent < later.at_latent < kept.at_latent
    await asyncio.sleep(2)
    session.cancel_steer(later.id)
    with pytest.raises(SteerLocked):
        session.cancel_steer(later.id)
    await until(lambda: kept.status is SteerStatus.RELEASED)
    assert [steer.status for steer in session.steers] == [
        SteerStatus.CANCELLED,
        SteerStatus.RELEASED,
        SteerStatus.RELEASED,
    ]
    assert session.underruns == 0
    stage.check_video()


@virtual
async def test_cancelling_a_steer_that_is_made_already_makes_the_old_prompt_anew() -> None:
    stage = Stage()
    session = await stage.live()
    later = session.steer("later", {"in_s": 1.6})
    await until(lambda: session._playback.timeline.denoised > later.at_latent)
    assert later.status is SteerStatus.QUEUED
    session.cancel_steer(later.id)
    assert session._playback.timeline.denoised <= later.at_latent
    await asyncio.sleep(4)
    assert session.underruns == 0
    stage.check_video()


async def cutting(stage: Stage) -> Steer:
    """A steer that is queued inside a block; the boundary after that is three latent frames past `floor`."""
    session = await stage.live()
    blocks = session._playback.timeline.blocks
    while True:
        steer = session.steer("night falls")
        if blocks.floor(steer.at_latent - 1) + 3 != steer.at_latent:
            return steer
        session.cancel_steer(steer.id)
        await asyncio.sleep(0.1)


@virtual
async def test_a_steer_that_cuts_a_block_is_told_with_what_is_left_of_it() -> None:
    stage = Stage(cuts=True)
    steer = await cutting(stage)
    await until(lambda: steer.status is SteerStatus.RELEASED)
    blocks: dict[int, int] = {}
    for event in await stage.events():
        if event.type == "steer.queued":
            blocks = {first: count for first, count in blocks.items() if first < event.data["at_picture"]}
        elif event.type == "block.ready":
            blocks[event.data["first_picture"]] = event.data["pictures"]
    assert blocks[steer.at_picture] == 8
    assert all(first + count in blocks for first, count in sorted(blocks.items())[:-1]), "no gap, no overlap"
    assert any(json.loads(line).get("at_latent") == steer.at_latent for line in stage.session.log_lines())
    stage.check_video()


@virtual
async def test_a_block_told_of_while_the_steer_that_cuts_it_was_on_its_way_counts_up_to_the_cut() -> None:
    stage = Stage(cuts=True)
    steer = await cutting(stage)
    timeline = stage.session._playback.timeline
    start = timeline.blocks.floor(steer.at_latent - 1)
    epoch = stage.engine.of(Reschedule)[-1].epoch - 1
    late = Denoised(stream=stage.session.id, epoch=epoch, block=1, first_latent=start, latents=3, compute_s=0.3)
    stage.engine.tell(late)
    assert timeline.denoised == steer.at_latent
    (*_, told) = await stage.events("block.ready")
    assert told.data["pictures"] == 4 * (steer.at_latent - start)
    await until(lambda: steer.status is SteerStatus.RELEASED)
    stage.check_video()


@virtual
async def test_a_cut_that_is_taken_back_before_it_locks_leaves_no_trace() -> None:
    stage = Stage(cuts=True)
    steer = await cutting(stage)
    await asyncio.sleep(0.01)
    stage.session.cancel_steer(steer.id)
    await asyncio.sleep(4)
    assert stage.session.underruns == 0
    assert len(stage.session.log_lines()) == 1
    stage.check_video()


@virtual
async def test_a_cut_is_superseded_before_its_lock_and_stands_after_it() -> None:
    stage = Stage(cuts=True)
    first = await cutting(stage)
    session = stage.session
    second = session.steer("rain")
    assert (second.at_latent, first.status) == (first.at_latent, SteerStatus.SUPERSEDED)
    await until(lambda: second.status is SteerStatus.LOCKED)
    after = session.steer("snow")
    assert after.at_latent == second.at_latent + 2, "its block is still being made, so it isn't cut"
    session.cancel_steer(after.id)
    await until(lambda: session._playback.timeline.denoised >= second.at_latent + 2)
    again = session.steer("snow")
    assert again.at_latent > second.at_latent
    await until(lambda: again.status is SteerStatus.RELEASED)
    assert session.underruns == 0
    stage.check_video()


@virtual
async def test_what_a_steer_does_not_say_stays_as_it_is() -> None:
    stage = Stage(motion_score=30)
    session = await stage.live()
    first = session.steer("one", negative_prompt="blur")
    assert (first.motion_score, first.negative_prompt) == (30, "blur")
    await until(lambda: first.status is SteerStatus.RELEASED)
    second = session.steer("two", motion_score=5)
    assert (second.motion_score, second.negative_prompt) == (5, "blur")


@virtual
async def test_bad_steers_are_refused_with_field_and_limit_and_change_nothing() -> None:
    stage = Stage()
    session = await stage.live()
    sent = len(stage.engine.sent)
    for prompt, more, code, field, limit in (
        ("", {}, "prompt-empty", "prompt", None),
        (" \n ", {}, "prompt-empty", "prompt", None),
        ("x" * 201, {}, "prompt-too-long", "prompt", 200),
        ("x", {"at": {"in_s": 601}}, "out-of-range", "at.in_s", [0.0, 600.0]),
        ("x", {"at": {"in_s": float("nan")}}, "out-of-range", "at.in_s", [0.0, 600.0]),
        ("x", {"at": "soon"}, "out-of-range", "at.in_s", [0.0, 600.0]),
        ("x", {"at": {"picture": 3}}, "at-unknown", "at", None),
        ("x", {"motion_score": 101}, "out-of-range", "motion_score", [0, 100]),
        ("x", {"guidance_scale": 0.5}, "out-of-range", "guidance_scale", [1.0, 20.0]),
        ("x", {"negative_prompt": "y" * 201}, "prompt-too-long", "negative_prompt", 200),
    ):
        with pytest.raises(Invalid) as refused:
            session.steer(prompt, **more)
        assert (refused.value.code, refused.value.field, refused.value.limit) == (code, field, limit)
        assert refused.value.status == 422
    with pytest.raises(SteerUnknown):
        session.cancel_steer("ste_none")
    assert len(stage.engine.sent) == sent
    assert not list(session.steers)


@virtual
async def test_waiting_steers_are_bounded() -> None:
    stage = Stage()
    session = await stage.live()
    for number in range(MAX_PENDING):
        session.steer(f"{number}", {"in_s": 3 + number})
    with pytest.raises(TooMany) as refused:
        session.steer("one more", {"in_s": 500})
    assert refused.value.limit == MAX_PENDING


# Nobody watches


@virtual
async def test_pauses_at_once_parks_after_five_seconds_and_goes_on_exactly() -> None:
    stage = Stage()
    session = await stage.live()
    session.steer("on the way")
    await asyncio.sleep(7.3)
    stage.hub.leave()
    assert session.status is Status.PAUSED
    tick, picture = session.tick, session.picture
    await asyncio.sleep(4.9)
    assert session.status is Status.PAUSED
    await asyncio.sleep(0.5)
    assert session.status is Status.PARKED
    assert stage.engine.open_streams == set()
    await asyncio.sleep(100)
    assert (session.tick, session.picture) == (tick, picture)
    steer = session.steer("while parked")
    assert steer.eta_s is None
    stage.hub.join()
    assert session.status is Status.LIVE, "the picture on show comes at once"
    await until(lambda: steer.status is SteerStatus.RELEASED)
    reopened = stage.engine.of(Open)[-1]
    assert reopened.snapshot is not None
    await asyncio.sleep(5)
    assert session.underruns == 0
    stage.check_video()
    held = len(stage.hub.shown) - len(stage.hub.pictures)
    assert held < 16 * 2, "and moves on within two seconds"


@virtual
async def test_a_viewer_who_comes_back_within_five_seconds_goes_on_at_once() -> None:
    stage = Stage()
    session = await stage.live()
    await asyncio.sleep(3)
    opened = len(stage.engine.of(Open))
    for _ in range(5):
        stage.hub.leave()
        await asyncio.sleep(1.7)
        stage.hub.join()
        await asyncio.sleep(0.9)
    assert session.status is Status.LIVE
    assert len(stage.engine.of(Open)) == opened
    assert not stage.engine.of(Close)
    assert session.underruns == 0
    stage.check_video()


@virtual
async def test_parking_over_and_over_at_any_moment_never_loses_a_picture() -> None:
    stage = Stage()
    session = await stage.live()
    for round_ in range(12):
        session.steer(f"prompt {round_}")
        await asyncio.sleep(0.31 * round_)
        stage.hub.leave()
        await asyncio.sleep(5.0 + 0.02 * round_)
        stage.hub.join()
        await asyncio.sleep(0.4 * round_)
    await asyncio.sleep(3)
    assert session.underruns == 0
    stage.check_video()


@virtual
async def test_a_stream_that_nobody_ever_watched_is_parked_after_its_first_pictures() -> None:
    stage = Stage()
    session = await stage.start()
    await asyncio.sleep(10)
    assert session.status is Status.PARKED
    assert not stage.hub.shown
    stage.hub.join()
    await asyncio.sleep(5)
    assert session.status is Status.LIVE
    stage.check_video()


@virtual
async def test_a_worker_that_gives_no_snapshot_does_not_keep_a_stream_from_parking() -> None:
    stage = Stage()
    session = await stage.live()
    await asyncio.sleep(3)
    take = stage.engine._take
    stage.engine._take = lambda message: None if isinstance(message, TakeSnapshot) else take(message)  # type: ignore[method-assign]
    stage.hub.leave()
    await asyncio.sleep(9)
    assert session.status is Status.PARKED
    stage.hub.join()
    await asyncio.sleep(10)
    assert stage.engine.of(Open)[-1].snapshot is None, "run again from the start, unseen"
    stage.check_video()


@virtual
async def test_idle_rules() -> None:
    ends = Stage(idle="end", idle_timeout_s=20.0)
    session = await ends.live()
    ends.hub.leave()
    await asyncio.sleep(19)
    assert session.status is Status.PARKED
    await asyncio.sleep(2)
    assert (session.status, session.reason) == (Status.ENDED, "nobody watched")
    assert ends.hub.closed

    runs = Stage(idle="run")
    session = await runs.live()
    runs.hub.leave()
    await asyncio.sleep(60)
    assert session.status is Status.LIVE
    assert session.picture > 900
    runs.check_video()

    timed = Stage(max_duration_s=30.0)
    session = await timed.live()
    await asyncio.sleep(31)
    assert session.status is Status.ENDED


@virtual
async def test_expires_at_is_the_earliest_end_in_sight() -> None:
    def lasts(session: Session) -> timedelta | None:
        return session.expires_at and session.expires_at - session.created_at

    stage = Stage(idle="end", idle_timeout_s=20.0, max_duration_s=60.0)
    session = await stage.start()
    assert lasts(session) == timedelta(seconds=20), "nobody watches yet"
    await asyncio.sleep(10)
    stage.hub.join()
    assert lasts(session) == timedelta(seconds=60)
    stage.hub.leave()
    assert lasts(session) == timedelta(seconds=30)
    stage.hub.join()
    await asyncio.sleep(35)
    stage.hub.leave()
    assert lasts(session) == timedelta(seconds=60), "before it has been idle for long enough"
    await asyncio.sleep(16)
    assert (session.status, session.reason, session.expires_at) == (Status.ENDED, "its time was over", None)
    assert (await Stage(main=True).start()).expires_at is None


@virtual
async def test_where_c_is_shorter_than_a_tick_blocks_are_locked_all_the_same() -> None:
    """Locks are made at ticks: the last one before a boundary is due may be longer before it than C."""
    stage = Stage(rate_hz=1.0)
    session = await stage.live()
    assert session.lock_s < 1.0
    await asyncio.sleep(60)
    assert session.picture > 50
    assert session.underruns == 0
    stage.check_video()


@virtual
async def test_nobody_watches_no_credit_no_work() -> None:
    stage = Stage()
    await stage.live()
    stage.hub.leave()
    await asyncio.sleep(1)
    before = [(credit.denoise_until, credit.decode_until) for credit in stage.engine.of(Credit)][-1]
    await asyncio.sleep(3)
    assert [(credit.denoise_until, credit.decode_until) for credit in stage.engine.of(Credit)][-1] == before


# The end, and failures


@virtual
async def test_an_ended_stream_keeps_its_log_tells_its_viewers_and_refuses_steers() -> None:
    stage = Stage()
    session = await stage.live()
    waiting = session.steer("never shown")
    await session.end("enough")
    await session.end("again")
    assert (session.status, session.reason, waiting.status) == (Status.ENDED, "enough", SteerStatus.FAILED)
    types = [event.type async for event in session.events.follow(after=0)]
    assert types[-2:] == ["steer.failed", "stream.status"]
    with pytest.raises(StreamEnded) as refused:
        session.steer("x")
    assert (refused.value.status, refused.value.code) == (410, "stream-ended")
    assert session.log_lines()
    await asyncio.sleep(1)
    assert stage.engine.open_streams == set()
    assert stage.sessions.get(session.id) is session


@virtual
async def test_a_broken_encoder_fails_its_stream_alone() -> None:
    stage = Stage(capacity=2)
    session = await stage.live()
    other = stage.sessions.create(CreateStream(prompt="other"))
    other.hub.join()
    await asyncio.sleep(3)
    stage.hub.fail("the encoder broke")
    assert (session.status, session.reason) == (Status.FAILED, "the encoder broke")
    await asyncio.sleep(3)
    assert other.status is Status.LIVE


@virtual
async def test_a_picture_that_the_hub_cannot_take_fails_its_stream_and_stops_its_ticks() -> None:
    stage = Stage()
    session = await stage.live()

    def refuse(i420: bytes, tick: int) -> None:
        raise ValueError("no I420 picture of 32x16")

    shown = len(stage.hub.shown)
    session.hub.release = refuse
    await asyncio.sleep(1)
    assert session.status is Status.FAILED
    assert session.reason == "a picture could not be shown: no I420 picture of 32x16"
    assert len(stage.hub.shown) == shown
    assert session.kept_bytes == 0


@virtual
async def test_a_fault_of_our_own_ends_the_stream_instead_of_letting_it_stand_still() -> None:
    stage = Stage(main=True)
    session = await stage.live()

    def fault(*_: object) -> None:
        raise RuntimeError("out of order")

    session._playback.steering.clean = fault  # type: ignore[assignment]
    await until(lambda: session.status is Status.FAILED)
    assert "out of order" in str(session.reason)
    await until(lambda: session.id not in stage.engine.open_streams)
    await until(lambda: stage.sessions.main is not session)


@virtual
async def test_a_stream_that_the_worker_fails_is_failed_with_its_reason_and_log() -> None:
    stage = Stage(capacity=2)
    session = await stage.live()
    other = stage.sessions.create(CreateStream(prompt="other"))
    other.hub.join()
    await asyncio.sleep(3)
    stage.engine.lose(session.id, "not a number")
    assert (session.status, session.reason) == (Status.FAILED, "not a number")
    assert session.log_lines()
    await asyncio.sleep(3)
    assert other.status is Status.LIVE
    assert other.underruns == 0


@virtual
async def test_main_goes_on_from_its_last_snapshot_when_the_worker_dies() -> None:
    stage = Stage(main=True)
    session = await stage.live()
    session.steer("before the crash")
    await asyncio.sleep(12.3)
    late = session.steer("asked just before")
    await asyncio.sleep(0.2)
    stage.engine.kill("killed by signal 9")
    assert (session.status, session.reason) == (Status.STARTING, "killed by signal 9")
    asked = session.steer("asked while it was down")
    await asyncio.sleep(4)
    picture = session.picture
    assert stage.hub.ticks[-1] == session.tick, "viewers go on getting the last picture"
    stage.engine.revive()
    await until(lambda: session.status is Status.LIVE)
    await asyncio.sleep(6)
    assert session.picture > picture
    assert stage.engine.of(Open)[-1].snapshot is not None
    assert late.status in (SteerStatus.RELEASED, SteerStatus.SUPERSEDED)
    assert asked.status is SteerStatus.RELEASED
    assert session.underruns == 0
    stage.check_video()


@pytest.mark.parametrize("cuts", [False, True])
def test_main_takes_steers_for_ever_at_the_price_of_its_log(cuts: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steers, "MAX_LOCKED", 12)

    @virtual
    async def scenario() -> None:
        stage = Stage(main=True, cuts=cuts)
        session = await stage.live()
        lines = session.log_lines()
        for number in range(40):
            asked = session.steer(f"prompt {number}")
            await until(lambda asked=asked: asked.status is SteerStatus.RELEASED)  # type: ignore[misc]
            lines.append(log.encode(log.entry(asked.message())))
            if number == 30:
                stage.engine.kill()
                stage.engine.revive()
        assert len(session.steers.locked) <= 12
        (*_, reopened) = stage.engine.of(Open)
        assert reopened.snapshot is not None
        assert len(reopened.steers) <= 12
        with pytest.raises(LogCut, match="goes on without one"):
            session.log_lines()
        assert stage.hub.pictures == video(lines, session.picture + 1, stage.engine.info)

    scenario()


def test_another_stream_takes_no_more_steers_than_its_log_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steers, "MAX_LOCKED", 3)

    @virtual
    async def scenario() -> None:
        stage = Stage()
        session = await stage.live()
        for number in range(2):
            asked = session.steer(f"prompt {number}")
            await until(lambda asked=asked: asked.status is SteerStatus.RELEASED)  # type: ignore[misc]
        with pytest.raises(TooMany) as refused:
            session.steer("one more")
        assert (refused.value.code, refused.value.status) == ("log-full", 409)
        assert len(session.log_lines()) == 3

    scenario()


@virtual
async def test_a_viewer_who_comes_while_main_is_parked_before_its_first_pictures_sees_it_go_on() -> None:
    stage = Stage(main=True)
    session = await stage.live()
    await asyncio.sleep(12)
    stage.engine.kill()
    stage.hub.leave()
    stage.engine.revive()
    # Its first pictures are under way when it is to be parked, and come before the snapshot.
    stage.engine.jitter = lambda: 24.0 if stage.engine.frontier(session.id).can_decode else 1.0
    await until(lambda: session.leaving)
    assert session.status is Status.STARTING
    stage.hub.join()
    stage.engine.jitter = lambda: 1.0
    await asyncio.sleep(20)
    assert session.status is Status.LIVE
    picture = session.picture
    await asyncio.sleep(1)
    assert session.picture > picture
    stage.check_video()


@virtual
async def test_a_viewer_who_comes_and_goes_while_the_stream_yields_its_slot_changes_nothing() -> None:
    stage = Stage()
    session = await stage.live()
    errors = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: errors.append(context))
    stage.hub.leave()
    session.park(evicted=True)
    stage.hub.join()
    stage.hub.leave()
    await asyncio.sleep(20)
    assert session.status is Status.PARKED
    assert not errors


@virtual
async def test_main_that_fails_again_and_again_is_given_up_and_a_new_one_opens() -> None:
    stage = Stage(main=True)
    session = await stage.live()
    for _ in range(4):
        await asyncio.sleep(3)
        stage.engine.lose(session.id, "not a number")
    assert session.status is Status.FAILED
    await asyncio.sleep(20)
    assert stage.sessions.main is not session
    assert not stage.sessions.main.over


@virtual
async def test_other_streams_fail_with_the_worker_but_parked_ones_do_not() -> None:
    stage = Stage(capacity=2, main=True)
    await stage.live()
    watched = stage.sessions.create(CreateStream(prompt="watched"))
    watched.hub.join()
    await asyncio.sleep(8)
    watched.hub.leave()
    await asyncio.sleep(6)
    parked, watched = watched, stage.sessions.create(CreateStream(prompt="another"))
    watched.hub.join()
    await asyncio.sleep(3)
    assert parked.status is Status.PARKED
    stage.engine.kill("killed by signal 9")
    assert (watched.status, watched.reason) == (Status.FAILED, "killed by signal 9")
    stage.engine.revive()
    parked.hub.join()
    await asyncio.sleep(5)
    assert parked.status is Status.LIVE
    assert parked.hub.pictures == video(parked.log_lines(), parked.picture + 1, stage.engine.info)


# Logs


@virtual
async def test_a_stream_from_a_log_makes_the_same_video_and_the_same_log() -> None:
    stage = Stage()
    session = await stage.live()
    for number in range(5):
        session.steer(f"prompt {number}")
        await asyncio.sleep(1.1)
    await asyncio.sleep(2)
    recipe, shown = session.log_lines(), stage.hub.pictures
    await session.end()
    again = stage.sessions.create(CreateStream(log="\n".join(recipe) + "\n"))
    again.hub.join()
    await until(lambda: again.picture + 1 >= len(shown))
    assert again.hub.pictures[: len(shown)] == shown
    assert again.log_lines() == recipe
    assert again.underruns == 0
    # It can be steered away from what the log says.
    steer = again.steer("elsewhere")
    await until(lambda: steer.status is SteerStatus.RELEASED)
    assert again.hub.pictures == video(again.log_lines(), again.picture + 1, stage.engine.info)


@virtual
async def test_a_log_with_cuts_makes_the_same_video_where_blocks_may_be_cut() -> None:
    stage = Stage(cuts=True)
    session = await stage.live()
    for number in range(9):
        session.steer(f"prompt {number}")
        await asyncio.sleep(0.31 + 0.07 * number)
    await asyncio.sleep(2)
    recipe, shown = session.log_lines(), stage.hub.pictures
    await session.end()
    again = stage.sessions.create(CreateStream(log="\n".join(recipe)))
    again.hub.join()
    await until(lambda: again.picture + 1 >= len(shown))
    assert again.hub.pictures[: len(shown)] == shown
    assert again.log_lines() == recipe
    assert again.underruns == 0
    with pytest.raises(LogError, match="no block boundary"):
        Stage().sessions.create(CreateStream(log="\n".join(recipe)))


@virtual
async def test_of_a_long_log_only_the_next_steers_are_listed_and_none_is_told_of_at_the_end() -> None:
    stage = Stage()
    header = (await stage.start()).log_lines()[0]
    lines = [json.dumps({"type": "steer", "at_latent": 3 * n, "prompt": f"p{n}"}) for n in range(1, 1000)]
    again = stage.sessions.create(CreateStream(log="\n".join([header, *lines])))
    assert [steer.prompt for steer in again.steers] == [f"p{n}" for n in range(1, KEPT_STEERS + 1)]
    asked = again.steer("mine", {"in_s": 9.0})
    assert asked in list(again.steers)
    await again.end()
    told = [event async for event in again.events.follow(after=0) if event.type == "steer.failed"]
    assert [event.data["id"] for event in told] == [asked.id]


@virtual
async def test_logs_that_are_malformed_or_of_other_weights_are_refused() -> None:
    stage = Stage()
    header = (await stage.start()).log_lines()[0]
    steer = '{"type":"steer","at_latent":%s,"prompt":"x"}'
    for text, code, field in (
        ("", "log-malformed", "log"),
        ("{", "log-malformed", "log.1"),
        (steer % 3, "log-malformed", "log.1"),
        (f"{header}\n{header}", "log-malformed", "log.2"),
        (f"{header}\n{steer % 6}\n{steer % 6}", "log-malformed", "log.3.at_latent"),
        (f"{header}\n{steer % 4}", "log-malformed", "log.at_latent"),
        (f"{header}\n{steer % -3}", "log-malformed", "log.2.at_latent"),
        (header.replace('"format":1', '"format":2'), "log-malformed", "log.format"),
        (header.replace('"seed":1', '"sead":1'), "log-malformed", "log.1"),
        (header.replace("w" * 16, "v" * 16), "log-other-weights", "log.weights"),
        (header.replace('"window":6', '"window":5'), "log-other-weights", "log.state"),
        (header.replace('"prompt":"start"', '"prompt":""'), "prompt-empty", "log.prompt"),
    ):
        with pytest.raises((LogError, Invalid)) as refused:
            stage.sessions.create(CreateStream(log=text))
        assert (refused.value.code, refused.value.field) == (code, field), text
        assert refused.value.status == 422
    with pytest.raises(Invalid) as both:
        stage.sessions.create(CreateStream(log=header, prompt="x"))
    assert both.value.field == "prompt"


def test_every_state_can_end_or_fail_and_nothing_leads_out_of_the_end() -> None:
    for status in Status:
        if status in states.FINAL:
            assert not TRANSITIONS[status]
        else:
            assert TRANSITIONS[status] >= states.FINAL
    with pytest.raises(RuntimeError, match="no way from live to parked"):
        states.check(Status.LIVE, Status.PARKED)
