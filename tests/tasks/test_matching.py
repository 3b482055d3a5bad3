"""Labels of other data are matched by name, else by position, which a warning says and the summary repeats."""

import json
from pathlib import Path

import pytest
from support.tiny import divided, tiny_reviews, write_csv

from distilora.config.measuring import MeasureConfig, SourceConfig
from distilora.config.schema import DataConfig, EvaluationConfig
from distilora.data.sources import Source, open_source
from distilora.errors import DataError
from distilora.evaluation.evaluate import evaluate
from distilora.files.tables import Record
from distilora.tasks.classification import Classification
from distilora.tasks.matching import match_labels

TASK = Classification(["neg", "pos"], "text", "label")
NOTE = "are matched by position: 0 = neg, 1 = pos."


def records(*labels: object) -> list[Record]:
    return [Record(f"row {n}", {"text": "x", "label": label}) for n, label in enumerate(labels, 1)]


def numbered(path: Path) -> Path:
    return write_csv(path, [(text, str(int(label == "pos"))) for text, label in tiny_reviews(40, 5)])


@pytest.mark.parametrize("labels", [("0", "1"), (0, 1.0), ("pos", "0")])
def test_whole_numbers_for_words_are_said_once(labels: tuple[object, ...], capsys: pytest.CaptureFixture[str]) -> None:
    notes: list[str] = []
    labelled = records(*labels, *labels)
    assert list(match_labels(labelled, TASK, None, "other.csv", notes)) == labelled
    assert notes == [f"Labels of other.csv {NOTE}"]
    assert capsys.readouterr().err == f"warning: {notes[0]}\n"


@pytest.mark.parametrize("task", [TASK, Classification(["0", "1"], "text", "label")])
def test_names_are_matched_without_a_word(task: Classification, capsys: pytest.CaptureFixture[str]) -> None:
    notes: list[str] = []
    assert len(list(match_labels(records(*task.labels), task, None, "other.csv", notes))) == 2
    assert notes == []
    assert capsys.readouterr().err == ""


def test_names_of_a_source() -> None:
    notes: list[str] = []
    known = match_labels(records(0, 1), TASK, ("pos", "neg"), "hub", notes)
    assert [r.values["label"] for r in known] == ["pos", "neg"]
    assert notes == []
    others = match_labels(records(0, 1), TASK, ("bad", "good"), "hub", notes)
    assert [r.values["label"] for r in others] == [0, 1]
    assert notes == ["Labels of hub are matched by position: bad = neg, good = pos."]
    with pytest.raises(
        DataError, match=r"^data\.label_column: hub has labels a, b, c, the model neg, pos; give data with"
    ):
        match_labels(records(0), TASK, ("a", "b", "c"), "hub", notes)


def test_evaluate_says_so_in_its_summary(finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = MeasureConfig(
        output=str(tmp_path / "out"), precision="fp32", device="cpu", evaluation=EvaluationConfig(bootstrap=100),
        data=SourceConfig(path=str(numbered(tmp_path / "numbers.csv"))),
    )  # fmt: skip
    summary, _ = evaluate(finished, config)
    assert [note for note in summary["notes"] if NOTE in note]
    assert NOTE in capsys.readouterr().err
    assert NOTE in json.loads((tmp_path / "out" / "metrics.json").read_text("utf-8"))["notes"][0]
    assert NOTE in (tmp_path / "out" / "report.html").read_text("utf-8")


def test_the_text_is_not_its_label(reviews: Path) -> None:
    columns = SourceConfig(path=str(reviews), text_column="label")
    with pytest.raises(DataError, match=r"^data\.label_column: 'label' is the column of the text; name another"):
        TASK.aligned_to(open_source(str(reviews)), "train", columns, [])


def test_a_test_file_with_numbers_for_words(reviews: Path, tmp_path: Path) -> None:
    parts = divided(DataConfig(path=str(reviews), test_path=str(numbered(tmp_path / "test.csv"))))
    assert parts.notes == []
    assert parts.read_test is not None
    assert len(parts.read_test()) == 40
    assert parts.notes == [f"Labels of {tmp_path / 'test.csv'}, test {NOTE}"]


def test_a_test_source_with_names_in_another_order(
    reviews: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its numbers are its own names', not places of the model's."""
    other = Source("other", ("test",), lambda _: iter(records(0, 1)), {"label": ("neg", "pos")})
    original = open_source
    monkeypatch.setattr(
        "distilora.data.parts.open_source", lambda path, *a, **k: other if path == "other" else original(path, *a, **k)
    )
    parts = divided(DataConfig(path=str(reviews), test_path="other", labels=("pos", "neg")))
    assert parts.read_test is not None
    assert [parts.task.labels[target] for target in parts.read_test().targets] == ["neg", "pos"]
