"""Prediction: order kept, blanks and oddities named, tables streamed, and neither torch nor the trainer needed."""

import csv
import json
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas
import pyarrow.parquet as parquet
import pytest
from support.tiny import tiny_reviews

from distilora.batching.rows import Rows
from distilora.data.examples import Example
from distilora.errors import ArtifactError, ConfigError, DataError
from distilora.files.tables import write_table
from distilora.inference import output_cache
from distilora.inference import predictor as predict
from distilora.inference.predictor import Predictor, load
from distilora.inference.table import predict_table
from distilora.tasks.classification import Classification

TEXTS = [text for text, _ in tiny_reviews(40, 5)]


@pytest.fixture(scope="module")
def predictor(finished: Path) -> Predictor:
    return load(finished, precision="fp32", device="cpu")


def table(kind: str, folder: Path, texts: list[str | None], column: str = "text") -> Path:
    """A table of texts with an id, and a column that the answers have, too."""
    path = folder / f"in.{kind}"
    write_table(path, [{"id": i, column: text, "score": i / 2} for i, text in enumerate(texts)])
    return path


def read(path: Path) -> list[dict[str, object]]:
    if path.suffix == ".parquet":
        return parquet.read_table(path).to_pylist()
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_text().splitlines()]
    with open(path, newline="") as stream:
        return list(csv.DictReader(stream, delimiter="\t" if path.suffix == ".tsv" else ","))


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
    some = predictor(text for text in TEXTS)
    assert next(some) == answers[0]
    assert list(some) == answers[1:]


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
    wanted = predictor(TEXTS)
    for one, other in zip(answers, [*wanted, *wanted[::-1], *wanted], strict=True):
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
    wanted = predictor(texts)
    frame = pandas.DataFrame({"text": texts}, index=[9, 3, 3, 1, 7])
    for given in (
        tuple(texts), np.array(texts), np.array(texts, object), pandas.Series(texts, dtype=object), frame["text"],
        pandas.Index(texts), pandas.Series([*texts[:3], None, texts[4]]),
    ):  # fmt: skip
        assert isinstance(answers := predictor(given), list)
        assert answers == wanted
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


def sent_on(predictor: Predictor) -> Predictor:
    return pickle.loads(pickle.dumps(predictor))  # noqa: S301 - our own


class TestPickled:
    def test_it_is_loaded_again(self, finished: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.chdir(finished.parent)
        predictor = load(finished.name, "bf16", "cpu", abstain_below=0.9)
        predictor.strict = True
        monkeypatch.chdir(tmp_path)
        again = sent_on(predictor)
        assert (again.abstain_below, again.strict, again.backend.precision) == (0.9, True, "bf16")
        assert again(TEXTS[:3]) == predictor(TEXTS[:3])
        assert len(pickle.dumps(again)) < 4000

    def test_the_encoder_s_place_is_kept(
        self, finished: Path, encoder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.chdir(encoder.parent)
        predictor = load(finished, "fp32", "cpu", encoder=encoder.name)
        monkeypatch.chdir(tmp_path)
        assert sent_on(predictor)(TEXTS[0]) == predictor(TEXTS[0])

    def test_another_model_in_its_place(self, runs: dict[str, Path], tmp_path: Path) -> None:
        folder = shutil.copytree(runs["full"], tmp_path / "run")
        sent = pickle.dumps(load(folder, "fp32", "cpu"))
        shutil.rmtree(folder)
        shutil.copytree(runs["head"], folder)
        with pytest.raises(
            ArtifactError, match="holds another model than when the predictor was pickled; load it and pickle"
        ):
            pickle.loads(sent)  # noqa: S301 - our own

    def test_one_of_no_folder(self, predictor: Predictor) -> None:
        made = Predictor(predictor.artifact, predictor.backend)
        with pytest.raises(ConfigError, match=r"in the worker call distilora\.load\('/.*/model'\)$"):
            pickle.dumps(made)


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl", "parquet"])
def test_tables(predictor: Predictor, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(predict, "STREAM", 6)
    texts: list[str | None] = [*TEXTS[:10], "", *TEXTS[10:20]]
    source, output = table(kind, tmp_path, texts), tmp_path / f"out.{kind}"
    assert predict_table(predictor, str(source), str(output)) == {"rows": 21, "blank": 1}
    rows = read(output)
    assert list(rows[0]) == [
        "id", "text", "score", "label", "predicted_score", "p_neg", "p_pos", "truncated",
        "abstain",
    ]  # fmt: skip
    assert [int(str(row["id"])) for row in rows] == list(range(21))
    assert [row["text"] for row in rows] == texts
    assert [float(str(row["score"])) for row in rows] == [i / 2 for i in range(21)]
    nothing = "" if kind in ("csv", "tsv") else None
    blank = rows.pop(10)
    assert {blank[name] for name in ("label", "predicted_score", "p_neg", "p_pos", "truncated", "abstain")} == {nothing}
    for row, answer in zip(rows, predictor(TEXTS[:20]), strict=True):
        assert row["label"] == answer["label"]
        assert float(str(row["p_pos"])) == pytest.approx(answer["p_pos"], abs=1e-5)
    assert sorted(path.name for path in tmp_path.iterdir()) == [source.name, output.name]


def test_a_stretch_of_blank_rows(predictor: Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(predict, "STREAM", 3)
    source = table("jsonl", tmp_path, [None, "", " ", *TEXTS[:3], "", "", ""])
    output = tmp_path / "out.jsonl"
    assert predict_table(predictor, str(source), str(output)) == {"rows": 9, "blank": 6}
    rows = read(output)
    assert [row["label"] is None for row in rows] == [True] * 3 + [False] * 3 + [True] * 3
    assert {frozenset(row) for row in rows} == {frozenset(rows[0])}


def test_strict_names_the_blank_row(predictor: Predictor, tmp_path: Path) -> None:
    source, output = table("csv", tmp_path, ["fine", ""]), tmp_path / "out.csv"
    with pytest.raises(DataError, match=r"in\.csv: row 2: the text is blank"):
        predict_table(predictor, str(source), str(output), strict=True)
    assert [path.name for path in tmp_path.iterdir()] == ["in.csv"]


def test_the_text_column(predictor: Predictor, tmp_path: Path) -> None:
    answer = predictor(TEXTS[0])["label"]
    for column, given in (("Review", None), ("prose", "prose")):
        source, output = table("csv", tmp_path, TEXTS[:1], column), tmp_path / "out.csv"
        predict_table(predictor, str(source), str(output), text_column=given)
        assert read(output)[0]["label"] == answer
    with pytest.raises(DataError, match=r"text-column: .*\(columns: id, prose, score\)"):
        predict_table(predictor, str(source), str(output))
    with pytest.raises(DataError, match="text-column: no column 'words'"):
        predict_table(predictor, str(source), str(output), text_column="words")


def test_a_label_column_of_the_table_is_kept(predictor: Predictor, tmp_path: Path) -> None:
    source, output = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    write_table(source, [{"text": TEXTS[0], "label": "mine"}])
    predict_table(predictor, str(source), str(output))
    (row,) = read(output)
    assert row["label"] == "mine"
    assert row["predicted_label"] == predictor(TEXTS[0])["label"]


def test_a_table_without_records(predictor: Predictor, tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("text\n")
    with pytest.raises(DataError, match="no records"):
        predict_table(predictor, str(tmp_path / "in.csv"), str(tmp_path / "out.csv"))
    assert not (tmp_path / "out.csv").exists()


def test_cleaned_examples_are_answered_in_order(predictor: Predictor) -> None:
    examples = [Example((text,)) for text in TEXTS]
    assert predictor.answer(examples) == predictor(TEXTS)


def test_a_run_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="no such run"):
        load(tmp_path / "nowhere")


NO_TORCH = """
import importlib.abc, json, sys

class Blocker(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "transformers", "peft", "accelerate", "sklearn"):
            raise ImportError(f"{name} is blocked", name=name)

sys.meta_path.insert(0, Blocker())
import numpy as np
import distilora.inference.predictor
from distilora.inference.table import predict_table
from distilora.artifact.format import read_artifact
from distilora.errors import MissingExtra

class Backend:
    precision = "fp32"
    token_budget, lanes = 64, 1
    def run(self, rows):
        return np.stack([np.zeros(rows.groups), rows.group_lengths - 5.0], axis=1).astype(np.float32)

artifact = read_artifact(sys.argv[1])
predictor = distilora.inference.predictor.Predictor(artifact, Backend())
answers = predictor(json.loads(sys.argv[2]))
predict_table(predictor, sys.argv[3], sys.argv[4])
try:
    distilora.inference.predictor.load(sys.argv[1])
except MissingExtra as error:
    said = str(error)
heavy = sorted({name.partition(".")[0] for name in sys.modules} & {"torch", "transformers", "peft", "accelerate"})
trainer = [name for name in ("distilora.runs.run", "distilora.training.loop", "distilora.model.build") if name in sys.modules]
print(json.dumps({"answers": answers, "said": said, "heavy": heavy, "trainer": trainer}))
"""


def test_no_torch_is_needed(finished: Path, tmp_path: Path) -> None:
    source = table("csv", tmp_path, ["film " * 9, "", "film"])
    texts = ["film", "film " * 20, "film " * 3]
    done = subprocess.run(
        [sys.executable, "-c", NO_TORCH, str(finished), json.dumps(texts), str(source), str(tmp_path / "out.csv")],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert [answer["label"] for answer in found["answers"]] == ["neg", "pos", "neg"]
    scaled = (np.asarray([3, 22, 5]) - 5.0) / load(finished, "fp32").artifact.temperature
    assert [answer["p_pos"] for answer in found["answers"]] == pytest.approx(1 / (1 + np.exp(-scaled)))
    assert [row["label"] for row in read(tmp_path / "out.csv")] == ["pos", "", "neg"]
    assert "torch is not installed; install it with: pip install 'distilora[train]'" in found["said"]
    assert (found["heavy"], found["trainer"]) == ([], [])


@pytest.mark.parametrize("texts", [None, 5, {"text": "good"}, b"good"])
def test_what_is_no_text(texts: object, predictor: Predictor) -> None:
    with pytest.raises(DataError, match=f"^texts: {type(texts).__name__} given, a text or several wanted"):
        predictor(texts)
    with pytest.raises(DataError, match=r"^texts: one text given, several wanted"):
        list(predictor.stream("good"))
