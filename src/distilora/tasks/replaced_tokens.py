"""Tells replaced tokens from original ones: the task by which an encoder adapts to texts before it learns their labels.

Replaced-token detection (ELECTRA, Clark et al. 2020): a logit for every token, binary cross-entropy. It learns from each token of
a text, where a masked language model learns from the seventh that is masked, and needs no layer as wide as the vocabulary.
The head is the one that classification has, applied to every token, so it works for every family. Rows come
corrupted (batching/corruption.py), not from records: the task is in no registry.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from distilora.data.examples import Example
from distilora.errors import DataError
from distilora.tasks.base import Outputs, States, Task

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from torch import Tensor

    from distilora.batching.rows import Rows

ABSENT = -1  # in a target, behind the row's last token


class ReplacedTokens(Task):
    """Detection of replaced tokens in rows of `length` tokens at most; targets are 1, 0 and ABSENT, [length]."""

    name = "replaced-tokens"
    outputs = 1

    def __init__(self, length: int) -> None:
        self.length = length

    @property
    def settings(self) -> Mapping[str, Any]:  # type: ignore[override]
        """The length."""
        return {"length": self.length}

    def read(self, values: Mapping[str, Any]) -> Example:
        """Raise DataError: rows are made, not read."""
        raise DataError(f"task {self.name}: reads no records")

    def head(self, states: States, rows: "Rows") -> "Tensor":
        """Compute a logit for each token, padded to [G, length]."""
        logits = states.head(states.tokens())[:, 0]
        padded = logits.new_zeros(len(rows), self.length)
        row = np.repeat(np.arange(len(rows)), rows.lengths)
        padded[row, np.arange(len(rows.ids)) - rows.offsets[row]] = logits
        return padded

    def loss(self, outputs: "Tensor", targets: Sequence[Any]) -> "Tensor":
        """Compute the mean cross-entropy of each row's tokens, [G]."""
        import torch

        goal = torch.as_tensor(np.stack(targets), device=outputs.device)
        inside = goal != ABSENT
        losses = torch.nn.functional.binary_cross_entropy_with_logits(
            outputs.float(), goal.clamp(min=0).float(), reduction="none"
        )
        return (losses * inside).sum(1) / inside.sum(1)

    def decode(self, outputs: Outputs, examples: Sequence[Example], tokenizer: "Tokenizer") -> list[dict[str, Any]]:
        """Raise DataError: the task has no answers."""
        raise DataError(f"task {self.name}: gives no answers")

    def metrics(self, outputs: Outputs, targets: Sequence[Any], resamples: int = 0) -> dict[str, Any]:
        """Compute the share of tokens told right, and that of calling none replaced."""
        goal = np.stack(targets)
        inside = goal != ABSENT
        right = float(((outputs > 0) == (goal == 1))[inside].mean())
        return {
            "told_apart": {"value": right, "low": None, "high": None},
            "original_share": {"value": float((goal == 0)[inside].mean()), "low": None, "high": None},
        }


def detection_targets(rows: "Rows", replaced: Any, length: int) -> list[Any]:
    """Lay the replaced tokens, [T], out as a target for each row, [length]."""
    targets = np.full((len(rows), length), ABSENT, np.int8)
    row = np.repeat(np.arange(len(rows)), rows.lengths)
    targets[row, np.arange(len(rows.ids)) - rows.offsets[row]] = replaced
    return list(targets)
