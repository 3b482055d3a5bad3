"""Compressed tables are read as the tables inside, from any place; a broken one is named."""

import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from support.tables import PACKERS, read, written

from distilora.data.sources import open_source
from distilora.errors import DataError, MissingExtra
from distilora.files.compression import decompressed
from distilora.files.tables import write_table

ROWS = [{"text": f"text {n}, so; long", "label": str(n % 2)} for n in range(3000)]


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
