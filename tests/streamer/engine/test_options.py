"""How the model is loaded: from the command line of `serve` to the worker, the checkpoint and the log's header."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest
import torch

from model.checkpoint import load_checkpoint
from model.loading import loading
from streamer.cli import serve, settings_of
from streamer.engine import worker
from streamer.engine.options import FLAGS
from streamer.engine.process import Engine, EngineError
from streamer.engine.protocol import Timings
from streamer.engine.worker_warmup import Measured
from streamer.session.log import header

TIMINGS = Timings(first_block_s=0.1, pass_s=0.01, passes=2, decode_s=0.01)


def parsed(*given: str) -> argparse.Namespace:
    """The worker's options, from those of `serve`."""
    parser = argparse.ArgumentParser()
    serve.add_arguments(parser)
    settings = settings_of(parser.parse_args(given))
    return worker.parser().parse_args(["--fd", "0", "--model", "tiny", *settings.loading])


def test_the_worker_gets_what_serve_was_told() -> None:
    given = (
        "--vae-dtype",
        "fp32",
        "--text-dtype",
        "bf16",
        "--text-offload",
        "--precision",
        "reference",
        "--window",
        "7",
    )
    assert {
        name: getattr(parsed(*given), name) for name in FLAGS if name in {"vae_dtype", "text_dtype", "window"}
    } == {
        "vae_dtype": "fp32",
        "text_dtype": "bf16",
        "window": 7,
    }
    assert (parsed(*given).text_offload, parsed(*given).precision) == (True, "reference")
    assert parsed("--window", "none").window == "none"
    assert [getattr(parsed(), name) for name in ("vae_dtype", "precision", "window")] == [None, None, None]
    assert parsed().text_offload is False


@pytest.mark.parametrize("value", ["0", "4097", "-1", "all"])
def test_a_window_outside_its_limit_is_named(value: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parsed("--window", value)
    assert "is not none or a number of blocks, 1 to 4096" in capsys.readouterr().err


def test_the_log_says_how_exactly_the_stream_was_made(tiny_model: Path) -> None:
    options = parsed("--precision", "reference", "--window", "3")
    checkpoint = load_checkpoint(tiny_model, **loading(options))
    ready, _ = worker._ready(checkpoint, Measured(TIMINGS, 1, 1 << 20), options, {})
    log = header(ready.model, seed=1, height=64, width=64, rate_hz=8, prompt="the sea")
    assert (log.state["precision"], log.state["window"]) == ("reference", 3)
    assert checkpoint.text.encoder.dtype == torch.float32


async def test_sums_that_would_stall_are_refused_at_start(tiny_model: Path) -> None:
    engine = await Engine.start(tiny_model, threads=1, loading=("--precision", "reference", "--window", "none"))
    try:
        with pytest.raises(EngineError, match=r"^precision reference: a sum kept in bfloat16 stalls"):
            await engine.wait_ready()
    finally:
        await engine.close()
