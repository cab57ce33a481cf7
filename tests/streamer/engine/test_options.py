"""How the model is loaded: from the command line of `serve` to the worker, the checkpoint and the log's header."""

from __future__ import annotations

import argparse
import re
from dataclasses import replace
from pathlib import Path

import pytest

from model.checkpoint import load_checkpoint
from model.loading import loading
from model.quantize import Share
from model.source import CheckpointError
from streamer.cli import serve, settings_of
from streamer.engine import worker
from streamer.engine.options import FLAGS
from streamer.engine.process import Engine, EngineError


def parsed(*given: str) -> argparse.Namespace:
    """The worker's options, from those of `serve`."""
    parser = argparse.ArgumentParser()
    serve.add_arguments(parser)
    settings = settings_of(parser.parse_args(given))
    return worker.parser().parse_args(
        ["--fd", "0", "--model", "tiny", "--device", settings.device, *settings.loading]
    )


def test_the_worker_gets_what_serve_was_told() -> None:
    text = "--heads 4 --vae-dtype fp32 --text-dtype bf16 --window 7 --text-offload --precision reference"
    told = parsed(*text.split(), "--quantize", "int8", "--quantize", "text_encoder=bnb4")
    assert (told.vae_dtype, told.text_dtype, told.window) == ("fp32", "bf16", 7)
    assert (told.heads, told.text_offload, told.precision) == (4, True, "reference")
    assert told.quantize == ["int8", "text_encoder=bnb4"]
    assert parsed("--window", "none").window == "none"
    assert parsed("--heads", "0").heads == 0, "the worker refuses it"
    assert {getattr(parsed(), name) or None for name in FLAGS} == {None}


@pytest.mark.parametrize("value", ["0", "4097", "-1", "all"])
def test_a_window_outside_its_limit_is_named(value: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parsed("--window", value)
    assert "is not none or a number of blocks, 1 to 4096" in capsys.readouterr().err


def test_the_log_says_how_exactly_the_stream_was_made(tiny_model: Path) -> None:
    checkpoint = load_checkpoint(tiny_model, **loading(parsed("--precision", "reference", "--window", "3")))
    options = worker.state_options(checkpoint)
    assert (options["precision"], options["window"], options["window_group"]) == ("reference", 3, 1)
    assert "transformer_weights" not in options
    share = Share("int8", 1, 2)
    assert (
        worker.state_options(replace(checkpoint, quantised={"transformer": share}))["transformer_weights"] == "int8"
    )


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("--quantize", "int3"), "--quantize int3: int3 is none of bnb8, "),
        (("--quantize", "vae=int8"), "--quantize vae=int8: vae is none of transformer, text_encoder"),
        (("--device", "nowhere"), "--device nowhere: "),
    ],
)
def test_what_cannot_be_loaded_so_is_named(given: tuple[str, ...], message: str) -> None:
    with pytest.raises(CheckpointError, match=re.escape(message)):
        loading(parsed(*given))


async def test_sums_that_would_stall_are_refused_at_start(tiny_model: Path) -> None:
    engine = await Engine.start(tiny_model, threads=1, loading=("--precision", "reference", "--window", "none"))
    try:
        with pytest.raises(EngineError, match=r"^precision reference: a sum kept in bfloat16 stalls"):
            await engine.wait_ready()
    finally:
        await engine.close()
