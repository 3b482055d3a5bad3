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
from typing import Any, BinaryIO, NamedTuple, Self

from distilora.errors import DataError, MissingExtra

FORMATS = {".csv": "csv", ".tsv": "tsv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet", ".txt": "txt"}
BATCH = 1024  # parquet rows held at a time
csv.field_size_limit(2**31 - 1)


class Record(NamedTuple):
    """One record: where it stands, for messages, and its values by column."""

    place: str
    values: Mapping[str, Any]


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
        yield from _parquet(path)
        return
    try:
        with open(path, "rb") as stream:
            yield from read_stream(stream, kind, str(path))
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); check its permissions") from None


def read_stream(stream: BinaryIO, kind: str, name: str) -> Iterator[Record]:
    """Streams the records of an open binary file of kind csv, tsv, jsonl or txt."""
    lines = _lines(stream, name)
    if kind == "txt":
        for number, line in enumerate(lines, 1):
            yield Record(f"{name}: row {number}", {"text": line.rstrip("\r\n")})
    elif kind == "jsonl":
        for number, line in enumerate(lines, 1):
            if line.strip():
                yield Record(f"{name}: row {number}", _json(line, f"{name}: row {number}"))
    elif kind in ("csv", "tsv"):
        yield from _csv(lines, "\t" if kind == "tsv" else ",", name)
    else:
        raise DataError(f"{name}: {kind} cannot be read from a stream; give a file")


def _lines(stream: BinaryIO, name: str) -> Iterator[str]:
    for number, raw in enumerate(stream, 1):
        try:
            yield raw.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise DataError(
                f"{name}: line {number}: byte {error.start + 1} is not UTF-8; convert the file, for example with "
                "iconv -f latin1 -t utf-8"
            ) from None


def _json(line: str, place: str) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{place}: not JSON ({getattr(error, 'msg', error)}); each line must hold one object") from None
    if "\\ud" in line.lower():  # escapes may spell half a character, which no tokenizer takes
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise DataError(f"{place}: a text holds half a character (a lone \\ud... escape); correct it") from None
    if not isinstance(value, dict):
        raise DataError(f"{place}: {type(value).__name__} found; each line must hold one object")
    return value


def _csv(lines: Iterator[str], delimiter: str, name: str) -> Iterator[Record]:
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    number = 0
    try:
        header = next(reader, None)
        if not header:
            raise DataError(f"{name}: no header; the first line must name the columns")
        twice = next((column for column in header if column and header.count(column) > 1), None)
        if twice is not None:
            raise DataError(f"{name}: two columns called {twice!r}; rename one")
        for number, cells in enumerate(reader, 1):
            if not cells:
                continue
            if len(cells) != len(header):
                raise DataError(
                    f"{name}: row {number}: {len(cells)} cells under {len(header)} columns; quote cells that hold "
                    f"{'tabs' if delimiter == chr(9) else 'commas'} or line breaks"
                )
            yield Record(f"{name}: row {number}", dict(zip(header, cells, strict=True)))
    except csv.Error as error:
        raise DataError(f"{name}: row {number + 1}: {error}; check its quotes") from None


def _arrow() -> Any:
    try:
        import pyarrow.parquet
    except ImportError:
        raise MissingExtra("pyarrow (needed for parquet)", "parquet") from None
    return pyarrow


def _parquet(path: Path) -> Iterator[Record]:
    arrow = _arrow()
    try:
        with arrow.parquet.ParquetFile(path) as file:
            number = 0
            for batch in file.iter_batches(BATCH):
                for values in batch.to_pylist():
                    number += 1
                    yield Record(f"{path}: row {number}", values)
    except (arrow.ArrowException, OSError) as error:
        raise DataError(f"{path}: broken parquet ({str(error).splitlines()[0]}); write the file again") from None
    except UnicodeDecodeError:
        raise DataError(f"{path}: row {number + 1}: a text is not UTF-8; write the file again") from None


class TableWriter:
    """Writes records to a temporary file beside `path` and moves it there when all went well.

    `with TableWriter("scored.parquet") as out: out.write([{...}, ...])`. The first record names the columns; values are
    numbers, booleans, text or null. On an error nothing is left behind.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.kind = format_of(path)
        if self.kind == "txt":
            raise DataError(f"{path}: predictions are tables; give a file ending in .csv, .tsv, .jsonl or .parquet")
        if self.kind == "parquet":
            _arrow()
        if not self.path.parent.is_dir():
            raise DataError(f"{path}: its folder does not exist; create it first")
        self.temporary = self.path.with_name(f".{self.path.name}.{os.getpid()}.tmp")
        self._stream: Any = None
        self._writer: Any = None
        self._schema: Any = None
        self._columns: dict[str, None] = {}  # in order

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
            if self._writer is None:
                delimiter = "\t" if self.kind == "tsv" else ","
                self._writer = csv.DictWriter(self._open(), list(records[0]), delimiter=delimiter, lineterminator="\n")
                self._writer.writeheader()
            self._writer.writerows(records)

    def _open(self) -> Any:
        if self._stream is None:
            self._stream = open(self.temporary, "w", encoding="utf-8", newline="")  # noqa: SIM115 - closed in __exit__
        return self._stream

    def _write_parquet(self, records: Sequence[Mapping[str, Any]], like: Mapping[str, Any]) -> None:
        arrow = _arrow()
        try:
            table = arrow.Table.from_pylist([{c: r.get(c) for c in self._columns} for r in records])
            if self._schema is None:
                # A column null throughout the first batch may hold anything later: text holds it all.
                fields = [
                    arrow.field(f.name, arrow.scalar(like.get(f.name, "")).type) if arrow.types.is_null(f.type) else f
                    for f in table.schema
                ]
                self._schema = arrow.schema(fields)
                table = table.cast(self._schema)
                self._writer = arrow.parquet.ParquetWriter(self.temporary, self._schema, compression="zstd")
            elif table.schema != self._schema:
                table.cast(self._schema)  # refuses 1.5 as a whole number,
                table = arrow.Table.from_pylist(table.to_pylist(), self._schema)  # and this a text as a number
        except (arrow.ArrowException, TypeError, OverflowError) as error:
            raise DataError(
                f"{self.path}: a column changes its type ({str(error).splitlines()[0]}); write .jsonl instead"
            ) from None
        self._writer.write_table(table)

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self.kind == "parquet" and self._writer is not None:
            self._writer.close()
        if kind is None and self.kind != "parquet":
            self._open()  # a table without records is still a file
        if self._stream is not None:
            self._stream.close()
        if kind is None and self.temporary.exists():
            os.replace(self.temporary, self.path)
        elif kind is None:
            _arrow().parquet.write_table(_arrow().table({}), self.path)
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
