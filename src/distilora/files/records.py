"""Parses records one by one, valid or not, for `read_table`, which stops at an invalid one, and scoring, which continues.

A `Mark` is a position in a csv, tsv, jsonl or txt file, from which reading resumes without parsing the rows before it. A
compressed file is still decompressed up to there; json and xlsx are read from their beginning.
"""

import codecs
import csv
import json
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from distilora.errors import DataError, MissingExtra
from distilora.files.separators import BYTES, ROWS, SEPARATORS, find_separator
from distilora.progress import plural

DELIMITERS = {"csv": ",", "tsv": "\t"}  # unless another separator is detected
TYPED = ("jsonl", "json", "xlsx")  # kinds whose records each have their own columns and types, known once all are read
BATCH = 1024  # parquet rows in memory at a time
LONGEST = 1 << 20  # bytes within which scoring looks for the end of a quote; one without is stray
_LONGEST_CELL = 2**31 - 1  # characters


class Record(NamedTuple):
    """Record with its place, for messages, and its values by column."""

    place: str
    values: Mapping[str, Any]
    row: int = 0


class Reject(NamedTuple):
    """Row that cannot be parsed; `reason` ends with the fix, `raw` is the text as it stands in the file."""

    place: str
    reason: str
    row: int
    raw: str | None = None


class Mark(NamedTuple):
    """Position in a file: the number of rows, lines and bytes before it."""

    row: int = 0
    line: int = 0
    offset: int = 0


class Lines:
    """Iterator over the decoded lines of an open binary file, from a mark on.

    `row_lines` are the lines of the current row, as bytes. A line that is not UTF-8 is decoded with escapes, so that the end
    of the row can be recognised, and described in `encoding_error`. A row of several lines and more than `longest` bytes is
    a csv.Error. `separator` separates cells; `read_header` detects it if it is None.
    """

    def __init__(
        self,
        stream: BinaryIO,
        name: str,
        mark: Mark | None = None,
        longest: int | None = None,
        separator: str | None = None,
    ) -> None:
        self.stream, self.name, self.longest, self.separator = stream, name, longest, separator
        self.row, self.line, self.offset = mark or Mark()
        self.row_lines: list[bytes] = []
        self.encoding_error = ""
        self._size = 0  # bytes in `row_lines`
        self._buffer: deque[bytes] = deque()  # lines to read before the stream's

    @property
    def mark(self) -> Mark:
        """The position reached so far."""
        return Mark(self.row, self.line, self.offset)

    def begin(self) -> None:
        """Begin a new row."""
        self.row_lines, self.encoding_error, self._size = [], "", 0

    def keep_first_line(self) -> None:
        """Reduce the current row to its first line; the others are read again."""
        self._buffer.extendleft(reversed(self.row_lines[1:]))
        self.line -= len(self.row_lines) - 1
        self.offset -= sum(map(len, self.row_lines[1:]))
        del self.row_lines[1:]

    def peek(self, count: int, size: int) -> list[bytes]:
        """Return up to `count` of the next lines, about `size` bytes at most, without advancing."""
        while len(self._buffer) < count and sum(map(len, self._buffer)) < size and (line := self.stream.readline()):
            self._buffer.append(line)
        return list(self._buffer)

    def raw(self) -> str:
        """Return the row as it stands in the file, bytes that are not UTF-8 as escapes."""
        return b"".join(self.row_lines).decode("utf-8", "backslashreplace").rstrip("\r\n")

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        if self.longest is not None and len(self.row_lines) > 1 and self._size > self.longest:
            raise csv.Error(f"a quote is not closed within {self.longest:,} bytes")
        line = self._buffer.popleft() if self._buffer else self.stream.readline()
        if not line:
            raise StopIteration
        self.line += 1
        self.offset += len(line)
        self._size += len(line)
        self.row_lines.append(line)
        codec = "utf-8-sig" if self.line == 1 else "utf-8"
        try:
            return line.decode(codec)
        except UnicodeDecodeError as error:
            utf16 = self.line == 1 and line.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
            self.encoding_error = self.encoding_error or (
                "it is UTF-16; convert the file with iconv -f utf-16 -t utf-8, or save it as UTF-8"
                if utf16
                else f"line {self.line}: byte {error.start + 1} is not UTF-8; convert the file, for example with "
                "iconv -f latin1 -t utf-8"
            )
            return line.decode(codec, "surrogateescape")


def records(lines: Lines, kind: str, header: Sequence[str] = ()) -> Iterator[Record | Reject]:
    """Yield the remaining rows of `lines`, in order; csv and tsv need their `header` (see `read_header`).

    json and xlsx are read from their beginning, and the rows before `lines.row` are skipped.
    """
    if kind in DELIMITERS:
        yield from _csv(lines, kind, header)
        return
    if kind in ("json", "xlsx"):
        yield from _whole(lines, kind)
        return
    lines.begin()
    for line in lines:
        lines.row += 1
        place = f"{lines.name}: row {lines.row}"
        if lines.encoding_error:
            yield Reject(lines.name, lines.encoding_error, lines.row, lines.raw())
        elif kind == "txt":
            yield Record(place, {"text": line.rstrip("\r\n")}, lines.row)
        elif line.strip():
            try:
                yield Record(place, _json(line), lines.row)
            except DataError as error:
                yield Reject(place, str(error), lines.row, lines.raw())
        lines.begin()


def _whole(lines: Lines, kind: str) -> Iterator[Record | Reject]:
    from distilora.files.json_array import json_records
    from distilora.files.spreadsheet import xlsx_records

    for record in (json_records if kind == "json" else xlsx_records)(lines.stream, lines.name, lines.row):
        lines.row = record.row
        yield record


def _json(line: str) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise DataError(f"not JSON ({getattr(error, 'msg', error)}); each line must hold one object") from None
    return checked_object(value, line, "each line must hold one object")


def checked_object(value: Any, text: str, requirement: str) -> dict[str, Any]:
    """Return `value`, decoded from the JSON `text`. Raises DataError unless it is an object without lone surrogates."""
    if "\\ud" in text.lower():  # tokenizers refuse a lone surrogate, half a character
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise DataError("a text holds half a character (a lone \\ud... escape); correct it") from None
    if not isinstance(value, dict):
        raise DataError(f"{type(value).__name__} found; {requirement}")
    return value


def next_cells(reader: Iterator[list[str]]) -> list[str] | None:
    """Return the next row of a csv reader, None at the end; cells may be of any length.

    The csv module's limit, which is the process's, is restored.
    """
    limit = csv.field_size_limit(_LONGEST_CELL)
    try:
        return next(reader, None)
    finally:
        csv.field_size_limit(limit)


def read_header(lines: Lines, kind: str) -> list[str]:
    """Read the column names in the first row of a csv or tsv file; set `lines.separator` where it is None.

    A column without a name, such as the index that pandas writes, is named after its position: `unnamed_1`. Raises
    DataError if there are no names or a name occurs twice.
    """
    if lines.separator is None:
        lines.separator = find_separator(lines.peek(ROWS, BYTES), DELIMITERS[kind])
    try:
        header = next_cells(csv.reader(lines, delimiter=lines.separator, strict=True))
    except csv.Error as error:
        raise DataError(f"{lines.name}: row 1: {error}; check its quotes") from None
    if lines.encoding_error:
        raise DataError(f"{lines.name}: {lines.encoding_error}")
    return column_names(header or [], lines.name)


def column_names(header: Sequence[str], name: str) -> list[str]:
    """Replace blank names in a header by their position. Raises DataError if all are blank, or two are equal."""
    if not any(column.strip() for column in header):
        raise DataError(f"{name}: no header; the first line must name the columns")
    header = [column if column.strip() else f"unnamed_{i}" for i, column in enumerate(header, 1)]
    _refuse_duplicates(header, name)
    return header


def _refuse_duplicates(header: Sequence[str], name: str) -> None:
    duplicate = next((column for column in header if header.count(column) > 1), None)
    if duplicate is not None:
        raise DataError(f"{name}: two columns called {duplicate!r}; rename one")


def _csv(lines: Lines, kind: str, header: Sequence[str]) -> Iterator[Record | Reject]:
    separator = lines.separator or DELIMITERS[kind]
    reader = csv.reader(lines, delimiter=separator, strict=True)
    while True:
        lines.begin()
        try:
            cells = next_cells(reader)
            fault = ""
        except csv.Error as error:
            cells, fault = [], f"{error}; check its quotes"
        if cells is None:
            return
        lines.row += 1
        place = f"{lines.name}: row {lines.row}"
        if fault:
            lines.keep_first_line()  # a stray quote invalidates only its own line
            yield Reject(place, fault, lines.row, lines.raw())
        elif lines.encoding_error:
            yield Reject(lines.name, lines.encoding_error, lines.row, lines.raw())
        elif cells and len(cells) != len(header):
            reason = (
                f"{plural(len(cells), 'cell')} under {plural(len(header), 'column')}; quote cells that hold "
                f"{SEPARATORS.get(separator, repr(separator))} or line breaks"
            )
            yield Reject(place, reason, lines.row, lines.raw())
        elif cells:
            yield Record(place, dict(zip(header, cells, strict=True)), lines.row)


def arrow() -> Any:
    """Import pyarrow with its parquet module. Raises MissingExtra without it."""
    try:
        import pyarrow.parquet
    except ImportError:
        raise MissingExtra("pyarrow (needed for parquet)", "parquet") from None
    return pyarrow


def parquet_records(source: Any, name: str, first: int = 0) -> Iterator[Record | Reject]:
    """Yield the rows of a parquet file (path or open file) after the `first` ones; row groups before them are not read.

    Raises DataError if the file is broken, since the rows of an unreadable page cannot be rejected one by one.
    """
    number = first
    try:
        with arrow().parquet.ParquetFile(source, buffer_size=1 << 20) as file:  # without, whole column chunks are read
            _refuse_duplicates(file.schema_arrow.names, name)
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
                    if isinstance(values, str):
                        yield Reject(place, values, number)
                    else:
                        yield Record(place, values, number)
    except (arrow().ArrowException, OSError) as error:
        raise DataError(f"{name}: broken parquet ({str(error).splitlines()[0]}); write the file again") from None


def parquet_schema(path: Path) -> Any:
    """Read the Arrow schema of a parquet file: its columns with their types. Raises DataError if the file is broken."""
    try:
        return arrow().parquet.read_schema(path)
    except (arrow().ArrowException, OSError) as error:
        raise DataError(f"{path}: broken parquet ({str(error).splitlines()[0]}); write the file again") from None


def _rows(batch: Any) -> Iterator[dict[str, Any] | str]:
    """Yield the rows of a batch, or the reason for a row with a value that Python cannot represent.

    Parquet allows texts that are not UTF-8 and dates after the year 9999.
    """
    try:
        yield from batch.to_pylist()
    except (ValueError, OverflowError):
        for i in range(len(batch)):
            row = batch.slice(i, 1)
            try:
                yield row.to_pylist()[0]
            except (ValueError, OverflowError):
                yield _unreadable(row)


def _unreadable(row: Any) -> str:
    """Name the column of a row that holds an unreadable value, and the fix."""
    for name, column in zip(row.schema.names, row.columns, strict=True):
        try:
            column.to_pylist()
        except UnicodeDecodeError:
            return f"a text is not UTF-8 (column {name!r}); write the file again"
        except (ValueError, OverflowError) as error:
            return f"column {name!r}: its {column.type} cannot be read ({error}); correct it, or leave the column out"
    raise AssertionError("no column of an unreadable row is unreadable")
