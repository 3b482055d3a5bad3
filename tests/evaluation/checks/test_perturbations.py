"""Perturbations: each changes what it says and nothing else, and leaves alone what it cannot change."""

from collections import Counter
from random import Random

import pytest

from distilora.errors import ConfigError
from distilora.evaluation.checks.perturbations import Perturbation, read_perturbation, typos


def perturbed(name: str, text: str, *values: str, seed: int = 0) -> str | None:
    return Perturbation(name, values)(text, Random(seed))


@pytest.mark.parametrize(
    ("name", "text", "result"),
    [
        ("lower_case", "A GOOD Film", "a good film"),
        ("lower_case", "good", None),
        ("upper_case", "Good, isn't it?", "GOOD, ISN'T IT?"),
        ("punctuation", "Good, very good! 3.5 stars.", "Good very good 3.5 stars"),
        ("punctuation", "Good", "Good."),
        ("contractions", "It is good, and I do not lie.", "It's good, and I don't lie."),
        ("contractions", "Isn't it? I didn't see.", "Is not it? I did not see."),
        ("contractions", "Yes, it is.", None),
        ("typos", "to be or not", None),
    ],
)
def test_a_perturbation_of_a_text(name: str, text: str, result: str | None) -> None:
    assert perturbed(name, text) == result


def test_typos_swap_neighbours_inside_words() -> None:
    text = "This wonderful comedy has moments of startling tenderness. " * 10  # 80 words
    for seed in range(20):
        changed = typos(text, Random(seed))
        words = [(a, b) for a, b in zip(text.split(), changed.split(), strict=True) if a != b]
        assert sum(a != b for a, b in zip(text, changed, strict=True)) == 8  # 4 swaps
        for before, after in words:
            assert Counter(before) == Counter(after)
            assert (before[0], before.rstrip(".")[-1]) == (after[0], after.rstrip(".")[-1])
    assert typos(text, Random(1)) == typos(text, Random(1)) != typos(text, Random(2))


def test_white_space_keeps_the_words() -> None:
    text = "one two three four five six seven"
    changed = perturbed("white_space", text)
    assert changed is not None
    assert changed != text
    assert changed.split() == text.split()


def test_sentences_are_added() -> None:
    assert perturbed("append", "Good. ", "On Monday.") == "Good. On Monday."
    assert perturbed("prepend", " Good.", "On Monday.") == "On Monday. Good."


def test_names_are_exchanged_everywhere_and_whole() -> None:
    for seed in range(10):
        changed = perturbed("replace", "Ann met Bo; Anna saw Ann.", "Ann", "Bo", "Cy", "Di", seed=seed)
        assert changed in ("Cy met Di; Anna saw Cy.", "Di met Cy; Anna saw Di.")
    assert perturbed("replace", "Nobody here.", "Ann", "Bo") is None
    assert perturbed("replace", "Ann.", "Ann") is None
    assert perturbed("replace", "Ann met Bo.", "Ann", "Bo") in ("Bo met Ann.",)


def test_perturbations_are_read() -> None:
    slots = {"name": ("Ann", "Bo")}
    assert read_perturbation("typos", slots) == Perturbation("typos")
    assert read_perturbation({"replace": "name"}, slots) == Perturbation("replace", ("Ann", "Bo"))
    for value, said in (
        ("typo", "perturb: 'typo' given, one of typos, lower_case,"),
        ({"replace": "nam"}, "perturb: replace: 'nam' is no slot; there are name"),
        ({"replace": ["a"]}, "perturb: replace: ['a'] is no slot"),
        ({"swap": "name"}, "perturb: {'swap': 'name'} given"),
    ):
        with pytest.raises(ConfigError) as error:
            read_perturbation(value, slots)
        assert str(error.value).startswith(said)
