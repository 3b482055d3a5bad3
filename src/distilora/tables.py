"""Reads and writes tables of records, streaming and in order: csv, tsv, jsonl, parquet, and plain text by lines.

Text is UTF-8 and nothing else. A record that cannot be read is an error that names the file, the row (from 1, header
not counted) and the fix. pyarrow is imported only for parquet.
"""

import csv
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

from distilora.errors import DataError
from distilora.reading import BATCH, DELIMITERS, Lines, Record, Reject, arrow, parquet_records, read_header, records

__all__ = [
    "BATCH",
    "FORMATS",
    "Record",
    "TableWriter",
    "atomic_text",
    "format_of",
    "read_stream",
    "read_table",
    "write_json",
    "write_table",
]

FORMATS = {".csv": "csv", ".tsv": "tsv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet", ".txt": "txt"}


def format_of(path: str | Path, wanted: str | None = None) -> str:
    """The table format of a path: `wanted`, else by its suffix. Raises DataError if neither tells."""
    found = wanted or FORMATS.get(Path(path).suffix.lower())
    if found is None:
        raise DataError(f"{path}: unknown kind of file; give one ending in {', '.join(FORMATS)}")
    return found


def read_table(path: str | Path) -> Iterator[Record]:
    """Streams the records of a file. Raises DataError if it is missing, empty, broken or not UTF-8."""
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
            yield from read_stream(stream, kind, str(path))
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); check its permissions") from None


def read_stream(stream: BinaryIO, kind: str, name: str) -> Iterator[Record]:
    """Streams the records of an open binary file of kind csv, tsv, jsonl or txt."""
    if kind == "parquet":
        raise DataError(f"{name}: {kind} cannot be read from a stream; give a file")
    lines = Lines(stream, name)
    yield from _strict(records(lines, kind, read_header(lines, kind) if kind in DELIMITERS else ()))


def _strict(found: Iterator[Record | Reject]) -> Iterator[Record]:
    for one in found:
        if isinstance(one, Reject):
            raise DataError(f"{one.place}: {one.reason}")
        yield one


class TableWriter:
    """Writes records to a temporary file beside `path` and moves it there when all went well.

    `with TableWriter("scored.parquet") as out: out.write([{...}, ...])`. The first record names the columns; values are
    numbers, booleans, text or null. On an error nothing is left behind. `columns`, and for parquet their types in an Arrow
    `schema`, may be given; then a table without records has them, too.
    """

    def __init__(self, path: str | Path, columns: Sequence[str] = (), schema: Any = None) -> None:
        self.path = Path(path)
        self.kind = format_of(path)
        if self.kind == "txt":
            raise DataError(f"{path}: predictions are tables; give a file ending in .csv, .tsv, .jsonl or .parquet")
        if self.kind == "parquet":
            arrow()
        if not self.path.parent.is_dir():
            raise DataError(f"{path}: its folder does not exist; create it first")
        self.temporary = self.path.with_name(f".{self.path.name}.{os.getpid()}.tmp")
        self._stream: Any = None
        self._writer: Any = None
        self._schema, self._given = schema, schema is not None
        self._columns: dict[str, None] = dict.fromkeys(columns)  # in order

    def __enter__(self) -> Self:
        return self

    def write(self, records: Sequence[Mapping[str, Any]], like: Mapping[str, Any] | None = None) -> None:
        """Appends records. Except in jsonl, one with a column that the first had not is a DataError.

        `like` gives, by its values, the types of parquet columns that are null throughout the first batch.
        """
        if not records:
            return
        if self.kind == "jsonl":
            self._open().writelines(json.dumps(dict(r), ensure_ascii=False, default=str) + "\n" for r in records)
            return
        self._columns = self._columns or dict.fromkeys(records[0])
        new = next((column for record in records for column in record if column not in self._columns), None)
        if new is not None:
            raise DataError(f"{self.path}: column {new!r} is not in the first row; write .jsonl instead")
        if self.kind == "parquet":
            self._write_parquet(records, like or {})
        else:
            self._csv_writer().writerows(records)

    def _open(self) -> Any:
        if self._stream is None:
            self._stream = open(self.temporary, "w", encoding="utf-8", newline="")  # noqa: SIM115 - closed in __exit__
        return self._stream

    def _csv_writer(self) -> Any:
        if self._writer is None:
            delimiter = "\t" if self.kind == "tsv" else ","
            self._writer = csv.DictWriter(self._open(), list(self._columns), delimiter=delimiter, lineterminator="\n")
            self._writer.writeheader()
        return self._writer

    def _write_parquet(self, records: Sequence[Mapping[str, Any]], like: Mapping[str, Any]) -> None:
        pa = arrow()
        try:
            rows = [{c: r.get(c) for c in self._columns} for r in records]
            table = pa.Table.from_pylist(rows, self._schema if self._given else None)
            if self._schema is None:
                # A column null throughout the first batch may hold anything later: text holds it all.
                fields = [
                    pa.field(f.name, pa.scalar(like.get(f.name, "")).type) if pa.types.is_null(f.type) else f
                    for f in table.schema
                ]
                self._schema = pa.schema(fields)
                table = table.cast(self._schema)
            elif table.schema != self._schema:
                table.cast(self._schema)  # refuses 1.5 as a whole number,
                table = pa.Table.from_pylist(table.to_pylist(), self._schema)  # and this a text as a number
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
        if kind is None and self._columns and self.kind in DELIMITERS:
            self._csv_writer()  # a table without records is still a file
        elif kind is None and self._schema is not None:
            self._parquet_writer()
        elif kind is None and self.kind != "parquet":
            self._open()
        if self.kind == "parquet" and self._writer is not None:
            self._writer.close()
        if self._stream is not None:
            self._stream.close()
        if kind is None and self.temporary.exists():
            os.replace(self.temporary, self.path)
        elif kind is None:
            arrow().parquet.write_table(arrow().table({}), self.path)
        else:
            self.temporary.unlink(missing_ok=True)


def write_table(path: str | Path, records: Iterable[Mapping[str, Any]]) -> None:
    """Writes all records at once."""
    with TableWriter(path) as out:
        out.write(list(records))


@contextmanager
def atomic_text(path: str | Path) -> Iterator[Any]:
    """Opens a text file for writing under a temporary name and moves it to `path` when all went well."""
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "w", encoding="utf-8", newline="\n") as stream:
            yield stream
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: str | Path, value: Any) -> None:
    """Writes indented JSON, under a temporary name first. NaN is refused (ValueError)."""
    with atomic_text(path) as stream:
        stream.write(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
