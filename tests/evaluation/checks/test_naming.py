"""Names of labels: usual names, numbers and stars, what one says, and what is refused."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from distilora.errors import ConfigError
from distilora.evaluation.checks.naming import name_labels
from distilora.evaluation.checks.suite import read_suite

SENTIMENT = read_suite("sentiment")
NEG, NEU, POS = "negative", "neutral", "positive"


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        (("neg", "pos"), (NEG, POS)),
        (("POSITIVE", "Negative"), (POS, NEG)),
        (("very_negative", "negative", "neutral", "positive", "very positive"), (NEG, NEG, NEU, POS, POS)),
        (("bad", "ok", "good"), (NEG, NEU, POS)),
        (("0", "1"), (NEG, POS)),
        (("LABEL_0", "LABEL_1"), (NEG, POS)),
        (("1", "2", "3", "4", "5"), (NEG, NEG, NEU, POS, POS)),
        (("1 star", "2 stars", "3 stars", "4 stars", "5 stars"), (NEG, NEG, NEU, POS, POS)),
        (("4", "1", "2", "3"), (POS, NEG, NEG, POS)),
        (("-1", "+1"), (NEG, POS)),
        (("neg", "spam", "pos"), (NEG, "", POS)),
    ],
)
def test_usual_labels_are_known(labels: Sequence[str], names: Sequence[str]) -> None:
    assert name_labels(SENTIMENT, labels).names == tuple(names)


def test_chosen_labels_win() -> None:
    naming = name_labels(SENTIMENT, ("cold", "warm", "hot"), {NEG: ["cold"], POS: ["warm", "hot"]})
    assert naming.names == (NEG, POS, POS)
    assert naming.sentence() == "Labels are read as negative: cold; positive: warm, hot."
    p = naming.probabilities(np.asarray([[0.5, 0.3, 0.2]]))
    assert {name: values.round(6).tolist() for name, values in p.items()} == {NEG: [0.5], POS: [0.5]}
    assert name_labels(SENTIMENT, ("good", "bad"), {NEG: ["good"], POS: ["bad"]}).names == (NEG, POS)


@pytest.mark.parametrize(
    ("labels", "chosen", "said"),
    [
        (
            ("a", "b"),
            {},
            "checks: no label of the model (a, b) is known as negative; name it with --checks.negative LABEL",
        ),
        (
            ("neg", "b"),
            {},
            "checks: no label of the model (neg, b) is known as positive; name it with --checks.positive LABEL",
        ),
        (("1", "7"), {}, "checks: no label of the model (1, 7) is known as negative"),
        (("a", "b"), {NEG: ["c"]}, "checks.negative: 'c' is no label of the model (a, b)"),
        (("a", "b"), {NEG: ["a"], POS: ["a"]}, "checks: one label is given for two names"),
    ],
)
def test_labels_that_do_not_fit_are_named(labels: Sequence[str], chosen: dict[str, list[str]], said: str) -> None:
    with pytest.raises(ConfigError) as error:
        name_labels(SENTIMENT, labels, chosen)
    assert str(error.value).startswith(said)


def test_a_suite_without_names_speaks_of_the_models_labels() -> None:
    (check, *_) = SENTIMENT.checks
    suite = replace(SENTIMENT, labels={}, scale=(), optional=(), checks=(replace(check, expect=("tea",)),))
    assert name_labels(suite, ("tea", "rum")).sentence() == ""
    with pytest.raises(ConfigError, match=r"check 'words of praise': 'tea' is no label of the model \(a, b\)"):
        name_labels(suite, ("a", "b"))
    with pytest.raises(ConfigError, match=r"checks.positive: the suite sentiment has no label of that name"):
        name_labels(suite, ("tea", "rum"), {POS: ["tea"]})
