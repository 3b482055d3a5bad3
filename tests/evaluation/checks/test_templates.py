"""Templates: slots are filled, the same way for the same seed, and what is no slot is refused."""

from random import Random

import pytest

from distilora.errors import ConfigError
from distilora.evaluation.checks import templates
from distilora.evaluation.checks.templates import Template, every, read_slots, read_template, sample, size

SLOTS = {"film": ("film", "opera"), "name": ("Ada", "Ben", "Cy")}


def texts(template: Template) -> list[str]:
    return [text for text, _ in every(template, SLOTS)]


def test_slots_are_filled_in_every_way() -> None:
    assert texts(Template("{name} saw {a:film}.")) == [
        "Ada saw a film.", "Ada saw an opera.", "Ben saw a film.", "Ben saw an opera.", "Cy saw a film.", "Cy saw an opera.",
    ]  # fmt: skip
    assert texts(Template("No slot.")) == ["No slot."]


def test_numbered_slots_have_different_values_and_a_pair_shares_its_slots() -> None:
    assert len(texts(Template("{name1} and {name2}"))) == 6
    pairs = list(every(Template("{name1} sings.", "{name2} sings."), SLOTS))
    assert ("Ada sings.", "Ben sings.") in pairs
    assert all(before != after for before, after in pairs)
    assert list(every(Template("A {film}.", "A good {film}."), SLOTS))[1] == ("A opera.", "A good opera.")


def test_a_sample_is_of_different_texts_and_repeats_with_its_seed() -> None:
    template = Template("{name1}, {name2}: {film}")
    first = sample(template, SLOTS, 5, Random("a"))
    assert len(set(first)) == 5
    assert first == sample(template, SLOTS, 5, Random("a"))
    assert first != sample(template, SLOTS, 5, Random("b"))
    assert len(sample(template, SLOTS, 500, Random("a"))) == 12  # there are no more
    many = {"n": tuple(map(str, range(1000)))}
    vast = Template("{n1} {n2} {n3} {n4} {n5} {n6} {n7}")
    assert size(vast, many) == 10**21
    assert len(sample(vast, many, 20, Random(0))) == 20


def test_a_slot_may_hold_others() -> None:
    slots = read_slots(
        {"thing": ["{film}", "book"], "film": ["film", "{place} film"], "place": ["Oslo"], "n": [1, 2.5]}
    )
    assert slots == {
        "place": ("Oslo",),
        "film": ("film", "Oslo film"),
        "thing": ("film", "Oslo film", "book"),
        "n": ("1", "2.5"),
    }


@pytest.mark.parametrize(
    ("tree", "said"),
    [
        ([], "slots: [] given, lists of texts by name wanted"),
        ({"a1": ["x"]}, "slots: 'a1': a name of letters and _ wanted"),
        ({"a": "x"}, "slots: a: a list of texts wanted"),
        ({"a": [True]}, "slots: a: a list of texts wanted; put yes, no, on, off, true and false in quotes"),
        ({"a": ["{b}"]}, "slots: a: '{b}': there is no slot {b}"),
        ({"a": ["{b}"], "b": ["{a}"]}, "slots: a: contains itself (b in a in a)"),
    ],
)
def test_wrong_slots_are_refused(tree: object, said: str) -> None:
    with pytest.raises(ConfigError) as error:
        read_slots(tree)
    assert str(error.value).startswith(said)


def test_slots_that_multiply_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(templates, "MOST_VALUES", 8)
    with pytest.raises(ConfigError, match="has more than 8 values; take shorter lists"):
        read_slots({"a": ["x", "y", "z"], "b": ["{a1} {a2}"]})


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("The {flim}.", "templates: {flim}: there is no such slot; there are film, name"),
        ("The {film.", "templates: 'The {film.': a brace is no part of a slot"),
        ({"from": "A"}, "templates: {'from': 'A'} given, a text or a pair {from: TEXT, to: TEXT} wanted"),
        (" ", "templates: ' ' given"),
        (7, "templates: 7 given"),
    ],
)
def test_wrong_templates_are_refused(value: object, said: str) -> None:
    with pytest.raises(ConfigError) as error:
        read_template(value, SLOTS)
    assert str(error.value).startswith(said)
