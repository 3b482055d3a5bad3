"""Divides a source into training, validation and test examples. The test split is read once, by `Parts.read_test`.

Copies (exact and near) and groups never straddle the parts carved here. Copies that a source's own splits share are
counted by `overlap.shared_copies` and reported, not removed: the official test split stays as it is.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distilora.config.schema import DataConfig
from distilora.data import duplicates
from distilora.data.cleaning import Cleaning, cleaning
from distilora.data.examples import Examples, Reader, read_examples
from distilora.data.sources import Source, open_source
from distilora.data.splits import carve, sample
from distilora.errors import ConfigError, DataError
from distilora.files.kinds import kind_of
from distilora.files.records import DELIMITERS
from distilora.progress import say


@dataclass
class Parts:
    """The examples that a run trains on, chooses on, and is measured on at the end."""

    cleaning: Cleaning
    train: Examples
    validation: Examples
    read_test: Callable[[], Examples] | None
    summary: dict[str, Any]  # counts for metrics.json and the report
    notes: list[str] = field(default_factory=list)  # sentences for both; `read_test` may add more


def read_parts(config: DataConfig, task: Reader) -> Parts:
    """Read the training split by `task` and carve the parts out of it.

    Raises DataError or ConfigError naming the field (and row) at fault.
    """
    source = open_source(config.path, config.name, config.revision, separator=config.separator)
    test_source, test_split = find_test(config, source)
    say(f"data: {source.name}, split {config.train_split}")
    step = cleaning(config.cleaning)

    notes: list[str] = []

    def read(origin: Source, split: str, field: str, name: str, group_column: str | None = None) -> Examples:
        records = task.records(origin, split, field, notes, config if origin is source else None)
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
    task.check(everything)
    carving = test_split == "heldout" or config.validation_split is None
    clusters, pairs = _clusters(everything) if carving else (np.arange(len(everything)), 0)
    summary["near_copies_kept_together"] = pairs

    rest = np.arange(len(everything))
    strata = task.strata(everything.targets)

    def take(size: int, field: str) -> NDArray[np.int64]:
        nonlocal rest
        size = min(size, len(rest) - 1)
        kept, carved = carve([strata[i] for i in rest], clusters[rest], size, config.seed, field)
        if not len(carved):
            raise ConfigError(_none_to_spare(config, field, len(rest), heldout is not None))
        if not size / 2 <= len(carved) <= size:
            say(f"note: {field}: {len(carved):,} examples instead of {size:,}: copies and groups stay together")
        carved, rest = rest[carved], rest[kept]
        return carved

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
    remarks = task.remarks([train, validation] if heldout is None else [train, validation, heldout])
    for remark in remarks:
        say(f"warning: {remark}")
    notes += remarks

    read_test: Callable[[], Examples] | None = None
    if heldout is not None:
        carved_test = heldout
        read_test = lambda: carved_test  # noqa: E731 - the same interface as a split that is read late
    elif test_source is not None:
        late_source = test_source
        name = "test" if test_split in ("train", "validation") else test_split  # those are the names of other parts
        read_test = lambda: read(late_source, test_split, "data.test_split", name)  # noqa: E731
    return Parts(step, train, validation, read_test, summary, notes)


def find_test(config: DataConfig, source: Source) -> tuple[Source | None, str]:
    """Find source and split of the test; they must exist, but are not read. 'heldout' and 'none' have no source."""
    if config.test_path is not None:
        separable = kind_of(config.test_path) in DELIMITERS or Path(config.test_path).is_dir()
        separator = config.separator if separable else None
        test = open_source(config.test_path, setting="data.test_path", separator=separator)
        split = "test" if config.test_split == "auto" else config.test_split
        if len(test.splits) == 1 and config.test_split == "auto":
            split = test.splits[0]
        if split not in test.splits:
            raise DataError(f"data.test_split: {test.name} has no split {split!r}; it has {', '.join(test.splits)}")
        return test, split
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


def _none_to_spare(config: DataConfig, field: str, count: int, held_out: bool) -> str:
    """Explain why nothing could be carved out of `count` examples, and what works instead."""
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
    units = "copies" if config.group_column is None else f"copies and equal values of {config.group_column!r}"
    return (
        f"{field}: none of {count:,} examples can be spared (every class keeps one to train on, and {units} stay "
        f"together); add examples, or {instead}"
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
    """Find the clusters of near copies and groups, and count the pairs of near copies."""
    sets = duplicates.shingles([" ".join(example.texts) for example in examples.items])
    pairs = duplicates.near_copies(sets)
    first_of_group: dict[Any, int] = {}
    same_group = [
        (first_of_group.setdefault(example.group, i), i)
        for i, example in enumerate(examples.items)
        if example.group is not None
    ]
    links = np.concatenate([pairs, np.asarray(same_group, np.int64).reshape(-1, 2)])
    return duplicates.clusters(len(examples), links), len(pairs)
