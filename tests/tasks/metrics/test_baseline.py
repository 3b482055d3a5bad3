"""The majority baseline and the sentence on a model that is no better."""

import re

import numpy as np
import pytest
import sklearn.metrics as sk

from distilora.data.examples import Example, Examples
from distilora.tasks.classification import Classification
from distilora.tasks.metrics.baseline import majority_baseline, verdict
from distilora.tasks.metrics.classification import classification_metrics


def judged(targets: list[int], answers: list[int], classes: int, trained: dict[str, int] | None = None) -> str:
    metrics = classification_metrics(np.eye(classes)[answers], np.asarray(targets), resamples=200)
    rows = [{"label": f"c{i}", **row} for i, row in enumerate(metrics.pop("figures")["per_class"])]
    return verdict(metrics, rows, majority_baseline(rows, trained))


def test_the_baseline_is_the_constant_answer() -> None:
    targets = [0] * 10 + [1] * 25 + [2] * 5
    rows = [{"label": label, "support": targets.count(i)} for i, label in enumerate("abc")]
    for trained, chosen, of in (({"a": 9, "b": 3, "c": 3}, 0, "training"), (None, 1, "these examples")):
        baseline = majority_baseline(rows, trained)
        assert (baseline["label"], baseline["of"]) == ("abc"[chosen], of)
        assert baseline["accuracy"] == pytest.approx(sk.accuracy_score(targets, [chosen] * 40))
        assert baseline["macro_f1"] == pytest.approx(
            sk.f1_score(targets, [chosen] * 40, average="macro", zero_division=0)
        )


def test_training_counts_decide_also_for_a_class_that_does_not_occur() -> None:
    rows = [{"label": "a", "support": 4}, {"label": "b", "support": 0}]
    baseline = majority_baseline(rows, {"a": 1, "b": 2})
    assert (baseline["label"], baseline["accuracy"], baseline["macro_f1"]) == ("b", 0.0, 0.0)


def test_everything_answered_as_one_class() -> None:
    said = judged([i % 5 for i in range(100)], [3] * 100, 5, {f"c{i}": 10 + (i == 3) for i in range(5)})
    assert said.startswith(
        "As far as these 100 examples tell, this model is no better than always answering 'c3': accuracy 20.00% against 20.00%, "
    )
    assert said.endswith("it answers 'c3' to everything.")


def test_imbalanced_and_hardly_better() -> None:
    targets = [0] * 190 + [1] * 10
    assert "no better than" in judged(targets, [0] * 200, 2)
    told = judged(targets, [0] * 190 + [1] * 4 + [0] * 6, 2)  # finds some of the rare class, and errs nowhere else
    assert re.match(
        r"As far as these 200 examples tell, this model is right no more often than always answering 'c0': accuracy 97\.00% "
        r"\(9\d\.\d\d% to 9\d\.\d\d%\) against 95\.00%; ",
        told,
    )
    assert "it does tell the classes apart (macro F1 77" in told


def test_a_good_model_is_not_remarked_on() -> None:
    targets = [i % 3 for i in range(120)]
    assert judged(targets, [*targets[:100], *[0] * 20], 3) == ""
    assert judged([1] * 50, [0] * 50, 2) == ""  # one class alone cannot tell


def test_class_counts() -> None:
    task = Classification(("a", "b", "c"), "text", "label")
    examples = Examples("train", [Example(("x",), target) for target in (0, 2, 2)])
    assert task.counts(examples) == {"a": 1, "b": 0, "c": 2}
