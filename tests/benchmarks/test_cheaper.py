"""The table of `benchmarks.cheaper`, on a tiny checkpoint: every way is gone, and does what the plain form does."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from benchmarks.cheaper import __main__ as cheaper
from model import packed


def test_the_table(tiny_model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--model", str(tiny_model), "--rounds", "1", "--no-inductor", "--torchao", "--decoder-base", "16"]
    monkeypatch.setattr(sys, "argv", ["cheaper", *arguments])
    able = packed._AVAILABLE
    try:
        cheaper.main()
    finally:
        torch.set_grad_enabled(True)
    assert packed._AVAILABLE is able
    parts = [part.splitlines() for part in capsys.readouterr().out.split("\n\n")]
    passes, samplers, decoders = ({line[:52].strip(): line[52:].split() for line in part[1:]} for part in parts[1:4])
    assert float(passes["diffusers' class, float32"][2]) < 1e-5  # the same net: latents' error
    assert float(passes["ours, float32"][-3]) == 0
    assert 1e-4 < float(passes["ours, bfloat16, weights not packed"][-3]) < 0.1
    int8 = next(cells for name, cells in passes.items() if "int8" in name)
    assert 1e-3 < float(int8[-3]) < 0.3
    assert list(samplers) == [
        "32 Euler passes",
        "4 Euler passes at 1000/900/750/500",
        "2 Euler passes at 1000/750",
        "2 Adams-Bashforth passes at 1000/750",
    ]
    errors = [float(cells[-3]) for cells in list(samplers.values())[1:]]
    assert 1e-3 < errors[0] < min(errors[1:])
    assert float(decoders["ours, float32"][-2]) > 80
    assert 30 < float(decoders["ours, bfloat16"][-2]) < 80
    random = decoders[next(name for name in decoders if "random weights" in name)]
    assert random[-2:] == ["-", "-"]
    assert parts[4][0].startswith("in all, plain")
