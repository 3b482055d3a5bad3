"""Scoring: every good row once, in order, every bad one with its reason, and the same after an interruption."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
from support.scored import BAD_CSV, TEXTS, contents, rejects, run, shards
from support.tiny import write_csv

from distilora.cli import main as cli
from distilora.errors import ConfigError, DataError, DistiloraError
from distilora.files.tables import write_table
from distilora.inference.predictor import load
from distilora.scoring import score
from distilora.scoring.shards import make_plan
from distilora.tasks.registry import restore


@pytest.mark.parametrize("kind", ["parquet", "csv", "jsonl"])
def test_every_format_in_and_out(kind: str, finished: Path, tmp_path: Path) -> None:
    source, out = tmp_path / f"in.{kind}", tmp_path / "out"
    write_table(source, [{"id": i, "text": text, "score": i / 2} for i, text in enumerate(TEXTS)])
    counts = run(finished, source, out, kind=kind)
    assert {key: counts[key] for key in ("rows", "rejects", "shards", "resumed")} == {
        "rows": 130, "rejects": 0, "shards": 3, "resumed": 0,
    }  # fmt: skip
    rows = list(shards(out, kind))
    assert [row["text"] for row in rows] == TEXTS
    assert [str(row["id"]) for row in rows] == [*map(str, range(130))]
    assert [float(row["score"]) for row in rows] == [i / 2 for i in range(130)]  # the answer's is predicted_score
    answers = load(finished, "fp32", "cpu")(TEXTS)
    assert [row["label"] for row in rows] == [answer["label"] for answer in answers]
    assert [float(row["predicted_score"]) for row in rows] == pytest.approx([a["score"] for a in answers], abs=1e-5)
    assert sorted(contents(out)) == ["rejects.jsonl", "score.json", *(f"shard-0000{i}.{kind}" for i in range(3))]
    state = json.loads((out / "score.json").read_text())
    assert state["state"] == "finished"
    assert [one["rows"] for one in state["shards"]] == [50, 50, 30]


def test_a_folder_and_a_glob_in_order_of_names(finished: Path, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for name, part in (("b", TEXTS[60:]), ("a", TEXTS[:60])):
        write_csv(folder / f"{name}.csv", [(text, "pos") for text in part])
    (folder / "notes.txt").write_text("of a folder, tables alone are read\n")
    (folder / "_temporary.csv").write_text("nothing\n")
    for i, source in enumerate((folder, folder / "?.csv")):
        assert (
            run(finished, source, tmp_path / f"out{i}")["shards"] == 4
        )  # 50 + 10, 50 + 20: no shard has rows of two files
        assert [row["text"] for row in shards(tmp_path / f"out{i}")] == TEXTS


def test_bad_rows_of_a_csv_go_to_the_rejects(finished: Path, tmp_path: Path) -> None:
    source, out = tmp_path / "in.csv", tmp_path / "out"
    source.write_bytes(BAD_CSV)
    counts = run(finished, source, out, shard_rows=3)
    rows = list(shards(out))
    assert [row["id"] for row in rows] == ["1", "7", "9", "12"]
    assert [row["text"] for row in rows] == ["two\nlines, superb", "fine", 'a "quoted" word', "last"]
    rejected = rejects(out)
    assert (counts["rows"], counts["rejects"]) == (4, len(rejected)) == (4, 7)
    assert {one["file"] for one in rejected} == {str(source)}
    assert [(one["row"], one["reason"].split(";")[0]) for one in rejected] == [
        (2, "2 cells under 3 columns"), (3, "the text is blank"), (4, "the text is blank"),
        (5, "line 7: byte 6 is not UTF-8"), (6, "',' expected after '\"'"), (10, "4 cells under 3 columns"),
        (11, "',' expected after '\"'"),
    ]  # fmt: skip
    assert rejected[0]["raw"] == "2,only"
    assert rejected[1]["values"] == {"id": "3", "text": "", "label": "pos"}
    assert rejected[3]["raw"] == "5,caf\\xe9,pos"
    assert rejected[4]["raw"] == '6,"open, dull,neg'


def test_bad_rows_of_jsonl_go_to_the_rejects(finished: Path, tmp_path: Path) -> None:
    source, out = tmp_path / "in.jsonl", tmp_path / "out"
    lines = [b'{"text": "fine", "n": 1}', b'{"text": "broken', b'{"n": 2}', b'{"text": null}', b'{"text": 7}', b"[1]",
             b'{"text": "\\ud800"}', b'{"text": "\xff"}', b"", b'{"text": "dull", "n": 1.5, "deep": {"a": [1]}}',
             b'{"text": "warm", "n": null, "odd": "x"}', b'{"text": "good", "odd": 3}']  # fmt: skip
    source.write_bytes(b"\n".join(lines) + b"\n")
    run(finished, source, out, shard_rows=2)
    scored = [{name: row[name] for name in ("text", "n", "deep", "odd")} for row in shards(out)]
    assert scored == [  # whole and broken numbers are numbers; what is of several kinds or nested is JSON text
        {"text": "fine", "n": 1.0, "deep": None, "odd": None},
        {"text": "dull", "n": 1.5, "deep": '{"a": [1]}', "odd": None},
        {"text": "warm", "n": None, "deep": None, "odd": '"x"'},
        {"text": "good", "n": None, "deep": None, "odd": "3"},
    ]
    assert len({parquet.read_schema(path) for path in out.glob("shard-*")}) == 1
    assert [(one["row"], one["reason"].split(";")[0].split(" (")[0]) for one in rejects(out)] == [
        (2, "not JSON"), (3, "data.text_column: no column 'text'"), (4, "the text is blank"),
        (5, "data.text_column: 'text' holds int, not text"), (6, "list found"), (7, "a text holds half a character"),
        (8, "line 8: byte 11 is not UTF-8"),
    ]  # fmt: skip
    assert rejects(out)[0]["raw"] == '{"text": "broken'


def test_parquet_keeps_its_types(finished: Path, tmp_path: Path) -> None:
    source, out = tmp_path / "in.parquet", tmp_path / "out"
    schema = pa.schema([
        ("text", pa.large_string()), ("n", pa.int16()), ("list", pa.list_(pa.int32())), ("none", pa.null()),
        ("kind", pa.dictionary(pa.int32(), pa.string())),
    ])  # fmt: skip
    texts = [*TEXTS[:4], None, " ", *TEXTS[4:8]]
    rows = [{"text": t, "n": None if i < 6 else i, "list": [i], "none": None, "kind": "k"} for i, t in enumerate(texts)]
    parquet.write_table(pa.Table.from_pylist(rows, schema), source, row_group_size=4)
    run(finished, source, out, shard_rows=3)
    tables = [parquet.read_table(path) for path in sorted(out.glob("shard-*"))]
    assert [table.num_rows for table in tables] == [3, 1, 3, 1]
    expected = [field.type for field in schema]
    expected[3] = pa.string()
    assert all(table.schema.types[:5] == expected for table in tables)
    assert [row["n"] for row in shards(out)] == [None, None, None, None, 6, 7, 8, 9]
    assert [(one["row"], one["values"]["list"]) for one in rejects(out)] == [(5, [4]), (6, [5])]


def test_shards_of_nothing_but_rejects(finished: Path, tmp_path: Path) -> None:
    source = write_csv(tmp_path / "in.csv", [("", "pos")] * 3 + [("fine", "pos")])
    for kind in ("parquet", "csv", "jsonl"):
        out = tmp_path / kind
        assert run(finished, source, out, shard_rows=2, kind=kind)["rejects"] == 3
        assert [row["text"] for row in shards(out, kind)] == ["fine"]
    assert parquet.read_schema(tmp_path / "parquet/shard-00000.parquet").names[:3] == [
        "text",
        "label",
        "predicted_label",
    ]
    assert (tmp_path / "csv/shard-00000.csv").read_text().startswith("text,label,predicted_label,score")


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "no csv, tsv, jsonl, json, parquet or xlsx file there"),
        ({"a.csv": b""}, r"a\.csv: the file is empty"),
        ({"a.csv": b"text\n", "b.csv": b"text\n"}, "no records"),
        ({"a.csv": b"text\nfine\n", "b.parquet": b"PAR1"}, r"parquet beside other kinds \(csv, parquet\)"),
        ({"a.jsonl": b'{"text": 5, "label": "x"}\n{"text": 7.5}\n'}, r"column 'text' holds no text \(number\)"),
        ({"a.csv": b'text\n" "\n'}, r"none of 1 rows could be scored \(row 1: the text is blank; fill it\)"),
        ({"a.csv": b"text\nfine\n", "b.csv": b"words\nfine\n"}, r"b\.csv: no column 'text' \(columns: words\)"),
        ({"a.csv": b"words\nfine\n"}, "text-column: no column called"),
        ({"a.csv": b"text,text\na,b\n"}, "two columns called 'text'"),
        ({"a.csv": b"text,score,predicted_score\na,1,2\n"}, "column 'predicted_score' of the input"),
        ({"a.parquet": b"PAR1 is not all"}, r"a\.parquet: broken parquet"),
    ],
)
def test_inputs_that_are_no_tables(files: dict[str, bytes], message: str, finished: Path, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_bytes(content)
    with pytest.raises(DataError, match=message) as error:
        run(finished, folder, tmp_path / "new" / "out")
    assert "\n" not in str(error.value)
    if "none of" in message:  # only the reading of the rows tells; the reasons are left, and the same is said again
        assert sorted(contents(tmp_path / "new" / "out")) == ["rejects.jsonl", "score.json", "shard-00000.parquet"]
        with pytest.raises(DataError, match=message):
            run(finished, folder, tmp_path / "new" / "out")
    else:
        assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_a_column_of_numbers_is_no_text(finished: Path, tmp_path: Path) -> None:
    source, out = tmp_path / "in.parquet", tmp_path / "out"
    parquet.write_table(pa.table({"text": pa.array([1, 2], pa.int16()), "words": ["fine", "dull"]}), source)
    with pytest.raises(
        DataError, match=r"column 'text' holds no text \(int16\); name one that does with --text-column"
    ):
        run(finished, source, out)
    assert run(finished, source, out, text_column="words")["rows"] == 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"precision": "int8"}, "precision: int8 given"),
        ({"backend": "onnx"}, "backend: onnx asked for"),
        ({"encoder": "/nowhere"}, "nowhere"),
        ({"device": "cuda"}, "device: cuda is not available here"),
    ],
)
def test_a_model_that_is_not_to_be_had_leaves_nothing(
    changes: dict[str, Any], message: str, finished: Path, tmp_path: Path
) -> None:
    source = write_csv(tmp_path / "in.csv", [("fine", "pos")])
    with pytest.raises(DistiloraError, match=message):
        run(finished, source, tmp_path / "out", **changes)
    assert [path.name for path in tmp_path.iterdir()] == ["in.csv"]
    (tmp_path / "out").mkdir()
    with pytest.raises(DistiloraError, match=message):
        run(finished, source, tmp_path / "out", **changes)
    assert list((tmp_path / "out").iterdir()) == []  # a folder that was there stays


@pytest.mark.parametrize("kind", ["parquet", "csv", "jsonl"])
def test_csv_and_jsonl_together(kind: str, finished: Path, tmp_path: Path) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    (folder / "a.csv").write_text("text,n,id\nfine,5,x1\n,6,x2\n")
    (folder / "b.jsonl").write_text(
        '{"text": "dull", "n": 7, "m": 1}\n{"text": "warm", "n": "eight", "m": 1.5}\n{"text": 3}\n'
    )
    (folder / "c.tsv").write_text("text\tn\nawful\t9\n")
    counts = run(finished, folder, out, kind=kind)
    assert (counts["rows"], counts["rejects"], counts["shards"]) == (4, 2, 3)
    rows = list(shards(out, kind))
    assert [row["text"] for row in rows] == ["fine", "dull", "warm", "awful"]
    numbers = [row["n"] for row in rows]
    assert numbers == (["5", 7, "eight", "9"] if kind == "jsonl" else ["5", "7", "eight", "9"])  # a csv has it: text
    absent = "" if kind == "csv" else None
    assert [row.get("id", absent) for row in rows] == ["x1", absent, absent, absent]
    assert [row.get("m", absent) for row in rows] == (
        ["", "1.0", "1.5", ""] if kind == "csv" else [None, 1.0, 1.5, None]
    )
    assert [(Path(one["file"]).name, one["row"]) for one in rejects(out)] == [("a.csv", 2), ("b.jsonl", 3)]


@pytest.mark.parametrize("kind", ["parquet", "csv", "jsonl"])
def test_the_first_rows_of_all_files(
    kind: str, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    for i in range(3):
        write_table(folder / f"{i}.{kind}", [{"text": text} for text in TEXTS[i * 40 : (i + 1) * 40]])
    if kind != "parquet":
        (folder / f"3.{kind}").write_bytes(b"\xff is not read")
    assert run(finished, folder, out, limit=70, shard_rows=25)["shards"] == 4  # 25 + 15, 25 + 5
    assert [row["text"] for row in shards(out)] == TEXTS[:70]
    with pytest.raises(ConfigError, match="begun with --limit 70, now without --limit"):
        run(finished, folder, out, shard_rows=25)
    assert run(finished, folder, tmp_path / "all", limit=80)["rows"] == 80
    with pytest.raises(ConfigError, match="--limit: 0 given, at least 1 wanted"):
        run(finished, folder, tmp_path / "none", limit=0)


def test_a_file_that_changes_meanwhile_is_noticed(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write_csv(tmp_path / "in.csv", [(text, "pos") for text in TEXTS])

    def cut(*words: Any) -> Any:
        plan = make_plan(*words)
        write_csv(source, [(text, "pos") for text in TEXTS[:70]])
        return plan

    monkeypatch.setattr(score, "make_plan", cut)
    with pytest.raises(DataError, match="changed since it was first read"):
        run(finished, source, tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").glob("shard-*")] == ["shard-00000.parquet"]


def test_an_object_store(finished: Path, tmp_path: Path) -> None:
    import fsspec

    store = fsspec.filesystem("memory")
    for i, kind in enumerate(("csv", "parquet")):
        write_table(tmp_path / f"in.{kind}", [{"text": text} for text in [*TEXTS, " "]])
        store.pipe_file(f"/in{i}/a.{kind}", (tmp_path / f"in.{kind}").read_bytes())
        out = f"memory://out{i}"
        assert run(finished, f"memory://in{i}", out)["rejects"] == 1
        assert run(finished, f"memory://in{i}/*.{kind}", out)["resumed"] == 131
        here = tmp_path / f"out{i}"
        store.get(f"/out{i}", str(here), recursive=True)
        assert sorted(path.name for path in here.iterdir() if path.is_file()) == [
            "rejects.jsonl", "score.json", *(f"shard-0000{n}.parquet" for n in range(3)),
        ]  # fmt: skip
        assert [row["text"] for row in shards(here)] == TEXTS
        store.pipe_file(f"/in{i}/a.{kind}", b"other")
        with pytest.raises(DistiloraError, match="has changed since"):
            run(finished, f"memory://in{i}", out)


def test_the_command(finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write_csv(tmp_path / "in.csv", [*[(text, "pos") for text in TEXTS[:9]], ("", "neg")])
    words = ["score", str(finished), str(source), "--output", str(tmp_path / "out"), "--device", "cpu"]
    assert cli.main(words) == 0
    told = capsys.readouterr().out
    assert "out: 9 rows in 1 shards, 1 rejects (rejects.jsonl)" in told
    assert " rows/s" in told
    assert cli.main(words) == 0
    assert "nothing was left to do" in capsys.readouterr().out
    for more, message in (
        (["--shard-rows", "0"], "--shard-rows: 0"), (["--address", "auto"], "--address: given"),
        (["--workers", "0"], "--workers: 0"), (["--abstain-below", "2"], "--abstain-below: 2.0"),
        (["--workers", "2"], "--workers: given, but only --engine ray has"),
    ):  # fmt: skip
        assert cli.main([*words, *more]) == 2
        assert message in capsys.readouterr().err


def test_progress_knows_the_rows_that_are_left(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, lines = write_csv(tmp_path / "in.csv", [(text, "pos") for text in TEXTS]), []

    class Noted(score.Progress):
        def add(self, count: int, **notes: float) -> None:
            super().add(count, **notes)
            lines.append(self.line())

    monkeypatch.setattr(score, "Progress", Noted)
    run(finished, source, tmp_path / "out")
    assert [line.split(" rows")[0] for line in lines] == ["scoring: 50/130", "scoring: 100/130", "scoring: 130/130"]
    assert "rows/s" in lines[0]
    assert "ETA" in lines[0]


def test_the_plan_survives_json(finished: Path, tmp_path: Path) -> None:
    source = write_csv(tmp_path / "in.csv", [(text, "pos") for text in TEXTS])
    artifact = score.read_artifact(finished)
    plan = make_plan(str(source), restore(artifact.task["name"], artifact.task["settings"]), None, 50)
    assert score.ShardPlan.of(json.loads(json.dumps(plan.tree()))) == plan


def test_lines_of_text_and_texts_beside_a_number(finished: Path, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "a.txt").write_text("\n".join([*TEXTS[:5], " ", *TEXTS[5:8]]) + "\n")
    for number, source in enumerate((folder / "a.txt", folder / "*.txt")):
        assert run(finished, source, tmp_path / f"out{number}")["rejects"] == 1
        assert [row["text"] for row in shards(tmp_path / f"out{number}")] == TEXTS[:8]
    (tmp_path / "mixed.jsonl").write_text("".join(json.dumps({"text": t}) + "\n" for t in (*TEXTS[:3], 5)))
    assert run(finished, tmp_path / "mixed.jsonl", tmp_path / "mixed")["rejects"] == 1
    assert [row["text"] for row in shards(tmp_path / "mixed")] == TEXTS[:3]
