"""Words left out: the one that decides weighs most, places are the text's own, what cannot be explained is refused."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import BAD, GOOD, tiny_reviews
from numpy.typing import NDArray

import distilora
from distilora.errors import DataError
from distilora.explain import leave_one_word_out
from distilora.predict import Predictor, load
from distilora.rows import Rows


class Counting:
    """A backend that counts words of sentiment: outputs [0, good - bad]."""

    precision, token_budget, lanes = "fp32", 64, 1

    def __init__(self, predictor: Predictor) -> None:
        self.good, self.bad = ({predictor.tokenizer.token_to_id(word) for word in words} for words in (GOOD, BAD))

    def run(self, rows: Rows) -> NDArray[np.float32]:
        texts = [rows.ids[rows.offsets[i] : rows.offsets[i + 1]].tolist() for i in range(len(rows))]
        sums = [sum((i in self.good) - (i in self.bad) for i in ids) for ids in texts]
        return np.array([[0, found] for found in sums], np.float32)


@pytest.fixture(scope="module")
def predictor(runs: dict[str, Path]) -> Predictor:
    return load(runs["full"], "fp32", "cpu")


@pytest.fixture(scope="module")
def counting(predictor: Predictor) -> Predictor:
    return Predictor(predictor.artifact, Counting(predictor))


@pytest.mark.parametrize(("word", "label"), [("superb", "pos"), ("clever", "pos"), ("dull", "neg"), ("awful", "neg")])
def test_the_word_that_decides_has_all_the_weight(counting: Predictor, word: str, label: str) -> None:
    text = f"the film was {word} and the story"
    weights = leave_one_word_out(counting, text)
    assert [weight.word for weight in weights] == text.split()
    decided = counting(text)
    assert decided["label"] == label
    assert [weight.weight for weight in weights] == [decided["score"] - 0.5 if w == word else 0 for w in text.split()]


def test_words_that_share_and_words_that_oppose(counting: Predictor) -> None:
    shared = {w.word: w.weight for w in leave_one_word_out(counting, "superb warm film")}
    assert 0 == shared["film"] < shared["warm"] == shared["superb"] < counting("superb")["score"] - 0.5
    opposed = {w.word: w.weight for w in leave_one_word_out(counting, "superb warm dull film")}
    assert opposed["dull"] < 0 < opposed["superb"]


def test_a_trained_model_s_weights_are_where_the_sentiment_is(predictor: Predictor) -> None:
    decisive, plain = [], []
    for text, label in tiny_reviews(30, 5):
        for weight in leave_one_word_out(predictor, text, label):
            (decisive if weight.word in GOOD + BAD else plain).append(weight.weight)
    assert np.mean(decisive) > 0.05
    assert np.mean(decisive) > 2 * np.mean(plain)


def test_a_weight_is_what_the_answer_loses(predictor: Predictor) -> None:
    text = "the film, superb film"
    whole, *without = (
        predictor(text)["p_neg"]
        for text in (text, " film, superb film", "the superb film", "the film, film", "the film, superb")
    )
    weights = [weight.weight for weight in leave_one_word_out(predictor, text, "neg")]
    assert weights == pytest.approx([whole - less for less in without], abs=1e-6)
    assert max(map(abs, weights)) > 1e-3


def test_two_labels_are_each_other_s_opposite(predictor: Predictor) -> None:
    text = "a superb film and a dull ending"
    answer = predictor(text)["label"]
    pos, neg, own = (leave_one_word_out(predictor, text, label) for label in ("pos", "neg", None))
    assert own == (pos if answer == "pos" else neg)
    assert [w.weight for w in neg] == pytest.approx([-w.weight for w in pos], abs=1e-6)
    assert any(w.weight for w in pos)


def test_places_index_the_cleaned_text(counting: Predictor) -> None:
    text = counting.clean("  The süße film,<br />was\u00a0was\nsuperb!  ")
    weights = leave_one_word_out(counting, "  The süße film,<br />was\u00a0was\nsuperb!  ")
    assert [weight.word for weight in weights] == ["The", "süße", "film,", "was", "was", "superb!"]
    assert all(text[weight.start : weight.end] == weight.word for weight in weights)
    assert [weight.start for weight in weights] == sorted({weight.start for weight in weights})
    assert weights[-1].weight == max(weight.weight for weight in weights) > 0.1


def test_what_cannot_be_explained(predictor: Predictor, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match=r"^explain: there is no label 'good'; there are neg, pos$"):
        leave_one_word_out(predictor, "superb film", "good")
    for text in ("superb", " superb ", "", " "):
        with pytest.raises(DataError, match=r"^explain: one word cannot be left out .*; give a longer text$"):
            leave_one_word_out(predictor, text)
    monkeypatch.setattr(predictor, "task", SimpleNamespace(labels=()))
    with pytest.raises(DataError, match=r"^explain: task classification gives no probability of a label$"):
        leave_one_word_out(predictor, "superb film")


def test_it_is_the_package_s() -> None:
    assert distilora.leave_one_word_out is leave_one_word_out
