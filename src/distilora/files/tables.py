"""Reads and writes tables of records, streaming and in order.

It reads csv, tsv, jsonl, a JSON array, parquet, xlsx and plain text by lines, all but parquet and xlsx also as .gz or
.zst, and writes csv, tsv, jsonl and parquet. Text is UTF-8 and nothing else. A record that cannot be read is an error that
names the file, the row (from 1, header not counted) and the fix. pyarrow is imported only for parquet and .zst, openpyxl
only for xlsx.
"""

import csv
import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

from distilora.errors import DataError
from distilora.files.atomic import temporary_name
from distilora.files.compression import compression_of, decompressed
from distilora.files.kinds import format_of, kind_of
from distilora.files.records import (
    BATCH,
    DELIMITERS,
    Lines,
    Record,
    Reject,
    arrow,
    parquet_records,
    read_header,
    records,
)
from distilora.files.separators import SEPARATORS
from distilora.progress import say_once

__all__ = [
    "BATCH",
    "Record",
    "TableWriter",
    "format_of",
    "json_line",
    "json_text",
    "read_stream",
    "read_table",
    "tell_separator",
    "write_table",
]


def read_table(path: str | Path, separator: str | None = None) -> Iterator[Record]:
    """Stream the records of a file. `separator` is that of a csv or tsv file's cells; None: detect it.

    Raises DataError if the file is missing, empty, broken or not UTF-8.
    """
    path = Path(path)
    kind = format_of(path)
    if path.is_dir() or not path.exists():
        raise DataError(f"{path}: no such file; check the path")
    if path.stat().st_size == 0:
        raise DataError(f"{path}: the file is empty; give one with records")
    if kind == "parquet":
        yield from _strict(parquet_records(path, str(path)))
        return
    try:
        with open(path, "rb") as stream:
            yield from read_stream(decompressed(stream, str(path)), kind, str(path), separator)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); check its permissions") from None


def read_stream(stream: BinaryIO, kind: str, name: str, separator: str | None = None) -> Iterator[Record]:
    """Stream the records of an open binary file of any kind but parquet; that of an xlsx must be seekable."""
    if kind == "parquet" or (kind == "xlsx" and not stream.seekable()):
        raise DataError(f"{name}: {kind} cannot be read from a stream; give a file")
    lines = Lines(stream, name, separator=separator)
    header = read_header(lines, kind) if kind in DELIMITERS else ()
    if separator is None:
        tell_separator(lines, kind)
    yield from _strict(records(lines, kind, header))


def tell_separator(lines: Lines, kind: str) -> None:
    """Say which separator was detected, unless it is the one that the kind of file is named after."""
    if lines.separator not in (None, DELIMITERS.get(kind)):
        say_once(f"{lines.name}: its cells are separated by {SEPARATORS[str(lines.separator)]} and read as such")


def _strict(parsed: Iterator[Record | Reject]) -> Iterator[Record]:
    for record in parsed:
        if isinstance(record, Reject):
            raise DataError(f"{record.place}: {record.reason}")
        yield record


def json_line(record: Mapping[str, Any]) -> str:
    """Return a record as a line of JSON Lines."""
    return json_text(dict(record)) + "\n"


def json_text(value: Any) -> str:
    """Return a value as JSON; NaN and infinity, which JSON lacks, become null, and a date becomes text."""
    try:
        return json.dumps(value, ensure_ascii=False, default=str, allow_nan=False)
    except ValueError:
        return json.dumps(_finite(value), ensure_ascii=False, default=str, allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {name: _finite(inner) for name, inner in value.items()}
    return [_finite(inner) for inner in value] if isinstance(value, list | tuple) else value


WRITTEN = ("csv", "tsv", "jsonl", "parquet")


class TableWriter:
    """Writer of records to a temporary file beside `path`, which is moved there when all went well.

    `with TableWriter("scored.parquet") as out: out.write([{...}, ...])`. The first record names the columns; values are
    numbers, booleans, text or null. An error leaves nothing behind. With `columns`, and for parquet an Arrow `schema` of
    their types, a table without records has them, too.

    Lines of csv and tsv end with `line_end`.

    With a `stream`, such as standard output, rows of `kind` csv, tsv or jsonl go there as they come, and `path` is its name.
    """

    def __init__(
        self,
        path: str | Path,
        columns: Sequence[str] = (),
        schema: Any = None,
        stream: BinaryIO | None = None,
        kind: str | None = None,
        line_end: str = "\n",
    ) -> None:
        self.path, self.line_end = Path(path), line_end
        self.kind = kind or kind_of(path)
        if self.kind not in WRITTEN or (kind is None and compression_of(path)):
            raise DataError(f"{path}: predictions are tables; give a file ending in .csv, .tsv, .jsonl or .parquet")
        if self.kind == "parquet":
            arrow()
        if stream is None and not self.path.parent.is_dir():
            raise DataError(f"{path}: its folder does not exist; create it first")
        self.temporary = temporary_name(self.path)
        self._to_stream = stream is not None
        self._stream: Any = _Utf8(stream) if stream is not None else None
        self._writer: Any = None
        self._schema, self._schema_is_fixed = schema, schema is not None
        self._columns: dict[str, None] = dict.fromkeys(columns)  # in order

    def __enter__(self) -> Self:
        return self

    def write(self, records: Sequence[Mapping[str, Any]], like: Mapping[str, Any] | None = None) -> None:
        """Append records. Raises DataError if one has a column that the first lacks, except in jsonl.

        `like` gives, by its values, the types of parquet columns that are null throughout the first batch.
        """
        if not records:
            return
        if self.kind == "jsonl":
            self._open().write("".join(map(json_line, records)))
            self._flush()
            return
        self._columns = self._columns or dict.fromkeys(records[0])
        new = next((column for record in records for column in record if column not in self._columns), None)
        if new is not None:
            raise DataError(f"{self.path}: column {new!r} is not in the first row; write .jsonl instead")
        if self.kind == "parquet":
            self._write_parquet(records, like or {})
        else:
            self._csv_writer().writerows(records)
            self._flush()

    def _flush(self) -> None:
        if self._to_stream:
            self._stream.flush()

    def _open(self) -> Any:
        if self._stream is None:
            self._stream = open(self.temporary, "w", encoding="utf-8", newline="")  # noqa: SIM115 - closed in __exit__
        return self._stream

    def _csv_writer(self) -> Any:
        if self._writer is None:
            delimiter = "\t" if self.kind == "tsv" else ","
            self._writer = csv.DictWriter(
                self._open(), list(self._columns), delimiter=delimiter, lineterminator=self.line_end
            )
            self._writer.writeheader()
        return self._writer

    def _write_parquet(self, records: Sequence[Mapping[str, Any]], like: Mapping[str, Any]) -> None:
        pa = arrow()
        try:
            rows = [{c: r.get(c) for c in self._columns} for r in records]
            table = pa.Table.from_pylist(rows, self._schema if self._schema_is_fixed else None)
            if self._schema is None:
                # A column that is null throughout the first batch may hold anything later; text fits it all.
                fields = [
                    pa.field(f.name, pa.scalar(like.get(f.name, "")).type) if pa.types.is_null(f.type) else f
                    for f in table.schema
                ]
                self._schema = pa.schema(fields)
                table = table.cast(self._schema)
            elif table.schema != self._schema:
                table.cast(self._schema)  # refuses 1.5 in a column of whole numbers,
                table = pa.Table.from_pylist(table.to_pylist(), self._schema)  # and this a text in one of numbers
        except (pa.ArrowException, TypeError, OverflowError) as error:
            raise DataError(
                f"{self.path}: a column changes its type ({str(error).splitlines()[0]}); write .jsonl instead"
            ) from None
        self._parquet_writer().write_table(table)

    def _parquet_writer(self) -> Any:
        if self._writer is None:
            self._writer = arrow().parquet.ParquetWriter(self.temporary, self._schema, compression="zstd")
        return self._writer

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if kind is not None:
            with suppress(OSError):  # the first error is the one to report
                self._close()
            self._remove()
            return
        try:
            self._complete()
            self._close()
            if not self._to_stream:
                os.replace(self.temporary, self.path)
        except BaseException:
            self._remove()
            raise

    def _complete(self) -> None:
        """Write the header, or the schema, of a table without records."""
        if self.kind == "parquet":
            if self._writer is None and self._schema is None:
                self._schema = arrow().schema([])
            self._parquet_writer()
        elif self._columns and self.kind in DELIMITERS:
            self._csv_writer()
        else:
            self._open()

    def _close(self) -> None:
        if self._to_stream:
            self._stream.flush()
            return
        for file in (self._writer if self.kind == "parquet" else None, self._stream):
            if file is not None:
                file.close()

    def _remove(self) -> None:
        if not self._to_stream:
            self.temporary.unlink(missing_ok=True)


class _Utf8:
    """Text writer onto a stream of bytes that is the caller's to close."""

    def __init__(self, stream: BinaryIO) -> None:
        self.stream = stream

    def write(self, text: str) -> None:
        rest = memoryview(text.encode())
        while rest:  # an unbuffered stream, as under PYTHONUNBUFFERED, may take only a part
            rest = rest[self.stream.write(rest) :]

    def flush(self) -> None:
        self.stream.flush()


def write_table(path: str | Path, records: Iterable[Mapping[str, Any]]) -> None:
    """Write all records at once."""
    with TableWriter(path) as out:
        out.write(list(records))
