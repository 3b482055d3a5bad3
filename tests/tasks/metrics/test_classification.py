"""The metrics are scikit-learn's, the calibration error is Guo's, and intervals are where they should be."""

import numpy as np
import pytest
import sklearn.metrics as sk

from distilora.tasks.classification import Classification, softmax
from distilora.tasks.metrics.bootstrap import ClassRanks
from distilora.tasks.metrics.classification import SHOWN, class_auroc, classification_metrics, ece

Cases = tuple[np.ndarray, np.ndarray]


def drawn(count: int, classes: int, seed: int = 0) -> Cases:
    """Probabilities that know something of their targets, some of them tied."""
    rng = np.random.default_rng(seed)
    targets = rng.integers(0, classes, count)
    logits = rng.normal(size=(count, classes)).round(1) + np.eye(classes)[targets]
    return softmax(logits), targets


@pytest.mark.parametrize("classes", [2, 4])
def test_values_are_scikit_learn_s(classes: int) -> None:
    probabilities, targets = drawn(200, classes)
    metrics = classification_metrics(probabilities, targets)
    predicted = probabilities.argmax(1)
    area = (
        sk.roc_auc_score(targets, probabilities[:, 1])
        if classes == 2
        else sk.roc_auc_score(targets, probabilities, multi_class="ovr")
    )
    expected = {
        "accuracy": sk.accuracy_score(targets, predicted),
        "macro_f1": sk.f1_score(targets, predicted, average="macro"),
        "mcc": sk.matthews_corrcoef(targets, predicted),
        "auroc": area,
        "log_loss": sk.log_loss(targets, probabilities),
        "brier": sum(sk.brier_score_loss(targets == c, probabilities[:, c]) for c in range(classes)),
    }
    assert next(iter(metrics)) == "accuracy"
    assert {name: metrics[name]["value"] for name in expected} == pytest.approx(expected)
    assert metrics["figures"]["confusion"] == sk.confusion_matrix(targets, predicted).tolist()
    assert sum(metrics["figures"]["confidence"]) == 200
    assert len(metrics["figures"]["roc"]) == (1 if classes == 2 else 4)
    assert all(metrics[name][side] is None for name in expected for side in ("low", "high"))


def test_macro_f1_counts_classes_that_occur() -> None:
    probabilities = np.eye(4)[[0, 0, 1, 2]]
    targets = np.asarray([0, 1, 1, 0])
    expected = sk.f1_score(targets, probabilities.argmax(1), average="macro", labels=[0, 1, 2])
    assert classification_metrics(probabilities, targets)["macro_f1"]["value"] == pytest.approx(expected)


@pytest.mark.parametrize("ties", [False, True])
def test_auroc_of_a_resample_is_scikit_learn_s(ties: bool) -> None:
    rng = np.random.default_rng(3)
    scores = rng.normal(size=80).round(1 if ties else 9)
    assert (len(np.unique(scores)) < 80) == ties
    positive = rng.random(80) < 0.3
    weights = rng.integers(0, 4, (80, 3)).astype(float)
    ranks = ClassRanks(scores, positive)
    expected = [sk.roc_auc_score(positive, scores, sample_weight=column) for column in weights.T]
    np.testing.assert_allclose(ranks.auroc(weights), expected)
    assert np.isnan(ranks.auroc(weights * positive[:, None])).all()
    assert np.isnan(ranks.auroc(weights * ~positive[:, None])).all()


def test_auroc_of_each_class() -> None:
    probabilities, targets = drawn(90, 4)
    expected = [sk.roc_auc_score(targets == c, probabilities[:, c]) for c in range(4)]
    np.testing.assert_allclose(class_auroc(probabilities, targets), expected)
    assert np.isnan(class_auroc(probabilities, np.minimum(targets, 2))).tolist() == [False, False, False, True]


def test_intervals_are_the_quantiles_of_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("distilora.tasks.metrics.bootstrap.CHUNK", 70 * 30)  # resamples of 70 examples in chunks of 30
    probabilities, targets = drawn(70, 3)
    metrics = classification_metrics(probabilities, targets, resamples=100)
    rng, again = np.random.default_rng(0), []
    for _ in range(100):
        chosen = rng.integers(0, 70, 70)
        again.append(classification_metrics(probabilities[chosen], targets[chosen]))
    for name in ("accuracy", "macro_f1", "mcc", "auroc", "log_loss", "brier"):
        values = [one[name]["value"] for one in again]
        expected = np.quantile(values, [0.025, 0.975])
        assert (metrics[name]["low"], metrics[name]["high"]) == pytest.approx(tuple(expected))


def test_precision_recall_and_f1_of_every_class() -> None:
    probabilities, targets = drawn(200, 4)
    rows = classification_metrics(probabilities, targets)["figures"]["per_class"]
    expected = sk.precision_recall_fscore_support(targets, probabilities.argmax(1))
    for row, *values in zip(rows, *expected, strict=True):
        assert [row["precision"], row["recall"], row["f1"], row["support"]] == pytest.approx(values)
    assert sum(row["predicted"] for row in rows) == 200
    blind = classification_metrics(np.eye(3)[np.zeros(10, int)], np.arange(10) % 2)["figures"]["per_class"]
    assert [row["precision"] for row in blind] == [0.5, None, None]
    assert [row["recall"] for row in blind] == [1.0, 0.0, None]
    assert [row["f1"] for row in blind] == [pytest.approx(2 / 3), 0.0, None]


def test_the_arrays_of_many_classes_are_bounded() -> None:
    probabilities, targets = drawn(600, SHOWN + 1)
    figures = classification_metrics(probabilities, targets)["figures"]
    cells = figures["confusion_cells"]
    matrix = np.zeros((SHOWN + 1, SHOWN + 1), int)
    matrix[cells["true"], cells["predicted"]] = cells["count"]
    assert matrix.tolist() == sk.confusion_matrix(targets, probabilities.argmax(1)).tolist()
    areas = class_auroc(probabilities, targets)
    assert {curve["class"] for curve in figures["roc"]} == set(np.argsort(areas)[:10].tolist())


def test_ece_by_hand() -> None:
    top = np.asarray([0.95, 0.94, 0.61, 0.65, 0.62, 0.5])  # bins (14/15, 1], (9/15, 10/15], (7/15, 8/15]
    hits = np.asarray([1, 0, 1, 1, 1, 0])
    probabilities = np.stack([top, 1 - top], axis=1)
    expected = (abs(2 * 0.5 - 0.95 - 0.94) + abs(3 - 0.61 - 0.65 - 0.62) + 0.5) / 6
    assert ece(probabilities, 1 - hits) == pytest.approx(expected)
    rows = classification_metrics(probabilities, 1 - hits)["figures"]["reliability"]
    assert [row["count"] for row in rows] == [1, 3, 2]


def test_ece_on_the_border_of_a_bin() -> None:
    probabilities = np.asarray([[0.6, 0.4], [0.601, 0.399]])  # 0.6 = 9/15 closes its bin
    rows = classification_metrics(probabilities, np.asarray([0, 1]))["figures"]["reliability"]
    assert [row["count"] for row in rows] == [1, 1]


def test_one_class_leaves_some_undefined() -> None:
    probabilities, _ = drawn(30, 2)
    metrics = classification_metrics(probabilities, np.zeros(30, np.int64), resamples=100)
    assert metrics["auroc"] == {"value": None, "low": None, "high": None}
    assert metrics["mcc"]["value"] == 0
    assert metrics["accuracy"]["value"] == pytest.approx(np.mean(probabilities[:, 0] > 0.5))
    assert metrics["figures"]["roc"] == []


def test_a_class_that_is_missing_from_four() -> None:
    probabilities, targets = drawn(60, 4)
    metrics = classification_metrics(probabilities, np.minimum(targets, 2), resamples=100)
    assert metrics["auroc"]["value"] is None
    assert len(metrics["figures"]["roc"]) == 3


@pytest.mark.parametrize("classes", [2, 3])
def test_intervals_hold_the_value_and_shrink(classes: int) -> None:
    widths = []
    for count in (60, 2400):
        metrics = classification_metrics(*drawn(count, classes, seed=1), resamples=200)
        names = ("accuracy", "macro_f1", "mcc", "auroc", "log_loss", "brier")
        assert all(metrics[name]["low"] <= metrics[name]["value"] <= metrics[name]["high"] for name in names)
        widths.append([metrics[name]["high"] - metrics[name]["low"] for name in names])
    ratio = np.asarray(widths[0]) / np.asarray(widths[1])
    assert np.all((ratio > 3.5) & (ratio < 11))  # the square root of 40 is 6.3


def test_intervals_are_those_of_a_binomial() -> None:
    probabilities, targets = drawn(400, 2)
    accuracy = classification_metrics(probabilities, targets, resamples=1000)["accuracy"]
    expected = 2 * 1.96 * np.sqrt(accuracy["value"] * (1 - accuracy["value"]) / 400)
    assert accuracy["high"] - accuracy["low"] == pytest.approx(expected, rel=0.1)
    assert classification_metrics(probabilities, targets, resamples=1000)["accuracy"] == accuracy


def test_softmax() -> None:
    probabilities = softmax(np.asarray([[1000.0, 1000.0], [0.0, np.log(3.0)]], np.float32))
    np.testing.assert_allclose(probabilities, [[0.5, 0.5], [0.25, 0.75]], rtol=1e-6)
    with pytest.raises(ValueError, match="not finite"):
        softmax(np.asarray([[0.0, np.nan]], np.float32))


def test_the_headline_is_the_first_metric() -> None:
    rng = np.random.default_rng(2)
    logits, targets = rng.normal(size=(200, 3)).astype(np.float32), rng.integers(0, 3, 200).tolist()
    task = Classification(("a", "b", "c"), "text", "label")
    name, metric = next(iter(task.metrics(logits, targets).items()))
    assert (
        task.headline(logits, targets)
        == super(Classification, task).headline(logits, targets)
        == (name, metric["value"])
    )
    logits[0, 0] = np.nan
    with pytest.raises(ValueError, match="not finite"):
        task.headline(logits, targets)
