"""Reads every labelled row of a source, and finds what is wrong with rows without a model: blank, odd, copied.

A row keeps its place, its number within its split, and the digest of its text before cleaning: by number and digest it is
found again when its correction comes back.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distilora.config.schema import DataConfig
from distilora.data import duplicates
from distilora.data.cleaning import cleaning
from distilora.data.examples import Reader, group_and_order, text_digest
from distilora.data.oddities import find_oddities
from distilora.data.parts import find_test
from distilora.data.sources import Source, open_source
from distilora.data.unlabelled import UNSUPERVISED
from distilora.errors import DataError
from distilora.files.tables import Record
from distilora.progress import Progress, say

LABEL, CONFLICT, LEAK, BLANK, ODD = "label", "copies with different labels", "copy across splits", "blank", "odd"
REASONS = (LABEL, CONFLICT, LEAK, BLANK, ODD)
SIMILAR = 0.5  # Jaccard similarity of near copies


@dataclass(frozen=True)
class Row:
    """Labelled record: its texts as they are in the data, and one cleaned text of them all."""

    split: str
    number: int  # from 1 within its split
    place: str
    texts: tuple[str, ...]
    cleaned: str
    target: Any
    digest: str
    group: Any = None


@dataclass(frozen=True)
class Finding:
    """Something that is wrong with the row `index`; `detail` says it in words, `other` is the row it is a copy of."""

    index: int
    reason: str
    detail: str
    other: int | None = None


@dataclass(frozen=True)
class Table:
    """All labelled rows of a source, those of its training split in front; `test` names the split that is never fitted on."""

    source: str
    splits: tuple[str, ...]
    test: str | None
    rows: list[Row]
    notes: list[str] = field(default_factory=list)

    @property
    def filled(self) -> NDArray[np.int64]:
        """Indices of the rows whose text is not blank."""
        return np.asarray([i for i, row in enumerate(self.rows) if row.cleaned], np.int64)


@dataclass(frozen=True)
class Copies:
    """Exact and near copies among the rows of a table that are not blank."""

    shingles: Sequence[NDArray[np.uint64]]  # of each row; empty for a blank one
    clusters: NDArray[np.int64]  # number for each row; near copies share it
    members: list[list[int]]  # of each cluster of two rows or more

    def most_similar(self, index: int, others: Sequence[int]) -> int | None:
        """Find the row among the first `others` that is most similar to `index`; None if none is a near copy."""
        first = others[: duplicates.CROWD]
        scores = [duplicates.similarity(self.shingles[index], self.shingles[other]) for other in first]
        best = int(np.argmax(scores)) if scores else 0
        return first[best] if scores and scores[best] >= SIMILAR else None


def read_labelled(config: DataConfig, task: Reader, label_column: str | None) -> Table:
    """Read the labelled splits of `data.path`, and of `data.test_path` the test split, by a task set up for them.

    Raises DataError naming the field (and row) at fault.
    """
    source = open_source(config.path, config.name, config.revision, separator=config.separator)
    test_source, test_split = find_test(config, source)
    rows: list[Row] = []
    notes: list[str] = [source.note] if source.note else []
    splits = [config.train_split, *(split for split in source.splits if split != config.train_split)]
    names = []
    for split in splits:
        if split == UNSUPERVISED or not _has_labels(source, split, label_column):
            say(f"note: {source.name}, {split}: skipped, it has no labels")
            continue
        names.append(split)
        records = task.records(source, split, "data.path", notes, config)
        rows += _rows(records, split, task, config)
    test: str | None = test_split
    if test_source is None:
        test = None
    elif test_source is not source:
        test = "test" if test_split in names else test_split
        if test in names:
            raise DataError(
                f"data.test_path: its split would be called {test}, as one of {source.name}; drop --data.test_path"
            )
        names.append(test)
        rows += _rows(task.records(test_source, test_split, "data.test_path", notes), test, task, config)
    return Table(source.name, tuple(names), test, rows, notes)


def _has_labels(source: Source, split: str, label_column: str | None) -> bool:
    first = next(iter(source.records(split, "data.path")), None)
    return first is not None and (label_column is None or label_column in first.values)


def _rows(records: Iterable[Record], name: str, task: Reader, config: DataConfig) -> Iterator[Row]:
    """Read the rows of the split `name`. Raises DataError naming the record at fault."""
    clean = cleaning(config.cleaning).clean
    with Progress(f"reading {name}", None, "records") as bar:
        for number, record in enumerate(records, 1):
            bar.add(1)
            try:
                example = task.read(record.values)
                group, _ = group_and_order(record.values, config) if config.group_column else (None, None)
            except DataError as error:
                raise DataError(f"{record.place}: {error}") from None
            cleaned = " ".join(clean(text) for text in example.texts).strip()
            digest = text_digest(example.texts)
            yield Row(name, number, record.place, example.texts, cleaned, example.target, digest, group)


def find_copies(table: Table) -> Copies:
    """Find the clusters of exact and near copies, within splits and across them."""
    filled = table.filled
    of_filled = duplicates.shingles([table.rows[i].cleaned for i in filled])
    pairs = filled[duplicates.near_copies(of_filled, SIMILAR)]
    shingles: list[NDArray[np.uint64]] = [np.empty(0, np.uint64)] * len(table.rows)
    for i, hashes in zip(filled, of_filled, strict=True):
        shingles[i] = hashes
    clusters = duplicates.clusters(len(table.rows), pairs)
    members: dict[int, list[int]] = {}
    for i, cluster in enumerate(clusters):
        members.setdefault(int(cluster), []).append(i)
    return Copies(shingles, clusters, [indices for indices in members.values() if len(indices) > 1])


def with_groups(table: Table, copies: Copies) -> NDArray[np.int64]:
    """Join the clusters of copies with the groups of `data.group_column`; return a number for each row."""
    first: dict[Any, int] = {}
    links = [(first.setdefault(row.group, i), i) for i, row in enumerate(table.rows) if row.group is not None]
    links += [(int(cluster), i) for i, cluster in enumerate(copies.clusters) if cluster != i]
    return duplicates.clusters(len(table.rows), np.asarray(links, np.int64).reshape(-1, 2))


def find_conflicts(table: Table, copies: Copies) -> list[Finding]:
    """Find rows that have a near copy with another label."""
    findings = []
    for members in copies.members:
        if len({table.rows[i].target for i in members}) < 2:
            continue
        for i in members:
            others = [j for j in members if table.rows[j].target != table.rows[i].target]
            other = copies.most_similar(i, others)
            if other is not None:
                findings.append(
                    Finding(i, CONFLICT, f"copy of {table.rows[other].place}, which has another label", other)
                )
    return findings


def find_leaks(table: Table, copies: Copies) -> list[Finding]:
    """Find rows of later splits that have an exact or near copy in an earlier one."""
    rank = {split: n for n, split in enumerate(table.splits)}
    findings = []
    for members in copies.members:
        for i in members:
            earlier = [j for j in members if rank[table.rows[j].split] < rank[table.rows[i].split]]
            other = copies.most_similar(i, earlier)
            if other is not None:
                row = table.rows[other]
                findings.append(
                    Finding(i, LEAK, f"{table.rows[i].split} row, copy of {row.place} ({row.split})", other)
                )
    return findings


def count_leaks(table: Table, copies: Copies) -> dict[str, int]:
    """Count, for each pair of splits, the rows of the second that have a copy in the first."""
    counts = {}
    for first, second in combinations(table.splits, 2):
        count = 0
        for members in copies.members:
            inside = [j for j in members if table.rows[j].split == first]
            of_second = [i for i in members if table.rows[i].split == second]
            count += sum(copies.most_similar(i, inside) is not None for i in of_second)
        counts[f"{first} / {second}"] = count
    return counts


def find_blank_and_odd(table: Table) -> list[Finding]:
    """Find rows without a text, and rows whose text is unlike the others (oddities.py)."""
    findings = [Finding(i, BLANK, "no text") for i, row in enumerate(table.rows) if not row.cleaned]
    filled = table.filled
    odd = find_oddities([table.rows[i].cleaned for i in filled])
    return findings + [Finding(int(filled[i]), ODD, detail) for i, detail in odd]
