"""Prediction: answers come in order, streams in chunks, and what is blank, missing or no text is named."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas
import pytest
from support.answered import TEXTS

from distilora.batching.rows import Rows
from distilora.data.examples import Example
from distilora.errors import ArtifactError, ConfigError, DataError
from distilora.inference import output_cache
from distilora.inference import predictor as predict
from distilora.inference.predictor import Predictor, load
from distilora.tasks.classification import Classification


def test_one_text_several_and_a_stream(predictor: Predictor) -> None:
    answers = predictor(TEXTS)
    assert set(answers[0]) == {"label", "score", "p_neg", "p_pos", "truncated", "abstain"}
    assert {answer["label"] for answer in answers} == {"neg", "pos"}
    assert all(answer["score"] == answer[f"p_{answer['label']}"] for answer in answers)
    assert all(answer["p_neg"] + answer["p_pos"] == pytest.approx(1) for answer in answers)
    assert predictor([]) == []
    alone = [predictor(text) for text in TEXTS[:5]]
    for one, among in zip(alone, answers, strict=False):
        assert one == pytest.approx(among, abs=1e-5)
    assert list(predictor.stream(TEXTS)) == answers
    stream = predictor(text for text in TEXTS)
    assert next(stream) == answers[0]
    assert list(stream) == answers[1:]


def test_an_answer_below_the_threshold_abstains(predictor: Predictor, finished: Path) -> None:
    scores = sorted(answer["score"] for answer in predictor(TEXTS))
    threshold = scores[len(scores) // 2]
    careful = load(finished, precision="fp32", device="cpu", abstain_below=threshold)
    answers = careful(TEXTS)
    assert [a["abstain"] for a in answers] == [a["score"] < threshold for a in answers]
    assert {a["abstain"] for a in answers} == {True, False}
    assert not any(a["abstain"] for a in predictor(TEXTS))
    with pytest.raises(ConfigError, match="abstain_below"):
        load(finished, device="cpu", abstain_below=1.5)


class Counting:
    """A backend that counts the texts it is given."""

    def __init__(self, inner: object) -> None:
        self.inner, self.token_budget, self.lanes, self.texts = inner, 64, 1, 0

    def run(self, rows: Rows) -> np.ndarray:
        self.texts += rows.groups
        return self.inner.run(rows)


def test_a_text_of_a_stream_is_computed_once(predictor: Predictor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(predict, "STREAM", 7)
    counting = Predictor(predictor.artifact, Counting(predictor.backend))
    again = [*TEXTS, *TEXTS[::-1], *TEXTS]
    answers = list(counting.stream(again))
    assert counting.backend.texts == len(TEXTS)
    expected = predictor(TEXTS)
    for one, other in zip(answers, [*expected, *expected[::-1], *expected], strict=True):
        assert one == pytest.approx(other, abs=1e-5)
    assert len(counting([TEXTS[0]] * 5)) == 5
    assert counting.backend.texts == len(TEXTS) + 1
    monkeypatch.setattr(output_cache, "REMEMBERED", 3)
    assert [a["label"] for a in counting.stream(again)] == [a["label"] for a in answers]
    assert counting.backend.texts > 2 * len(TEXTS)


def test_what_came_before_a_bad_text_is_answered(predictor: Predictor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(predict, "STREAM", 7)
    answers = predictor.stream(iter([*TEXTS[:20], 7]))
    assert len([next(answers) for _ in range(14)]) == 14
    with pytest.raises(DataError, match="text 21: int given, text wanted"):
        list(answers)


def test_outputs_that_are_not_finite_are_refused(predictor: Predictor) -> None:
    class Broken:
        token_budget, lanes = 64, 1

        def run(self, rows: Rows) -> np.ndarray:
            return np.full((rows.groups, 2), np.nan, np.float32)

    with pytest.raises(ArtifactError, match="not finite"):
        Predictor(predictor.artifact, Broken())(TEXTS)


def test_order_is_kept_over_chunks(predictor: Predictor, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = predictor(TEXTS)
    assert predictor(TEXTS[::-1])[::-1] == answers
    monkeypatch.setattr(predict, "STREAM", 7)
    for streamed, answer in zip(predictor.stream(iter(TEXTS)), answers, strict=True):
        assert streamed == pytest.approx(answer, abs=1e-5)


def test_a_stream_holds_a_constant_number(predictor: Predictor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(predict, "STREAM", 7)
    taken = 0

    def texts() -> Iterator[str]:
        nonlocal taken
        for text in TEXTS:
            taken += 1
            yield text

    stream = predictor.stream(texts())
    next(stream)
    assert taken == 14  # while seven are computed the next seven are tokenised
    assert len(list(stream)) == len(TEXTS) - 1


def test_texts_are_cleaned_as_in_training(predictor: Predictor) -> None:
    assert predictor("superb <br />film &amp; plot") == predictor("superb film & plot")


def test_a_longer_text_is_flagged(predictor: Predictor) -> None:
    fitting, longer = " ".join(["film"] * 62), " ".join(["film"] * 63)
    assert [answer["truncated"] for answer in predictor([fitting, longer, "a film"])] == [False, True, False]
    assert predictor(longer + " superb" * 50)["p_pos"] == pytest.approx(predictor(fitting)["p_pos"])


@pytest.mark.parametrize("call", [lambda p, texts: p(texts), lambda p, texts: list(p.stream(texts))])
@pytest.mark.parametrize(
    ("texts", "named"),
    [
        (["fine", "fine", 7], "text 3: int given, text wanted"),
        ([3.5], "text 1: float given, text wanted"),
        ([b"fine"], "text 1: bytes given"),
        (["fine", ["fine"]], "text 2: list given"),
        (["fine", "\ud800"], "text 2: character 1 is not UTF-8"),
    ],
)
def test_what_is_no_text_is_named(
    predictor: Predictor, call: Callable[[Predictor, object], object], texts: object, named: str
) -> None:
    with pytest.raises(DataError) as error:
        call(predictor, texts)
    assert str(error.value).startswith(named)


GAPS = [None, TEXTS[0], "", " \n", float("nan"), TEXTS[1], "<br />", pandas.NA, np.float32("nan"), pandas.NaT, TEXTS[2]]


@pytest.mark.parametrize("chunk", [2, 4, 512])
def test_a_blank_or_missing_text_has_an_answer_of_nulls(
    predictor: Predictor, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(predict, "STREAM", chunk)
    whole = iter(predictor(TEXTS[:3]))
    answers = predictor(GAPS)
    assert len(answers) == len(GAPS)
    for text, answer in zip(GAPS, answers, strict=True):
        if isinstance(text, str) and text in TEXTS:
            assert answer == pytest.approx(next(whole), abs=1e-5)
        else:
            assert answer == dict.fromkeys(["label", "score", "p_neg", "p_pos", "truncated", "abstain"])
    assert [a["label"] for a in predictor.stream(iter(GAPS))] == [a["label"] for a in answers]
    assert list(predictor.stream(["", None])) == predictor([None] * 2) == [answers[0]] * 2
    answers[0]["label"] = "mine"  # each has an answer of its own
    assert answers[2]["label"] is None


def test_nothing_but_blank_texts(predictor: Predictor) -> None:
    fresh = Predictor(predictor.artifact, predictor.backend)
    assert fresh(" ") == dict.fromkeys(["label", "score", "p_neg", "p_pos", "truncated", "abstain"])


def test_strict(predictor: Predictor, finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error that names the place, before anything is computed; set at loading, and for a call."""
    counting = Predictor(predictor.artifact, Counting(predictor.backend), strict=True)
    drop = "give one with words, or drop strict to have its answer empty"
    for texts, named in (
        ([*TEXTS, "<br />"], f"text 41: the text is blank; {drop}"),
        ([*TEXTS, None], f"text 41: the text is missing; {drop}"),
        ("", f"text 1: the text is blank; {drop}"),
    ):
        with pytest.raises(DataError, match=f"^{named}$"):
            counting(texts)
    with pytest.raises(DataError, match=r"^text 41: int given"):
        counting([*TEXTS, 7], strict=False)
    assert counting.backend.texts == 0
    assert counting(["", "fine"], strict=False)[0]["label"] is None
    assert load(finished, "fp32", "cpu", strict=True).strict
    with pytest.raises(DataError, match=r"^text 1: the text is blank"):
        predictor("", strict=True)
    with pytest.raises(TypeError, match="positional"):
        predictor("a fine film", "a dull one")
    monkeypatch.setattr(predict, "STREAM", 4)
    stream = predictor.stream(iter([*["fine"] * 9, None]), strict=True)
    with pytest.raises(DataError, match=r"^text 10: the text is missing"):
        list(stream)


def test_columns_and_arrays_are_sequences(predictor: Predictor) -> None:
    texts = [*TEXTS[:3], "", TEXTS[3]]
    expected = predictor(texts)
    frame = pandas.DataFrame({"text": texts}, index=[9, 3, 3, 1, 7])
    for column in (
        tuple(texts), np.array(texts), np.array(texts, object), pandas.Series(texts, dtype=object), frame["text"],
        pandas.Index(texts), pandas.Series([*texts[:3], None, texts[4]]),
    ):  # fmt: skip
        assert isinstance(answers := predictor(column), list)
        assert answers == expected
    with pytest.raises(DataError, match=r"^text 2: int given, text wanted"):
        predictor(pandas.Series(["fine", 7]))
    for table in (frame, np.array([texts])):
        with pytest.raises(DataError, match="of 2 dimensions given, one column of texts wanted"):
            predictor(table)


def test_a_predictor_says_what_it_is(predictor: Predictor) -> None:
    assert predictor.labels == ("neg", "pos")
    folder = predictor.artifact.folder
    assert repr(predictor) == f"<Predictor classification (neg, pos), TorchBackend, fp32, {folder}>"
    many = Predictor(predictor.artifact, predictor.backend, Classification([f"c{i}" for i in range(20)], "text", None))
    assert "(c0, c1, c2, c3, c4, c5, c6, c7, ... (20))" in repr(many)


def test_cleaned_examples_are_answered_in_order(predictor: Predictor) -> None:
    examples = [Example((text,)) for text in TEXTS]
    assert predictor.answer(examples) == predictor(TEXTS)


def test_a_record_may_stand_for_a_text(predictor: Predictor) -> None:
    assert predictor({"text": "superb film", "id": 7}) == predictor("superb film")
    assert predictor([{"text": ""}, "superb"])[0]["label"] is None
    with pytest.raises(DataError, match=r"^text 2: text-column: no column called text"):
        predictor(["superb", {"film": "superb"}])


def test_a_run_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="no such run"):
        load(tmp_path / "nowhere")


@pytest.mark.parametrize("texts", [None, 5, b"good"])
def test_what_is_no_text(texts: object, predictor: Predictor) -> None:
    with pytest.raises(DataError, match=f"^texts: {type(texts).__name__} given, a text or several wanted"):
        predictor(texts)
    with pytest.raises(DataError, match=r"^texts: one text given, several wanted"):
        list(predictor.stream("good"))
