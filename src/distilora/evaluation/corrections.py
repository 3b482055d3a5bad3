"""Applies the labels chosen in Label Studio to a table. A row that has changed since the audit is refused, others pass through."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

from distilora.config.measuring import AuditConfig
from distilora.data.examples import Example, text_digest
from distilora.data.parts import settle
from distilora.data.sources import Source
from distilora.errors import ConfigError, DataError
from distilora.evaluation.audit import audited_source, audited_task
from distilora.evaluation.label_studio import Correction, read_corrections
from distilora.files.compression import compression_of, decompressed
from distilora.files.kinds import kind_of
from distilora.files.output import check_free, writing_file
from distilora.files.records import DELIMITERS
from distilora.files.tables import BATCH, WRITTEN, Record, TableWriter
from distilora.progress import Progress, say
from distilora.tasks.base import Task


def apply_corrections(config: AuditConfig, overwrite: bool = False) -> dict[str, int]:
    """Write `data.train_split` with its labels corrected to `config.output`, in the format of its ending.

    Returns the counts of `rows`, of labels `changed` and `kept` (confirmed), of tasks `unanswered`, of corrections `refused`
    because text or label of the row are no longer those of the audit, and of those `elsewhere`, in other splits.
    Raises DataError for an export that is none or a label that the data lack, ConfigError for an output that is no table.
    """
    assert config.apply is not None
    output = Path(config.output)
    if kind_of(output) not in WRITTEN or compression_of(output):
        raise ConfigError(f"output: {output} given, a file ending in .csv, .tsv, .jsonl or .parquet wanted")
    check_free(output, overwrite)
    if output.exists() and Path(config.data.path).exists() and output.samefile(config.data.path):
        raise ConfigError("output: the same file as DATA; give another name")
    corrections = read_corrections(config.apply)
    source = audited_source(config)
    config = replace(config, data=settle(config.data, source))
    task = audited_task(config)
    if task.label_column is None:
        raise ConfigError(f"task: {task.name} has no label column to correct")
    split = config.data.train_split
    here = {c.number: c for c in corrections if c.split == split}
    for number, correction in enumerate(corrections, 1):
        if correction.split == split and correction.label not in (None, *task.labels):
            raise DataError(
                f"apply: {config.apply}: task {number} (row {correction.number}): label {correction.label!r} is not one of "
                f"{', '.join(task.labels)}; correct it"
            )
    counts = dict.fromkeys(("rows", "changed", "kept", "unanswered", "refused"), 0)
    counts["elsewhere"] = len(corrections) - len(here)
    schema = source.schema(split) if kind_of(output) == "parquet" else None
    applicable = len(here)
    with writing_file(output), TableWriter(output, schema=schema, line_end=_line_end(config.data.path)) as out:
        rows = _corrected(source, config, task, here, counts)
        while batch := list(islice(rows, BATCH)):
            out.write(batch)
        counts["refused"] += len(here)  # of rows that are not there any more
        if applicable and counts["refused"] == applicable:  # nothing is written
            raise DataError(
                f"apply: {config.apply}: every correction is refused, since its row has changed after the audit; audit again"
            )
    if counts["refused"]:
        say(f"warning: {counts['refused']:,} corrections refused: their rows have changed since the audit; audit again")
    return counts


def _corrected(
    source: Source, config: AuditConfig, task: Task, corrections: dict[int, Correction], counts: dict[str, int]
) -> Iterator[dict[str, Any]]:
    """Yield the split's rows, corrected; take the corrections that were met out of `corrections`."""
    split, column = config.data.train_split, str(task.label_column)
    values_of = _values_of_labels(source.records(split, "data.train_split"), task)
    with Progress("correcting", None, "rows") as bar:
        for number, record in enumerate(source.records(split, "data.train_split"), 1):
            bar.add(1)
            counts["rows"] += 1
            correction = corrections.pop(number, None)
            if correction is None:
                yield dict(record.values)
                continue
            try:
                example = task.read(record.values)
            except DataError as error:
                raise DataError(f"{record.place}: {error}") from None
            outcome = _outcome(correction, example, task)
            counts[outcome] += 1
            label = {column: values_of[correction.label]} if outcome == "changed" and correction.label else {}
            yield {**record.values, **label}


def _line_end(path: str) -> str:
    """Return how the lines of a csv or tsv file end, by its first; a newline alone for anything else."""
    if kind_of(path) not in DELIMITERS or not Path(path).is_file():
        return "\n"
    with open(path, "rb") as stream:
        return "\r\n" if decompressed(stream, path).readline().endswith(b"\r\n") else "\n"


def _outcome(correction: Correction, example: Example, task: Task) -> str:
    if text_digest(example.texts) != correction.digest or str(task.target_name(example.target)) != correction.given:
        return "refused"
    if correction.label is None:
        return "unanswered"
    return "kept" if correction.label == correction.given else "changed"


def _values_of_labels(records: Iterable[Record], task: Task) -> dict[str, Any]:
    """Find how the data write each label: as it first stands there, such as 1 for pos; a label that does not, by its name."""
    values: dict[str, Any] = {}
    for record in records:
        value = record.values.get(str(task.label_column))
        try:
            label = str(task.target_name(task.read(record.values).target))
            values.setdefault(label, value.strip() if isinstance(value, str) else value)
        except DataError as error:
            raise DataError(f"{record.place}: {error}") from None
        if len(values) == len(task.labels):
            break
    return {**{label: label for label in task.labels}, **values}
