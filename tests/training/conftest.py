"""An encoder deep enough to have blocks below those that are trained."""

from pathlib import Path

import pytest
from support.tiny import write_tiny_encoder


@pytest.fixture(scope="module")
def deep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_encoder(tmp_path_factory.mktemp("deep") / "tiny", n_layers=4)
