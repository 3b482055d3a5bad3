"""The predictor of the finished run, in fp32 on the CPU."""

from pathlib import Path

import pytest

from distilora.inference.predictor import Predictor, load


@pytest.fixture(scope="module")
def predictor(finished: Path) -> Predictor:
    return load(finished, precision="fp32", device="cpu")
