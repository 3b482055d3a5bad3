"""Classification of a text into one of C classes: softmax of logits, cross-entropy -log p(target)."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from distilora.errors import DataError
from distilora.examples import Example
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
        self._numeric = any(_whole(label) is not None for label in self.labels)

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
        """The index of a label: by its name, else by its place where names are words and the label a whole number.

        Raises DataError for a label that training has not seen.
        """
        known = self._index.get(str(label))
        if known is not None:
            return known
        place = None if self._numeric else _whole(label)
        if place is None or not 0 <= place < len(self.labels):
            raise DataError(
                f"data.label_column: label {label!r} was not seen in training (labels: {', '.join(self.labels)}); "
                "correct it, or train with it"
            )
        return place

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


def order_labels(
    values: Iterable[Any], source_names: Sequence[str] | None, given: Sequence[str | int] | None
) -> tuple[str, ...]:
    """Label names in the order they keep for ever: those given, else the source's, else the values found, sorted.

    Whole numbers sort by value, everything else as text. Raises DataError if fewer than two classes are found, or
    the number of names given does not fit the source's.
    """
    if given is not None:
        if source_names is not None and len(given) != len(source_names):
            raise DataError(f"data.labels: {len(given)} given, but the source has {', '.join(source_names)}")
        return tuple(map(str, given))
    if source_names is not None:
        return tuple(source_names)
    found = {str(value) for value in values}
    numbers = {name: _whole(name) for name in found}
    order = sorted(found, key=lambda name: (numbers[name] is None, numbers[name] or 0, name))
    if len(order) < 2:
        raise DataError(f"data.label_column: only the class {', '.join(order)!r} found; two or more are needed")
    return tuple(order)


def _whole(value: Any) -> int | None:
    try:
        return int(str(value))
    except ValueError:
        return None
