"""JSON arrays are read piece by piece; a mistake in one is told with its row."""

import io
import json
from pathlib import Path

import pytest
from support.tables import read, written

from distilora.errors import DataError
from distilora.files import json_array
from distilora.files.tables import read_stream, read_table


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
