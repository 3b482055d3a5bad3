"""Tables are answered row by row as they stream by: columns kept, blank rows without an answer."""

from pathlib import Path

import pytest
from support.answered import TEXTS, read, table

from distilora.errors import DataError
from distilora.files.tables import write_table
from distilora.inference import predictor as predict
from distilora.inference.predictor import Predictor
from distilora.inference.table import predict_table


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
