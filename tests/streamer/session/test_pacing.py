"""Pacing against a worker with the engine's own scheduler: random steers, random jitter, no underrun."""

from __future__ import annotations

import asyncio
import json
import random

import msgspec
import pytest
from scripted_engine import ScriptedEngine, ScriptedHub, ready, uniform_jitter, video
from virtual_clock import run

from streamer.engine.blocks import Blocks
from streamer.engine.info import Timings
from streamer.engine.protocol import Ready, first_picture
from streamer.session.manager import Sessions
from streamer.session.pacing import MARGIN, MOST, SHARED, SLACK_S, Costs, Estimate, Pacer
from streamer.session.session import Session
from streamer.session.spec import CreateStream
from streamer.session.steers import SteerStatus
from streamer.session.timeline import Timeline, latent_of
from streamer.settings import Settings

TIMINGS = Timings(first_block_s=1.5, pass_s=0.07, passes=4, decode_s=0.05)
BLOCKS = Blocks(3, 3)

# Speeds that a machine can hold with the margin: 1.3 x (a block and its decodes) fits in the time the block plays.
MACHINES = {
    "two slow cores": ready(pass_s=0.07, decode_s=0.05),
    "quick": ready(pass_s=0.02, decode_s=0.01),
    "long blocks": ready(pass_s=0.2, decode_s=0.06, block=10, first=11, first_block_s=1.0),
    "decode heavy": ready(pass_s=0.03, decode_s=0.12),
    "one latent frame a block": ready(pass_s=0.024, decode_s=0.05, block=1, first_block_s=0.5),
    "8 Hz": ready(pass_s=0.15, decode_s=0.1, rate_hz=8.0),
    "cuts": ready(pass_s=0.06, decode_s=0.05, steer=2, steer_pass_s=0.045, cuts=True),
    "cuts, blocks of one length": ready(pass_s=0.07, decode_s=0.05, cuts=True),
    "cuts, quick": ready(pass_s=0.02, decode_s=0.01, steer=1, steer_pass_s=0.01, cuts=True),
    "C less than a tick": ready(pass_s=0.0023, decode_s=0.002),
    "cuts, C less than a tick": ready(pass_s=0.0023, decode_s=0.002, steer=2, cuts=True),
    "cuts, 8 Hz": ready(pass_s=0.12, decode_s=0.1, rate_hz=8.0, steer=2, steer_pass_s=0.1, cuts=True),
}


def test_boundaries_and_latent_frames() -> None:
    blocks = Blocks(first=11, default=10)
    assert [blocks.floor(f) for f in (10, 11, 20, 21)] == [0, 11, 11, 21]
    assert [blocks.ceil(f) for f in (0, 1, 11, 12)] == [0, 11, 11, 21]
    assert [blocks.next(f) for f in (0, 10, 11)] == [11, 11, 21]
    for picture in range(200):
        latent = latent_of(picture)
        assert first_picture(latent) <= picture < first_picture(latent + 1)


def test_lock_time_counts_the_pass_under_way_and_one_decode() -> None:
    costs = Costs(TIMINGS, BLOCKS, rate_hz=16)
    assert costs.lock_s == pytest.approx(MARGIN * (6 * 0.07 + 0.05) + SLACK_S)


def test_decodes_that_do_not_fit_beside_a_block_lengthen_the_lock_time() -> None:
    slow = Timings(first_block_s=1.0, pass_s=0.1, passes=4, decode_s=0.1)
    overload_s = MARGIN * (0.5 + 3 * 0.1) - 12 / 16
    assert Costs(slow, BLOCKS, 16).lock_s == pytest.approx(MARGIN * (0.6 + 0.1) + SLACK_S + overload_s)


def test_a_restart_is_not_held_for_long_however_slow_the_worker_was() -> None:
    timeline, costs = Timeline(BLOCKS, 16), Costs(TIMINGS, BLOCKS, rate_hz=16)
    pacer = Pacer(timeline, costs)
    usual_s = pacer.hold_s(0)
    assert 0 < usual_s < costs.most_s
    for _ in range(100):
        costs.saw_block(60.0)
    assert costs.block_s > 50
    assert usual_s < pacer.hold_s(0) == costs.most_s


def test_estimates_rise_fast_fall_slowly_and_shrug_off_an_outlier() -> None:
    estimate = Estimate(1.0)
    estimate.update(100.0)
    assert estimate.value_s == pytest.approx(1.25)
    for _ in range(50):
        estimate.update(0.5)
    assert 0.5 < estimate.value_s < 0.6
    costs = Costs(TIMINGS, BLOCKS, 16)
    before_s = costs.lock_s
    for _ in range(1000):
        costs.saw_steer(1e6)
    assert costs.lock_s == pytest.approx(MARGIN * (SHARED * 6 * 0.07 + 0.05) + SLACK_S)
    for _ in range(1000):
        costs.saw_block(1e6)
    assert costs.lock_s == pytest.approx(MOST * before_s)


def test_a_boundary_locks_when_its_first_picture_is_due_within_the_lock_time() -> None:
    timeline = Timeline(BLOCKS, 16)
    pacer = Pacer(timeline, Costs(TIMINGS, BLOCKS, 16))
    due_s = 9 / 16
    early_s = due_s - pacer.costs.lock_s - 0.001
    assert not pacer.lock(early_s, 0.0)
    assert timeline.locked == 3
    assert pacer.boundary() == 3
    assert pacer.lock(early_s + 0.002, 0.0)
    assert timeline.locked == 6
    assert pacer.boundary() == 6
    assert not pacer.lock(early_s, 0.0), "what is locked stays locked"
    assert timeline.locked == 6


@pytest.mark.parametrize("pass_s", [0.0023, 0.0065])
def test_where_c_is_about_a_tick_nothing_locks_sooner_but_what_is_due_next(pass_s: float) -> None:
    blocks = Blocks(3, 3, 2, True)
    timeline = Timeline(blocks, 16, next_picture=7)
    pacer = Pacer(timeline, Costs(Timings(first_block_s=1.0, pass_s=pass_s, passes=4, decode_s=0.002), blocks, 16))
    assert SLACK_S < pacer.costs.lock_s < 1 / 16 + SLACK_S
    due_s = 2 / 16
    assert not pacer.lock(due_s - pacer.costs.lock_s - 0.001, 0.0)
    assert pacer.lock(due_s - pacer.costs.lock_s + 0.001, 0.0)
    assert timeline.locked == 4
    timeline.next_picture = first_picture(4)
    assert pacer.lock(-1.0, 0.0), "after the next tick it is too late"
    assert timeline.locked == 5


def test_a_steer_for_later_takes_the_first_boundary_at_or_past_its_picture() -> None:
    pacer = Pacer(Timeline(BLOCKS, 16), Costs(TIMINGS, BLOCKS, 16))
    assert [pacer.boundary(picture) for picture in (1, 9, 10, 21, 22)] == [3, 3, 6, 6, 9]


def test_where_blocks_may_be_cut_each_latent_frame_locks() -> None:
    blocks = Blocks(3, 3, 2, True)
    timeline = Timeline(blocks, 16, denoised=12)
    pacer = Pacer(timeline, Costs(TIMINGS, blocks, 16))
    due_s = 13 / 16  # picture 13 is the first of latent frame 4
    assert not pacer.lock(9 / 16 - pacer.costs.lock_s - 0.001, 0.0)
    assert pacer.boundary() == 3
    assert pacer.lock(due_s - pacer.costs.lock_s - 0.001, 0.0)
    assert (timeline.locked, pacer.boundary()) == (4, 4)
    assert pacer.lock(due_s - pacer.costs.lock_s + 0.001, 0.0)
    assert (timeline.locked, pacer.boundary()) == (5, 5)


def test_a_block_that_is_not_clean_is_not_cut() -> None:
    blocks = Blocks(3, 3, 2, True)
    timeline = Timeline(blocks, 16, locked=7, denoised=6)
    pacer = Pacer(timeline, Costs(TIMINGS, blocks, 16))
    assert pacer.boundary() == 9
    timeline.denoised = 9
    assert pacer.boundary() == 7
    blocks.places[:] = [7]
    timeline.denoised = 7  # the steer's own block is being made
    timeline.locked = 8
    assert pacer.boundary() == 9
    assert pacer.boundary(picture=first_picture(10)) == 12


def test_a_steer_waits_for_the_decodes_that_are_owed() -> None:
    blocks = Blocks(3, 3, 2, True)
    timeline = Timeline(blocks, 16, locked=9, denoised=15, next_latent=8)
    pacer = Pacer(timeline, Costs(TIMINGS, blocks, 16))
    due_s = first_picture(9) / 16
    need_s = pacer.costs.lock_s + MARGIN * TIMINGS.decode_s
    assert pacer.boundary(0, due_s - need_s - 0.001, 0.0) == 9
    assert pacer.boundary(0, due_s - need_s + 0.001, 0.0) == 10


def test_a_short_block_after_a_steer_locks_sooner_unless_the_next_one_does_not_fit() -> None:
    quick = Timings(first_block_s=1.0, pass_s=0.05, passes=4, decode_s=0.03, steer_pass_s=0.03)
    whole = MARGIN * (6 * 0.05 + 0.03) + SLACK_S
    alike = msgspec.structs.replace(quick, steer_pass_s=None)
    assert Costs(alike, Blocks(3, 3, None, True), 16).lock_s == pytest.approx(whole)
    short = MARGIN * (2 * 0.05 + 4 * 0.03 + 0.03) + SLACK_S
    assert Costs(quick, Blocks(3, 3, 2, True), 16).lock_s == pytest.approx(short)
    overload_s = MARGIN * (5 * 0.05 + 0.03) - 4 / 16
    assert Costs(quick, Blocks(3, 3, 1, True), 16).lock_s == pytest.approx(short + overload_s)


def test_credit_decodes_what_is_locked_and_bounds_the_lead() -> None:
    timeline = Timeline(BLOCKS, 16)
    pacer = Pacer(timeline, Costs(TIMINGS, BLOCKS, 16), lead_s=1.5)
    credit = pacer.credit(now_s=5.0, next_tick_s=5.1)
    assert (credit.decode_until, credit.denoise_until) == (3, 9)
    assert credit.due_s == pytest.approx(0.1)


async def _live(info: Ready, jitter_seed: int | None) -> tuple[ScriptedEngine, Session, ScriptedHub]:
    jitter = (lambda: 1.0) if jitter_seed is None else uniform_jitter(jitter_seed, 1 / MARGIN, MARGIN)
    engine = ScriptedEngine(info, jitter)
    sessions = Sessions(engine, Settings(), ScriptedHub)
    session = sessions.create(CreateStream(prompt="start", seed=1))
    session.hub.join()
    return engine, session, session.hub


def _check_video(session: Session, hub: ScriptedHub, info: Ready) -> None:
    """Every picture once and in order, as the log says; ticks gapless and on time."""
    assert hub.pictures == video(session.log_lines(), session.picture + 1, info)
    assert hub.ticks == list(range(len(hub.ticks)))
    for k, at_s in enumerate(hub.at_s):
        assert at_s - hub.at_s[0] == pytest.approx(k / session.rate_hz, abs=1e-6)


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("seed", range(3))
def test_random_steers_and_jitter_give_no_underrun_and_bounded_latency(machine: str, seed: int) -> None:
    info = MACHINES[machine]

    async def scenario() -> None:
        _engine, session, hub = await _live(info, seed)
        dice = random.Random(seed)
        steers, most_lock_s = [], 0.0
        await asyncio.sleep(6)
        for number in range(60):
            await asyncio.sleep(dice.choice([0.0, 0.01, 0.2, 1.0, 2.5]) * dice.random())
            most_lock_s = max(most_lock_s, session.lock_s)
            steers.append(session.steer(f"prompt {number}"))
        await asyncio.sleep(10)
        assert session.underruns == 0
        _check_video(session, hub, info)
        block_s = 4 * info.model.block_latent_frames[0] / session.rate_hz
        released = [steer for steer in steers if steer.status is SteerStatus.RELEASED]
        assert released
        assert all(steer.status in (SteerStatus.RELEASED, SteerStatus.SUPERSEDED) for steer in steers)
        for steer in released:
            assert steer.latency_s is not None
            assert steer.latency_s <= most_lock_s + block_s + 1 / session.rate_hz + 1e-6
        await session.end()

    run(scenario())


@pytest.mark.parametrize("machine", [name for name in MACHINES if name.startswith("cuts")])
def test_where_blocks_may_be_cut_a_lone_steer_waits_for_a_latent_frame_not_for_a_block(machine: str) -> None:
    info = MACHINES[machine]

    async def scenario() -> None:
        _engine, session, hub = await _live(info, None)
        dice = random.Random(1)
        steers = []
        await asyncio.sleep(6)
        for number in range(20):
            await asyncio.sleep(dice.uniform(2, 3) * 16 / session.rate_hz)
            lock_s = session.lock_s
            steers.append((lock_s, session.steer(f"prompt {number}")))
        await asyncio.sleep(5)
        latencies_s = [steer.latency_s - lock_s for lock_s, steer in steers if steer.latency_s is not None]
        assert len(latencies_s) == 20
        assert max(latencies_s) <= 4 / session.rate_hz + 1 / session.rate_hz
        assert session.underruns == 0
        _check_video(session, hub, info)
        await session.end()

    run(scenario())


@pytest.mark.parametrize(("streams", "pass_s", "decode_s"), [(2, 0.04, 0.03), (4, 0.02, 0.01)])
@pytest.mark.parametrize("cuts", [False, True])
@pytest.mark.parametrize("seed", range(2))
def test_streams_that_fill_the_worker_are_all_steered_without_an_underrun(
    streams: int, pass_s: float, decode_s: float, seed: int, cuts: bool
) -> None:
    """They keep three quarters of it busy, so jitter is a little less than what one stream alone can bear."""

    async def scenario() -> None:
        info = ready(capacity=streams, pass_s=pass_s, decode_s=decode_s, cuts=cuts)
        sessions = Sessions(ScriptedEngine(info, uniform_jitter(seed, 1 / 1.15, 1.15)), Settings(), ScriptedHub)
        all_ = []
        for number in range(streams):
            session = sessions.create(CreateStream(prompt="start", seed=number))
            session.hub.join()
            all_.append(session)
            await asyncio.sleep(3)
        dice = random.Random(seed)
        for number in range(150):
            await asyncio.sleep(dice.uniform(0, 0.6))
            dice.choice(all_).steer(f"prompt {number}")
        await asyncio.sleep(5)
        for session in all_:
            assert session.underruns == 0
            _check_video(session, session.hub, info)
            assert max(steer.latency_s or 0.0 for steer in session.steers) < 12 / 16 + session.lock_s + 0.1
        await sessions.close()

    run(scenario())


def test_a_log_that_the_machine_cannot_follow_makes_its_own_stream_late() -> None:
    """A steer at each latent frame: each costs the passes of a block. Taking turns, both would repeat 50 pictures."""

    async def scenario() -> None:
        info = ready(capacity=2, pass_s=0.04, decode_s=0.03, cuts=True, steer=2, steer_pass_s=0.03)
        sessions = Sessions(ScriptedEngine(info), Settings(), ScriptedHub)
        fine = sessions.create(CreateStream(prompt="start", seed=1))
        fine.hub.join()
        await asyncio.sleep(4)
        lines = [json.dumps({"type": "steer", "at_latent": n, "prompt": f"prompt {n}"}) for n in range(3, 200)]
        dense = sessions.create(CreateStream(log="\n".join([*fine.log_lines(), *lines])))
        dense.hub.join()
        await asyncio.sleep(30)
        assert dense.underruns > 60
        assert fine.underruns < 15
        for session in (fine, dense):
            _check_video(session, session.hub, info)
        await sessions.close()

    run(scenario())


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("every_s", [0.011, 0.13])
def test_a_flood_of_steers_starves_nothing(machine: str, every_s: float) -> None:
    info = MACHINES[machine]

    async def scenario() -> None:
        _engine, session, hub = await _live(info, jitter_seed=5)
        await asyncio.sleep(6)
        before = session.picture
        steers = []
        for number in range(round(20 / every_s)):
            steers.append(session.steer(f"prompt {number}"))
            await asyncio.sleep(every_s)
        assert session.underruns == 0
        assert session.picture - before == pytest.approx(20 * session.rate_hz, abs=2)
        # Each boundary got the last steer that came before it locked.
        released = [steer for steer in steers if steer.status is SteerStatus.RELEASED]
        boundaries = (session.picture - before) / (4 * info.model.block_latent_frames[0])
        assert len(released) >= min(boundaries - 3, len(steers) - 8)
        await asyncio.sleep(3)
        _check_video(session, hub, info)
        await session.end()

    run(scenario())


def test_the_worst_moment_right_after_a_boundary_locked() -> None:
    """Steers at the very last moment before each lock: the least time that the worker ever has."""
    info = MACHINES["two slow cores"]

    async def scenario() -> None:
        engine, session, hub = await _live(info, jitter_seed=None)
        engine.jitter = lambda: MARGIN
        await asyncio.sleep(6)
        for number in range(20):
            locked = session._playback.timeline.locked
            while session._playback.timeline.locked == locked:
                due_s = session._playback.pacer.due_s(locked, session._playback.player.next_tick_s)
                left_s = due_s - asyncio.get_running_loop().time() - session.lock_s
                if 0 < left_s < 1 / 16:
                    await asyncio.sleep(left_s - 1e-4)
                    assert session.steer(f"prompt {number}").at_latent == locked
                    break
                await asyncio.sleep(0.005)
            await asyncio.sleep(0.1)
        await asyncio.sleep(3)
        assert session.underruns == 0
        _check_video(session, hub, info)
        await session.end()

    run(scenario())


def test_a_slow_spell_repeats_pictures_counts_them_and_recovers() -> None:
    info = MACHINES["two slow cores"]

    async def scenario() -> None:
        engine, session, hub = await _live(info, jitter_seed=None)
        await asyncio.sleep(6)
        engine.jitter = lambda: 4.0
        await asyncio.sleep(8)
        assert session.underruns > 10
        engine.jitter = lambda: 1.0
        await asyncio.sleep(10)
        so_far = session.underruns
        await asyncio.sleep(20)
        assert session.underruns == so_far, "it recovers"
        events = [event async for event in _kept(session)]
        assert sum(event.data["repeated"] for event in events if event.type == "underrun") == so_far
        _check_video(session, hub, info)
        await session.end()

    run(scenario())


async def _kept(session: Session):  # type: ignore[no-untyped-def]
    """Events so far."""
    last = session.events.seq
    async for event in session.events.follow(after=0):
        yield event
        if event.seq >= last:
            return
