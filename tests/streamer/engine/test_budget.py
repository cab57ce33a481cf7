from __future__ import annotations

import pytest

from streamer.engine.budget import candidates, capacity, choose_rate, picture_s
from streamer.engine.info import Timings


def test_a_picture_costs_its_share_of_a_block_and_a_decode() -> None:
    timings = Timings(first_block_s=1.0, pass_s=0.06, passes=4, decode_s=0.08)
    assert picture_s(timings, block_latents=3) == pytest.approx((5 * 0.06 / 3 + 0.08) / 4)


@pytest.mark.parametrize(
    ("cost_ms", "rate_hz"), [(35.9, 16), (36.1, 12), (47.9, 12), (48.1, 8), (71.9, 8), (500.0, 8)]
)
def test_the_highest_rate_that_leaves_room_for_the_rest(cost_ms: float, rate_hz: float) -> None:
    chosen, why = choose_rate(cost_ms / 1e3, own_hz=16.0, alone=False)
    assert chosen == rate_hz
    assert f"{rate_hz} Hz" in why
    assert ("may not hold" in why) is (cost_ms > 72)


def test_a_device_of_its_own_may_be_used_up() -> None:
    assert choose_rate(0.050, own_hz=16.0, alone=False)[0] == 8
    assert choose_rate(0.050, own_hz=16.0, alone=True)[0] == 16


def test_a_checkpoint_with_its_own_rate() -> None:
    assert list(candidates(24.0)) == [24.0, 16.0, 12.0, 8.0]
    assert list(candidates(10.0)) == [10.0, 8.0]
    assert choose_rate(0.030, own_hz=24.0, alone=False)[0] == 16


def test_capacity_is_at_least_one() -> None:
    assert capacity(cost_s=0.036, rate_hz=16.0) == 1
    assert capacity(cost_s=0.010, rate_hz=16.0) == 5
    assert capacity(cost_s=10.0, rate_hz=8.0) == 1
