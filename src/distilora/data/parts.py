"""Divides a source into training, validation and test examples. The test split is read once, by `Parts.read_test`.

Copies (exact and near) and groups never straddle the parts carved here. Copies that a source's own splits share are
counted by `overlap.shared_copies` and reported, not removed: the official test split stays as it is.
"""

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distilora.config.schema import CARVED, DataConfig
from distilora.data import duplicates
from distilora.data.cleaning import Cleaning, cleaning
from distilora.data.examples import Examples, Reader, read_examples
from distilora.data.sources import Source, open_source
from distilora.data.splits import carve, consecutive, sample
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
    spare: Examples  # labelled, in no other part: what `train_size` leaves out
    clusters: NDArray[np.int64]  # of near copies and groups: a number for each example of train, then of spare
    notes: list[str] = field(default_factory=list)  # sentences for both; `read_test` may add more

    def only(self, chosen: NDArray[np.int64]) -> "Parts":
        """Return these parts with only the training examples `chosen`, and no spare ones: nothing else has a label."""
        chosen = np.sort(chosen)
        summary = {**self.summary, "train": len(chosen)}
        train, spare = self.train.take(chosen), Examples("spare")
        return replace(self, train=train, spare=spare, clusters=self.clusters[chosen], summary=summary)


def read_parts(config: DataConfig, task: Reader) -> Parts:
    """Read the training split by `task` and carve the parts out of it: held-out examples, validation, training.

    Raises DataError or ConfigError naming the field (and row) at fault.
    """
    source = open_source(config.path, config.name, config.revision, separator=config.separator)
    config = settle(config, source)
    test_source, test_split = find_test(config, source)
    say(f"data: {source.name}, split {config.train_split}")
    read = _SplitReader(config, task, source)

    # all labelled examples of the training split, each text once
    everything = read(source, config.train_split, "data.train_split", columns=config)
    records = len(everything) + everything.skipped
    everything, dropped = _without_copies(everything) if config.deduplicate else (everything, 0)
    if dropped:
        say(f"{config.train_split}: dropped {dropped:,} exact copies")
    task.check(everything)

    # carve: first what is measured on at the end, then what is chosen on; training keeps the rest
    pool = _Pool(config, everything, task.strata(everything.targets), test_split)
    heldout = pool.carve_heldout() if test_split == "heldout" else None
    assert config.validation_split is not None  # settled
    if config.validation_split == CARVED:
        validation, origin = pool.carve_validation(), f"carved out of {config.train_split}"
    else:
        validation = read(source, config.validation_split, "data.validation_split")
        origin = f"split {config.validation_split}"
    train, spare, clusters = pool.rest()
    say(f"data: {len(train):,} to train on, {len(validation):,} to validate on ({origin}), test split: {test_split}")
    for remark in (remarks := task.remarks([train, validation, *([heldout] if heldout else [])])):
        say(f"warning: {remark}")
    read.notes += remarks

    read_test: Callable[[], Examples] | None = None
    if heldout is not None:
        read_test = partial(_same, heldout)
    elif test_source is not None:
        name = "test" if test_split in ("train", "validation") else test_split  # those are the names of other parts
        read_test = partial(read, test_source, test_split, "data.test_split", name)
    summary = {
        "source": source.name,
        "note": source.note,
        "read": records,
        "blank_skipped": everything.skipped,
        "exact_copies_dropped": dropped,
        "group_column": config.group_column,
        "carve": config.carve,
        "near_copies_kept_together": pool.near_copies,
        "train": len(train),
        "validation": len(validation),
        "test_split": test_split,
    }
    return Parts(read.cleaning, train, validation, read_test, summary, spare, clusters, read.notes)


class _SplitReader:
    """Reads splits of any source by the run's task and cleaning; gathers notes on what a reader should know."""

    def __init__(self, config: DataConfig, task: Reader, source: Source) -> None:
        self.config, self.task, self.source = config, task, source
        self.cleaning = cleaning(config.cleaning)
        self.notes: list[str] = []

    def __call__(
        self, source: Source, split: str, field: str, name: str | None = None, columns: DataConfig | None = None
    ) -> Examples:
        """Read a split as the part `name` (None: the split's own name); `field` names it in errors."""
        training = self.config if source is self.source else None
        records = self.task.records(source, split, field, self.notes, training)
        return read_examples(records, self.task, self.cleaning, name or split, self.config.strict, columns)


class _Pool:
    """Examples that parts are carved out of: stratified, and without dividing clusters of copies and groups."""

    def __init__(self, config: DataConfig, examples: Examples, strata: list[Hashable], test_split: str) -> None:
        self.config, self.examples, self.strata = config, examples, strata
        self._left = np.arange(len(examples))
        self._held_out = False
        if test_split == "heldout" or config.validation_split == CARVED:
            self.clusters, self.near_copies = _clusters(examples)
        else:  # nothing is carved
            self.clusters, self.near_copies = np.arange(len(examples)), 0
        self._order: NDArray[np.float64] | None = None  # kept for both carves: their stretches adjoin
        if config.carve == "consecutive":
            positions = [i if example.order is None else example.order for i, example in enumerate(examples.items)]
            self._order = consecutive(strata, np.asarray(positions, np.float64), config.seed)

    def carve_heldout(self) -> Examples:
        """Carve out the share that is measured on at the end."""
        size = max(round(self.config.heldout * len(self.examples)), 1)
        heldout = self._carve(size, "data.heldout", "heldout")
        self._held_out = True
        return heldout

    def carve_validation(self) -> Examples:
        """Carve out the examples to validate on, at most a fifth of what is left."""
        size = min(self.config.validation_size, max(len(self._left) // 5, 2))
        if size < self.config.validation_size:
            say(
                f"note: {size:,} examples to validate on instead of {self.config.validation_size:,}: no more than a fifth is "
                "taken"
            )
        return self._carve(size, "data.validation_size", "validation")

    def rest(self) -> tuple[Examples, Examples, NDArray[np.int64]]:
        """Give what is left: all of it to train on or a stratified sample, the others, and the clusters of both in order."""
        left, others = self._left, self._left[:0]
        if self.config.train_size is not None:
            strata = [self.strata[i] for i in left]
            chosen = sample(strata, self.config.train_size, self.config.seed, "data.train_size")
            left, others = left[chosen], np.delete(left, chosen)
        clusters = self.clusters[np.concatenate([left, others])]
        return self.examples.take(left, "train"), self.examples.take(others, "spare"), clusters

    def _carve(self, size: int, field: str, name: str) -> Examples:
        left = self._left
        size = min(size, len(left) - 1)
        order = None if self._order is None else self._order[left]
        kept, carved = carve([self.strata[i] for i in left], self.clusters[left], size, self.config.seed, field, order)
        if not len(carved):
            raise ConfigError(_none_to_spare(self.config, field, len(left), self._held_out))
        if not size / 2 <= len(carved) <= size:
            say(f"note: {field}: {len(carved):,} examples instead of {size:,}: copies and groups stay together")
        self._left = left[kept]
        return self.examples.take(left[carved], name)


def _same(examples: Examples) -> Examples:
    return examples


def open_beside(path: str, setting: str, config: DataConfig) -> Source:
    """Open a source that `setting` names beside data.path; data.separator holds for its csv and tsv files, too."""
    separable = kind_of(path) in DELIMITERS or Path(path).is_dir()
    return open_source(path, setting=setting, separator=config.separator if separable else None)


def settle(config: DataConfig, source: Source) -> DataConfig:
    """Name the splits that the settings leave open: that of a single file to train on, and the one to validate on."""
    train, validation = config.train_split, config.validation_split
    if train == "train" and len(source.splits) == 1 and kind_of(config.path) is not None:
        train = source.splits[0]
    if validation is None:
        others = set(source.splits) - {train, config.test_split if config.test_path is None else None}
        validation = "validation" if "validation" in others else CARVED
    return replace(config, train_split=train, validation_split=validation)


def find_test(config: DataConfig, source: Source) -> tuple[Source | None, str]:
    """Find source and split of the test; they must exist, but are not read. 'heldout' and 'none' have no source."""
    config = settle(config, source)
    if config.test_path is not None:
        test = open_beside(config.test_path, "data.test_path", config)
        split = "test" if config.test_split == "auto" else config.test_split
        if len(test.splits) == 1 and config.test_split == "auto":
            split = test.splits[0]
        if split not in test.splits:
            raise DataError(
                f"data.test_split: {test.name} has no split {split!r}; it has {', '.join(test.splits)}; name one"
            )
        return test, split
    if config.test_split == "auto":
        if "test" in source.splits and "test" not in (config.train_split, config.validation_split):
            return source, "test"
        return None, "heldout" if config.heldout else "none"
    if config.test_split in ("heldout", "none"):
        return None, config.test_split
    if config.test_split not in source.splits:
        raise DataError(
            f"data.test_split: {source.name} has no split {config.test_split!r}; it has {', '.join(source.splits)}; name one, or "
            "give heldout, to carve one out, or none"
        )
    if config.test_split in (config.train_split, config.validation_split):
        raise ConfigError(f"data.test_split: {config.test_split} is also trained or chosen on; give another split")
    return source, config.test_split


def _none_to_spare(config: DataConfig, field: str, count: int, held_out: bool) -> str:
    """Explain why nothing could be carved out of `count` examples, and what works instead."""
    if field == "data.heldout" and config.validation_split != CARVED:
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
