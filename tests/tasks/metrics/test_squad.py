"""The rules of SQuAD's official evaluation, on its worked cases."""

import pytest

from distilora.tasks.metrics.squad import exact, f1, normalised


@pytest.mark.parametrize(
    ("answer", "form"),
    [
        ("The Cat!", "cat"),
        ("an  apple, a day", "apple day"),
        ("U.S.", "us"),
        ("the", ""),
        ("A-theist", "atheist"),
        ("", ""),
    ],
)
def test_answers_are_normalised(answer: str, form: str) -> None:
    assert normalised(answer) == form


@pytest.mark.parametrize(
    ("answer", "truth", "em", "shared"),
    [
        ("the Denver Broncos", ["Denver Broncos"], 1, 1),
        ("Broncos", ["Denver Broncos"], 0, 2 / 3),
        ("Denver Broncos won", ["Denver Broncos", "The Broncos won"], 0, 0.8),
        ("Panthers", ["Denver Broncos"], 0, 0),
        ("", [], 1, 1),
        ("Panthers", [], 0, 0),
        ("", ["Denver Broncos"], 0, 0),
        ("the", ["a"], 1, 1),
        ("very very good", ["very good"], 0, 0.8),
    ],
)
def test_exact_match_and_f1(answer: str, truth: list[str], em: float, shared: float) -> None:
    assert exact(answer, truth) == em
    assert f1(answer, truth) == pytest.approx(shared)
