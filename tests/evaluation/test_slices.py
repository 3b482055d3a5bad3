"""Slices: parts of the examples, without those that say nothing."""

import numpy as np

from distilora.batching.rows import rows_of
from distilora.batching.tokens import Tokenised
from distilora.data.examples import Example, Examples
from distilora.evaluation.slices import slice_metrics
from distilora.tasks.classification import Classification


def sliced(texts: list[str], lengths: list[int], truncated: list[bool]) -> dict[str, tuple[int, float]]:
    task = Classification(("neg", "pos"), "text", "label")
    examples = Examples("test", [Example((text,), i % 2) for i, text in enumerate(texts)])
    tokens = Tokenised(rows_of([[[1] * length] for length in lengths]), np.asarray(truncated))
    outputs = np.asarray([[0.0, 1.0]] * len(texts), np.float32)  # always pos
    rows = slice_metrics(task, examples, tokens, outputs, examples.targets)
    assert {row["metric"] for row in rows} <= {"accuracy"}
    return {row["slice"]: (row["examples"], row["value"]) for row in rows}


def test_parts_of_different_kinds() -> None:
    slices = sliced(["a", "not b", "c", "d"], [3, 70, 70, 3], [False, True, False, False])
    assert slices == {
        "1-64 tokens": (2, 0.5),
        "65-128 tokens": (2, 0.5),
        "truncated": (1, 1.0),
        "read whole": (3, 1 / 3),
        "with a negation": (1, 1.0),
        "without a negation": (3, 1 / 3),
    }


def test_a_part_that_holds_all_is_left_out() -> None:
    assert sliced(["a", "b", "c", "d"], [3, 4, 5, 6], [False] * 4) == {}
    assert sliced(["never", "no", "isn't", "none"], [3, 4, 5, 6], [True] * 4) == {}
