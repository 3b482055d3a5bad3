"""Computes one shard: reads, answers and writes it; the file is the same whoever computes it, where and when."""

import tempfile
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any, cast

from distilora.data.examples import Example
from distilora.errors import DataError
from distilora.files.atomic import write_bytes
from distilora.files.records import TYPED, Record, Reject
from distilora.files.stores import Place
from distilora.files.tables import TableWriter, json_line, json_text
from distilora.inference.predictor import STREAM, Predictor
from distilora.inference.table import answer_columns
from distilora.scoring.shards import Shard, ShardPlan

PARTS = "parts"  # records of finished shards, and their rejects, until all are joined
GROUP = 8192  # rows of a parquet row group


def shard_name(number: int, kind: str) -> str:
    """Return the name of a shard's file."""
    return f"shard-{number:05}.{kind}"


def record_name(number: int) -> str:
    """Return the name of a shard's record, which is written last and so marks the shard as finished."""
    return f"{PARTS}/{number:05}.json"


def rejects_name(number: int) -> str:
    """Return the name of a shard's file of rejects."""
    return f"{PARTS}/{number:05}.rejects.jsonl"


class Scorer:
    """Scorer of shards: `scorer(shard)` writes the shard's file, its rejects, and last its record, which it returns."""

    def __init__(self, predictor: Predictor, plan: ShardPlan, place: Place, kind: str) -> None:
        self.predictor, self.plan, self.place, self.kind = predictor, plan, place, kind
        self.task = predictor.task.for_prediction(plan.columns, plan.text_column)
        sample = predictor.answer([Example(("blank",))])[0]
        self.names = _answer_columns(sample, plan.columns)
        self.columns = [*plan.columns, *self.names.values()]
        answer = {self.names[name]: value for name, value in sample.items()}
        self.schema = plan.arrow_schema(answer) if kind == "parquet" else None
        types = {"mixed", "number"} if kind != "jsonl" and set(TYPED) & set(plan.kinds) else set()
        if types and len(set(plan.kinds)) > 1:
            types.add("text")
        self.converted = [name for name, column_type in plan.columns.items() if column_type in types]

    def __call__(self, shard: Shard, tick: Callable[[int], None] = lambda rows: None) -> dict[str, int]:
        """Compute a shard, calling `tick` with the rows done since its last call. Raises OutputError, DataError."""
        read_so_far: deque[tuple[list[Record], int]] = deque()
        rejected = rows = 0

        with tempfile.SpooledTemporaryFile(1 << 20) as rejects:

            def chunks() -> Iterator[list[Example]]:
                nonlocal rejected
                rows_read = self.plan.read(shard)
                while chunk := list(islice(rows_read, STREAM)):
                    good: list[Record] = []
                    examples: list[Example] = []
                    for row in chunk:
                        try:
                            examples.append(self._example(row))
                            good.append(cast(Record, row))  # _example refuses a Reject
                        except _Rejected as reason:
                            rejected += 1
                            rejects.write(_reject_line(self.plan.inputs[shard.file].path, row, str(reason)))
                    read_so_far.append((good, len(chunk)))
                    yield examples

            name = shard_name(shard.number, self.kind)
            with self.place.new(name) as path:
                with TableWriter(path, () if self.kind == "jsonl" else self.columns, self.schema) as out:
                    waiting: list[Mapping[str, Any]] = []
                    for answers in self.predictor.answers(chunks()):
                        good, count = read_so_far.popleft()
                        waiting += map(self._row, good, answers)
                        if len(waiting) >= GROUP:
                            out.write(waiting)
                            waiting = []
                        rows += len(good)
                        tick(count)
                    out.write(waiting)
                self.place.keep(path)
                size = path.stat().st_size
            if rejected:
                rejects.seek(0)
                with self.place.new(rejects_name(shard.number)) as path:
                    write_bytes(path, rejects.read())
        record = {"rows": rows, "rejects": rejected, "bytes": size}
        self.place.write_json(record_name(shard.number), record)
        return record

    def _example(self, row: Record | Reject) -> Example:
        if isinstance(row, Reject):
            raise _Rejected(row.reason)
        try:
            example = self.task.read(row.values)
        except DataError as error:
            raise _Rejected(str(error)) from None
        cleaned = self.task.cleaned(replace(example, place=row.place), self.predictor.cleaning)
        if not any(text.strip() for text in cleaned.texts):
            raise _Rejected("the text is blank; fill it")
        return cleaned

    def _row(self, record: Record, answer: Mapping[str, Any]) -> dict[str, Any]:
        row = {**record.values, **{self.names[name]: value for name, value in answer.items()}}
        for name in self.converted:
            column_type, value = self.plan.columns[name], row.get(name)
            if column_type == "number" and value is not None:
                row[name] = float(value)
            elif value is not None and not (column_type == "text" and isinstance(value, str)):
                row[name] = json_text(value)
        return row


class _Rejected(Exception):
    pass


def _answer_columns(answer: Mapping[str, Any], columns: Sequence[str] | Mapping[str, Any]) -> dict[str, str]:
    """Name the columns of an answer. Raises DataError if the input has one of them."""
    names = answer_columns(answer, columns)
    clash = next((name for name in names.values() if name in columns), None)
    if clash is not None:
        raise DataError(f"column {clash!r} of the input is an answer's; rename it")
    return names


def _reject_line(path: str, record: Record | Reject, reason: str) -> bytes:
    fields: dict[str, Any] = {"file": path, "row": record.row, "reason": reason}
    if isinstance(record, Record):
        fields["values"] = record.values
    elif record.raw is not None:
        fields["raw"] = record.raw
    return json_line(fields).encode("utf-8", "backslashreplace")
