"""Classification of a text into one of C classes: softmax of logits, cross-entropy -log p(target)."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from distilora.errors import DataError
from distilora.examples import Example
from distilora.labels import label_name, whole_number
from distilora.tasks import Task, register

if TYPE_CHECKING:
    from torch import Tensor

    from distilora.encode import States
    from distilora.rows import Rows

TEXT_COLUMNS = ("text", "review", "review_text", "reviewtext", "sentence", "content", "comment", "document", "body")
LABEL_COLUMNS = ("label", "labels", "sentiment", "class", "category", "target", "rating", "stars")


@register
class Classification(Task):
    """`labels` in the order of the logits; columns as found or given in training."""

    name = "classification"
    calibrated = True

    def __init__(self, labels: Sequence[str], text_column: str, label_column: str | None) -> None:
        self.labels = tuple(labels)
        self.outputs = len(self.labels)
        self.text_column, self.label_column = text_column, label_column
        self._index = {label: i for i, label in enumerate(self.labels)}
        self._numbers = {
            number: i for i, label in enumerate(self.labels) if (number := whole_number(label)) is not None
        }

    @property
    def settings(self) -> Mapping[str, Any]:  # type: ignore[override]
        """Labels in order and column names."""
        return {"labels": list(self.labels), "text_column": self.text_column, "label_column": self.label_column}

    def read(self, values: Mapping[str, Any]) -> Example:
        """The text, and the label's index; a target of None where no label column was asked for."""
        if self.text_column not in values:
            raise DataError(
                f"data.text_column: no column {self.text_column!r} (columns: {', '.join(map(str, values))}); name one"
            )
        text = values[self.text_column]
        if text is not None and not isinstance(text, str):
            raise DataError(
                f"data.text_column: {self.text_column!r} holds {type(text).__name__}, not text; name another"
            )
        if self.label_column is None:
            return Example((text or "",))
        if self.label_column not in values:
            raise DataError(
                f"data.label_column: no column {self.label_column!r} (columns: {', '.join(map(str, values))}); name one"
            )
        return Example((text or "",), self.index(values[self.label_column]))

    def index(self, label: Any) -> int:
        """The index of a label: by its name, by its number (1.0 is 1), else by its place (see `by_place`).

        Raises DataError for a label that training has not seen.
        """
        found = self._by_name(label_name(label))
        if found is None:
            found = self.by_place(label)
        if found is None:
            raise DataError(
                f"data.label_column: label {label!r} was not seen in training (labels: {', '.join(self.labels)}); "
                "correct it, or train with it"
            )
        return found

    def by_place(self, label: Any) -> int | None:
        """The index of a label that has no name here, but is the number of a place, and the names are words; else None."""
        place = None if self._numbers else whole_number(str(label))
        if place is None or not 0 <= place < len(self.labels) or self._by_name(str(label)) is not None:
            return None
        return place

    def _by_name(self, name: str) -> int | None:
        found = self._index.get(name)
        number = whole_number(name) if found is None else None
        return found if number is None else self._numbers.get(number)

    def head(self, states: "States", rows: "Rows") -> "Tensor":
        """Logits [G, C] of the pooled state of each example's first row."""
        first = np.flatnonzero(rows.row == 0)
        pooled = states.pooled()
        return states.head(pooled if len(first) == len(rows) else pooled[first])

    def loss(self, outputs: "Tensor", targets: Sequence[Any]) -> "Tensor":
        """Cross-entropy of each example, [G]."""
        import torch

        wanted = torch.as_tensor(np.asarray(targets, np.int64), device=outputs.device)
        return torch.nn.functional.cross_entropy(outputs.float(), wanted, reduction="none")

    def decode(self, outputs: NDArray[np.float32], examples: Sequence[Example]) -> list[dict[str, Any]]:
        """`label`, `score` (its probability) and `p_LABEL` for every label."""
        return [
            {
                "label": self.labels[int(np.argmax(row))],
                "score": float(np.max(row)),
                **{f"p_{label}": float(p) for label, p in zip(self.labels, row, strict=True)},
            }
            for row in softmax(outputs)
        ]

    def metrics(self, outputs: NDArray[np.float32], targets: Sequence[Any], resamples: int = 0) -> dict[str, Any]:
        """Accuracy, macro F1, MCC, AUROC, log loss, Brier score and ECE (see `distilora.metrics`)."""
        from distilora.metrics import classification_metrics

        return classification_metrics(softmax(outputs), np.asarray(targets, np.int64), resamples)

    def headline(self, outputs: NDArray[np.float32], targets: Sequence[Any]) -> tuple[str, float]:
        """Accuracy, without scikit-learn, which would cost a training process 36 MB for nothing else."""
        return "accuracy", float(np.mean(softmax(outputs).argmax(axis=1) == np.asarray(targets, np.int64)))


def softmax(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    """Probabilities [N, C] of logits [N, C], in float64. Raises ValueError for logits that are not finite."""
    values = np.asarray(logits, np.float64)
    if not np.all(np.isfinite(values)):
        raise ValueError("logits are not finite: the model is damaged or the precision overflowed")
    powers = np.exp(values - values.max(axis=-1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True))


def check_columns(text: str, label: str) -> None:
    """Raises DataError if one column is both the text and its label."""
    if text == label:
        raise DataError(
            f"data.label_column: {label!r} is the column of the text; name another with --data.label_column, or the text's "
            "with --data.text_column"
        )


def find_column(columns: Iterable[str], given: str | None, names: Sequence[str], field: str) -> str:
    """The column given, else the first whose name (in lower case) is in `names`, in their order.

    Raises DataError naming `field` and listing the columns if there is none.
    """
    columns = [str(column) for column in columns]
    lowered = {column.lower().strip(): column for column in reversed(columns)}
    found = (
        given if given in columns else next((lowered[n] for n in names if n in lowered), None) if not given else None
    )
    if found is None:
        missing = f"no column {given!r}" if given else f"no column called {', '.join(names[:4])} or alike"
        raise DataError(f"{field}: {missing} (columns: {', '.join(columns)}); name one with --{field}")
    return found
