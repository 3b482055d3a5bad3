"""The weights that combine encoder and n-gram expert."""

import numpy as np
import pytest
from scipy.optimize import minimize

from distilora.lexicon.combination import _log_loss, fit_scale, fit_weights
from distilora.tasks.calibration import fit_temperature


def noisy(classes: int = 2, count: int = 2000, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Logits of two views that see the truth through noise of their own, too sure of themselves, and the targets."""
    rng = np.random.default_rng(seed)
    targets = rng.integers(0, classes, count)
    truth = np.eye(classes)[targets]
    views = [3 * (truth + rng.normal(size=truth.shape)).astype(np.float32) for _ in range(2)]
    return views[0], views[1], targets


@pytest.mark.parametrize("classes", [2, 5])
def test_the_weights_are_the_minimum(classes: int) -> None:
    encoder, expert, targets = noisy(classes)
    weights = fit_weights(encoder, expert, targets)
    views = np.stack([encoder, expert]).astype(np.float64)
    best = minimize(_log_loss, np.ones(2), (views, targets), method="Nelder-Mead", options={"xatol": 1e-6})
    assert _log_loss(np.asarray([weights.encoder, weights.expert]), views, targets) <= best.fun + 1e-7


def test_one_view_is_scaled_as_by_a_temperature() -> None:
    encoder, _, targets = noisy()
    assert 1 / fit_scale(encoder, targets) == pytest.approx(fit_temperature(encoder, targets), rel=1e-3)


def test_views_that_differ_are_better_together() -> None:
    encoder, expert, targets = noisy()
    weights = fit_weights(encoder, expert, targets)
    new_encoder, new_expert, truth = noisy(seed=1)
    combined = weights.encoder * new_encoder + weights.expert * new_expert
    right = [np.mean(view.argmax(axis=1) == truth) for view in (new_encoder, new_expert, combined)]
    assert right[2] > max(right[:2]) + 0.03


def test_a_view_of_noise_has_no_weight() -> None:
    encoder, _, targets = noisy()
    noise = np.random.default_rng(5).normal(size=encoder.shape).astype(np.float32)
    weights = fit_weights(encoder, noise, targets)
    assert abs(weights.expert) < 0.1 * weights.encoder
    against = fit_weights(encoder, -encoder, targets)  # never a negative weight
    assert against.expert >= 0


def test_views_that_are_right_on_all_stay_finite() -> None:
    targets = np.asarray([0, 1] * 50)
    sure = (20 * np.eye(2)[targets]).astype(np.float32)
    weights = fit_weights(sure, sure, targets)
    assert np.isfinite([weights.encoder, weights.expert]).all()
