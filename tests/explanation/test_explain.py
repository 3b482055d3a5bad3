"""Words left out: the one that decides weighs most, places are the text's own, what cannot be explained is refused."""

from pathlib import Path

import numpy as np
import pytest
import torch
from support.explained import Counting
from support.tiny import BAD, GOOD, tiny_reviews

import distilora
from distilora.errors import ConfigError, DataError
from distilora.explanation.explain import Weight, explain, parts_of
from distilora.inference.predictor import Predictor, load
from distilora.tasks.base import Task

METHODS = ("leave-one-out", "integrated-gradients", "gradient-x-input")


def leave_one_out(predictor: Predictor, text: str, label: str | None = None) -> tuple[Weight, ...]:
    return explain(predictor, text, label=label).parts


@pytest.fixture(scope="module")
def predictor(runs: dict[str, Path]) -> Predictor:
    return load(runs["full"], "fp32", "cpu")


@pytest.fixture(scope="module")
def counting(predictor: Predictor) -> Predictor:
    return Predictor(predictor.artifact, Counting(predictor))


@pytest.mark.parametrize(("word", "label"), [("superb", "pos"), ("clever", "pos"), ("dull", "neg"), ("awful", "neg")])
def test_the_word_that_decides_has_all_the_weight(counting: Predictor, word: str, label: str) -> None:
    text = f"the film was {word} and the story"
    weights = leave_one_out(counting, text)
    assert [weight.word for weight in weights] == text.split()
    decided = counting(text)
    assert decided["label"] == label
    assert [weight.weight for weight in weights] == [decided["score"] - 0.5 if w == word else 0 for w in text.split()]


def test_words_that_share_and_words_that_oppose(counting: Predictor) -> None:
    shared = {w.word: w.weight for w in leave_one_out(counting, "superb warm film")}
    assert 0 == shared["film"] < shared["warm"] == shared["superb"] < counting("superb")["score"] - 0.5
    opposed = {w.word: w.weight for w in leave_one_out(counting, "superb warm dull film")}
    assert opposed["dull"] < 0 < opposed["superb"]


def test_a_trained_model_s_weights_are_where_the_sentiment_is(predictor: Predictor) -> None:
    decisive, plain = [], []
    for text, label in tiny_reviews(30, 5):
        for weight in leave_one_out(predictor, text, label):
            (decisive if weight.word in GOOD + BAD else plain).append(weight.weight)
    assert np.mean(decisive) > 0.05
    assert np.mean(decisive) > 2 * np.mean(plain)


def test_a_weight_is_what_the_answer_loses(predictor: Predictor) -> None:
    text = "the film, superb film"
    whole, *without = (
        predictor(text)["p_neg"]
        for text in (text, " film, superb film", "the superb film", "the film, film", "the film, superb")
    )
    weights = [weight.weight for weight in leave_one_out(predictor, text, "neg")]
    assert weights == pytest.approx([whole - less for less in without], abs=1e-6)
    assert max(map(abs, weights)) > 1e-3


def test_two_labels_are_each_other_s_opposite(predictor: Predictor) -> None:
    text = "a superb film and a dull ending"
    answer = predictor(text)["label"]
    pos, neg, own = (leave_one_out(predictor, text, label) for label in ("pos", "neg", None))
    assert own == (pos if answer == "pos" else neg)
    assert [w.weight for w in neg] == pytest.approx([-w.weight for w in pos], abs=1e-6)
    assert any(w.weight for w in pos)


def test_places_index_the_cleaned_text(counting: Predictor) -> None:
    text = counting.cleaning.clean("  The süße film,<br />was\u00a0was\nsuperb!  ")
    weights = leave_one_out(counting, "  The süße film,<br />was\u00a0was\nsuperb!  ")
    assert [weight.word for weight in weights] == ["The", "süße", "film,", "was", "was", "superb!"]
    assert all(text[weight.start : weight.end] == weight.word for weight in weights)
    assert [weight.start for weight in weights] == sorted({weight.start for weight in weights})
    assert weights[-1].weight == max(weight.weight for weight in weights) > 0.1


@pytest.mark.parametrize("method", METHODS)
def test_a_shuffled_head_explains_otherwise(runs: dict[str, Path], predictor: Predictor, method: str) -> None:
    shuffled = load(runs["full"], "fp32", "cpu")
    generator = torch.Generator().manual_seed(2)
    for name, parameter in shuffled.backend.network.named_parameters():
        if "classifier" in name:
            order = torch.randperm(parameter.numel(), generator=generator)
            parameter.data = parameter.data.flatten()[order].view(parameter.shape)
    alike = []
    for text, label in tiny_reviews(12, 8):
        own, other = ([w.weight for w in explain(p, text, method, label=label).parts] for p in (predictor, shuffled))
        alike.append(np.corrcoef(own, other)[0, 1])
    assert np.mean(np.abs(alike)) < 0.9
    again = explain(load(runs["full"], "fp32", "cpu"), text, method, label=label)  # the same head says the same
    assert [w.weight for w in again.parts] == pytest.approx(own, abs=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_the_heaviest_words_move_the_answer_most(predictor: Predictor, method: str) -> None:
    rng = np.random.default_rng(0)
    moved: dict[str, list[float]] = {"heaviest": [], "random": []}
    for text, _ in tiny_reviews(20, 6):
        explanation = explain(predictor, text, method)
        heaviest = np.argsort([-(part.weight or 0.0) for part in explanation.parts])[:3]
        random = [rng.choice(len(explanation.parts), 3, replace=False) for _ in range(5)]
        for name, choices in (("heaviest", [heaviest]), ("random", random)):
            for left_out in choices:
                rest = " ".join(part.word for i, part in enumerate(explanation.parts) if i not in left_out)
                moved[name].append(explanation.probability - predictor(rest)[f"p_{explanation.label}"])
    assert np.mean(moved["heaviest"]) > 0.1
    assert np.mean(moved["heaviest"]) > 1.5 * np.mean(moved["random"])


def test_a_sentence_weighs_what_the_answer_loses(predictor: Predictor) -> None:
    text = "the film was superb! a dull ending... warm music"
    explanation = explain(predictor, text, level="sentence", label="pos")
    assert [part.word for part in explanation.parts] == ["the film was superb!", "a dull ending...", "warm music"]
    rests = [
        " a dull ending... warm music",
        "the film was superb!  warm music",
        "the film was superb! a dull ending... ",
    ]
    lost = [explanation.probability - answer["p_pos"] for answer in predictor(rests)]
    assert [part.weight for part in explanation.parts] == pytest.approx(lost, abs=1e-6)
    assert max(map(abs, lost)) > 1e-3
    assert (explanation.method, explanation.measure, explanation.completeness_error) == (
        "leave-one-out",
        "probability",
        None,
    )


def test_sentences_end_where_said(counting: Predictor) -> None:
    for text, expected in (
        ('He said "dull." (Really!) Why? Because', ['He said "dull."', "(Really!)", "Why?", "Because"]),
        ("It cost 3.50, e.g. a lot…  so. ", ["It cost 3.50, e.g.", "a lot…", "so."]),
        ("... superb. . dull", ["...", "superb.", ".", "dull"]),
    ):
        explanation = explain(counting, text, level="sentence")
        assert [part.word for part in explanation.parts] == expected
        assert all(explanation.text[part.start : part.end] == part.word for part in explanation.parts)


@pytest.mark.usefixtures("a_minute")
@pytest.mark.parametrize("text", ["!" * 1_000_000, '!"' * 500_000, "." + '"' * 1_000_000])
def test_sentences_of_a_megabyte_are_found_in_linear_time(text: str) -> None:
    assert parts_of(text, "sentence") == [(0, len(text))]


def test_words_that_were_cut_have_no_weight(predictor: Predictor) -> None:
    explanation = explain(predictor, " ".join(f"{word} film" for word in ["dull", *["superb"] * 50]))
    read = [part.weight is not None for part in explanation.parts]
    assert sum(read) == 62  # of 64 tokens two are special
    assert read in ([True] * 62 + [False] * 40, [False] * 40 + [True] * 62)
    assert explanation.cut == 40


def test_a_text_is_cleaned_once(counting: Predictor) -> None:
    text = "superb &amp;lt;b&amp;gt; dull film"
    explanation = explain(counting, text)
    assert explanation.text == "superb &lt;b&gt; dull film"
    assert explanation.probability == counting(text)["score"]


def test_what_cannot_be_explained(predictor: Predictor, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match=r"^explain.label: there is no label 'good'; there are neg, pos$"):
        leave_one_out(predictor, "superb film", "good")
    for text in ("superb", " superb "):
        with pytest.raises(DataError, match=r"^explain: one word cannot be left out .*; give a longer text$"):
            leave_one_out(predictor, text)
    for text in ("", " "):
        with pytest.raises(DataError, match=r"^text 1: the text is blank; give one with words$"):
            leave_one_out(predictor, text)
    for choice, said in (
        ({"method": "guess"}, "explain.method: 'guess' given, leave-one-out, integrated-gradients or gradient-x-input"),
        ({"level": "letter"}, "explain.level: 'letter' given, word or sentence wanted"),
        ({"steps": 3}, "explain.steps: leave-one-out takes none; drop it, or choose integrated-gradients"),
        (
            {"method": "integrated-gradients", "steps": 0},
            "explain.steps: 0 given, a whole number from 1 to 1000 wanted",
        ),
    ):
        with pytest.raises(ConfigError, match=f"^{said}"):
            explain(predictor, "superb film", **choice)
    monkeypatch.setattr(
        predictor.task, "explained_answer", lambda answer, label: Task.explained_answer(predictor.task, {}, label)
    )
    with pytest.raises(DataError, match=r"^explain: task classification gives no probability of a label; give a run"):
        leave_one_out(predictor, "superb film")


def test_it_is_the_package_s() -> None:
    assert distilora.explain is explain
