"""Answers a table, a file of texts or standard input row by row, in order, with about a thousand rows in memory.

    records -> text column, cleaned -> predictor.answers -> (record, answer) -> a table with the answer's columns added

A blank text has an answer of nulls; a record that cannot be read stops the prediction with an error that names the row.
"""

import sys
from collections import deque
from collections.abc import Container, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from itertools import islice
from typing import Any, NamedTuple

from distilora.data.examples import Example
from distilora.errors import ConfigError, DataError
from distilora.files.output import writing_file
from distilora.files.records import DELIMITERS
from distilora.files.tables import Record, TableWriter, format_of, read_stream, read_table
from distilora.inference import predictor as predict
from distilora.inference.predictor import Predictor
from distilora.progress import Progress

STDIN, STDOUT = "standard input", "standard output"


class Answered(NamedTuple):
    """Record with its answer, whose values are all None where the text is blank."""

    record: Record
    answer: dict[str, Any]
    blank: bool


def predict_table(
    predictor: Predictor,
    source: str,
    output: str,
    *,
    input_format: str | None = None,
    output_format: str = "jsonl",
    text_column: str | None = None,
    separator: str | None = None,
    limit: int | None = None,
    strict: bool = False,
) -> dict[str, int]:
    """Stream a table through the model and write it with the answer's columns added, in the same order.

    A blank text gets nulls (with `strict`, an error). `source` '-' is standard input, in `input_format`; `output` '-' is
    standard output, in `output_format` (csv, tsv, jsonl). Only the first `limit` rows are answered. Returns the counts of
    rows and blank rows. Raises DataError naming the row, OutputError naming a file that cannot be written; nothing is then
    left at `output`.
    """
    counts = {"rows": 0, "blank": 0}
    chunks = answered(predictor, input_records(source, input_format, separator, limit), text_column, strict)
    names: dict[str, str] = {}
    sample: dict[str, Any] = {}
    with ExitStack() as stack:
        if output == "-":
            out = stack.enter_context(TableWriter(STDOUT, stream=sys.stdout.buffer, kind=output_format))
        else:
            stack.enter_context(writing_file(output))
            out = stack.enter_context(TableWriter(output))
        shown = output != "-" or not sys.stdout.isatty()  # on a terminal the bar would stand among the answers
        bar = stack.enter_context(Progress("predicting" if shown else "", None, "rows"))
        for rows in chunks:
            if not sample:
                sample = next((row.answer for row in rows if not row.blank), {}) or _sample(predictor)
                names = answer_columns(sample, rows[0].record.values)
            added = set(names.values())
            if clash := next((row.record for row in rows if added & set(row.record.values)), None):
                raise DataError(
                    f"{clash.place}: column {(added & set(clash.values)).pop()!r} is an answer's; rename it"
                )
            out.write(
                [{**row.record.values, **{names[k]: v for k, v in row.answer.items()}} for row in rows],
                like={names[k]: v for k, v in sample.items()},
            )
            counts["rows"] += len(rows)
            counts["blank"] += sum(row.blank for row in rows)
            bar.add(len(rows))
        if not counts["rows"]:
            raise DataError(f"{STDIN if source == '-' else source}: no records; give a file with some")
    return counts


def answer_columns(answer: Iterable[str], columns: Container[str]) -> dict[str, str]:
    """Name the column of each part of an answer: as the part, prefixed with predicted_ if the input has such a column."""
    return {name: f"predicted_{name}" if name in columns else name for name in answer}


def input_records(
    source: str, input_format: str | None = None, separator: str | None = None, limit: int | None = None
) -> Iterator[Record]:
    """Read the first `limit` records (None: all) of a file, or of standard input ('-'), by default with a text per line.

    Raises DataError if `input_format` is not the file's, ConfigError for a separator where the format has none.
    """
    kind = input_format or "txt" if source == "-" else format_of(source)
    if input_format not in (None, kind):
        raise DataError(f"--input-format: {input_format} given, but {source} is {kind}; drop it")
    if separator is not None and kind not in DELIMITERS:
        name = STDIN if source == "-" else source
        raise ConfigError(f"--separator: given, but {name} is {kind}, which has none; drop it")
    records = _standard_input(kind, separator) if source == "-" else read_table(source, separator)
    return islice(records, limit)


def _standard_input(kind: str, separator: str | None) -> Iterator[Record]:
    try:
        yield from read_stream(sys.stdin.buffer, kind, STDIN, separator)
    except OSError as error:
        raise DataError(f"{STDIN}: cannot be read ({error.strerror or error}); give a file with --input") from None


def answered(
    predictor: Predictor, records: Iterator[Record], text_column: str | None = None, strict: bool = False
) -> Iterator[list[Answered]]:
    """Yield records with their answers, a few hundred at a time, in order. Raises DataError naming the row at fault."""
    read_so_far: deque[tuple[list[Record], list[bool]]] = deque()

    def chunks() -> Iterator[list[Example]]:
        while chunk := list(islice(records, predict.STREAM)):
            examples, blank = _read_examples(predictor, chunk, text_column, strict)
            read_so_far.append((chunk, blank))
            yield examples

    nulls: dict[str, Any] = {}
    for answers in predictor.answers(chunks()):
        chunk, blank = read_so_far.popleft()
        nulls = nulls or dict.fromkeys(answers[0] if answers else _sample(predictor))
        answers_left = iter(answers)
        yield [Answered(r, nulls if b else next(answers_left), b) for r, b in zip(chunk, blank, strict=True)]


def _sample(predictor: Predictor) -> dict[str, Any]:
    """Return an answer of the model, whatever it says, for its keys and the types of its values."""
    return predictor.answer([Example(("blank",))])[0]


def _read_examples(
    predictor: Predictor, records: Sequence[Record], text_column: str | None, strict: bool
) -> tuple[list[Example], list[bool]]:
    """Return the cleaned examples of the records whose text is not blank, and for each record whether it is."""
    task = predictor.task.for_prediction(records[0].values, text_column)
    examples: list[Example] = []
    blank: list[bool] = []
    for record in records:
        try:
            example = task.read(record.values)
        except DataError as error:
            raise DataError(f"{record.place}: {error}") from None
        cleaned = task.cleaned(replace(example, place=record.place), predictor.cleaning)
        blank.append(not any(text.strip() for text in cleaned.texts))
        if not blank[-1]:
            examples.append(cleaned)
        elif strict:
            raise DataError(f"{record.place}: the text is blank; fill it, or drop --strict to leave its answer empty")
    return examples, blank
