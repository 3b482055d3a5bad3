"""Separators of csv and tsv files are found where all rows agree, or given."""

from pathlib import Path

import pytest
from support.tables import read, written

from distilora.data.sources import open_source
from distilora.errors import ConfigError, DataError
from distilora.files.separators import find_separator, separator_from
from distilora.files.tables import write_table


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
    (record,) = open_source(str(path), separator=":").records("train", "data.train_split")
    assert record.values == {"text": "a, b", "label": "pos"}
    with pytest.raises(DataError, match=r"row 1: 3 cells under 2 columns; quote cells that hold ':' or line breaks"):
        read(written(tmp_path / "u.csv", b"a:b\n1:2:3\n"), ":")
    write_table(tmp_path / "t.jsonl", [{"text": "a"}])
    for other in (tmp_path / "t.jsonl", "embedded"):
        with pytest.raises(DataError, match=r"^data\.separator: given, but .* holds no csv or tsv file; drop it"):
            open_source(str(other), separator=";")
    with pytest.raises(ConfigError, match=r"^data\.separator: 'ab' given, one character such as"):
        open_source(str(path), separator="ab")


def test_how_a_separator_is_spelled() -> None:
    assert [separator_from(spelling, "x") for spelling in ("tab", "\\t", "\t", ";", "semicolon")] == [
        "\t",
        "\t",
        "\t",
        ";",
        ";",
    ]
    for spelling in ("", "ab", '"', "\n", "x", " "):
        with pytest.raises(ConfigError, match=r"^--separator: "):
            separator_from(spelling, "--separator")
