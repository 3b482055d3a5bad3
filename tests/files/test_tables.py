"""Tables come back as they were written, in order, and a broken one is an error that names file and row."""

import datetime
import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.written import largest_file

from distilora.errors import DataError
from distilora.files.atomic import atomic_text, write_json
from distilora.files.tables import BATCH, TableWriter, format_of, read_stream, read_table, write_table

KINDS = ["csv", "tsv", "jsonl", "parquet"]
HARD = [
    'plain, "quoted", and more',
    "two\nlines\r\nthree\tcells",
    "caf\u00e9 電影 🎬",
    " spaces ",
    "'",
    "\ufeffmark",
    "0",
]


def read(path: Path) -> list[dict[str, Any]]:
    return [dict(record.values) for record in read_table(path)]


def written(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def write(path: Path, *batches: list[dict[str, Any]], failure: Exception | None = None) -> None:
    with TableWriter(path) as out:
        for batch in batches:
            out.write(batch)
        if failure:
            raise failure


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_written_is_read(kind: str, tmp_path: Path) -> None:
    records = [{"text": text, "label": f"{n}"} for n, text in enumerate(HARD)]
    write_table(tmp_path / f"t.{kind}", records)
    assert read(tmp_path / f"t.{kind}") == records
    assert [p.name for p in tmp_path.iterdir()] == [f"t.{kind}"]


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_types_survive_where_the_format_has_them(kind: str, tmp_path: Path) -> None:
    records = [
        {"a": 1, "b": 0.1, "c": True, "d": None, "e": "x"},
        {"a": -2, "b": 1e-30, "c": False, "d": None, "e": None},
    ]
    write_table(tmp_path / f"t.{kind}", records)
    assert read(tmp_path / f"t.{kind}") == records


@pytest.mark.parametrize("kind", KINDS)
def test_order_over_many_batches(kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"t.{kind}"
    with TableWriter(path) as out:
        for start in range(0, 3 * BATCH, 700):
            out.write([{"n": str(n)} for n in range(start, min(start + 700, 3 * BATCH))])
    assert [r["n"] for r in read(path)] == [str(n) for n in range(3 * BATCH)]
    assert [r.place for r in read_table(path)][BATCH] == f"{path}: row {BATCH + 1}"


def test_csv_as_spreadsheets_write_it(tmp_path: Path) -> None:
    data = b'\xef\xbb\xbftext,label\r\n"a, ""b""\r\nc",1\r\n\r\nd,2\r\n'
    records = list(read_table(written(tmp_path / "t.csv", data)))
    assert [dict(r.values) for r in records] == [{"text": 'a, "b"\r\nc', "label": "1"}, {"text": "d", "label": "2"}]
    assert records[1].place.endswith("row 3")


def test_jsonl_with_bom_and_blank_lines(tmp_path: Path) -> None:
    path = written(tmp_path / "t.ndjson", b'\xef\xbb\xbf{"a": 1}\n\n{"a": "\\ud83c\\udfac"}\n')
    assert [(r.place[-5:], r.values["a"]) for r in read_table(path)] == [("row 1", 1), ("row 3", "🎬")]


def test_txt_is_a_text_a_line(tmp_path: Path) -> None:
    assert [r["text"] for r in read(written(tmp_path / "t.txt", b"one\r\n\n three, four"))] == [
        "one",
        "",
        " three, four",
    ]


def test_suffixes_in_capitals(tmp_path: Path) -> None:
    assert read(written(tmp_path / "T.CSV", b"a\n1\n")) == [{"a": "1"}]


def test_a_stream_is_read_as_it_comes() -> None:
    class Endless(io.RawIOBase):
        def readable(self) -> bool:
            return True

        def readinto(self, buffer: Any) -> int:
            buffer[:] = (b"line\n" * len(buffer))[: len(buffer)]
            return len(buffer)

    records = read_stream(io.BufferedReader(Endless(), 50), "txt", "standard input")
    assert next(records)[:2] == ("standard input: row 1", {"text": "line"})
    with pytest.raises(DataError, match="parquet cannot be read from a stream"):
        next(read_stream(io.BytesIO(), "parquet", "standard input"))


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("t.csv", b"", "the file is empty"),
        ("t.parquet", b"", "the file is empty"),
        ("t.csv", b"\n\n", "no header"),
        ("t.csv", b"\xef\xbb\xbf", "no header"),
        ("t.csv", b"a,b\n1,2\n3\n", "row 2: 1 cell under 2 columns; quote cells that hold commas"),
        ("t.tsv", b"a\tb\n1\t2\t3\n", "row 1: 3 cells under 2 columns; quote cells that hold tabs"),
        ("t.csv", b'a,b\n1,2\n"3,4\n', "row 2: unexpected end of data; check its quotes"),
        ("t.csv", b'a,b\n"1"2,3\n', "row 1: .*; check its quotes"),
        ("t.csv", b"a,b,a\n1,2,3\n", "two columns called 'a'; rename one"),
        ("t.csv", b"a\nx\ncaf\xe9\n", "line 3: byte 4 is not UTF-8; convert"),
        ("t.csv", "a,b\n1,2\n".encode("utf-16"), "it is UTF-16; convert the file with iconv -f utf-16"),
        ("t.txt", b"x\n\xff\n", "line 2: byte 1 is not UTF-8"),
        ("t.jsonl", b'{"a": 1}\n{"a": \n', "row 2: not JSON .*; each line must hold one object"),
        ("t.jsonl", b'{"a": 1}\n\n[1]\n', "row 3: list found; each line must hold one object"),
        ("t.jsonl", b"[" * 100_000, "row 1: not JSON"),
        ("t.jsonl", b'{"a": "\\ud83c"}\n', "row 1: a text holds half a character"),
        ("t.parquet", b"PAR1 and nothing more", "broken parquet .*; write the file again"),
        ("t.xls", b"x", "unknown kind of file; give one ending in .csv"),
    ],
)
def test_what_cannot_be_read(name: str, data: bytes, message: str, tmp_path: Path) -> None:
    path = written(tmp_path / name, data)
    with pytest.raises(DataError, match=message) as caught:
        list(read_table(path))
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_is_not_there(tmp_path: Path) -> None:
    for path in (tmp_path / "nowhere.csv", tmp_path / "folder.csv"):
        if "folder" in path.name:
            path.mkdir()
        with pytest.raises(DataError, match="no such file; check the path"):
            list(read_table(path))


def test_rows_before_a_broken_one_are_read(tmp_path: Path) -> None:
    records = read_table(written(tmp_path / "t.csv", b"a,b\n1,2\n3\n"))
    assert next(records).values == {"a": "1", "b": "2"}
    with pytest.raises(DataError, match="row 2"):
        next(records)


def test_a_cut_parquet_is_broken(tmp_path: Path) -> None:
    whole = tmp_path / "whole.parquet"
    pq.write_table(pa.table({"text": [f"text {n}" for n in range(1000)]}), whole)
    with pytest.raises(DataError, match="broken parquet"):
        list(read_table(written(tmp_path / "cut.parquet", whole.read_bytes()[:-100])))


def test_a_parquet_text_of_other_bytes(tmp_path: Path) -> None:
    latin = pa.Array.from_buffers(pa.string(), 1, [None, *pa.array([b"caf\xe9"], pa.binary()).buffers()[1:]])
    pq.write_table(pa.table({"text": latin}), tmp_path / "t.parquet")
    with pytest.raises(DataError, match="row 1: a text is not UTF-8"):
        list(read_table(tmp_path / "t.parquet"))


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_left_behind_on_an_error(kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"t.{kind}"
    for before in (None, b"precious"):
        if before:
            path.write_bytes(before)
        with pytest.raises(KeyError):
            write(path, [{"a": 1}], failure=KeyError())
        assert list(tmp_path.iterdir()) == ([path] if before else [])
    assert path.read_bytes() == b"precious"


@pytest.mark.parametrize("kind", KINDS)
def test_a_table_appears_only_when_it_is_whole(kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"t.{kind}"
    with TableWriter(path) as out:
        out.write([{"a": 1}])
        assert not path.exists()
    assert path.is_file()


@pytest.mark.parametrize("kind", KINDS)
def test_a_table_without_records_is_a_file(kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"t.{kind}"
    write_table(path, [])
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    if kind == "parquet":
        assert read(path) == []
    else:
        assert path.read_bytes() == b""


@pytest.mark.parametrize("later", ["text", 1.5, 2**70, [1]])
def test_a_parquet_column_keeps_its_type(later: object, tmp_path: Path) -> None:
    message = r"t\.parquet: a column changes its type .*; write \.jsonl instead"
    with pytest.raises(DataError, match=message):
        write(tmp_path / "t.parquet", [{"a": 1}], [{"a": later}])
    assert list(tmp_path.iterdir()) == []


def test_a_parquet_column_takes_what_fits_its_type(tmp_path: Path) -> None:
    second = [{"a": 2, "b": "y", "c": None}, {"c": "z"}]
    write(tmp_path / "t.parquet", [{"a": 1.5, "b": None, "c": "x"}], second)
    assert read(tmp_path / "t.parquet") == [
        {"a": 1.5, "b": None, "c": "x"},
        {"a": 2.0, "b": "y", "c": None},
        {"a": None, "b": None, "c": "z"},
    ]


@pytest.mark.parametrize("kind", ["csv", "tsv", "parquet"])
def test_a_column_that_comes_late_is_not_lost_in_silence(kind: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="column 'b' is not in the first row"):
        write(tmp_path / f"t.{kind}", [{"a": 1}], [{"a": 2, "b": 3}])
    assert list(tmp_path.iterdir()) == []


def test_jsonl_takes_any_columns_and_dates(tmp_path: Path) -> None:
    write_table(tmp_path / "t.jsonl", [{"a": 1}, {"b": datetime.date(2011, 6, 19)}])
    assert read(tmp_path / "t.jsonl") == [{"a": 1}, {"b": "2011-06-19"}]


def test_where_no_table_can_go(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="predictions are tables"):
        TableWriter(tmp_path / "t.xls")
    with pytest.raises(DataError, match="predictions are tables"):
        TableWriter(tmp_path / "t.txt")
    with pytest.raises(DataError, match="its folder does not exist"):
        TableWriter(tmp_path / "nowhere" / "t.csv")


def test_format_of() -> None:
    assert format_of("a/b.NDJSON") == "jsonl"
    assert format_of("anything", "tsv") == "tsv"


def test_atomic_text(tmp_path: Path) -> None:
    path = tmp_path / "t.txt"
    path.write_text("before")
    with pytest.raises(KeyError), atomic_text(path) as stream:  # noqa: PT012
        stream.write("half")
        raise KeyError
    assert path.read_text() == "before"
    with atomic_text(path) as stream:
        stream.write("after\n")
    assert path.read_bytes() == b"after\n"
    assert list(tmp_path.iterdir()) == [path]


def test_json_holds_no_nan(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "t.json", {"a": float("nan")})
    assert list(tmp_path.iterdir()) == []
    write_json(tmp_path / "t.json", {"a": "é"})
    assert json.loads((tmp_path / "t.json").read_text("utf-8")) == {"a": "é"}


def test_columns_without_a_name_are_kept(tmp_path: Path) -> None:
    index = written(tmp_path / "pandas.csv", b",text,label\n0,fine,pos\n1,dull,neg\n")
    assert read(index) == [
        {"unnamed_1": "0", "text": "fine", "label": "pos"},
        {"unnamed_1": "1", "text": "dull", "label": "neg"},
    ]
    assert read(written(tmp_path / "t.csv", b"text, ,,\na,b,c,\n")) == [
        {"text": "a", "unnamed_2": "b", "unnamed_3": "c", "unnamed_4": ""}
    ]
    with pytest.raises(DataError, match="two columns called 'unnamed_1'; rename one"):
        read(written(tmp_path / "t.csv", b",unnamed_1\na,b\n"))
    with pytest.raises(DataError, match="no header; the first line must name the columns"):
        read(written(tmp_path / "t.csv", b",,\na,b,c\n"))


def test_two_parquet_columns_of_one_name(tmp_path: Path) -> None:
    pq.write_table(pa.table([["a"], ["b"]], ["text", "text"]), tmp_path / "t.parquet")
    with pytest.raises(DataError, match="two columns called 'text'; rename one"):
        read(tmp_path / "t.parquet")


BEYOND = {
    "date": pa.array([1, 10**7], pa.int32()).cast(pa.date32()),
    "time": pa.array([1, 2**60], pa.int64()).cast(pa.timestamp("us")),
    "span": pa.array([1, 2**62], pa.int64()).cast(pa.duration("s")),
}


@pytest.mark.parametrize("name", BEYOND)
def test_a_parquet_value_beyond_what_python_holds(name: str, tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": ["a", "b"], name: BEYOND[name]}), tmp_path / "t.parquet")
    records = read_table(tmp_path / "t.parquet")
    assert next(records).values["text"] == "a"
    with pytest.raises(DataError, match=rf"row 2: column '{name}': its .* cannot be read \(.*\); correct it, or leave"):
        next(records)


def test_what_json_has_no_number_for_is_null(tmp_path: Path) -> None:
    rows = [
        {"a": float("nan"), "b": [1.5, {"c": float("inf")}], "d": "NaN"},
        {"a": 2.5, "b": -float("inf"), "d": datetime.date(2011, 6, 19)},
    ]
    write_table(tmp_path / "t.jsonl", rows)
    lines = (tmp_path / "t.jsonl").read_text().splitlines()

    def no_constant(name: str) -> None:
        raise AssertionError(f"{name} is not JSON")

    assert [json.loads(line, parse_constant=no_constant) for line in lines] == [
        {"a": None, "b": [1.5, {"c": None}], "d": "NaN"},
        {"a": 2.5, "b": None, "d": "2011-06-19"},
    ]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rows", [40, 40_000])  # what does not fit is noticed at the end, or before
def test_nothing_is_left_behind_by_a_file_that_does_not_fit(kind: str, rows: int, tmp_path: Path) -> None:
    with pytest.raises(OSError, match="File too large"), largest_file(100):
        write_table(tmp_path / f"t.{kind}", [{"n": str(n)} for n in range(rows)])
    assert list(tmp_path.iterdir()) == []


def test_a_move_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "t.csv").mkdir()
    with pytest.raises(IsADirectoryError):
        write_table(tmp_path / "t.csv", [{"a": 1}])
    assert [path.name for path in tmp_path.iterdir()] == ["t.csv"]


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl"])
def test_rows_into_a_stream(kind: str, tmp_path: Path) -> None:
    rows = [{"text": text} for text in HARD]
    stream = io.BytesIO()
    with TableWriter("standard output", stream=stream, kind=kind) as out:
        out.write(rows[:1])
        assert stream.getvalue()  # as they come
        out.write(rows[1:])
    write_table(tmp_path / f"t.{kind}", rows)
    assert stream.getvalue() == (tmp_path / f"t.{kind}").read_bytes()
    assert not stream.closed


def test_a_stream_that_takes_a_part_at_a_time(tmp_path: Path) -> None:
    with open(tmp_path / "out", "wb", buffering=0) as stream:

        class Narrow:
            def write(self, data: bytes) -> int:
                return stream.write(bytes(data[:100]))

            def flush(self) -> None:
                pass

        with TableWriter("standard output", stream=Narrow(), kind="jsonl") as out:  # type: ignore[arg-type]
            out.write([{"n": n} for n in range(1000)])
    assert [json.loads(line)["n"] for line in (tmp_path / "out").read_text().splitlines()] == list(range(1000))
