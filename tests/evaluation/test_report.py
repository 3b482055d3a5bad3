"""The report: it holds its pictures, stays small, and shows texts as texts."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.pages import Page
from support.tiny import tiny_tokenizer

from distilora.batching.rows import rows_of
from distilora.batching.tokens import Tokenised
from distilora.config.schema import EvaluationConfig
from distilora.data.examples import Example, Examples
from distilora.evaluation.baselines import NgramBaseline
from distilora.evaluation.measure import measure
from distilora.evaluation.report import split_pictures, write_report
from distilora.inference.calibrate import Calibrator
from distilora.tasks.classification import Classification
from distilora.tasks.metrics.names import metric_text

TASK = Classification(("neg", "pos"), "text", "label")  # a report takes the labels of what was measured
EVIL = "<script>alert('x')</script> & $\\frac$"


def split(
    labels: tuple[str, ...] = ("neg", "pos"), text: str = "dull", count: int = 40, **more: Any
) -> dict[str, object]:
    """What `measure` gives of random outputs, some of them wrong."""
    task = Classification(labels, "text", "label")
    rng = np.random.default_rng(0)
    items = [Example((text,), i % len(labels), f"row {i}") for i in range(count)]
    tokens = Tokenised(rows_of([[[1] * (1 + 7 * i)] for i in range(count)]), np.arange(count) > count - 5)
    outputs = rng.normal(size=(count, len(labels))).astype(np.float32)
    return measure(
        task,
        Examples("test", items),
        tokens,
        outputs,
        Calibrator(1.5),
        EvaluationConfig(bootstrap=100),
        tiny_tokenizer(),
        **more,
    ).metrics


@pytest.fixture(scope="module")
def page(finished: Path) -> Page:
    return Page(finished / "report.html")


def test_it_is_small_and_holds_its_pictures(page: Page, finished: Path) -> None:
    assert (finished / "report.html").stat().st_size < 500_000
    for caption in (
        "Confusion matrix",
        "Reliability",
        "ROC curve",
        "How confident",
        "Accuracy of the most confident answers",
        "Loss in training",
    ):
        assert caption in page.text
    assert page.tags.count("svg") == page.tags.count("figcaption") == 11  # five of each split, and the losses


def test_parts_that_say_nothing_are_left_out(page: Page) -> None:
    assert "read whole" not in page.text  # all of these reviews are
    assert "1-64 tokens" not in page.text
    assert "by length" not in page.text
    assert "By slice" not in page.text


def test_it_shows_the_figures(page: Page, metrics: dict, encoder: Path) -> None:
    for evaluation in metrics["evaluations"]:
        assert f"{evaluation['metrics']['accuracy']['value']:.2%}" in page.text
        assert f"{evaluation['temperature']:.3f}" in page.text
    assert all(note in page.text for note in metrics["notes"])
    assert "The final test is not an official test split" in page.text
    assert str(encoder) in page.text
    assert "last_blocks: null" in page.text  # the settings
    assert f"{metrics['parameters']['trained']:,}" in page.text


def test_texts_are_escaped(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    write_report(
        path, EVIL, TASK, [split(("$neg$", EVIL), EVIL)],
        history=[{"update": 1, "loss": 0.5}, {"update": 1, "validation_loss": 0.4}],
        notes=[EVIL], facts={EVIL: EVIL}, settings=EVIL,
    )  # fmt: skip
    page = Page(path)
    assert "script" not in page.tags
    assert page.text.count(EVIL) > 20 + 6  # mistakes, title, heading, note, fact, settings
    pictures = re.sub(r"(?s)<table>.*?</table>", "", page.source)
    assert pictures.count("$neg$") >= 2
    assert len(re.findall("&lt;script&gt;alert[^&]+[^<]{,15}…</text>", pictures)) >= 2  # a long name is cut


@pytest.mark.parametrize(
    "labels", [("a", "b", "c"), tuple(f"class {i}" for i in range(12)), tuple("abcdefghijklmnopqrstu")]
)
def test_more_classes(labels: tuple[str, ...], tmp_path: Path) -> None:
    write_report(tmp_path / "report.html", "many", TASK, [split(labels, count=60)])
    assert Page(tmp_path / "report.html").tags.count("svg") == 6


def test_each_class_stands_beside_the_majority_baseline(page: Page, metrics: dict) -> None:
    for evaluation in metrics["evaluations"]:
        assert [row["label"] for row in evaluation["classes"]] == ["neg", "pos"]
        for row in evaluation["classes"]:
            assert f"{row['label']}{row['precision']:.1%}{row['recall']:.1%}{row['f1']:.1%}" in page.text
        reached = evaluation["baseline"]
        assert f"would reach an accuracy of {reached['accuracy']:.2%} and a macro F1 of" in page.text
    assert "no better than" not in page.text


def test_it_shows_how_much_can_be_answered_at_an_accuracy(page: Page, metrics: dict) -> None:
    assert page.text.count("Answering only the most confident, in hindsight") == 2
    for evaluation in metrics["evaluations"]:
        found = evaluation["figures"]["risk_coverage"]
        area = found["aurc"]
        assert f"(AURC): {area['value']:.4f}, {area['low']:.4f} to {area['high']:.4f}" in page.text
        assert [row["accuracy"] for row in found["at_accuracy"]] == [0.95, 0.98, 0.99]
        for row in found["at_accuracy"]:
            assert f"{row['accuracy']:.0%}{row['value']:.1%}{row['low']:.1%} to {row['high']:.1%}" in page.text


def test_a_useless_model_is_called_so_first(tmp_path: Path) -> None:
    useless = split(("neg", "pos"), count=200)
    assert useless["verdict"]
    write_report(tmp_path / "report.html", "useless", TASK, [useless], notes=["Something else."])
    page = Page(tmp_path / "report.html").text
    assert page.index("this model is no better than always answering 'neg'") < page.index("Something else.")


def test_a_useless_model_is_also_set_beside_an_n_gram_model() -> None:
    ngrams = NgramBaseline("nbsvm", 0.0, 9, lambda texts: np.asarray([[1.0, 0.0]] * len(texts), np.float32))
    both = split(count=200, baselines=[ngrams])["verdict"]
    assert re.match(r"As far .* no better than always .* As far .*, an n-gram model alone is enough: ", str(both))


def test_many_classes_stay_small_and_say_what_is_left_out(tmp_path: Path) -> None:
    labels = tuple(f"class {i}" for i in range(150))
    many = split(labels, count=450)
    assert len(json.dumps(many, indent=2)) < 200_000
    write_report(tmp_path / "report.html", "many", TASK, [many])
    assert (tmp_path / "report.html").stat().st_size < 700_000
    page = Page(tmp_path / "report.html")
    assert page.tags.count("svg") == 6
    cells = many["figures"]["confusion_cells"]
    assert sum(cells["count"]) == 450
    wrong = sum(n for i, j, n in zip(cells["true"], cells["predicted"], cells["count"], strict=True) if i != j)
    assert "of the 20 classes with the most mistakes, of 150: rows are the true class; " in page.text
    assert f"of all {wrong:,} mistakes lie between these classes" in page.text
    assert "ROC curves of the 10 classes with the lowest AUROC, of 150" in page.text
    assert "All 150 classes" in page.text
    assert all(f"class {i}" in page.text for i in range(150))
    assert page.tags.count("details") == 1


def test_a_large_matrix_has_a_row_for_itself() -> None:
    for count, wide in ((4, False), (5, True), (21, True)):
        drawn = split_pictures(TASK, split(tuple(f"c{i}" for i in range(count)), count=60))
        assert [picture.wide for picture in drawn] == [wide] + [False] * (len(drawn) - 1)
        assert all(svg.startswith("<svg") for _, svg in drawn)  # a pair, as the notebook takes them


def test_a_chart_of_one_bar_is_left_out(tmp_path: Path) -> None:
    blind = split()
    figures = blind["figures"]
    figures["confidence"] = [0] * 10 + [40] + [0] * 9
    figures["reliability"] = figures["reliability"][:1]
    write_report(tmp_path / "report.html", "blind", TASK, [blind])
    page = Page(tmp_path / "report.html")
    assert "How confident" not in page.text
    assert "Reliability" not in page.text
    assert page.tags.count("svg") == 4


def test_one_class_and_no_history(tmp_path: Path) -> None:
    task = Classification(("neg", "pos"), "text", "label")
    items = [Example(("dull",), 0) for _ in range(4)]
    tokens = Tokenised(rows_of([[[1, 2]]] * 4), np.zeros(4, bool))
    outputs = np.asarray([[1, 0], [2, 0], [0, 1], [1, 0]], np.float32)
    measured = measure(
        task,
        Examples("test", items),
        tokens,
        outputs,
        Calibrator(1.0),
        EvaluationConfig(bootstrap=100),
        tiny_tokenizer(),
    )
    write_report(tmp_path / "report.html", "one", TASK, [measured.metrics])
    page = Page(tmp_path / "report.html")
    assert "undefined" in page.text
    assert "ROC curve" not in page.text


def test_a_failed_report_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeyError):
        write_report(tmp_path / "report.html", "broken", TASK, [{"figures": {}, "labels": []}])
    assert list(tmp_path.iterdir()) == []


def test_metric_text() -> None:
    assert metric_text("accuracy", {"value": 0.88116, "low": 0.868, "high": 0.8936}) == "88.12% (86.80 to 89.36)"
    assert metric_text("auroc", {"value": 0.95, "low": None, "high": None}) == "0.9500"
    assert metric_text("auroc", {"value": None, "low": None, "high": None}) == "undefined"
    assert metric_text("share", {"value": 0.123456, "low": 0.1, "high": 0.2}) == "0.1235 (0.1 to 0.2)"
