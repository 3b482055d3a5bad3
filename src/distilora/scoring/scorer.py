"""One shard: read, answered, written. Whoever computes it, wherever and whenever, the same file comes out."""

import tempfile
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, cast

from distilora.data.examples import Example
from distilora.errors import DataError
from distilora.files.atomic import write_bytes
from distilora.files.records import TYPED, Record, Reject
from distilora.files.stores import Place
from distilora.files.tables import TableWriter, json_line, json_text
from distilora.inference.predictor import STREAM, Predictor
from distilora.scoring.shards import Shard, ShardPlan

PARTS = "parts"  # records of finished shards, and their rejects, until all are joined
GROUP = 8192  # rows of a parquet row group


def shard_name(number: int, kind: str) -> str:
    """The name of a shard's file."""
    return f"shard-{number:05}.{kind}"


def record_name(number: int) -> str:
    """The file whose being there says that a shard is finished: the last that is written of it."""
    return f"{PARTS}/{number:05}.json"


def rejects_name(number: int) -> str:
    """The file of a shard's rejects."""
    return f"{PARTS}/{number:05}.rejects.jsonl"


class Scorer:
    """Computes shards: `scorer(shard)` writes its file, its rejects, and last its record, which it returns."""

    def __init__(self, predictor: Predictor, plan: ShardPlan, place: Place, kind: str) -> None:
        self.predictor, self.plan, self.place, self.kind = predictor, plan, place, kind
        self.task = predictor.task.for_prediction(plan.columns, plan.text_column)
        sample = predictor.answer([Example(("blank",))])[0]
        self.names = answer_names(sample, plan.columns)
        self.columns = [*plan.columns, *self.names.values()]
        answer = {self.names[name]: value for name, value in sample.items()}
        self.schema = plan.arrow_schema(answer) if kind == "parquet" else None
        changed = {"mixed", "number"} if kind != "jsonl" and set(TYPED) & set(plan.kinds) else set()
        if changed and len(set(plan.kinds)) > 1:
            changed.add("text")
        self.changed = [name for name, held in plan.columns.items() if held in changed]

    def __call__(self, shard: Shard, tick: Callable[[int], None] = lambda rows: None) -> dict[str, int]:
        """`tick` is called with the number of rows done since its last call. Raises OutputError, DataError."""
        read_so_far: deque[tuple[list[Record], int]] = deque()
        rejected = rows = 0

        with tempfile.SpooledTemporaryFile(1 << 20) as rejects:

            def chunks() -> Iterator[list[Example]]:
                nonlocal rejected
                found = self.plan.read(shard)
                while chunk := list(islice(found, STREAM)):
                    good: list[Record] = []
                    examples: list[Example] = []
                    for one in chunk:
                        try:
                            examples.append(self._example(one))
                            good.append(cast(Record, one))  # _example refuses a Reject
                        except _Rejected as reason:
                            rejected += 1
                            rejects.write(_line(self.plan.inputs[shard.file].path, one, str(reason)))
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

    def _example(self, found: Record | Reject) -> Example:
        if isinstance(found, Reject):
            raise _Rejected(found.reason)
        try:
            example = self.task.read(found.values)
        except DataError as error:
            raise _Rejected(str(error)) from None
        texts = tuple(self.predictor.clean(text) for text in example.texts)
        if not any(text.strip() for text in texts):
            raise _Rejected("the text is blank; fill it")
        return Example(texts, place=found.place)

    def _row(self, record: Record, answer: Mapping[str, Any]) -> dict[str, Any]:
        row = {**record.values, **{self.names[name]: value for name, value in answer.items()}}
        for name in self.changed:
            held, value = self.plan.columns[name], row.get(name)
            if held == "number" and value is not None:
                row[name] = float(value)
            elif value is not None and not (held == "text" and isinstance(value, str)):
                row[name] = json_text(value)
        return row


class _Rejected(Exception):
    pass


def answer_names(answer: Mapping[str, Any], columns: Sequence[str] | Mapping[str, Any]) -> dict[str, str]:
    """The column of each part of an answer: its name, with predicted_ in front where the input has such a column.

    Raises DataError if the input has that one, too.
    """
    names = {name: f"predicted_{name}" if name in columns else name for name in answer}
    clash = next((name for name in names.values() if name in columns), None)
    if clash is not None:
        raise DataError(f"column {clash!r} of the input is an answer's; rename it")
    return names


def _line(path: str, found: Record | Reject, reason: str) -> bytes:
    told: dict[str, Any] = {"file": path, "row": found.row, "reason": reason}
    if isinstance(found, Record):
        told["values"] = found.values
    elif found.raw is not None:
        told["raw"] = found.raw
    return json_line(told).encode("utf-8", "backslashreplace")
