"""`distilora evaluate`: what it prints and writes, and what it refuses."""

import json
from pathlib import Path

import pytest
from support.command import failed
from support.tiny import tiny_reviews, write_csv

from distilora.cli.main import main
from distilora.files.tables import read_table

Captured = pytest.CaptureFixture[str]


def test_evaluate_writes_its_folder(finished: Path, tmp_path: Path, capsys: Captured) -> None:
    data = write_csv(tmp_path / "other.csv", tiny_reviews(50, 4), ("review", "sentiment"))
    folder = tmp_path / "measured"
    words = [
        "evaluate",
        str(finished),
        "--data.path",
        str(data),
        "--output",
        str(folder),
        "--evaluation.bootstrap",
        "100",
    ]
    assert main([*words, "--precision", "fp32"]) == 2
    assert "--data.label_column" in capsys.readouterr().err
    assert not folder.exists()
    assert main([*words, "--precision", "fp32", "--data.label_column", "sentiment"]) == 0
    out = capsys.readouterr().out
    assert sorted(path.name for path in folder.iterdir()) == ["metrics.json", "predictions.parquet", "report.html"]
    measured = json.loads((folder / "metrics.json").read_text())
    accuracy = measured["evaluation"]["metrics"]["accuracy"]
    assert measured["precision"] == "fp32"
    assert measured["evaluation"]["examples"] == 50
    assert accuracy["low"] <= accuracy["value"] <= accuracy["high"]
    assert f"{accuracy['value']:.2%}" in out
    assert "always 'neg', the most frequent of training: accuracy 50.00%, macro F1 33.33%" in out
    for row in measured["evaluation"]["classes"]:
        assert (
            f"  {row['label']:<5}  {row['precision']:>9.1%}  {row['recall']:>6.1%}  {row['f1']:>6.1%}         25" in out
        )
    assert measured["notes"] == [
        "Texts are read from column 'review'; in training it was 'text'.",
        "Labels are read from column 'sentiment'; in training it was 'label'.",
    ]
    assert f"The report: {folder}/report.html" in out
    rows = [record.values for record in read_table(folder / "predictions.parquet")]
    assert sum(row["target"] == row["label"] for row in rows) / 50 == pytest.approx(accuracy["value"])


def test_evaluate_warns_of_what_was_trained_on(finished: Path, reviews: Path, tmp_path: Path, capsys: Captured) -> None:
    words = ["evaluate", str(finished), "--data.path", str(reviews), "--output", str(tmp_path / "measured")]
    assert main([*words, "--evaluation.bootstrap=100"]) == 0
    # 30 of the 300 were held out; the other 270 are known again by content, under whatever name the file goes
    assert "warning: 270 of these 300 texts were trained or chosen on" in capsys.readouterr().err
    assert "270 of these 300 texts" in (tmp_path / "measured" / "report.html").read_text()


def test_one_text_that_was_trained_on(finished: Path, reviews: Path, tmp_path: Path, capsys: Captured) -> None:
    seen = next(row for row in read_table(finished / "predictions.parquet") if row.values["split"] == "validation")
    number = int(str(seen.values["place"]).rsplit(" ", 1)[1])
    data = write_csv(tmp_path / "r.csv", [*tiny_reviews(20, 8), tiny_reviews(300)[number - 1]])
    words = ["evaluate", str(finished), "--data.path", str(data), "--output", str(tmp_path / "measured")]
    assert main([*words, "--evaluation.bootstrap=100"]) == 0
    assert "warning: 1 of these 21 texts was trained or chosen on: figures of such texts " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ([], "RUN: the run's folder comes first"),
        (["--data.path", "x.csv"], "RUN: the run's folder comes first"),
        (["RUN"], "data.path: nothing given"),
        (["RUN", "--data.path", "missing.csv"], "data.path: no such file or folder: missing.csv"),
        (["RUN", "--data.pth", "x.csv"], "--data.pth: there is no such setting; did you mean --data.path?"),
        (["nowhere", "--data.path", "x.csv"], "nowhere: no such run"),
        (
            ["RUN", "my reviews.csv"],
            "my reviews.csv: say what it is; labelled data is given with --data.path 'my reviews.csv'",
        ),
    ],
)
def test_evaluate_refuses(finished: Path, words: list[str], named: str, capsys: Captured) -> None:
    said = failed(["evaluate", *(str(finished) if word == "RUN" else word for word in words)], capsys)
    assert said.startswith(named)
