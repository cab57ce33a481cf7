from __future__ import annotations

from pathlib import Path

import pytest
from tiny import save_tiny_model


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny checkpoint with random weights; see tests/tiny.py."""
    return save_tiny_model(tmp_path_factory.mktemp("tiny-model"))
