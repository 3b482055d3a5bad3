"""Divides a source into training, validation and test examples. The test split is read once, by `Parts.read_test`.

Copies (exact and near) and groups never straddle the parts carved here. Copies that a source's own splits share are
counted by `shared_copies` and reported, not removed: the official test split stays the official test split.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distilora import duplicates
from distilora.cleaning import Cleaning, cleaning
from distilora.config import DataConfig
from distilora.errors import ConfigError, DataError
from distilora.examples import Examples, read_examples
from distilora.labels import names_in, order_labels, order_note
from distilora.matching import matched
from distilora.progress import say
from distilora.sources import Source, open_source
from distilora.splits import carve, sample
from distilora.tasks import Task
from distilora.tasks.classification import LABEL_COLUMNS, TEXT_COLUMNS, Classification, check_columns, find_column

FEW = 5  # training examples of a class below which it is said to be rare
MOST_LISTED = 5  # classes


@dataclass
class Parts:
    """What a run trains on, chooses on, and is measured on at the end."""

    task: Task
    cleaning: Cleaning
    train: Examples
    validation: Examples
    read_test: Callable[[], Examples] | None
    summary: dict[str, Any]  # counts for metrics.json and the report
    notes: list[str] = field(default_factory=list)  # sentences for them; `read_test` may add some


def read_parts(config: DataConfig, task: Task | None = None) -> Parts:
    """Reads the training split and carves the parts out of it; without a task, classification is set up from the data.

    Raises DataError or ConfigError naming the field (and row) at fault.
    """
    source = open_source(config.path, config.name, config.revision)
    test_source, test_split = _test_source(config, source)
    say(f"data: {source.name}, split {config.train_split}")
    task = task or _classification(config, source)
    step = cleaning(config.cleaning)

    notes: list[str] = []

    def read(where: Source, split: str, field: str, name: str, group_column: str | None = None) -> Examples:
        records = where.records(split, field)
        if isinstance(task, Classification) and task.label_column is not None:
            names = where.label_names.get(task.label_column)
            if where is not source or (names is None and config.labels is None):  # else as in training
                records = matched(records, task, names, f"{where.name}, {split}", notes)
        return read_examples(records, task.read, step.clean, name, config.strict, group_column)

    everything = read(source, config.train_split, "data.train_split", config.train_split, config.group_column)
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
    _check_targets(everything, task)
    carving = test_split == "heldout" or config.validation_split is None
    clusters, pairs = _clusters(everything) if carving else (np.arange(len(everything)), 0)
    summary["near_copies_kept_together"] = pairs

    rest = np.arange(len(everything))
    strata = _strata(everything, task)

    def take(size: int, field: str) -> NDArray[np.int64]:
        nonlocal rest
        size = min(size, len(rest) - 1)
        stay, out = carve([strata[i] for i in rest], clusters[rest], size, config.seed, field)
        if not len(out):
            raise ConfigError(_none_to_spare(config, field, len(rest), heldout is not None))
        if not size / 2 <= len(out) <= size:
            say(f"note: {field}: {len(out):,} examples instead of {size:,}: copies and groups stay together")
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
    rare = _rare_classes(task, [train, validation] if heldout is None else [train, validation, heldout])
    if rare:
        say(f"warning: {rare}")
        notes.append(rare)

    read_test: Callable[[], Examples] | None = None
    if heldout is not None:
        kept = heldout
        read_test = lambda: kept  # noqa: E731 - a value behind the same door as a split read late
    elif test_source is not None:
        late = test_source
        name = "test" if test_split in ("train", "validation") else test_split  # those are the names of other parts
        read_test = lambda: read(late, test_split, "data.test_split", name)  # noqa: E731
    return Parts(task, step, train, validation, read_test, summary, notes)


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
        other = open_source(config.test_path, setting="data.test_path")
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
    check_columns(text, label)
    names = source.label_names.get(label)
    places = names_in(source.records(config.train_split, "data.train_split"), label) if names is None else {}
    say(f"data: text from column {text!r}, label from column {label!r}")
    task = Classification(order_labels(places, names, config.labels), text, label)
    if config.labels is not None:
        for name, place in places.items():
            try:
                task.index(name)
            except DataError:
                raise DataError(
                    f"{place}: data.labels: {name!r} is not in the list ({', '.join(task.labels)}); add it, or correct the row"
                ) from None
    elif names is None and (note := order_note(task.labels)):
        say(f"note: {note}")
    return task


def _strata(examples: Examples, task: Task) -> list[Any]:
    if not task.labels:
        return [0] * len(examples)
    return [task.labels[target] if isinstance(target, int) else target for target in examples.targets]


def _check_targets(examples: Examples, task: Task) -> None:
    """Raises DataError if fewer than two classes have examples."""
    found = sorted(
        {task.labels[target] for target in examples.targets if isinstance(target, int)} if task.labels else ()
    )
    if len(found) == 1:
        raise DataError(
            f"data.label_column: split {examples.split} holds examples of {found[0]!r} only; two classes or more are needed"
        )


def _none_to_spare(config: DataConfig, field: str, count: int, held_out: bool) -> str:
    """Why nothing could be carved out of `count` examples, and what works instead."""
    if field == "data.heldout" and config.validation_split is not None:
        instead = "give --data.test_split none"
    elif field == "data.heldout":
        instead = (
            "give splits of their own with --data.validation_split, and --data.test_path or --data.test_split none"
        )
    elif held_out:
        instead = "give --data.test_split none, to validate on what is now held out for the test"
    else:
        instead = "give a split of their own with --data.validation_split"
    together = "copies" if config.group_column is None else f"copies and equal values of {config.group_column!r}"
    return (
        f"{field}: none of {count:,} examples can be spared (every class keeps one to train on, and {together} stay "
        f"together); add examples, or {instead}"
    )


def _rare_classes(task: Task, parts: Sequence[Examples]) -> str:
    """A sentence on classes that a part has no example of, or training fewer than FEW; empty if there are none."""
    counts = [Counter(part.targets) for part in parts]
    if not task.labels or not all(isinstance(target, int) for count in counts for target in count):
        return ""
    rare = [i for i in range(len(task.labels)) if counts[0][i] < FEW or not all(count[i] for count in counts)]
    if not rare:
        return ""
    listed = "; ".join(
        f"{task.labels[i]!r} has "
        + ", ".join(f"{_examples(count[i])} in {part.split}" for count, part in zip(counts, parts, strict=True))
        for i in rare[:MOST_LISTED]
    )
    more = f"; and {len(rare) - MOST_LISTED:,} more" if len(rare) > MOST_LISTED else ""
    return (
        f"Rare classes: {listed}{more}. They are hardly learnt, and the figures say little or nothing about them; add "
        "examples."
    )


def _examples(count: int) -> str:
    return "none" if count == 0 else "1 example" if count == 1 else f"{count:,} examples"


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
