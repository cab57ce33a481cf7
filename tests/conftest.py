from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny import save_tiny_720p, save_tiny_model

# `make test` runs two processes on two cores: more threads in each would only wait for one another.
torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny checkpoint with random weights; see tests/tiny.py."""
    return save_tiny_model(tmp_path_factory.mktemp("tiny-model"))


@pytest.fixture(scope="session")
def tiny_720p(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny checkpoint of the 720p form, which makes clips only."""
    return save_tiny_720p(tmp_path_factory.mktemp("tiny-720p") / "SANA-Video_720p", tiny_model)
