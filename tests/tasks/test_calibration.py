"""The temperature is the one that was drawn, the least loss there is, and changes no label."""

import numpy as np
import pytest

from distilora.tasks.calibration import HIGH, LOW, at_limit, fit_temperature
from distilora.tasks.classification import softmax


def drawn(temperature: float, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Logits, and targets drawn from the softmax of logits / temperature."""
    rng = np.random.default_rng(5)
    logits = (3 * rng.normal(size=(20_000, classes))).astype(np.float32)
    ranks = softmax(logits / temperature).cumsum(axis=1) > rng.random(20_000)[:, None]
    return logits, ranks.argmax(axis=1)


def loss(logits: np.ndarray, targets: np.ndarray, temperature: float) -> float:
    return float(-np.mean(np.log(softmax(logits / temperature)[np.arange(len(targets)), targets])))


@pytest.mark.parametrize("classes", [2, 5])
@pytest.mark.parametrize("temperature", [0.4, 1.0, 3.0])
def test_it_is_found(temperature: float, classes: int) -> None:
    logits, targets = drawn(temperature, classes)
    fitted = fit_temperature(logits, targets.tolist())
    assert fitted == pytest.approx(temperature, rel=0.06)
    for other in (0.97 * fitted, 1.03 * fitted, temperature, 1.0):
        assert loss(logits, targets, fitted) <= loss(logits, targets, other) + 1e-9
    assert np.array_equal((logits / fitted).argmax(1), logits.argmax(1))


def test_it_stays_within_bounds() -> None:
    logits, targets = drawn(1.0, 2)
    right = fit_temperature(logits, logits.argmax(1).tolist())
    wrong = fit_temperature(logits, logits.argmin(1).tolist())
    assert LOW <= right < 0.1
    assert HIGH * 0.9 < wrong <= HIGH
    assert [at_limit(value) for value in (LOW, 1.0, 1.3, HIGH)] == [True, False, False, True]
    assert fit_temperature(100 * logits, targets.tolist()) == pytest.approx(HIGH, rel=0.01)  # no overflow on the way
