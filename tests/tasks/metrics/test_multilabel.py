"""Metrics of several labels at once, compared with scikit-learn's."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, f1_score, hamming_loss, log_loss

from distilora.tasks.metrics.multilabel import best_thresholds, label_rows, multilabel_metrics

RNG = np.random.default_rng(0)
TRUE = RNG.random((400, 4)) < [0.5, 0.2, 0.05, 0.3]
P = np.round(np.clip(0.35 * TRUE + RNG.random((400, 4)) * 0.6, 0.01, 0.99), 2)  # with ties
ANSWERED = P >= 0.5


def test_they_are_scikit_learns() -> None:
    measured = multilabel_metrics(P, ANSWERED, TRUE, 200)
    expected = {
        "micro_f1": f1_score(TRUE, ANSWERED, average="micro"),
        "macro_f1": f1_score(TRUE, ANSWERED, average="macro"),
        "mean_average_precision": average_precision_score(TRUE, P, average="macro"),
        "exact_match": float((TRUE == ANSWERED).all(axis=1).mean()),
        "hamming_loss": hamming_loss(TRUE, ANSWERED),
        "log_loss": float(np.mean([log_loss(TRUE[:, label], P[:, label]) for label in range(4)])),
    }
    assert list(measured) == list(expected)
    for name, value in expected.items():
        assert measured[name]["value"] == pytest.approx(value), name
        assert measured[name]["low"] < value < measured[name]["high"]


def test_each_label_has_its_row() -> None:
    rows = label_rows(P, ANSWERED, TRUE)
    assert [row["support"] for row in rows] == TRUE.sum(axis=0).tolist()
    for label, row in enumerate(rows):
        assert row["f1"] == pytest.approx(f1_score(TRUE[:, label], ANSWERED[:, label]))
        assert row["average_precision"] == pytest.approx(average_precision_score(TRUE[:, label], P[:, label]))


def test_no_threshold_has_a_better_f1() -> None:
    thresholds = best_thresholds(P, TRUE)
    for label, threshold in enumerate(thresholds):
        best = max(f1_score(TRUE[:, label], P[:, label] >= t) for t in np.unique(P[:, label]))
        assert f1_score(TRUE[:, label], P[:, label] >= threshold) == pytest.approx(best)


def test_a_label_that_no_text_has_keeps_the_middle() -> None:
    true = TRUE.copy()
    true[:, 1] = False
    assert best_thresholds(P, true)[1] == 0.5
    measured = multilabel_metrics(P, P >= 2, np.zeros_like(TRUE), 100)
    assert measured["micro_f1"]["value"] is None
    assert measured["mean_average_precision"]["value"] is None
