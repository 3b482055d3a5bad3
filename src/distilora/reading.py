"""Parses records one by one, good or bad: the one parser under `read_table`, which stops at a bad one, and scoring, which goes on.

A `Mark` says how far a csv, tsv, jsonl or txt file has been read; reading goes on from it without reading what is before.
"""

import csv
import json
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, BinaryIO, NamedTuple

from distilora.errors import DataError, MissingExtra

DELIMITERS = {"csv": ",", "tsv": "\t"}
BATCH = 1024  # parquet rows held at a time
LONGEST = 1 << 20  # bytes: where scoring looks for the end of a quote; beyond, the quote is taken for a stray one
csv.field_size_limit(2**31 - 1)


class Record(NamedTuple):
    """One record: where it stands, for messages, and its values by column."""

    place: str
    values: Mapping[str, Any]
    row: int = 0


class Reject(NamedTuple):
    """What stands where a record should: `reason` ends with the fix; `raw` is the text as it stands in the file."""

    place: str
    reason: str
    row: int
    raw: str | None = None


class Mark(NamedTuple):
    """A place in a file: the rows, lines and bytes before it."""

    row: int = 0
    line: int = 0
    offset: int = 0


class Lines:
    """Lines of an open binary file from a mark on, decoded; `taken` are those since the last row, as bytes.

    What is not UTF-8 is decoded all the same, for the row's end to be found, and `bad` says so. With `longest`, a row of
    several lines that is longer, in bytes, is a csv.Error.
    """

    def __init__(self, stream: BinaryIO, name: str, mark: Mark | None = None, longest: int | None = None) -> None:
        self.stream, self.name, self.longest = stream, name, longest
        self.row, self.line, self.offset = mark or Mark()
        self.taken: list[bytes] = []
        self.bad = ""
        self._size = 0  # of what is taken
        self._back: deque[bytes] = deque()

    @property
    def mark(self) -> Mark:
        """The place reached."""
        return Mark(self.row, self.line, self.offset)

    def begin(self) -> None:
        """A new row begins."""
        self.taken, self.bad, self._size = [], "", 0

    def give_back(self) -> None:
        """Has all lines of the row but its first read again."""
        self._back.extendleft(reversed(self.taken[1:]))
        self.line -= len(self.taken) - 1
        self.offset -= sum(map(len, self.taken[1:]))
        del self.taken[1:]

    def raw(self) -> str:
        """The row as it stands in the file, bytes that are not UTF-8 as escapes."""
        return b"".join(self.taken).decode("utf-8", "backslashreplace").rstrip("\r\n")

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        if self.longest is not None and len(self.taken) > 1 and self._size > self.longest:
            raise csv.Error(f"a quote is not closed within {self.longest:,} bytes")
        line = self._back.popleft() if self._back else self.stream.readline()
        if not line:
            raise StopIteration
        self.line += 1
        self.offset += len(line)
        self._size += len(line)
        self.taken.append(line)
        codec = "utf-8-sig" if self.line == 1 else "utf-8"
        try:
            return line.decode(codec)
        except UnicodeDecodeError as error:
            self.bad = self.bad or (
                f"line {self.line}: byte {error.start + 1} is not UTF-8; convert the file, for example with "
                "iconv -f latin1 -t utf-8"
            )
            return line.decode(codec, "surrogateescape")


def records(lines: Lines, kind: str, header: Sequence[str] = ()) -> Iterator[Record | Reject]:
    """The rows from where `lines` are on, in order; csv and tsv need their `header` (see `read_header`)."""
    if kind in DELIMITERS:
        yield from _csv(lines, kind, header)
        return
    lines.begin()
    for line in lines:
        lines.row += 1
        place = f"{lines.name}: row {lines.row}"
        if lines.bad:
            yield Reject(lines.name, lines.bad, lines.row, lines.raw())
        elif kind == "txt":
            yield Record(place, {"text": line.rstrip("\r\n")}, lines.row)
        elif line.strip():
            try:
                yield Record(place, _json(line), lines.row)
            except DataError as error:
                yield Reject(place, str(error), lines.row, lines.raw())
        lines.begin()


def _json(line: str) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise DataError(f"not JSON ({getattr(error, 'msg', error)}); each line must hold one object") from None
    if "\\ud" in line.lower():  # escapes may spell half a character, which no tokenizer takes
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise DataError("a text holds half a character (a lone \\ud... escape); correct it") from None
    if not isinstance(value, dict):
        raise DataError(f"{type(value).__name__} found; each line must hold one object")
    return value


def read_header(lines: Lines, kind: str) -> list[str]:
    """The column names in the first row of a csv or tsv file. Raises DataError if they are none."""
    try:
        header = next(csv.reader(lines, delimiter=DELIMITERS[kind], strict=True), None)
    except csv.Error as error:
        raise DataError(f"{lines.name}: row 1: {error}; check its quotes") from None
    if lines.bad:
        raise DataError(f"{lines.name}: {lines.bad}")
    if not header:
        raise DataError(f"{lines.name}: no header; the first line must name the columns")
    twice = next((column for column in header if column and header.count(column) > 1), None)
    if twice is not None:
        raise DataError(f"{lines.name}: two columns called {twice!r}; rename one")
    return header


def _csv(lines: Lines, kind: str, header: Sequence[str]) -> Iterator[Record | Reject]:
    reader = csv.reader(lines, delimiter=DELIMITERS[kind], strict=True)
    while True:
        lines.begin()
        try:
            cells = next(reader, None)
            fault = ""
        except csv.Error as error:
            cells, fault = [], f"{error}; check its quotes"
        if cells is None:
            return
        lines.row += 1
        place = f"{lines.name}: row {lines.row}"
        if fault:
            lines.give_back()  # a stray quote costs its own line, not those it swallowed
            yield Reject(place, fault, lines.row, lines.raw())
        elif lines.bad:
            yield Reject(lines.name, lines.bad, lines.row, lines.raw())
        elif cells and len(cells) != len(header):
            reason = (
                f"{len(cells)} cells under {len(header)} columns; quote cells that hold "
                f"{'tabs' if kind == 'tsv' else 'commas'} or line breaks"
            )
            yield Reject(place, reason, lines.row, lines.raw())
        elif cells:
            yield Record(place, dict(zip(header, cells, strict=True)), lines.row)


def arrow() -> Any:
    """pyarrow with its parquet; raises MissingExtra without it."""
    try:
        import pyarrow.parquet
    except ImportError:
        raise MissingExtra("pyarrow (needed for parquet)", "parquet") from None
    return pyarrow


def parquet_records(source: Any, name: str, first: int = 0) -> Iterator[Record | Reject]:
    """The rows of a parquet file (path or open file) after the `first`; row groups before are not read.

    Raises DataError if the file is broken: where pages cannot be read, rows cannot be told from one another.
    """
    number = first
    try:
        with arrow().parquet.ParquetFile(source, buffer_size=1 << 20) as file:  # else whole column chunks
            group, skip = 0, first
            while group < file.num_row_groups and skip >= file.metadata.row_group(group).num_rows:
                skip -= file.metadata.row_group(group).num_rows
                group += 1
            for batch in file.iter_batches(BATCH, row_groups=list(range(group, file.num_row_groups))):
                skipped = min(skip, len(batch))
                skip -= skipped
                for values in _rows(batch.slice(skipped)):
                    number += 1
                    place = f"{name}: row {number}"
                    if values is None:
                        yield Reject(place, "a text is not UTF-8; write the file again", number)
                    else:
                        yield Record(place, values, number)
    except (arrow().ArrowException, OSError) as error:
        raise DataError(f"{name}: broken parquet ({str(error).splitlines()[0]}); write the file again") from None


def _rows(batch: Any) -> Iterator[dict[str, Any] | None]:
    """Rows of a batch; None for one with a text that is not UTF-8, which the format does not rule out."""
    try:
        yield from batch.to_pylist()
    except UnicodeDecodeError:
        for i in range(len(batch)):
            try:
                yield batch.slice(i, 1).to_pylist()[0]
            except UnicodeDecodeError:
                yield None
