"""A task of one's own: the share of good words in the sentences of a review. A fresh process loads this file."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from distilora.data.examples import Example
from distilora.errors import DataError
from distilora.tasks.base import Task
from distilora.tasks.registry import register

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from tokenizers import Tokenizer
    from torch import Tensor

    from distilora.batching.rows import Rows
    from distilora.tasks.base import States


@dataclass(frozen=True)
class Columns:
    """Where the text and the share stand."""

    text: "str"  # in quotes: dataclasses then look up the module by its name
    share: "str"


@register
class GoodShare(Task):
    """Regression on the mean of the states of all rows; each sentence is a row."""

    name = "good-share"
    outputs = 1

    def __init__(self, text: str = "review", share: str = "share", scale: float = 1.0) -> None:
        self.columns, self.scale = Columns(text, share), scale

    @property
    def settings(self) -> Mapping[str, Any]:
        return {"text": self.columns.text, "share": self.columns.share, "scale": self.scale}

    def read(self, values: Mapping[str, Any]) -> Example:
        if self.columns.text not in values:
            raise DataError(f"no column {self.columns.text!r}; add one")
        sentences = re.findall(r"[^.]+\.?", values[self.columns.text] or "")
        share = values.get(self.columns.share)
        return Example(
            tuple(s.strip() for s in sentences if s.strip()) or ("",), None if share is None else float(share)
        )

    def head(self, states: "States", rows: "Rows") -> "Tensor":
        import torch

        means = states.mean()
        group = torch.from_numpy(rows.group).to(means.device)
        total = torch.zeros(rows.groups, means.shape[1], dtype=means.dtype, device=means.device)
        counts = torch.bincount(group, minlength=rows.groups)[:, None]
        return states.head(total.index_add(0, group, means) / counts)[:, 0]

    def loss(self, outputs: "Tensor", targets: Sequence[Any]) -> "Tensor":
        import torch

        return (outputs.float() - torch.as_tensor(targets, dtype=torch.float32, device=outputs.device)) ** 2

    def decode(
        self, outputs: "NDArray[np.float32]", examples: Sequence[Example], tokenizer: "Tokenizer"
    ) -> list[dict[str, Any]]:
        return [
            {"share": float(output) * self.scale, "sentences": len(example.texts)}
            for output, example in zip(outputs, examples, strict=True)
        ]

    def metrics(self, outputs: "NDArray[np.float32]", targets: Sequence[Any], resamples: int = 0) -> dict[str, Any]:
        errors = np.abs(outputs - np.asarray(targets, np.float32))
        rng = np.random.default_rng(0)
        means = [rng.choice(errors, len(errors)).mean() for _ in range(resamples)]
        low, high = (float(np.quantile(means, q)) for q in (0.025, 0.975)) if means else (None, None)
        return {"mean_error": {"value": float(errors.mean()), "low": low, "high": high}}
