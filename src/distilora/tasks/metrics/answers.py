"""Measures answers to questions, some of which have none, and chooses which to give."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distilora.tasks.metrics.squad import exact, f1


def answer_metrics(answers: Sequence[str], truths: Sequence[Sequence[str]], resamples: int = 0) -> dict[str, Any]:
    """Compute F1 and exact match of all questions, F1 of the answerable ones, accuracy on the others; None where there are none."""
    from distilora.tasks.metrics.bootstrap import draws, interval

    answerable = np.asarray([bool(truth) for truth in truths])
    shared = np.asarray([f1(answer, truth) for answer, truth in zip(answers, truths, strict=True)])
    right = np.asarray([exact(answer, truth) for answer, truth in zip(answers, truths, strict=True)])
    everything = np.ones(len(shared), bool)
    measured: dict[str, Any] = {}
    for name, values, of in (
        ("f1", shared, everything), ("exact_match", right, everything), ("f1_answerable", shared, answerable),
        ("no_answer_accuracy", shared, ~answerable),
    ):  # fmt: skip
        if not of.any():
            measured[name] = {"value": None, "low": None, "high": None}
            continue
        low = high = None
        if resamples:
            parts = [(values * of) @ weights / np.maximum(of @ weights, 1) for weights in draws(len(values), resamples)]
            low, high = interval(np.concatenate(parts))
        measured[name] = {"value": float(values[of].mean()), "low": low, "high": high}
    return measured


def best_threshold(
    margins: NDArray[np.float64], answered: NDArray[np.float64], unanswered: NDArray[np.float64]
) -> float:
    """Choose the threshold of the best mean F1, where questions with a greater margin stay without an answer."""
    order = np.argsort(margins, kind="stable")
    levels = margins[order]
    candidates = np.concatenate([[levels[0] - 1], (levels[1:] + levels[:-1]) / 2, [levels[-1] + 1]])
    gains = np.concatenate([[0.0], np.cumsum((answered - unanswered)[order])])
    best = np.flatnonzero(gains >= gains.max() - 1e-9)
    return float(candidates[best[np.argmin(np.abs(candidates[best]))]])


def f1_by_share(
    margins: NDArray[np.float64], spans: Sequence[str], truths: Sequence[Sequence[str]]
) -> dict[str, list[float]]:
    """Compute F1 of all questions where only those of the least margins are answered, by their share: at most 101 points."""
    order = np.argsort(margins, kind="stable")
    answered = np.asarray([f1(span, truth) for span, truth in zip(spans, truths, strict=True)])[order]
    unanswered = np.asarray([f1("", truth) for truth in truths])[order]
    values = np.concatenate([[0.0], np.cumsum(answered - unanswered)]) + unanswered.sum()
    places = np.unique(np.linspace(0, len(order), 101).round().astype(int))
    return {"share": (places / len(order)).tolist(), "f1": (values[places] / len(order)).tolist()}
