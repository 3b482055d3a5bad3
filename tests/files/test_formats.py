"""Everyday files: compressed ones, JSON arrays, workbooks, other separators, datasets saved to disk."""

import datetime
import gzip
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import openpyxl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.tiny import tiny_reviews, write_csv

from distilora import progress
from distilora.cli.main import main
from distilora.data.sources import open_source
from distilora.errors import ConfigError, DataError, MissingExtra
from distilora.files import json_array
from distilora.files.compression import decompressed
from distilora.files.separators import find_separator, separator_from
from distilora.files.stores import find_inputs
from distilora.files.tables import read_stream, read_table, write_table
from distilora.scoring.shards import make_plan
from distilora.tasks.classification import Classification

ROWS = [{"text": f"text {n}, so; long", "label": str(n % 2)} for n in range(3000)]
PACKERS: dict[str, Callable[[bytes], bytes]] = {
    ".gz": gzip.compress,
    ".zst": lambda data: pa.compress(data, codec="zstd", asbytes=True),
}


def read(path: Path, separator: str | None = None) -> list[dict[str, Any]]:
    return [dict(record.values) for record in read_table(path, separator)]


def written(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def workbook(path: Path, *rows: list[Any], more: tuple[str, ...] = ()) -> Path:
    book = openpyxl.Workbook()
    book.active.title = "reviews"
    for row in rows:
        book.active.append(row)
    for title in more:
        book.create_sheet(title).append(["other"])
    book.save(path)
    return path


@pytest.mark.parametrize("packing", PACKERS)
@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl", "json"])
def test_a_compressed_table_is_the_table_inside(kind: str, packing: str, tmp_path: Path) -> None:
    if kind == "json":
        (tmp_path / "t.json").write_text(json.dumps(ROWS))
    else:
        write_table(tmp_path / f"t.{kind}", ROWS)
    data = (tmp_path / f"t.{kind}").read_bytes()
    path = written(tmp_path / f"train.{kind}{packing}", PACKERS[packing](data))
    assert read(path) == ROWS
    source = open_source(str(path))
    assert source.splits == ("train",)
    assert [dict(r.values) for r in source.records("train", "data.train_split")] == ROWS


@pytest.mark.parametrize("packing", PACKERS)
def test_several_compressed_parts_in_one_file(packing: str, tmp_path: Path) -> None:
    parts = PACKERS[packing](b"one\n") + PACKERS[packing](b"two\n")
    assert [row["text"] for row in read(written(tmp_path / f"t.txt{packing}", parts))] == ["one", "two"]


@pytest.mark.parametrize("packing", PACKERS)
def test_a_place_in_a_compressed_file(packing: str) -> None:
    content = bytes(range(256)) * 20_000
    stream = decompressed(io.BytesIO(PACKERS[packing](content)), f"t.csv{packing}")
    for place in (4_000_123, 100, 0, 5_119_999, 70_000):  # forth and back
        stream.seek(place)
        assert stream.read(50) == content[place : place + 50]
    stream.seek(len(content) + 10)
    assert stream.read(1) == b""


@pytest.mark.parametrize("packing", PACKERS)
@pytest.mark.parametrize(
    "damage", [lambda data: data[:-20], lambda data: b"nothing of the kind", lambda data: data[:200]]
)
def test_a_broken_compressed_file(packing: str, damage: Callable[[bytes], bytes], tmp_path: Path) -> None:
    content = "".join(json.dumps({"text": f"{n * n} {n}"}) + "\n" for n in range(2000)).encode()
    path = written(tmp_path / f"t.jsonl{packing}", damage(PACKERS[packing](content)))
    with pytest.raises(DataError, match=rf"t\.jsonl\{packing}: broken \{packing} file .*; compress it again") as caught:
        read(path)
    assert "\n" not in str(caught.value)


def test_what_is_compressed_inside_is_not_compressed_again(tmp_path: Path) -> None:
    for name in ("t.parquet.gz", "t.xlsx.zst", "t.gz", "t.doc.gz"):
        with pytest.raises(DataError, match="unknown kind of file"):
            read(written(tmp_path / name, b"x"))


def test_zst_without_pyarrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path / "t.csv.zst", PACKERS[".zst"](b"a\n1\n"))
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(MissingExtra, match=r"pyarrow \(needed for \.zst\) is not installed.*distilora\[parquet\]"):
        read(path)


@pytest.mark.parametrize("piece", [1, 7, 1 << 20])
def test_a_json_array_by_pieces(piece: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_array, "PIECE", piece)
    records = [
        {"text": 'a "quoted", [bracketed] {braced} é 🎬\n'},
        {"n": -12.5e3, "x": None},
        {},
        {"y": [1, {"z": True}]},
    ]
    for text in (
        json.dumps(records),
        json.dumps(records, indent=1, ensure_ascii=False),
        f"\ufeff \n{json.dumps(records)}\n",
    ):
        assert read(written(tmp_path / "t.json", text.encode())) == records
    places = [record.place for record in read_table(tmp_path / "t.json")]
    assert places == [f"{tmp_path / 't.json'}: row {n}" for n in (1, 2, 3, 4)]
    assert [r.row for r in json_array.json_records(io.BytesIO(json.dumps(records).encode()), "t", first=2)] == [3, 4]
    assert read(written(tmp_path / "t.json", b"[ ]")) == []


def test_json_by_lines_under_the_name_json(tmp_path: Path) -> None:
    assert read(written(tmp_path / "t.json", b'{"a": 1}\n{"a": 2}\n')) == [{"a": 1}, {"a": 2}]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b'[{"a": 1}, {"a": }]', r"row 2: not JSON \(Expecting value\); each element must be an object"),
        (b'[{"a": 1}, {"a": "x', r"row 2: not JSON \(Unterminated string"),
        (b'[{"a": 1} {"a": 2}]', r"after row 1: not JSON \(a comma or ']' is missing\); correct it"),
        (b'[{"a": 1},', "row 2: not JSON"),
        (b'[{"a": 1}', r"after row 1: not JSON \(a comma"),
        (b'[{"a": 1}]\n[{"a": 2}]', r"after row 1: not JSON \(text after the array's end\)"),
        (b'[{"a": 1}, 5]', "row 2: int found; each element must be an object"),
        (b'[{"a": "\\ud83c"}]', "row 1: a text holds half a character"),
        (b'[{"a": "caf\xe9"}]', "byte 12 is not UTF-8; convert the file"),
        (b'\xef\xbb\xbf[{"a": "caf\xe9"}]', "byte 15 is not UTF-8; convert the file"),
        (b"[" * 100_000, "row 1: not JSON"),
        (b'{\n"a": 1}', r"row 1: not JSON .*; each line must hold one object"),
    ],
)
def test_what_is_no_json_array(data: bytes, message: str, tmp_path: Path) -> None:
    path = written(tmp_path / "t.json", data)
    with pytest.raises(DataError, match=message) as caught:
        read(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_mistake_in_a_long_array_is_found_where_it_is(tmp_path: Path) -> None:
    class Counting(io.BytesIO):
        taken = 0

        def read(self, size: int | None = -1) -> bytes:
            data = super().read(size)
            self.taken += len(data)
            return data

    stream = Counting(b'[{"a": oops}, ' + b'{"a": "x"}, ' * 1_000_000)
    with pytest.raises(DataError, match="row 1: not JSON"):
        list(read_stream(stream, "json", "t.json"))
    assert stream.taken < 3 * json_array.PIECE


def test_a_workbook(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    day = datetime.datetime(2024, 5, 6, 7, 8)
    path = workbook(
        tmp_path / "t.xlsx",
        ["text", "label", "when", None, "n"],
        ["a, b\nc", "pos", day, "x", 1],
        [],
        ["é 🎬", "neg", datetime.date(2024, 5, 6), None, 2.5],
        [None, True],
        more=("notes", "more"),
    )
    records = list(read_table(path))
    assert [dict(r.values) for r in records] == [
        {"text": "a, b\nc", "label": "pos", "when": "2024-05-06T07:08:00", "unnamed_4": "x", "n": 1},
        {"text": "é 🎬", "label": "neg", "when": "2024-05-06T00:00:00", "unnamed_4": None, "n": 2.5},
        {"text": None, "label": True, "when": None, "unnamed_4": None, "n": None},
    ]
    assert [r.row for r in records] == [1, 3, 4]
    list(read_table(path))
    assert capsys.readouterr().err == f"{path}: sheet 'reviews' is read, the first of 3\n"  # once


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([["text"], ["a", "b"]], "row 1: 2 cells under 1 columns; name the column, or empty the cell"),
        ([["text", "text"], ["a", "b"]], "two columns called 'text'; rename one"),
        ([], "no header; the first row must name the columns"),
    ],
)
def test_a_workbook_that_is_no_table(rows: list[list[Any]], message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        read(workbook(tmp_path / "t.xlsx", *rows))


def test_a_broken_workbook(tmp_path: Path) -> None:
    whole = workbook(tmp_path / "whole.xlsx", ["text"], ["a"]).read_bytes()
    for data in (b"no zip", whole[: len(whole) // 2]):
        with pytest.raises(DataError, match=r"t\.xlsx: no Excel workbook, or a broken one \(.*\); save it again"):
            read(written(tmp_path / "t.xlsx", data))


def test_a_workbook_without_openpyxl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = workbook(tmp_path / "t.xlsx", ["text"], ["a"])
    monkeypatch.setitem(__import__("sys").modules, "openpyxl", None)
    with pytest.raises(MissingExtra, match=r"pip install 'distilora\[excel\]'"):
        read(path)


@pytest.mark.parametrize("separator", [";", "\t", "|", ","])
@pytest.mark.parametrize("name", ["t.csv", "t.tsv"])
def test_a_separator_is_found_and_said(
    separator: str, name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = ["text,label,n", 'Well, I think,"pos, yes",1', '"a ""b""\nc; d | e",neg,2', "fine,pos,3"]
    rows = [rows[0].replace(",", separator), f'"Well, I think"{separator}"pos, yes"{separator}1',
            f'"a ""b""\nc; d | e"{separator}neg{separator}2', f"fine{separator}pos{separator}3"]  # fmt: skip
    path = written(tmp_path / name, "\r\n".join(rows).encode())
    assert read(path) == [
        {"text": "Well, I think", "label": "pos, yes", "n": "1"},
        {"text": 'a "b"\nc; d | e', "label": "neg", "n": "2"},
        {"text": "fine", "label": "pos", "n": "3"},
    ]
    own = {"t.csv": ",", "t.tsv": "\t"}[name]
    words = {";": "semicolons", "\t": "tabs", "|": "bars", ",": "commas"}
    said = "" if separator == own else f"{path}: its cells are separated by {words[separator]} and read as such\n"
    assert capsys.readouterr().err == said


@pytest.mark.parametrize(
    "text",
    [
        "text,label\nwell; yes,pos\nno; never,neg\n",
        "text\nwell; I think, yes\nno; never\na|b\tc\n",  # a column of texts
        "text\na;b\nc;d\n",
        "text,label\na,b,c\nd,e,f\n",  # broken, but a comma file
        "review; text\nfine\ndull\n",  # a header that no row fits
        "text,a;b\nx,y;z\nu,v;w\n",
        "text,label\n",
        "",
        "text\n",
        'text,label\n"an open quote; with,many;commas\nand,lines;here\n',
        "id,text,label\n1,a;b;c,x\n2,d;e;f,y\n",
    ],
)
def test_a_comma_file_stays_one(text: str) -> None:
    assert find_separator(text.encode().splitlines(keepends=True), ",") == ","


@pytest.mark.parametrize(
    ("text", "separator"),
    [
        ("text;label\n", ";"),
        ("id;text, short;label\n1;gut;pos\n2;schlecht;neg\n", ";"),
        ("text;label\n" + "gut, ja;pos\n" * 12 + "one too many;cells;here\n", ";"),  # a bad row among many
        ('text|label\n"a|b"|pos\n', "|"),
        ("preis;text\n1,5;gut\n2,25;ja\n", ";"),  # decimal commas
        ('text;label\n"begins, and goes on\n' + "and on, and on\n" * 40, ";"),  # longer than what is looked at
    ],
)
def test_another_separator(text: str, separator: str) -> None:
    assert find_separator(text.encode().splitlines(keepends=True)[:32], ",") == separator


def test_a_separator_given(tmp_path: Path) -> None:
    path = written(tmp_path / "t.csv", b"text:label\na, b:pos\n")
    assert read(path, ":") == [{"text": "a, b", "label": "pos"}]
    (found,) = open_source(str(path), separator=":").records("train", "data.train_split")
    assert found.values == {"text": "a, b", "label": "pos"}
    with pytest.raises(DataError, match=r"row 1: 3 cells under 2 columns; quote cells that hold ':' or line breaks"):
        read(written(tmp_path / "u.csv", b"a:b\n1:2:3\n"), ":")
    write_table(tmp_path / "t.jsonl", [{"text": "a"}])
    for other in (tmp_path / "t.jsonl", "embedded"):
        with pytest.raises(DataError, match=r"^data\.separator: given, but .* holds no csv or tsv file; drop it"):
            open_source(str(other), separator=";")
    with pytest.raises(ConfigError, match=r"^data\.separator: 'ab' given, one character such as"):
        open_source(str(path), separator="ab")


def test_how_a_separator_is_spelled() -> None:
    assert [separator_from(given, "x") for given in ("tab", "\\t", "\t", ";", "semicolon")] == [
        "\t",
        "\t",
        "\t",
        ";",
        ";",
    ]
    for given in ("", "ab", '"', "\n", "x", " "):
        with pytest.raises(ConfigError, match=r"^--separator: "):
            separator_from(given, "--separator")


LABELLED = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["neg", "pos"])})


@pytest.fixture
def saved() -> datasets.Dataset:
    datasets.disable_progress_bars()
    rows = {"text": [f"text {n}" for n in range(5)], "label": [0, 1, 0, 1, 1]}
    return datasets.Dataset.from_dict(rows, features=LABELLED)


def test_a_saved_dataset(saved: datasets.Dataset, tmp_path: Path) -> None:
    saved.shuffle(seed=3).save_to_disk(tmp_path / "one")
    source = open_source(str(tmp_path / "one"))
    assert (source.splits, source.label_names) == (("train",), {"label": ("neg", "pos")})
    found = list(source.records("train", "data.train_split"))
    assert [dict(r.values) for r in found] == list(saved.shuffle(seed=3))  # in its own order
    assert found[0].place == f"{tmp_path / 'one'} train: row 1"


def test_saved_datasets_by_split(saved: datasets.Dataset, tmp_path: Path) -> None:
    datasets.DatasetDict({"train": saved, "test": saved.select([4, 0])}).save_to_disk(tmp_path / "all")
    source = open_source(str(tmp_path / "all"))
    assert (source.splits, source.label_names) == (("train", "test"), {"label": ("neg", "pos")})
    assert [r.values["text"] for r in source.records("test", "data.test_split")] == ["text 4", "text 0"]


def test_a_damaged_saved_dataset(saved: datasets.Dataset, tmp_path: Path) -> None:
    saved.save_to_disk(tmp_path / "one")
    next((tmp_path / "one").glob("*.arrow")).write_bytes(b"damaged")
    with pytest.raises(
        DataError, match=r"^data\.test_path: .*one: cannot be read \(.*\); save the dataset again"
    ) as caught:
        open_source(str(tmp_path / "one"), setting="data.test_path")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["r.csv.gz", "r.jsonl.zst", "r.json", "r.xlsx", "semicolons.csv"])
def test_every_kind_is_scored_as_it_is_predicted(name: str, finished: Path, tmp_path: Path) -> None:
    texts = [text for text, _ in tiny_reviews(7, 3)]
    path = tmp_path / name
    if name == "r.xlsx":
        workbook(path, ["n", "text"], *([n, text] for n, text in enumerate(texts)))
    elif name == "r.json":
        path.write_text(json.dumps([{"n": n, "text": text} for n, text in enumerate(texts)]))
    elif name == "semicolons.csv":
        path.write_text("n;text\n" + "".join(f"{n};{text}, yes\n" for n, text in enumerate(texts)))
        texts = [f"{text}, yes" for text in texts]
    elif name == "r.csv.gz":
        write_csv(tmp_path / "r.csv", [(str(n), text) for n, text in enumerate(texts)], ("n", "text"))
        path.write_bytes(gzip.compress((tmp_path / "r.csv").read_bytes()))
    else:
        data = "".join(json.dumps({"n": n, "text": text}) + "\n" for n, text in enumerate(texts)).encode()
        path.write_bytes(PACKERS[".zst"](data))
    output, common = tmp_path / "out", ["--precision", "fp32", "--device", "cpu"]
    try:
        assert (
            main(["--quiet", "predict", str(finished), "--input", str(path), "--output", f"{output}.jsonl", *common])
            == 0
        )
        words = ["score", str(finished), str(path), "--output", str(output), "--shard-rows", "3", *common]
        assert main(["--quiet", *words]) == 0
    finally:
        progress.quiet(False)
    predicted = read(Path(f"{output}.jsonl"))
    scored = [row for shard in sorted(output.glob("shard-*")) for row in read(shard)]
    assert [row["text"] for row in predicted] == texts
    assert [(int(row["n"]), row["label"]) for row in scored] == [(n, row["label"]) for n, row in enumerate(predicted)]
    assert [row["text"] for row in scored] == texts
    assert len(list(output.glob("shard-*"))) == 3


def test_a_row_that_cannot_be_read_and_numbers_that_are_none(finished: Path, tmp_path: Path) -> None:
    texts = [text for text, _ in tiny_reviews(4, 3)]
    when = pa.array([0, 10**7, 1, 2], pa.int32()).cast(pa.date32())
    table = pa.table({"text": [*texts[:3], " "], "when": when, "x": [float("nan"), 1.0, float("inf"), float("nan")]})
    pq.write_table(table, tmp_path / "in.parquet")
    words = [
        "score",
        str(finished),
        str(tmp_path / "in.parquet"),
        "--output",
        str(tmp_path / "out"),
        "--format",
        "jsonl",
    ]
    try:
        assert main(["--quiet", *words, "--device", "cpu"]) == 0
    finally:
        progress.quiet(False)
    strict = json.JSONDecoder(parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    lines = (tmp_path / "out" / "shard-00000.jsonl").read_text().splitlines()
    assert [(row["text"], row["x"]) for row in map(strict.decode, lines)] == [(texts[0], None), (texts[2], None)]
    far, blank = map(strict.decode, (tmp_path / "out" / "rejects.jsonl").read_text().splitlines())
    assert (far["row"], far["reason"][:38]) == (2, "column 'when': its date32[day] cannot ")
    assert (blank["row"], blank["values"]["x"]) == (4, None)


def test_json_in_a_folder(tmp_path: Path) -> None:
    written(tmp_path / "train.json", b'[{"text": "a"}]')
    written(tmp_path / "test.json.gz", gzip.compress(b'[{"text": "b"}]'))
    assert [Path(one.path).name for one in find_inputs(str(tmp_path))] == ["test.json.gz", "train.json"]
    assert open_source(str(tmp_path)).splits == ("test", "train")
    written(tmp_path / "train.csv.gz", gzip.compress(b"text\nc\n"))  # beside which they are notes
    assert [Path(one.path).name for one in find_inputs(str(tmp_path))] == ["train.csv.gz"]
    assert open_source(str(tmp_path)).splits == ("train",)


def test_scoring_with_a_separator_given(finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    texts = [text for text, _ in tiny_reviews(5, 3)]
    path = written(
        tmp_path / "in.csv", "".join(["n:text\n", *(f"{n}:{text}\n" for n, text in enumerate(texts))]).encode()
    )
    words = [
        "score",
        str(finished),
        str(path),
        "--output",
        str(tmp_path / "out"),
        "--device",
        "cpu",
        "--shard-rows",
        "2",
    ]
    try:
        assert main(["--quiet", *words, "--separator", ":"]) == 0
        assert main(["--quiet", *words]) == 2
    finally:
        progress.quiet(False)
    assert "was begun with --separator :, now without --separator" in capsys.readouterr().err
    rows = [row for shard in sorted((tmp_path / "out").glob("shard-*")) for row in read(shard)]
    assert [(row["n"], row["text"]) for row in rows] == [(str(n), text) for n, text in enumerate(texts)]
    write_table(tmp_path / "in.jsonl", [{"text": "a"}])
    with pytest.raises(DataError, match=r"^--separator: given, but .* holds no csv or tsv file; drop it"):
        make_plan(str(tmp_path / "in.jsonl"), Classification(("neg", "pos"), "text", None), None, 10, separator=";")


def test_json_text_in_a_cell_is_json(finished: Path, tmp_path: Path) -> None:
    written(
        tmp_path / "in.jsonl",
        b'{"text": "a superb film", "x": [NaN, 1]}\n{"text": "a dull film", "x": {"y": Infinity}}\n',
    )
    words = ["score", str(finished), str(tmp_path / "in.jsonl"), "--output", str(tmp_path / "out"), "--format", "csv"]
    try:
        assert main(["--quiet", *words, "--device", "cpu"]) == 0
    finally:
        progress.quiet(False)
    assert [row["x"] for row in read(tmp_path / "out" / "shard-00000.csv")] == ["[null, 1]", '{"y": null}']
