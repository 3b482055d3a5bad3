"""Puts the answers of several models to the same examples in the same order, or says why the examples are not the same.

An example is recognised by the digest of its texts and by its target, wherever it was read; of examples that are alike in
both, the first of one model is matched with the first of the other.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from distilora.errors import DataError
from distilora.evaluation.finished import Finished

Key = tuple[str, str, int]  # digest, target, number among equals
MOST_NAMED = 4  # settings that differ


def align(first: Finished, other: Finished) -> list[Mapping[str, Any]]:
    """Return the answers of `other` in the order of those of `first`.

    Raises DataError, saying what differs, if the two were not measured on the same examples, labels and task.
    """
    if first.task.name != other.task.name:
        raise DataError(
            f"{other.name}: its task is {other.task.name}, that of {first.name} {first.task.name}; compare runs of one task"
        )
    if set(first.labels) != set(other.labels):
        raise DataError(
            f"{other.name}: its labels are {', '.join(other.labels)}, those of {first.name} {', '.join(first.labels)}; "
            "compare runs with the same labels"
        )
    by_key = dict(zip(_keys(other.predictions), other.predictions, strict=True))
    keys = _keys(first.predictions)
    if set(keys) != set(by_key):
        raise DataError(_difference(first, other))
    return [by_key[key] for key in keys]


def _keys(predictions: Sequence[Mapping[str, Any]]) -> list[Key]:
    seen: Counter[tuple[str, str]] = Counter()
    keys = []
    for row in predictions:
        content = (row["digest"], json.dumps(row["target"], default=repr))
        seen[content] += 1
        keys.append((*content, seen[content]))
    return keys


def _difference(first: Finished, other: Finished) -> str:
    """Explain in one line why the examples of two measurements are not the same."""
    digests, theirs = ({row["digest"] for row in each.predictions} for each in (first, other))
    if digests == theirs and len(first.predictions) == len(other.predictions):
        targets = {row["digest"]: row for row in first.predictions}
        row = next(row for row in other.predictions if row["target"] != targets[row["digest"]]["target"])
        return (
            f"{other.name}: same texts as {first.name}, but other targets: {row['place']} has {row['target']!r}, there "
            f"{targets[row['digest']]['target']!r}; measure both on one file with distilora evaluate"
        )
    shared = sum(row["digest"] in digests for row in other.predictions)
    settings = [
        f"{name} {other.origin[name]}, there {first.origin[name]}"
        for name in first.origin
        if name in other.origin and first.origin[name] != other.origin[name]
    ]
    if not settings:
        settings = ["the settings are the same, so the data must have changed in between"]
    more = f"; and {len(settings) - MOST_NAMED} more" if len(settings) > MOST_NAMED else ""
    return (
        f"{other.name}: measured on {len(other.predictions):,} examples, of which {shared:,} are among the "
        f"{len(first.predictions):,} of {first.name} ({'; '.join(settings[:MOST_NAMED])}{more}); measure both on one file with "
        "distilora evaluate"
    )
