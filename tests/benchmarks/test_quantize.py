"""The table of `benchmarks.quantize`: rows that can't be made say why, and the time that there is is kept."""

from __future__ import annotations

import sys

import pytest
import torch

from benchmarks import quantize


def table(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str) -> list[str]:
    monkeypatch.setattr(sys, "argv", ["quantize", "--tiny", "--device", "cpu", "--rounds", "1", *arguments])
    try:
        quantize.main()
    finally:
        torch.set_grad_enabled(True)
    return capsys.readouterr().out.splitlines()[2:]


def test_rows(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    first, *others = table(monkeypatch, capsys, "--schemes", "nvfp4", "bnb4")
    assert first.split()[0] == "bf16"
    assert first.split()[-3:] == ["0.00e+00", "0.00e+00", "-"]
    assert [row.split()[0] for row in others] == ["nvfp4", "bnb4"]
    assert all("--quantize" in row for row in others)


def test_nothing_is_started_late(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    rows = table(monkeypatch, capsys, "--schemes", "int8", "--budget-s", "0")
    assert [row.split(maxsplit=1) for row in rows] == [[name, "left out: 0 s are over"] for name in ("bf16", "int8")]
