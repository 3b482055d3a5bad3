"""Divides a source into training, validation and test examples. The test split is read once, by `Parts.read_test`.

Copies (exact and near) and groups never straddle the parts carved here. Copies that a source's own splits share are
counted by `shared_copies` and reported, not removed: the official test split stays the official test split.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distilora import duplicates
from distilora.cleaning import Cleaning, cleaning
from distilora.config import DataConfig
from distilora.errors import ConfigError, DataError
from distilora.examples import Examples, read_examples
from distilora.progress import say
from distilora.reading import DELIMITERS
from distilora.sources import Source, open_source
from distilora.splits import carve, sample
from distilora.table_kinds import kind_of
from distilora.tasks import Task
from distilora.tasks.classification import (
    LABEL_COLUMNS,
    TEXT_COLUMNS,
    Classification,
    find_column,
    order_labels,
)


@dataclass
class Parts:
    """What a run trains on, chooses on, and is measured on at the end."""

    task: Task
    cleaning: Cleaning
    train: Examples
    validation: Examples
    read_test: Callable[[], Examples] | None
    summary: dict[str, Any]  # counts and notes for metrics.json and the report


def read_parts(config: DataConfig, task: Task | None = None) -> Parts:
    """Reads the training split and carves the parts out of it; without a task, classification is set up from the data.

    Raises DataError or ConfigError naming the field (and row) at fault.
    """
    source = open_source(config.path, config.name, config.revision, separator=config.separator)
    test_source, test_split = _test_source(config, source)
    say(f"data: {source.name}, split {config.train_split}")
    task = task or _classification(config, source)
    step = cleaning(config.cleaning)

    def read(where: Source, split: str, field: str, name: str, group_column: str | None = None) -> Examples:
        return read_examples(where.records(split, field), task.read, step.clean, name, config.strict, group_column)

    everything = read(source, config.train_split, "data.train_split", config.train_split, config.group_column)
    _check_targets(everything, task)
    summary: dict[str, Any] = {
        "source": source.name,
        "note": source.note,
        "read": len(everything) + everything.skipped,
        "blank_skipped": everything.skipped,
        "exact_copies_dropped": 0,
        "group_column": config.group_column,
    }
    if config.deduplicate:
        everything, dropped = _without_copies(everything)
        summary["exact_copies_dropped"] = dropped
        if dropped:
            say(f"{config.train_split}: dropped {dropped:,} exact copies")
    carving = test_split == "heldout" or config.validation_split is None
    clusters, pairs = _clusters(everything) if carving else (np.arange(len(everything)), 0)
    summary["near_copies_kept_together"] = pairs

    rest = np.arange(len(everything))
    strata = _strata(everything, task)

    def take(size: int, field: str) -> NDArray[np.int64]:
        nonlocal rest
        stay, out = carve([strata[i] for i in rest], clusters[rest], size, config.seed, field)
        taken, rest = rest[out], rest[stay]
        return taken

    heldout = None
    if test_split == "heldout":
        size = max(round(config.heldout * len(everything)), 1)
        heldout = everything.take(take(size, "data.heldout"), "heldout")
    if config.validation_split is not None:
        validation = read(source, config.validation_split, "data.validation_split", config.validation_split)
    else:
        size = min(config.validation_size, max(len(rest) // 5, 2))
        if size < config.validation_size:
            say(
                f"note: {size:,} examples to validate on instead of {config.validation_size:,}: no more than a fifth is taken"
            )
        validation = everything.take(take(size, "data.validation_size"), "validation")
    if config.train_size is not None:
        rest = rest[sample([strata[i] for i in rest], config.train_size, config.seed, "data.train_size")]
    train = everything.take(rest, "train")
    summary |= {"train": len(train), "validation": len(validation), "test_split": test_split}
    say(f"data: {len(train):,} to train on, {len(validation):,} to validate on, test split: {test_split}")

    read_test: Callable[[], Examples] | None = None
    if heldout is not None:
        kept = heldout
        read_test = lambda: kept  # noqa: E731 - a value behind the same door as a split read late
    elif test_source is not None:
        late = test_source
        name = "test" if test_split in ("train", "validation") else test_split  # those are the names of other parts
        read_test = lambda: read(late, test_split, "data.test_split", name)  # noqa: E731
    return Parts(task, step, train, validation, read_test, summary)


def shared_copies(parts: dict[str, Examples]) -> dict[str, dict[str, int]]:
    """For each pair of parts, how many examples of the second have an exact, or a near, copy in the first."""
    names = list(parts)
    sets = {
        name: duplicates.shingles([" ".join(e.texts) for e in part.items], f"shingles of {name}")
        for name, part in parts.items()
    }
    keys = {name: [duplicates.exact_key(" ".join(e.texts)) for e in part.items] for name, part in parts.items()}
    found: dict[str, dict[str, int]] = {}
    for n, first in enumerate(names):
        for second in names[n + 1 :]:
            pairs = duplicates.near_copies([*sets[first], *sets[second]])
            border = len(sets[first])
            near = {int(j) for i, j in pairs if i < border <= j}
            known = set(keys[first])
            exact = sum(key in known for key in keys[second])
            found[f"{first} / {second}"] = {"exact": exact, "exact or near": max(len(near), exact)}
    return found


def _test_source(config: DataConfig, source: Source) -> tuple[Source | None, str]:
    """The source and split of the test, checked to exist but not read; 'heldout' and 'none' have no source."""
    if config.test_path is not None:
        separable = kind_of(config.test_path) in DELIMITERS or Path(config.test_path).is_dir()
        separator = config.separator if separable else None
        other = open_source(config.test_path, setting="data.test_path", separator=separator)
        wanted = "test" if config.test_split == "auto" else config.test_split
        if len(other.splits) == 1 and config.test_split == "auto":
            wanted = other.splits[0]
        if wanted not in other.splits:
            raise DataError(f"data.test_split: {other.name} has no split {wanted!r}; it has {', '.join(other.splits)}")
        return other, wanted
    if config.test_split == "auto":
        if "test" in source.splits and "test" not in (config.train_split, config.validation_split):
            return source, "test"
        return None, "heldout" if config.heldout else "none"
    if config.test_split in ("heldout", "none"):
        return None, config.test_split
    if config.test_split not in source.splits:
        raise DataError(
            f"data.test_split: {source.name} has no split {config.test_split!r}; it has {', '.join(source.splits)}"
        )
    if config.test_split in (config.train_split, config.validation_split):
        raise ConfigError(f"data.test_split: {config.test_split} is also trained or chosen on; give another split")
    return source, config.test_split


def _classification(config: DataConfig, source: Source) -> Classification:
    records = source.records(config.train_split, "data.train_split")
    first = next(iter(records), None)
    if first is None:
        raise DataError(f"data.train_split: {source.name} {config.train_split} has no records; give another")
    text = find_column(first.values, config.text_column, TEXT_COLUMNS, "data.text_column")
    label = find_column(first.values, config.label_column, LABEL_COLUMNS, "data.label_column")
    names = source.label_names.get(label)
    values: Counter[Any] = Counter()
    if names is None and config.labels is None:
        for record in source.records(config.train_split, "data.train_split"):
            value = record.values.get(label)
            if value is None or not str(value).strip():
                raise DataError(f"{record.place}: data.label_column: {label!r} is blank; fill it, or drop the row")
            values[value] += 1
    say(f"data: text from column {text!r}, label from column {label!r}")
    return Classification(order_labels(values, names, config.labels), text, label)


def _strata(examples: Examples, task: Task) -> list[Any]:
    if not task.labels:
        return [0] * len(examples)
    return [task.labels[target] if isinstance(target, int) else target for target in examples.targets]


def _check_targets(examples: Examples, task: Task) -> None:
    if not task.labels:
        return
    counts = Counter(examples.targets)
    for index, label in enumerate(task.labels):
        if counts[index] < 2:
            raise DataError(
                f"data.label_column: class {label!r} has {counts[index]} example(s) in split {examples.split}; two are "
                "needed, add some or drop the class"
            )


def _without_copies(examples: Examples) -> tuple[Examples, int]:
    seen: set[str] = set()
    keep = []
    for i, example in enumerate(examples.items):
        key = duplicates.exact_key(" ".join(example.texts))
        if key not in seen:
            seen.add(key)
            keep.append(i)
    dropped = len(examples) - len(keep)
    return Examples(examples.split, [examples.items[i] for i in keep], examples.skipped), dropped


def _clusters(examples: Examples) -> tuple[NDArray[np.int64], int]:
    """Clusters of near copies and groups, and how many pairs of near copies there are."""
    sets = duplicates.shingles([" ".join(example.texts) for example in examples.items])
    pairs = duplicates.near_copies(sets)
    first: dict[Any, int] = {}
    same_group = [
        (first.setdefault(example.group, i), i) for i, example in enumerate(examples.items) if example.group is not None
    ]
    linked = np.concatenate([pairs, np.asarray(same_group, np.int64).reshape(-1, 2)])
    return duplicates.clusters(len(examples), linked), len(pairs)
