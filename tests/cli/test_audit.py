"""`distilora audit`: what it writes, the way of corrections back into the table, and what it refuses."""

import csv
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from support.command import failed
from support.pages import Page
from support.tiny import tiny_reviews, write_csv

from distilora.cli.main import main
from distilora.data.audit import Row
from distilora.data.examples import text_digest
from distilora.evaluation.label_studio import task_record
from distilora.files.tables import read_table, write_table
from distilora.tasks.classification import Classification

Captured = pytest.CaptureFixture[str]
FLIPPED = (10, 51)
OTHER = {"pos": "neg", "neg": "pos"}


def rows() -> list[tuple[str, str]]:
    """300 reviews, two labels of them flipped, a copy with another label, and a blank one."""
    made = [(text, OTHER[label] if i in FLIPPED else label) for i, (text, label) in enumerate(tiny_reviews(300))]
    return [*made, (made[20][0], OTHER[made[20][1]]), (" ", "pos")]


@pytest.fixture(scope="module")
def audited(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with reviews.csv and its audit; do not change it."""
    folder = tmp_path_factory.mktemp("audited")
    data = write_csv(folder / "reviews.csv", rows())
    assert main(["audit", str(data), "--output", str(folder / "audit"), "--quiet"]) == 0
    return folder


def issues(folder: Path) -> list[dict[str, str]]:
    with open(folder / "issues.csv", encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def corrected(folder: Path, path: Path, labels: dict[int, str | None]) -> Path:
    """Write what Label Studio exports after somebody chose `labels`, by row; None: skipped."""
    tasks = json.loads((folder / "tasks.json").read_text("utf-8"))
    chosen = [task for task in tasks if task["data"]["row"] in labels]
    assert len(chosen) == len(labels)
    for number, task in enumerate(chosen, 1):
        label = labels[task["data"]["row"]]
        result = {**task["predictions"][0]["result"][0], "value": {"choices": [label]}}
        task |= {"id": number, "annotations": [{"was_cancelled": label is None, "result": [result]}]}
    path.write_text(json.dumps(chosen), "utf-8")
    return path


def apply(data: Path, corrections: Path, output: Path, *words: str) -> int:
    return main(["audit", str(data), "--apply", str(corrections), "--output", str(output), *words])


def test_what_was_planted_is_found(audited: Path) -> None:
    found = issues(audited / "audit")
    kinds: dict[str, set[int]] = {}
    for issue in found:
        kinds.setdefault(issue["reason"], set()).add(int(issue["row"]))
    assert kinds["label"] >= {11, 52, 301}
    assert kinds["copies with different labels"] == {21, 301}
    assert kinds["blank"] == {302}
    first = found[0]
    assert first["label"] == OTHER[first["suggested"]]
    assert float(first["score"]) < 0.3
    summary = json.loads((audited / "audit" / "summary.json").read_text("utf-8"))
    assert summary["rows"] == {"train": 302}
    assert sum(summary["issues"].values()) == len(found)
    page = (audited / "audit" / "audit.html").read_text("utf-8")
    assert not [
        value for _, name, value in Page(audited / "audit" / "audit.html").attributes if name in ("src", "href")
    ]
    assert f"<td>{first['place']}</td>" in page


def test_corrections_come_back(audited: Path, tmp_path: Path, capsys: Captured) -> None:
    before = rows()
    corrections = corrected(audited / "audit", tmp_path / "c.json", {11: "neg", 52: None, 21: before[20][1]})
    assert apply(audited / "reviews.csv", corrections, tmp_path / "fixed.jsonl") == 0
    out = capsys.readouterr().out
    assert "fixed.jsonl: 302 rows\n" in out
    counts = [line.split()[-1] for line in out.splitlines()[1:]]
    assert counts == ["1", "1", "1", "0", "0"]  # changed, confirmed, unanswered, refused, elsewhere
    after = [(record.values["text"], record.values["label"]) for record in read_table(tmp_path / "fixed.jsonl")]
    assert after == [(text, "neg" if i == 10 else label) for i, (text, label) in enumerate(before)]


def test_a_row_that_has_changed_is_refused(audited: Path, tmp_path: Path, capsys: Captured) -> None:
    changed = rows()
    changed[10] = (f"{changed[10][0]} More.", changed[10][1])
    changed[51] = (changed[51][0], OTHER[changed[51][1]])
    data = write_csv(tmp_path / "reviews.csv", changed[:300])
    refused: dict[int, str | None] = {11: "neg", 52: "pos", 301: "pos"}
    corrections = corrected(audited / "audit", tmp_path / "c.json", refused)
    words = ["audit", str(data), "--apply", str(corrections), "--output", str(tmp_path / "fixed.csv"), "--quiet"]
    assert "every correction is refused, since its row has changed after the audit" in failed(words, capsys)
    assert not (tmp_path / "fixed.csv").exists()
    corrections = corrected(audited / "audit", tmp_path / "c.json", {**refused, 21: changed[20][1]})
    assert apply(data, corrections, tmp_path / "fixed.csv") == 0
    captured = capsys.readouterr()
    assert "warning: 3 corrections refused" in captured.err
    assert [(r.values["text"], r.values["label"]) for r in read_table(tmp_path / "fixed.csv")] == changed[:300]


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_lines_end_as_those_of_the_data(end: bytes, audited: Path, tmp_path: Path) -> None:
    content = (audited / "reviews.csv").read_bytes().replace(b"\r\n", end)
    (tmp_path / "reviews.csv").write_bytes(content)
    corrections = corrected(audited / "audit", tmp_path / "c.json", {52: None})
    assert apply(tmp_path / "reviews.csv", corrections, tmp_path / "fixed.csv") == 0
    assert (tmp_path / "fixed.csv").read_bytes() == content


def test_labels_are_written_as_the_data_have_them(tmp_path: Path) -> None:
    data = tmp_path / "numbers.parquet"
    write_table(data, [{"text": text, "label": int(label == "pos"), "n": i} for i, (text, label) in enumerate(rows())])
    assert main(["audit", str(data), "--output", str(tmp_path / "audit"), "--quiet"]) == 0
    corrections = corrected(tmp_path / "audit", tmp_path / "c.json", {11: "0"})
    assert apply(data, corrections, tmp_path / "fixed.parquet") == 0
    after: list[Any] = [record.values for record in read_table(tmp_path / "fixed.parquet")]
    assert (after[10]["label"], after[10]["n"], after[11]["label"]) == (0, 10, 1)


def test_parquet_keeps_its_types(tmp_path: Path) -> None:
    pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    made = rows()[:300] * 4  # more than are written at once
    columns = {"text": [f"{text} {i}" for i, (text, _) in enumerate(made)], "label": [label == "pos" for _, label in made],
               "late": [None] * 1100 + [7] * 100, "size": [0.5] * 1200}  # fmt: skip
    types = [("text", pa.string()), ("label", pa.int8()), ("late", pa.int16()), ("size", pa.float32())]
    table = pa.table({**columns, "label": list(map(int, columns["label"]))}, pa.schema(types, {"made": "here"}))
    data = tmp_path / "data"
    data.mkdir()
    parquet.write_table(table, data / "train-00000-of-00001.parquet")
    task = task_record(Row("train", 11, "", (columns["text"][10],), "", 1, text_digest([columns["text"][10]])),
                       "1", "0", 0.9, "label", "")  # fmt: skip
    (tmp_path / "c.json").write_text(json.dumps([{**task, "annotations": task["predictions"]}]), "utf-8")
    assert apply(data, tmp_path / "c.json", tmp_path / "fixed.parquet") == 0
    fixed = parquet.read_table(tmp_path / "fixed.parquet")
    assert fixed.schema.equals(table.schema, check_metadata=True)
    assert fixed["label"].to_pylist() == [0 if i == 10 else label for i, label in enumerate(table["label"].to_pylist())]
    assert fixed.drop_columns("label").equals(table.drop_columns("label"))


def test_a_test_split_that_is_a_copy_of_the_training_split(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    for split in ("train", "test"):
        write_csv(data / f"{split}.csv", rows()[:120])
    assert main(["audit", str(data), "--output", str(tmp_path / "audit"), "--quiet"]) == 0
    summary = json.loads((tmp_path / "audit" / "summary.json").read_text("utf-8"))
    assert summary["copies_across_splits"] == {"train / test": 120}
    assert summary["issues"]["copy across splits"] == 120
    assert summary["agreement"] > 0.9


@pytest.mark.parametrize(
    "made", [tiny_reviews(40)[1::2], [("a film", "pos"), ("a movie", "neg")], [(" ", "pos"), ("", "neg")]]
)
def test_too_few_rows_to_judge_by(made: list[tuple[str, str]], tmp_path: Path, capsys: Captured) -> None:
    data = write_csv(tmp_path / "few.csv", made)
    said = failed(["--quiet", "audit", str(data), "--output", str(tmp_path / "out")], capsys)
    assert said.startswith(("data.path: too few rows to judge labels by; ", "data.label_column: "))
    assert not (tmp_path / "out").exists()


def test_a_class_of_one_row(tmp_path: Path) -> None:
    data = write_csv(tmp_path / "rare.csv", [*tiny_reviews(60), ("a film of no kind", "odd one")])
    assert main(["audit", str(data), "--output", str(tmp_path / "audit"), "--quiet"]) == 0


def test_three_classes_and_a_test_split(tmp_path: Path) -> None:
    made = [
        (f"{text} {i % 3 * 'okay decent '}", "fair" if i % 3 else label)
        for i, (text, label) in enumerate(tiny_reviews(240))
    ]
    data = tmp_path / "data"
    data.mkdir()
    write_csv(data / "train.csv", made[:200])
    write_csv(data / "test.csv", [*made[200:], made[3]])
    assert main(["audit", str(data), "--output", str(tmp_path / "audit"), "--quiet"]) == 0
    summary = json.loads((tmp_path / "audit" / "summary.json").read_text("utf-8"))
    assert summary["labels"] == ["fair", "neg", "pos"]
    assert summary["copies_across_splits"] == {"train / test": 1}
    assert "Test is a test split." in (tmp_path / "audit" / "audit.html").read_text("utf-8")


def test_with_a_run(finished: Path, reviews: Path, tmp_path: Path, capsys: Captured) -> None:
    assert main(["audit", str(reviews), "--output", str(tmp_path / "audit"), "--run", str(finished), "--quiet"]) == 0
    run = json.loads((tmp_path / "audit" / "summary.json").read_text("utf-8"))["run"]
    assert run == {"name": str(finished), "answered": 30, "seen": 270}
    assert f"{finished} answered 30 rows; of 270 it has seen the text or a copy" in capsys.readouterr().out


def test_each_row_tells_who_judged_it(finished: Path, tmp_path: Path) -> None:
    """The run was trained on most of the first 300 reviews, and on none of the others; one label of ten is flipped."""
    made = [*tiny_reviews(300), *tiny_reviews(100, 7)]
    made = [(text, OTHER[label] if i % 10 == 0 else label) for i, (text, label) in enumerate(made)]
    data = write_csv(tmp_path / "mixed.csv", made)
    assert main(["audit", str(data), "--output", str(tmp_path / "audit"), "--run", str(finished), "--quiet"]) == 0
    wrong = [issue for issue in issues(tmp_path / "audit") if issue["reason"] == "label"]
    seen, new = ([i for i in wrong if (int(i["row"]) <= 300) == old] for old in (True, False))
    assert {issue["judged_by"] for issue in new} == {"n-gram expert and run"}
    assert sum(issue["judged_by"] == "n-gram expert" for issue in seen) > len(seen) / 2
    for issue in wrong:
        verb = "say" if issue["judged_by"].endswith("run") else "says"
        assert issue["detail"].startswith(f"{issue['judged_by']} {verb} {issue['suggested']} (")


def test_an_audit_is_replaced_only_on_demand(audited: Path, tmp_path: Path, capsys: Captured) -> None:
    data, output = str(audited / "reviews.csv"), tmp_path / "audit"
    words = ["audit", data, "--output", str(output), "--quiet"]
    assert main(words) == 0
    capsys.readouterr()
    assert "exists already; give another folder, or --overwrite" in failed(words, capsys)
    (output / "issues.csv").write_text("", "utf-8")
    assert main([*words, "--overwrite"]) == 0
    assert issues(output)
    (output / "mine.txt").write_text("", "utf-8")
    capsys.readouterr()
    assert "holds files that do not belong to an audit" in failed([*words, "--overwrite"], capsys)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["audit"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "DATA: the labelled data come first"),
        (["--output", "out"], "DATA: the labelled data come first"),
        (["DATA", "more.csv"], "more.csv: one DATA is audited at a time"),
        (["DATA", "--data.path", "x.csv"], "--data.path: DATA says it already"),
        (["DATA", "--ouput", "out"], "--ouput: there is no such setting; did you mean --output?"),
        (["DATA", "--output", "DATA"], "output: "),
        (["DATA", "--task", "nonsense"], "task: no task called 'nonsense'"),
        (["DATA", "--task", "regression"], "task: regression has no classes whose labels could be audited"),
        (["DATA", "--run", "nowhere", "--output", "OUT"], "nowhere: no such run"),
        (["DATA", "--apply", "c.json", "--output", "OUT"], "output: "),
        (["DATA", "--apply", "c.json", "--output", "OUT.csv.gz"], "output: "),
        (["DATA", "--apply", "nowhere.json", "--output", "OUT.csv"], "apply: nowhere.json cannot be read"),
        (["DATA", "--apply", "c.json", "--run", "run"], "run: given, but apply only writes what was corrected"),
        (["nowhere.csv", "--output", "OUT"], "data.path: no such file or folder: nowhere.csv"),
    ],
)
def test_audit_refuses(audited: Path, tmp_path: Path, words: list[str], said: str, capsys: Captured) -> None:
    names = {"DATA": str(audited / "reviews.csv"), "OUT": str(tmp_path / "out"), "OUT.csv": str(tmp_path / "out.csv"),
             "OUT.csv.gz": str(tmp_path / "out.csv.gz")}  # fmt: skip
    assert failed(["--quiet", "audit", *(names.get(word, word) for word in words)], capsys).startswith(said)
    assert not list(tmp_path.iterdir())


def test_a_label_that_the_data_lack(audited: Path, tmp_path: Path, capsys: Captured) -> None:
    corrections = corrected(audited / "audit", tmp_path / "c.json", {11: "fair"})
    words = ["--quiet", "audit", str(audited / "reviews.csv"), "--apply", str(corrections)]
    said = failed([*words, "--output", str(tmp_path / "fixed.csv")], capsys)
    number = next(n for n, task in enumerate(json.loads(corrections.read_text()), 1) if task["data"]["row"] == 11)
    assert said.endswith(f"c.json: task {number} (row 11): label 'fair' is not one of neg, pos; correct it")
    assert not (tmp_path / "fixed.csv").exists()


def test_a_task_without_classes(
    audited: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    monkeypatch.setattr(Classification, "ngram_classes", None)
    said = failed(["--quiet", "audit", str(audited / "reviews.csv"), "--output", str(tmp_path / "out")], capsys)
    assert said == "task: classification has no classes whose labels could be audited; give one that has"


def test_without_cleanlab(audited: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> None:
    monkeypatch.setitem(sys.modules, "cleanlab", None)
    said = failed(["--quiet", "audit", str(audited / "reviews.csv"), "--output", str(tmp_path / "out")], capsys)
    assert said == "cleanlab is not installed; install it with: pip install 'distilora[audit]'"
