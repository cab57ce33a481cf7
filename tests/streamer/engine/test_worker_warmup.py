"""The warm-up counts again before it says that the checkpoint's own rate is too much."""

from __future__ import annotations

from pathlib import Path

import pytest

from model.checkpoint import load_checkpoint
from streamer.engine import worker_warmup
from streamer.engine.worker_models import Models
from streamer.engine.worker_warmup import SECOND_LOOKS, warm_up


@pytest.mark.parametrize(
    ("counted", "looks", "kept"),
    [([1e-4, 9.0], 1, 1e-4), ([9.0, 1e-4, 9.0], 2, 1e-4), ([9.0, 8.0, 9.5, 1e-4], 1 + SECOND_LOOKS, 8.0)],
    ids=["quick", "slow for a moment", "slow"],
)
def test_a_slow_moment_is_counted_again(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch, counted: list[float], looks: int, kept: float
) -> None:
    passes = [(seconds, seconds, seconds) for seconds in counted]
    left = iter(passes)
    monkeypatch.setattr(worker_warmup, "_passes", lambda models, bucket: next(left))
    timings = warm_up(Models(load_checkpoint(tiny_model)), None, lambda share, what: None).timings
    assert [*left] == passes[looks:]
    assert (timings.pass_s, timings.steer_pass_s) == (kept, kept)
