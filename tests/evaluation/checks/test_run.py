"""Running a suite: each kind of check is judged as it says, on any number of labels."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from distilora.evaluation.checks.run import Probabilities, SuiteResult, run_checks
from distilora.evaluation.checks.suite import Suite, read_suite

LABELS = ("low", "mid", "top")
P = {"bad": (0.7, 0.2, 0.1), "fair": (0.2, 0.6, 0.2), "good": (0.1, 0.2, 0.7), "fine": (0.1, 0.4, 0.5)}
SUITE = """
slots: {{tail: [" "]}}
checks:
  - {{name: c, {check}}}
"""


def answer(texts: Sequence[str]) -> Probabilities:
    """The probabilities of a text's first word."""
    assert len(set(texts)) == len(texts)
    return np.asarray([P[text.split()[0].strip(".").lower()] for text in texts])


def suite_of(folder: Path, check: str) -> Suite:
    (folder / "own.yaml").write_text(SUITE.format(check=check), "utf-8")
    return read_suite(str(folder / "own.yaml"))


def passes(folder: Path, check: str, texts: Sequence[str] = ()) -> list[bool]:
    result = run_checks(suite_of(folder, check), answer, LABELS, texts=texts)
    return [case.passed for case in result.checks[0].cases]


@pytest.mark.parametrize(
    ("check", "expected"),
    [
        ("kind: mft, expect: top, templates: [good, fair, fine, bad]", [True, False, True, False]),
        ("kind: mft, expect: [mid, top], templates: [good, fair, fine, bad]", [True, True, True, False]),
        ("kind: inv, templates: [{from: good, to: fine}, {from: good, to: bad}]", [True, False]),
        ("kind: inv, within: 0.2, templates: [{from: good, to: fine}]", [True]),
        ("kind: inv, within: 0.19, templates: [{from: good, to: fine}]", [False]),
        ("kind: dir, moves: {top: up}, templates: [{from: bad, to: good}, {from: good, to: fine}]", [True, False]),
        ("kind: dir, moves: {top: up}, tolerance: 0.2, templates: [{from: good, to: fine}]", [True]),
        (
            "kind: dir, moves: {top: up}, by: 0.1, templates: [{from: bad, to: fair}, {from: fair, to: good}]",
            [True, True],
        ),
        (
            "kind: dir, moves: {top: up}, by: 0.2, templates: [{from: bad, to: fair}, {from: fair, to: good}]",
            [False, True],
        ),
        (
            "kind: dir, moves: {top: up, mid: down}, templates: [{from: bad, to: good}, {from: bad, to: fine}]",
            [True, False],
        ),
        ("kind: inv, perturb: upper_case, templates: [good, BAD, fair]", [True, True]),  # BAD is upper case already
    ],
)
def test_cases_are_judged(check: str, expected: list[bool], tmp_path: Path) -> None:
    assert passes(tmp_path, check) == expected


def test_own_texts_are_perturbed(tmp_path: Path) -> None:
    check = "kind: inv, perturb: punctuation, data: true, cases: 2"
    assert passes(tmp_path, check, ["good.", "bad.", "fair."]) == [True, True]
    result = run_checks(suite_of(tmp_path, check), answer, LABELS)
    assert result.checks[0].skipped == "no texts of yours are given (--data.path)"
    assert result.passed_share is None
    assert result.record()["checks_passed_share"] is None


def test_the_record_holds_shares_and_the_worst_failures(tmp_path: Path) -> None:
    suite = suite_of(tmp_path, "kind: mft, expect: top, capability: words, templates: [good, fair, fine, bad]")
    record = run_checks(suite, answer, LABELS).record(examples=1)
    assert record["checks_passed_share"] == 0.5
    assert record["own"] == {"cases": 4, "passed": 2, "share": 0.5, "low": pytest.approx(0.150, abs=5e-4),
                             "high": pytest.approx(0.850, abs=5e-4)}  # fmt: skip
    assert record["capabilities"] == [{"name": "words", **record["own"]}]
    (check,) = record["checks"]
    assert check["failures"] == [{"text": "bad", "label": "low", "p": dict(zip(LABELS, P["bad"], strict=True))}]


def sentiment(texts: Sequence[str], labels: int) -> Probabilities:
    rng = np.random.default_rng(0)
    return rng.dirichlet(np.ones(labels), len(texts))


@pytest.mark.parametrize(("labels", "skipped"), [(("neg", "pos"), 10), (("bad", "neutral", "good"), 8)])
def test_the_built_in_suite_runs_on_two_labels_and_more(labels: tuple[str, ...], skipped: int) -> None:
    suite = read_suite("sentiment")
    result: SuiteResult = run_checks(suite, lambda texts: sentiment(texts, len(labels)), labels)
    assert sum(bool(check.skipped) for check in result.checks) == skipped
    assert 0.2 < (result.passed_share or 0) < 0.8
    records = result.case_records()
    assert len(records) == result.record()["own"]["cases"]
    assert {"check", "kind", "passed", "text", "label", "p"} <= set(records[0])


def test_an_answer_of_another_shape_is_refused(tmp_path: Path) -> None:
    suite = suite_of(tmp_path, "kind: mft, expect: top, templates: [good]")
    with pytest.raises(ValueError, match=r"answer: shape \(1, 2\) given, \(1, 3\) wanted"):
        run_checks(suite, lambda texts: np.ones((1, 2)), LABELS)
