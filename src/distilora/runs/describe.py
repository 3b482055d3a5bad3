"""Describes the data of a run before anything is trained: parts, classes, lengths, and what is odd about them.

The test split is checked as before a run, and otherwise left alone.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from distilora.config.schema import RunConfig
from distilora.data.examples import Example
from distilora.data.oddities import find_oddities
from distilora.data.parts import read_parts
from distilora.errors import EncoderError
from distilora.model.encoders.find import find_encoder, load_tokenizer
from distilora.runs.preflight import check_data
from distilora.tasks.base import Task
from distilora.tasks.registry import find_task

SHOWN = 5  # odd texts
EXCERPT = 60  # characters of one
UNEVEN = 4.0  # times a class is as frequent as another, from which on means against imbalance are named


def describe(config: RunConfig) -> dict[str, Any]:
    """Describe the data that a run with these settings would train on, as JSON values.

    Raises what `train` raises for its data.
    """
    data, task = check_data(config.data, find_task(config.task))
    parts = read_parts(data, task)
    task = task.learnt_from(parts.train)
    labelled = [parts.train, *([parts.spare] if len(parts.spare) else []), parts.validation]
    items = [item for part in labelled for item in part.items]
    summary = parts.summary
    return {
        "source": summary["source"],
        "task": {"name": task.name, **task.settings},
        "read": summary["read"],
        "blank_skipped": summary["blank_skipped"],
        "exact_copies_dropped": summary["exact_copies_dropped"],
        "near_copies_kept_together": summary["near_copies_kept_together"],
        "test_split": summary["test_split"],
        "parts": [{"part": part.split, "examples": len(part), "classes": task.counts(part)} for part in labelled],
        "words": _quantiles([sum(len(text.split()) for text in item.texts) for item in items]),
        "tokens": _tokens(config, task, items),
        "odd": [
            {"place": items[i].place, "what": what, "text": " ".join(items[i].texts)[:EXCERPT]}
            for i, what in find_oddities([" ".join(item.texts) for item in items])
        ],
        "notes": [*parts.notes, *imbalance(task.counts(parts.train))],
    }


def imbalance(counts: dict[str, int]) -> list[str]:
    """Advise where the most frequent class is far more frequent than the rarest; [] where not."""
    present = {label: count for label, count in counts.items() if count}
    if len(present) < 2:
        return []
    most, least = max(present, key=present.__getitem__), min(present, key=present.__getitem__)
    ratio = present[most] / present[least]
    if ratio < UNEVEN:
        return []
    return [
        f"{most} is {ratio:.0f} times as frequent as {least}: look at each class's recall, not at accuracy alone; "
        "--training.class_weights, --training.sampling and --training.logit_adjustment favour rare classes"
    ]


def _tokens(config: RunConfig, task: Task, items: Sequence[Example]) -> dict[str, Any] | None:
    """Count the tokens of the texts as the encoder would read them; None where it is not at hand."""
    try:
        tokenizer = load_tokenizer(find_encoder(config.encoder.name, config.encoder.revision))
    except EncoderError:
        return None
    tokenizer.no_truncation()
    tokenizer.no_padding()
    lengths = task.tokenise(tokenizer, items, "tokenising").rows.group_lengths
    return {**_quantiles(lengths.tolist()), "longer": int((lengths > config.data.max_length).sum())}


def _quantiles(lengths: Sequence[int]) -> dict[str, int]:
    median, high, longest = np.quantile(lengths or [0], [0.5, 0.95, 1.0], method="nearest").tolist()
    return {"median": int(median), "p95": int(high), "longest": int(longest)}
