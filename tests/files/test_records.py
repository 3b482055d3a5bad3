"""Reading tables that hold bad rows: from any place on, and no quote swallows the rest."""

import csv
from collections.abc import Iterator
from pathlib import Path

from support.scored import BAD_CSV

from distilora.files.records import Lines, Mark, Record, Reject, records


def test_reading_goes_on_from_any_mark(tmp_path: Path) -> None:
    content = BAD_CSV.partition(b"\n")[2] * 3 + b'"never closed\nx,y,z\n'
    path = tmp_path / "rows"
    path.write_bytes(content)

    def read(mark: Mark) -> Iterator[tuple[Record | Reject, Mark]]:
        with open(path, "rb") as stream:
            stream.seek(mark.offset)
            lines = Lines(stream, "rows", mark, 64)
            for record in records(lines, "csv", ["id", "text", "label"]):
                yield record, lines.mark

    whole = list(read(Mark()))
    assert isinstance(whole[-1][0], Record)
    assert sum(isinstance(record, Reject) for record, _ in whole) == 5 * 3 + 1
    for i, (_, mark) in enumerate(whole):
        assert list(read(mark)) == whole[i + 1 :]


def test_a_stray_quote_does_not_swallow_the_file(tmp_path: Path) -> None:
    path = tmp_path / "rows"
    path.write_text('a,"stray\n' + "b,fine\n" * 1000)
    with open(path, "rb") as stream:
        rows = list(records(Lines(stream, "rows", longest=200), "csv", ["id", "text"]))
    assert [type(one) for one in rows] == [Reject] + [Record] * 1000
    assert "a quote is not closed within 200 bytes" in rows[0].reason


def test_the_caller_s_limit_of_a_cell_stays(tmp_path: Path) -> None:
    path = tmp_path / "rows"
    path.write_text("a," + "x" * 300_000 + "\n")
    before = csv.field_size_limit(1000)
    try:
        with open(path, "rb") as stream:
            (record,) = records(Lines(stream, "rows"), "csv", ["id", "text"])
        assert csv.field_size_limit() == 1000
    finally:
        csv.field_size_limit(before)
    assert isinstance(record, Record)
    assert len(record.values["text"]) == 300_000
