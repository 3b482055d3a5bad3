"""Figures with error bars. Bootstrap intervals, calibration, slices and the most confident mistakes, in one HTML file.

A new table is evaluated, and the figures of its report are computed again from its predictions.parquet.
"""

import json
import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray
from support.pages import Page
from support.tiny import tiny_reviews, write_csv

from distilora.cli.main import main
from distilora.files.tables import read_table
from distilora.tasks.metrics.names import metric_text


def rows() -> list[tuple[str, str]]:
    """Reviews, a third of them with a negation, a fifth longer than the model reads, a tenth with the wrong label."""
    reviews = []
    for i, (text, label) in enumerate(tiny_reviews(300, 11)):
        text = f"{text} not this one" if i % 3 == 0 else text
        text = f"{text} {'film ' * 70}end" if i % 5 == 0 else text
        reviews.append((text, label if i % 10 else {"neg": "pos", "pos": "neg"}[label]))
    return reviews


class Evaluated(NamedTuple):
    """The figures of an evaluation, its page, and what was answered to each row."""

    metrics: dict[str, Any]
    page: Page
    answers: list[dict[str, Any]]
    right: NDArray[np.bool_]  # [N]
    p: NDArray[np.float64]  # of the true class, [N]


@pytest.fixture(scope="module")
def evaluated(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Evaluated:
    base = tmp_path_factory.mktemp("evaluated")
    data, out = write_csv(base / "new.csv", rows()), base / "out"
    words = ["evaluate", str(finished), "--data.path", str(data), "--output", str(out), "--precision", "fp32"]
    assert main([*words, "--evaluation.bootstrap", "4000"]) == 0
    metrics = json.loads((out / "metrics.json").read_text("utf-8"))["evaluation"]
    answers = [dict(record.values) for record in read_table(out / "predictions.parquet")]
    right = np.asarray([row["target"] == row["label"] for row in answers])
    p = np.asarray([row[f"p_{row['target']}"] for row in answers], float)
    return Evaluated(metrics, Page(out / "report.html"), answers, right, p)


def test_bootstrap_intervals(evaluated: Evaluated) -> None:
    rng = np.random.default_rng(1)
    drawn = [rng.integers(0, len(evaluated.p), len(evaluated.p)) for _ in range(4000)]
    of_each = {
        "accuracy": evaluated.right.astype(float),
        "log_loss": -np.log(evaluated.p),
        "brier": 2 * (1 - evaluated.p) ** 2,
    }
    for name, values in of_each.items():
        measured = evaluated.metrics["metrics"][name]
        low, high = np.quantile([values[index].mean() for index in drawn], [0.025, 0.975])
        assert measured["value"] == pytest.approx(values.mean(), abs=1e-6)
        assert measured["low"] == pytest.approx(low, abs=0.05 * (high - low))
        assert measured["high"] == pytest.approx(high, abs=0.05 * (high - low))
    for name, measured in evaluated.metrics["metrics"].items():
        if name != "ece":
            assert measured["low"] < measured["value"] < measured["high"]
            value, interval = metric_text(name, measured).rstrip(")").split(" (")
            assert f"{value}95%: {interval}" in evaluated.page.text


def test_calibration(evaluated: Evaluated, metrics: dict) -> None:
    validation = metrics["evaluations"][1]
    assert validation["metrics"]["log_loss"]["value"] < validation["before_temperature"]["log_loss"]
    assert (
        f"calibrated with temperature {validation['temperature']:.3f}, fitted on the validation" in evaluated.page.text
    )
    assert "Reliability: on the diagonal, confidence is accuracy" in evaluated.page.text
    scores = np.asarray([row["score"] for row in evaluated.answers], float)
    bins = np.ceil(15 * scores)
    gaps = [abs((evaluated.right - scores)[bins == b].sum()) for b in np.unique(bins)]
    assert evaluated.metrics["metrics"]["ece"]["value"] == pytest.approx(sum(gaps) / len(scores), abs=1e-6)


def test_slices(evaluated: Evaluated) -> None:
    number = np.arange(300)
    inside = {"truncated": number % 5 == 0, "with a negation": number % 3 == 0}
    inside |= {"read whole": ~inside["truncated"], "without a negation": ~inside["with a negation"]}
    sliced = {row["slice"]: row for row in evaluated.metrics["slices"]}
    assert set(sliced) == set(inside)
    for name, rows_inside in inside.items():
        assert sliced[name]["examples"] == rows_inside.sum()
        assert sliced[name]["value"] == pytest.approx(evaluated.right[rows_inside].mean())
        assert f"{name}{rows_inside.sum()}Accuracy{sliced[name]['value']:.2%}" in evaluated.page.text


def test_the_most_confident_mistakes(evaluated: Evaluated) -> None:
    scores = np.asarray([row["score"] for row in evaluated.answers], float)
    wrong = [i for i in np.argsort(-scores, kind="stable") if not evaluated.right[i]]
    assert len(wrong) >= 30
    shown = evaluated.metrics["mistakes"]
    assert [row["text"] for row in shown] == [rows()[i][0] for i in wrong[: len(shown)]]
    assert len(shown) == 20
    _, _, table = evaluated.page.text.partition("The most confident mistakes")
    places = [table.index(f"{row['target']}{row['label']}{row['score']:.3f}{row['text']}") for row in shown]
    assert places == sorted(places)


@pytest.mark.parametrize("of", ["a run", "an evaluation"])
def test_it_is_self_contained(of: str, finished: Path, evaluated: Evaluated) -> None:
    page = Page(finished / "report.html") if of == "a run" else evaluated.page
    loads = [(tag, name, value) for tag, name, value in page.attributes if name in ("src", "data", "action", "srcset")]
    links = [value for _, name, value in page.attributes if name in ("href", "xlink:href")]
    assert loads == []
    assert links
    assert all(value.startswith(("#", "data:image/png;base64,")) for value in links)  # inside the pictures
    assert {"script", "link", "img", "iframe", "object", "embed", "base", "form"}.isdisjoint(page.tags)
    assert "@import" not in page.source
    assert re.findall(r"url\((?!#)", page.source) == []
    assert "<?xml" not in page.source
    assert not any(name.startswith("on") for _, name, _ in page.attributes)
