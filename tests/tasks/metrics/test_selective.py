"""Risk and coverage: worked out by hand, and by an intuition that needs no library."""

import numpy as np
import pytest

from distilora.tasks.metrics import selective
from distilora.tasks.metrics.classification import classification_metrics
from distilora.tasks.metrics.selective import risk_coverage


def test_by_hand() -> None:
    scores = np.asarray([0.6, 0.9, 0.8, 0.7])
    found = risk_coverage(scores, np.asarray([False, True, True, False]))
    assert found["coverage"] == [0.25, 0.5, 0.75, 1.0]
    assert found["accuracy"] == pytest.approx([1, 1, 2 / 3, 1 / 2])
    assert found["aurc"] == {"value": pytest.approx((0 + 0 + 1 / 3 + 1 / 2) / 4), "low": None, "high": None}
    assert [(row["value"], row["score"]) for row in found["at_accuracy"]] == [(0.5, 0.8)] * 3


def test_equal_scores_are_answered_together() -> None:
    found = risk_coverage(np.asarray([0.9, 0.9, 0.5, 0.9]), np.asarray([True, False, True, True]))
    assert found["coverage"] == [0.75, 1.0]
    assert found["accuracy"] == pytest.approx([2 / 3, 3 / 4])
    assert found["aurc"]["value"] == pytest.approx((3 / 3 + 1 / 4) / 4)
    assert [(row["value"], row["score"]) for row in found["at_accuracy"]] == [(0.0, None)] * 3


def test_all_correct_and_all_wrong() -> None:
    scores = np.linspace(0.5, 1, 50)
    right, wrong = (risk_coverage(scores, np.full(50, correct), 20) for correct in (True, False))
    assert right["aurc"] == {"value": 0.0, "low": 0.0, "high": 0.0}
    assert wrong["aurc"] == {"value": 1.0, "low": 1.0, "high": 1.0}
    assert [row["value"] for row in right["at_accuracy"]] == [1.0] * 3
    assert [(row["low"], row["high"]) for row in wrong["at_accuracy"]] == [(0.0, 0.0)] * 3


def test_intervals_are_the_quantiles_of_resampled_examples(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    scores = rng.uniform(0.5, 1, 120)
    correct = rng.random(120) < scores**0.3
    monkeypatch.setattr(selective, "ACCURACIES", (0.9,))
    found = risk_coverage(scores, correct, 60)
    again, areas, coverages = np.random.default_rng(0), [], []
    for _ in range(60):  # the same resamples, one by one
        index = again.integers(0, 120, 120)
        one = risk_coverage(scores[index], correct[index])
        areas.append(one["aurc"]["value"])
        coverages.append(one["at_accuracy"][0]["value"])
    for row, values in ((found["aurc"], areas), (found["at_accuracy"][0], coverages)):
        assert (row["low"], row["high"]) == pytest.approx(tuple(np.quantile(values, [0.025, 0.975])))
        assert row["low"] < row["value"] < row["high"]


def test_metrics_hold_it_for_any_number_of_classes() -> None:
    rng = np.random.default_rng(1)
    for classes in (2, 3, 30):
        probabilities = rng.dirichlet(np.ones(classes), 400)
        targets = np.asarray([rng.choice(classes, p=row) for row in probabilities])
        metrics = classification_metrics(probabilities, targets, 20)
        found = metrics["figures"]["risk_coverage"]
        assert 1 < len(found["coverage"]) == len(found["accuracy"]) <= 200
        assert found["coverage"][-1] == 1.0
        assert found["accuracy"][-1] == pytest.approx(metrics["accuracy"]["value"])
        assert found["aurc"]["value"] < 1 - metrics["accuracy"]["value"]  # confidence tells right from wrong
