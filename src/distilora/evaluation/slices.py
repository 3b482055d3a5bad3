"""Slices: the headline metric on parts of the examples, by length, truncation and presence of negation.

A part that holds all examples adds nothing to the whole and is left out.
"""

import re
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distilora.batching.tokens import Tokenised
from distilora.data.examples import Examples
from distilora.tasks.base import Task

NEGATION = re.compile(
    r"\b(?:not|no|never|nothing|nobody|none|neither|nor|nowhere|cannot|without)\b|n['’]t\b", re.IGNORECASE
)
LENGTH_BINS = (0, 64, 128, 192, 256, 384, 512)  # tokens as read


def slice_metrics(
    task: Task, examples: Examples, tokens: Tokenised, outputs: NDArray[np.float32], targets: Sequence[Any]
) -> list[dict[str, Any]]:
    """Measure the outputs [G, ...] on each part that holds some examples, but not all."""
    lengths = tokens.lengths
    negated = np.asarray([bool(NEGATION.search(" ".join(e.texts))) for e in examples.items])
    edges = [*LENGTH_BINS, int(lengths.max(initial=0)) + 1]
    parts = [
        (f"{low + 1}-{high} tokens", (lengths > low) & (lengths <= high)) for low, high in pairwise(edges) if high > low
    ]
    parts += [("truncated", tokens.truncated), ("read whole", ~tokens.truncated)]
    parts += [("with a negation", negated), ("without a negation", ~negated)]
    rows = []
    for name, inside in parts:
        index = np.flatnonzero(inside)
        if 0 < len(index) < len(examples):
            measured = task.metrics(outputs[index], [targets[int(i)] for i in index])
            headline = next(iter(measured))
            rows.append({"slice": name, "examples": len(index), "metric": headline, **measured[headline]})
    return rows
