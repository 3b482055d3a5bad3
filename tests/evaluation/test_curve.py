"""What a learning curve says, from which examples each method gets right: differences, gains, advice."""

import numpy as np
import pytest

from distilora.config.schema import RunConfig
from distilora.evaluation.curve import lines, summarise
from distilora.tasks.metrics.paired import paired_difference

FACTS = {
    "source": "made up", "encoder": "tiny", "split": "heldout", "examples": 1_000, "validation": 50, "labels": 900,
    "least_updates": 200,
}  # fmt: skip


def method(name: str, right: int) -> dict:
    """A method that gets the first `right` of 1,000 examples right."""
    figure = {"metric": "accuracy", "value": right / 1_000, "low": 0.0, "high": 1.0, "seconds": 1.0}
    return {"name": name, **figure, "correct": "1" * right + "0" * (1_000 - right)}


def summary_of(*sizes: tuple[int, dict[str, int]]) -> dict:
    rows = [{"size": size, "methods": [method(name, n) for name, n in right.items()]} for size, right in sizes]
    return summarise(rows, FACTS, ["A note."], RunConfig(), 1000)


def test_the_simplest_method_is_taken_until_another_is_clearly_better() -> None:
    summary = summary_of(
        (100, {"tfidf": 700, "nbsvm": 690, "encoder": 600, "combined": 701}),
        (300, {"tfidf": 750, "nbsvm": 760, "encoder": 700, "combined": 761}),
        (900, {"tfidf": 780, "nbsvm": 800, "encoder": 900, "combined": 900}),
    )
    assert [row["take"] for row in summary["sizes"]] == ["tfidf", "nbsvm", "encoder"]
    assert summary["advice"][0].startswith(
        "With 100 labels take TF-IDF + logistic regression; with 300 labels take NB-SVM (n-grams); from 900 on take the encoder. "
        "Each is the simplest method"
    )
    assert "1,000 examples" in summary["advice"][0]
    assert summary["advice"][1].startswith(
        "From 300 to 900 labels, the accuracy of the encoder changes by +20.0 points ("
    )
    assert summary["advice"][1].endswith("more labels are likely to help still.")
    marked = [line.split()[:2] for line in lines(summary) if " *" in line and line.startswith("  ")]
    assert marked == [["100", "TF-IDF"], ["300", "NB-SVM"], ["900", "encoder"]]
    assert lines(summary)[-1] == "note: A note."


def test_differences_are_paired() -> None:
    methods = summary_of((100, {"tfidf": 700, "nbsvm": 690, "encoder": 600}))["sizes"][0]["methods"]
    right = np.arange(1_000)
    expected = paired_difference(right < 600, right < 700, 1000)
    assert methods[2]["difference"] == {"to": "tfidf", **expected}
    assert methods[0]["difference"]["to"] == "nbsvm"
    assert methods[0]["difference"]["value"] == pytest.approx(0.01)
    assert methods[0]["gain"] is None


def test_one_method_for_all_sizes_and_no_gain() -> None:
    summary = summary_of((100, {"tfidf": 800, "encoder": 700}), (300, {"tfidf": 801, "encoder": 700}))
    assert summary["advice"][0].startswith(
        "With 100 to 300 labels take TF-IDF + logistic regression. It is the simplest"
    )
    assert summary["advice"][1].endswith("these examples do not show that more labels help.")


def test_a_method_may_come_back() -> None:
    summary = summary_of(*((n, {"tfidf": 800, "encoder": 700 if n == 200 else 900}) for n in (100, 200, 300)))
    assert summary["advice"][0].startswith(
        "With 100 labels take the encoder; with 200 labels take TF-IDF + logistic regression; from 300 on take the encoder."
    )
