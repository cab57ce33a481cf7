from __future__ import annotations

from dataclasses import replace

from streamer.engine.scheduler import (
    CATCH_UP_SLACK_S,
    MAX_LEAD_LATENTS,
    Costs,
    Decode,
    Frontier,
    Passes,
    Prime,
    Unit,
    account,
    next_job,
)

COSTS = Costs(pass_s=0.1, decode_s=0.05)


def frontier(stream: str = "a", **fields: object) -> Frontier:
    """A stream in its third block of three latent frames, everything clean decoded, without credit."""
    start = Frontier(
        stream=stream, rate_hz=16.0, block_start=6, block_latents=3, passes_left=5, decode_next=6, shape="s"
    )
    return replace(start, **fields)


def test_no_credit_no_work() -> None:
    assert next_job([frontier()], 0.0, COSTS) is None
    assert next_job([], 0.0, COSTS) is None


def test_a_block_runs_when_it_begins_before_the_credit() -> None:
    stream = frontier()
    stream.credit(6, 0, 1.0)
    assert next_job([stream], 0.0, COSTS) is None
    stream.credit(7, 0, 1.0)
    assert next_job([stream], 0.0, COSTS) == Passes(("a",))


def test_decode_needs_credit_and_a_clean_latent_frame() -> None:
    stream = frontier(decode_next=5)
    stream.credit(0, 5, 1.0)
    assert next_job([stream], 0.0, COSTS) is None
    stream.credit(0, 100, 1.0)
    assert next_job([stream], 0.0, COSTS) == Decode("a")
    stream.decode_next = 6  # all that is clean is decoded
    assert next_job([stream], 0.0, COSTS) is None


def test_pictures_that_are_due_come_before_passes_of_a_block_that_is_late_anyway() -> None:
    stream = frontier(decode_next=5, passes_left=500)
    stream.credit(7, 6, 0.1)
    assert next_job([stream], 0.0, COSTS) == Decode("a")
    early = frontier(decode_next=5, passes_left=500)
    early.credit(7, 6, 1.0)  # that picture can wait for a pass
    assert next_job([early], 0.0, COSTS) == Passes(("a",))
    on_time = frontier(decode_next=5, passes_left=3)
    on_time.credit(7, 6, 0.12)
    assert next_job([on_time], 0.0, COSTS) == Passes(("a",))
    other = replace(early, stream="b")
    assert next_job([stream, other], 0.0, COSTS) == Decode("a")


def test_lower_credit_changes_nothing() -> None:
    stream = frontier(decode_next=3)
    stream.credit(10, 6, 1.0)
    stream.credit(4, 2, 1.0)
    assert (stream.denoise_until, stream.decode_until) == (10, 6)


def test_due_times_follow_the_pictures() -> None:
    stream = frontier(block_start=0, decode_next=0)
    stream.credit(9, 9, 10.0)
    assert stream.due(0) == 10.0
    assert stream.due(1) == 10.0 + 1 / 16  # latent frame 0 holds one picture
    assert stream.due(2) == 10.0 + 5 / 16
    stream.decode_next = 2
    stream.credit(9, 9, 20.0)  # speaks of the next picture to be sent, which is latent frame 2's first
    assert stream.due(3) == 20.0 + 4 / 16


def test_within_a_stream_the_step_that_must_start_first_runs_first() -> None:
    stream = frontier(decode_next=4)
    stream.credit(100, 100, 1.0)
    # Frame 4 must start at 0.95; the block from 6 is due at 1.5, less five passes and a decode: 0.95 - a tie.
    stream.passes_left = 4
    assert next_job([stream], 0.0, COSTS) == Decode("a")
    stream.passes_left = 6
    assert next_job([stream], 0.0, COSTS) == Passes(("a",))


def test_the_stream_with_the_least_slack_goes_first() -> None:
    early, late = frontier("early"), frontier("late")
    early.credit(100, 100, 1.0)
    late.credit(100, 100, 1.3)
    assert next_job([late, early], 0.0, COSTS) == Passes(("early",))
    late.passes_left = 10  # due later, but five more passes to do
    assert next_job([late, early], 0.0, COSTS) == Passes(("late",))


def test_catching_up_gives_way_to_streams_that_would_be_late_only() -> None:
    replay = frontier("replay", block_start=30, decode_next=300)
    replay.credit(400, 400, 0.0)
    live = frontier("live")
    live.credit(100, 100, 5 * COSTS.pass_s + COSTS.decode_s + CATCH_UP_SLACK_S - 0.01)
    assert next_job([replay, live], 0.0, COSTS) == Passes(("live",))
    live.credit(100, 100, 10.0)
    assert next_job([replay, live], 0.0, COSTS) == Passes(("replay",))


def test_the_decoder_is_primed_before_it_decodes() -> None:
    stream = frontier(block_start=9, decode_next=12, primed=False)
    stream.credit(100, 12, 1.0)
    assert next_job([stream], 0.0, COSTS) == Passes(("a",))
    stream.credit(100, 100, 1.0)
    assert next_job([stream], 0.0, COSTS) == Passes(("a",))  # frames 9 to 11 are still to come
    stream.block_start = 12
    assert next_job([stream], 0.0, COSTS) == Prime("a")
    stream.primed, stream.block_start = True, 15
    assert next_job([stream], 0.0, COSTS) == Decode("a")


def test_priming_gives_way_to_late_streams_until_it_is_late_itself() -> None:
    opened = frontier("opened", block_start=12, decode_next=12, primed=False)
    late = frontier("late", block_start=9, decode_next=6)
    late.credit(9, 100, -1.0)
    opened.credit(12, 100, 5.0)
    assert next_job([opened, late], 0.0, COSTS) == Decode("late")
    opened.credit(12, 100, -2.0)
    assert next_job([opened, late], 0.0, COSTS) == Prime("opened")


def test_batches_take_the_most_urgent_streams_of_one_shape() -> None:
    streams = [frontier(name) for name in "abcd"]
    for number, stream in enumerate(streams):
        stream.credit(100, 100, 2.0 - number / 10)
    streams[2].shape = "another"
    assert next_job(streams, 0.0, COSTS, max_batch=2) == Passes(("d", "b"))
    assert next_job(streams, 0.0, COSTS, max_batch=8) == Passes(("d", "b", "a"))
    streams[1].alone = True
    assert next_job(streams, 0.0, COSTS, max_batch=8) == Passes(("d", "a"))
    streams[3].alone = True
    assert next_job(streams, 0.0, COSTS, max_batch=8) == Passes(("d",))


def test_the_lead_is_bounded_whatever_the_credit() -> None:
    stream = frontier(block_start=6 + MAX_LEAD_LATENTS)
    stream.credit(10**9, 6, 1.0)
    assert next_job([stream], 0.0, COSTS) is None


UNIT = Unit("vid", cost_s=0.1)


def idling(stream: str = "a", **fields: object) -> Frontier:
    """Everything credited is done: six latent frames decoded and locked, two blocks ahead; six passes a block."""
    return frontier(stream, block_start=12, block_passes=6, passes_left=6, decode_until=6, denoise_until=12, **fields)


def test_a_clip_runs_flat_out_where_no_stream_is() -> None:
    assert next_job([], 0.0, COSTS, idle=UNIT) == UNIT
    assert next_job([], 0.0, COSTS) is None


def test_a_stream_with_work_goes_before_a_clip_however_late_it_is_due() -> None:
    stream = frontier()
    stream.credit(7, 0, 1000.0)
    assert next_job([stream], 0.0, COSTS, idle=UNIT) == Passes(("a",))


def test_a_clip_runs_only_if_its_unit_ends_before_a_steered_block_must_start() -> None:
    # A steer at latent frame 6 takes six passes and a decode: it starts by 9.35. The unit needs 0.1 x 1.2 + 0.01.
    stream = idling(due_s=10.0, due_latent=6)
    assert next_job([stream], 9.21, COSTS, idle=UNIT) == UNIT
    assert next_job([stream], 9.23, COSTS, idle=UNIT) is None
    assert next_job([stream], 9.21, COSTS, idle=Unit("vid", cost_s=0.2)) is None
    other = idling("b", due_s=9.9, due_latent=6)
    assert next_job([stream, other], 9.21, COSTS, idle=UNIT) is None


def test_a_clip_waits_for_the_block_that_will_be_asked_for_next() -> None:
    stream = replace(idling(due_s=10.0, due_latent=6), block_start=6, denoise_until=6, block_passes=1, passes_left=9)
    assert next_job([stream], 8.9, COSTS, idle=UNIT) == UNIT  # nine passes and a decode: it starts by 9.05
    assert next_job([stream], 8.95, COSTS, idle=UNIT) is None


def test_a_clip_runs_beside_a_paused_stream() -> None:
    stream = idling(due_s=10.0, due_latent=6)
    assert next_job([stream], 9.99, COSTS, idle=UNIT) is None
    assert next_job([stream], 10.0, COSTS, idle=UNIT) == UNIT  # its clock stands, or it would have had credit
    assert next_job([idling()], 0.0, COSTS, idle=UNIT) == UNIT  # never credited: nothing is due


def test_a_stream_that_takes_more_than_its_share_makes_nobody_late() -> None:
    greedy, modest = frontier("greedy"), frontier("modest")
    for stream, due_s in ((greedy, 0.5), (modest, 0.55)):
        stream.credit(12, 12, due_s)
    assert next_job([greedy, modest], 0.0, COSTS) == Passes(("greedy",))
    now_s = 0.0
    for _ in range(100):
        job = Passes(("greedy",) if now_s < 5 else ("modest",))
        account([greedy, modest], job, 0.06, 0.1)
        now_s += 0.1
        if now_s < 5:
            assert modest.share == 0
    assert 0 < greedy.share < 0.3 < modest.share < 0.6
    greedy.share, modest.share = 0.61, 0.3
    assert next_job([greedy, modest], 0.0, COSTS) == Passes(("greedy",)), "there is time for both"
    modest.share = 0.38
    assert next_job([greedy, modest], 0.0, COSTS) == Passes(("modest",)), "has to start within the slack"
    modest.credit(12, 12, 5.0)
    assert next_job([greedy, modest], 0.0, COSTS) == Passes(("greedy",)), "and before work that can wait"
    assert next_job([greedy], 0.0, COSTS) == Passes(("greedy",))


def test_a_guided_stream_has_two_rows_in_a_batch_and_twice_the_work() -> None:
    guided, plain, other = frontier("guided", rows=2), frontier("plain"), frontier("other")
    for stream, due_s in ((guided, 2.0), (plain, 2.1), (other, 2.2)):
        stream.credit(12, 12, due_s)
    assert next_job([guided, plain, other], 0.0, COSTS, max_batch=3) == Passes(("guided", "plain"))
    assert next_job([guided, plain, other], 0.0, COSTS, max_batch=4) == Passes(("guided", "plain", "other"))
    plain.credit(12, 12, 1.7)
    assert next_job([guided, plain], 0.0, COSTS) == Passes(("guided",)), "ten passes have to begin before five"
    plain.credit(12, 12, 1.4)
    assert next_job([guided, plain, other], 0.0, COSTS, max_batch=2) == Passes(("plain", "other"))
