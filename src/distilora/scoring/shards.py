"""Plans scoring in one pass over the inputs: their columns, and the shards they are cut into.

Files may be of several kinds, parquet aside. Their columns are joined: a column that any csv has is text in all of them.
A shard is a stretch of rows of one file and can be computed by any worker, at any time, without the rows before it.
"""

import base64
import dataclasses
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any

from distilora.errors import DataError
from distilora.files.records import (
    DELIMITERS,
    LONGEST,
    TYPED,
    Lines,
    Mark,
    Record,
    Reject,
    arrow,
    parquet_records,
    read_header,
    records,
)
from distilora.files.separators import separator_from
from distilora.files.stores import Input, find_inputs, is_address, local, opened
from distilora.files.tables import format_of, tell_separator
from distilora.progress import Progress
from distilora.tasks.base import Task

MOST_COLUMNS = 10_000
# Column types, from all rows in files of TYPED kinds, and Arrow's. `mixed` is several kinds, lists or objects, written as JSON.
# A column that a csv, tsv or txt file has, too, is `text`: texts are written as they are, other jsonl values as JSON.
TYPES = {"null": "string", "text": "string", "mixed": "string", "flag": "bool_", "whole": "int64", "number": "float64"}


@dataclass(frozen=True)
class Shard:
    """Stretch of `rows` rows (bad ones too) of input file number `file`, from `mark` on."""

    number: int
    file: int
    rows: int
    mark: Mark


@dataclass(frozen=True)
class ShardPlan:
    """Plan of a scoring job: the inputs, the kind of each file, the columns' types, the text column, and the shards."""

    inputs: list[Input]
    kinds: list[str]
    columns: dict[str, str]  # name -> a key of TYPES; of parquet, Arrow's name of the type
    text_column: str | None
    shards: list[Shard]
    schema: str = ""  # of parquet inputs, serialised
    separator: str | None = None  # of csv and tsv files; None: detected in each

    @property
    def rows(self) -> int:
        """Number of rows of all shards."""
        return sum(shard.rows for shard in self.shards)

    def tree(self) -> dict[str, Any]:
        """Return the plan as JSON, for `ShardPlan.of`."""
        return dataclasses.asdict(self)

    @classmethod
    def of(cls, tree: Mapping[str, Any]) -> "ShardPlan":
        """Restore a plan from its JSON."""
        shards = [Shard(s["number"], s["file"], s["rows"], Mark(*s["mark"])) for s in tree["shards"]]
        return cls(**{**tree, "inputs": [Input(*fields) for fields in tree["inputs"]], "shards": shards})

    def read(self, shard: Shard) -> Iterator[Record | Reject]:
        """Read the rows of a shard. Raises DataError if the file has fewer now."""
        path, count = self.inputs[shard.file].path, 0
        for row in islice(_rows_from(path, self.kinds[shard.file], shard.mark, self.separator), shard.rows):
            count += 1
            yield row
        if count < shard.rows:
            raise DataError(
                f"{path}: changed since it was first read (rows are missing); score it again with --overwrite"
            )

    def arrow_schema(self, answer: Mapping[str, Any]) -> Any:
        """Build the Arrow schema of a shard: the input's columns, then those of an answer."""
        pa = arrow()
        if self.schema:
            fields = list(pa.ipc.read_schema(pa.py_buffer(base64.b64decode(self.schema))))
        else:
            fields = [pa.field(name, getattr(pa, TYPES[kind])()) for name, kind in self.columns.items()]
        return pa.schema([*fields, *(pa.field(name, pa.scalar(value).type) for name, value in answer.items())])


def make_plan(
    source: str,
    task: Task,
    text_column: str | None,
    shard_rows: int,
    limit: int | None = None,
    separator: str | None = None,
) -> ShardPlan:
    """Read all inputs once (of parquet only the metadata), or the first `limit` rows, and cut them into shards.

    Raises DataError naming the file or column that cannot be scored.
    """
    inputs = find_inputs(source)
    kinds = [format_of(file.path) for file in inputs]
    if "parquet" in kinds and len(set(kinds)) > 1:
        names = ", ".join(sorted(set(kinds)))
        raise DataError(f"{source}: parquet beside other kinds ({names}); score each by a glob, such as '*.parquet'")
    if separator is not None:
        separator = separator_from(separator, "--separator")
        if DELIMITERS.keys().isdisjoint(kinds):
            raise DataError(f"--separator: given, but {source} holds no csv or tsv file; drop it")
    columns: dict[str, str] = {}
    headers: list[Sequence[str]] = []  # of the files that are read
    schemas: list[Any] = []
    shards: list[Shard] = []
    left = limit if limit is not None else sys.maxsize
    with Progress("reading the inputs", None, "rows") as bar:
        for number, (file, kind) in enumerate(zip(inputs, kinds, strict=True)):
            if left == 0:
                break
            if kind == "parquet":
                rows, schema = _metadata(file.path)
                schemas.append(schema)
                headers.append(schema.names)
                rows = min(rows, left)
                stretches = iter([(Mark(at), min(shard_rows, rows - at)) for at in range(0, rows, shard_rows)])
            else:
                headers.append(["text"] if kind == "txt" else _header(file.path, kind, separator))
                for name in headers[-1]:
                    columns.setdefault(name, "null")
                stretches = _stretches(file.path, kind, shard_rows, left, columns, separator)
            for mark, count in stretches:
                shards.append(Shard(len(shards), number, count, mark))
                bar.add(count)
                left -= count
    if not shards:
        raise DataError(f"{source}: no records; give files with some")
    serialised = ""
    if schemas:
        schema = _unified(schemas, inputs)
        columns = {field.name: str(field.type) for field in schema}
        serialised = base64.b64encode(schema.serialize().to_pybytes()).decode()
        text_columns = [field.name for field in schema if _holds_text(field.type)]
    else:
        columns |= {name: "text" for header in headers for name in header}
        text_columns = [name for name, column_type in columns.items() if column_type in ("text", "mixed", "null")]
    text_column = task.for_prediction(columns, text_column).text_column
    if text_column in columns and text_column not in text_columns:
        raise DataError(
            f"{source}: column {text_column!r} holds no text ({columns[text_column]}); name one that does with --text-column"
        )
    if text_column in columns and not schemas:
        columns[text_column] = "text"  # rows with another value there are rejected
    for file, kind, header in zip(inputs, kinds, headers, strict=False):  # headers only of the files that were read
        if kind not in TYPED and text_column is not None and text_column not in header:
            raise DataError(
                f"{file.path}: no column {text_column!r} (columns: {', '.join(header)}); name one with --text-column"
            )
    return ShardPlan(inputs, kinds, columns, text_column, shards, serialised, separator)


def _holds_text(kind: Any) -> bool:
    """Tell whether an Arrow type is text, dictionary-encoded or not."""
    types = arrow().types
    kind = kind.value_type if types.is_dictionary(kind) else kind
    return bool(types.is_string(kind) or types.is_large_string(kind) or str(kind) == "string_view")


def _stretches(
    path: str, kind: str, rows: int, most: int, columns: dict[str, str], separator: str | None
) -> Iterator[tuple[Mark, int]]:
    """Yield the mark and the number of rows of each stretch, `rows` in all but the last, up to `most` rows in all.

    Updates `columns` with the types of jsonl columns.
    """
    with _lines(path, kind, None, separator) as (lines, header):
        mark, count = lines.mark, 0
        for row in islice(records(lines, kind, header), most):
            count += 1
            if kind in TYPED and isinstance(row, Record):
                for name, value in row.values.items():
                    columns[name] = _joined(columns.get(name, "null"), value)
                if len(columns) > MOST_COLUMNS:
                    raise DataError(f"{row.place}: more than {MOST_COLUMNS:,} different names so far; nest what varies")
            if count == rows:
                yield mark, count
                mark, count = lines.mark, 0
        if count:
            yield mark, count


def _joined(kind: str, value: Any) -> str:
    """Return the type of a column that was of type `kind` so far, given one more value."""
    if value is None or kind == "mixed":
        return kind
    if isinstance(value, str):
        new = "text"
    elif isinstance(value, bool):
        new = "flag"
    elif isinstance(value, int) and abs(value) < 2**63:
        new = "whole"
    else:
        new = "number" if isinstance(value, float) else "mixed"
    if kind in ("null", new):
        return new
    return "number" if {kind, new} == {"whole", "number"} else "mixed"


@contextmanager
def _lines(path: str, kind: str, mark: Mark | None, separator: str | None) -> Iterator[tuple[Lines, list[str]]]:
    """Open a file; yield its lines from a mark on (None: from the first row), and its header."""
    with opened(path) as stream:
        lines = Lines(stream, path, longest=LONGEST, separator=separator)
        header = read_header(lines, kind) if kind in DELIMITERS else []
        if mark is not None:
            stream.seek(mark.offset)
            lines = Lines(stream, path, mark, LONGEST, lines.separator)
        yield lines, header


def _header(path: str, kind: str, separator: str | None) -> list[str]:
    with _lines(path, kind, None, separator) as (lines, header):
        if separator is None:
            tell_separator(lines, kind)
        return header


def _rows_from(path: str, kind: str, mark: Mark, separator: str | None) -> Iterator[Record | Reject]:
    if kind == "parquet" and is_address(path):
        with opened(path) as stream:
            yield from parquet_records(stream, path, mark.row)
    elif kind == "parquet":
        yield from parquet_records(local(path), path, mark.row)
    else:
        with _lines(path, kind, mark, separator) as (lines, header):
            yield from records(lines, kind, header)


def _metadata(path: str) -> tuple[int, Any]:
    pa = arrow()
    try:
        with opened(path) as stream, pa.parquet.ParquetFile(stream) as file:
            return file.metadata.num_rows, file.schema_arrow.remove_metadata()
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path}: broken parquet ({str(error).splitlines()[0]}); write the file again") from None


def _unified(schemas: list[Any], inputs: list[Input]) -> Any:
    """Unify the schemas of parquet files. Raises DataError naming the first file whose columns have other types."""
    pa = arrow()
    schema = schemas[0]
    for file, file_schema in zip(inputs, schemas, strict=False):  # schemas only of the files that were read
        try:
            schema = pa.unify_schemas([schema, file_schema])
        except pa.ArrowException as error:
            reason = str(error).splitlines()[0]
            raise DataError(f"{file.path}: other types than the files before ({reason}); score it by itself") from None
    # a column of nulls alone becomes text: not all readers of parquet know the null type
    is_null = pa.types.is_null
    return pa.schema([pa.field(f.name, pa.string()) if is_null(f.type) else f.with_nullable(True) for f in schema])
