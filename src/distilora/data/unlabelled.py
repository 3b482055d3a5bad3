"""Reads texts without labels, less every copy of a text that the run trains on, chooses on or is measured on.

A copy is exact (`duplicates.exact_key`) or near (Jaccard similarity of the 5-word shingles of 0.5 or more). Copies of one
another are dropped only if exact. Of the test split only the texts are read, for this removal alone: they are turned into
fingerprints and shingles at once, and labels are not looked at.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from distilora.config.schema import DataConfig
from distilora.data.cleaning import Cleaning
from distilora.data.duplicates import fingerprints, near_matches, shingles
from distilora.data.examples import Examples, Reader, read_examples
from distilora.data.parts import Parts, find_test, open_beside
from distilora.data.sources import Source, open_source
from distilora.errors import DataError
from distilora.progress import say

UNSUPERVISED = "unsupervised"  # the split without labels of aclImdb and of its copy on the Hub


def read_unlabelled(config: DataConfig, task: Reader, parts: Parts) -> tuple[Examples, dict[str, Any]]:
    """Read the texts of `data.unlabelled` that are no copies; return them, targets None, with the counts of the others.

    The counts, as JSON values:

        source, split          where the texts come from
        read                   records
        blank_skipped          texts without a character
        exact_copies_dropped   texts that stand there a second time
        copies_removed         part -> {exact, near}: copies of a text of test (or heldout), validation or train, each counted
                               under the first of these parts that has it
        kept                   texts returned

    Raises DataError naming the setting (and record) at fault, also if no text is left.
    """
    source, split = find_unlabelled(config)
    examples = _read_texts(source, split, "data.unlabelled", task, parts.cleaning, "unlabelled", config.strict)
    counts: dict[str, Any] = {
        "source": source.name,
        "split": split,
        "read": len(examples) + examples.skipped,
        "blank_skipped": examples.skipped,
    }
    texts = _joined(examples)
    keys, first = np.unique(fingerprints(texts), return_index=True)
    counts["exact_copies_dropped"] = len(texts) - len(keys)

    # remove copies of other parts, those of the test first
    kept = np.sort(first)
    keys = fingerprints([texts[i] for i in kept])
    sets = shingles([texts[i] for i in kept], "shingles of unlabelled")
    counts["copies_removed"] = {}
    for name, part in _others(config, task, parts).items():
        exact = np.isin(keys, fingerprints(part))
        near = near_matches(sets, shingles(part, f"shingles of {name}")) & ~exact
        counts["copies_removed"][name] = {"exact": int(exact.sum()), "near": int(near.sum())}
        stays = np.flatnonzero(~(exact | near))
        kept, keys, sets = kept[stays], keys[stays], [sets[i] for i in stays]
    counts["kept"] = len(kept)
    say(_sentence(counts))
    if not len(kept):
        raise DataError(
            f"data.unlabelled: every text of {source.name}, {split} is a copy of the run's own; give other texts"
        )
    return examples.take(kept), counts


def find_unlabelled(config: DataConfig) -> tuple[Source, str]:
    """Open the source of the unlabelled texts and find its split; nothing is read.

    The split is data.unlabelled_split, else the one called unsupervised, else the only one. Raises DataError if there is no
    such split.
    """
    assert config.unlabelled is not None
    if config.unlabelled == config.path:
        source = open_source(config.path, config.name, config.revision, "data.unlabelled", config.separator)
    else:
        source = open_beside(config.unlabelled, "data.unlabelled", config)
    names = ", ".join(source.splits)
    split = config.unlabelled_split
    if split is None:
        split = UNSUPERVISED if UNSUPERVISED in source.splits else source.splits[0]
        if split != UNSUPERVISED and len(source.splits) > 1:
            raise DataError(
                f"data.unlabelled: {source.name} has several splits ({names}); name one with --data.unlabelled_split"
            )
    if split not in source.splits:
        raise DataError(f"data.unlabelled_split: {source.name} has no split {split!r}; it has {names}")
    return source, split


def check_unlabelled(config: DataConfig, task: Reader) -> None:
    """Check that there is such a source and that the task reads its first record. Raises DataError if not."""
    source, split = find_unlabelled(config)
    _reader(source, split, "data.unlabelled", task)


def _reader(source: Source, split: str, setting: str, task: Reader) -> Reader:
    """Adapt the task to the records of a split, without their targets, and try it on the first."""
    try:
        first = next(iter(source.records(split, setting)), None)
    except DataError as error:
        raise _naming(setting, error) from None
    if first is None:
        raise DataError(f"{setting}: {source.name}, {split} has no records; give another")
    try:
        reader = task.for_prediction(list(first.values))
    except DataError:
        columns = ", ".join(map(str, first.values))
        name = getattr(task, "text_column", None)
        raise DataError(
            f"{setting}: {first.place}: no column of texts (columns: {columns}); call it {f'{name!r} ' if name else ''}as in "
            "training, or give another source"
        ) from None
    try:
        reader.read(first.values)
    except DataError as error:
        raise DataError(f"{setting}: {first.place}: {error}") from None
    return reader


def _read_texts(
    source: Source, split: str, setting: str, task: Reader, cleaning: Cleaning, name: str, strict: bool
) -> Examples:
    reader = _reader(source, split, setting, task)
    try:
        return read_examples(reader.records(source, split, setting, []), reader, cleaning, name, strict)
    except DataError as error:
        raise _naming(setting, error) from None


def _naming(setting: str, error: DataError) -> DataError:
    """Put the setting in front of an error that does not name it."""
    return error if str(error).startswith(setting) else DataError(f"{setting}: {error}")


def _others(config: DataConfig, task: Reader, parts: Parts) -> dict[str, list[str]]:
    """Collect the texts of the run's own parts, those that are measured on first."""
    others: dict[str, list[str]] = {}
    test_source, test_split = find_test(
        config, open_source(config.path, config.name, config.revision, separator=config.separator)
    )
    if test_source is not None:
        others["test"] = _joined(
            _read_texts(test_source, test_split, "data.test_split", task, parts.cleaning, "test", strict=False)
        )
    elif parts.read_test is not None:
        heldout = parts.read_test()  # carved out of the training split, which has been read
        others[heldout.split] = _joined(heldout)
    return {**others, "validation": _joined(parts.validation), "train": [*_joined(parts.train), *_joined(parts.spare)]}


def _joined(examples: Examples) -> list[str]:
    return [" ".join(example.texts) for example in examples.items]


def _sentence(counts: Mapping[str, Any]) -> str:
    removed = ", ".join(
        f"{part['exact'] + part['near']:,} of {name}" for name, part in counts["copies_removed"].items()
    )
    return (
        f"unlabelled: {counts['kept']:,} of {counts['read']:,} texts; dropped {counts['exact_copies_dropped']:,} exact copies of "
        f"one another, and copies of the run's own texts: {removed}"
    )
