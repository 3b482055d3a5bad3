"""Classification of a text into one of C classes: softmax of logits, cross-entropy -log p(target)."""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from distilora.config.schema import DataConfig, SourceConfig
from distilora.data.examples import Example, Examples
from distilora.data.sources import Source
from distilora.errors import DataError
from distilora.files.tables import Record
from distilora.progress import say
from distilora.tasks import classes
from distilora.tasks.base import Measurement, Outputs, States, Task
from distilora.tasks.columns import LABEL_COLUMNS, TEXT_COLUMNS, check_columns, find_column, measured_columns
from distilora.tasks.foreign import transformers_labels
from distilora.tasks.labels import label_name, names_in, order_labels, order_note, whole_number
from distilora.tasks.matching import matched
from distilora.tasks.registry import register
from distilora.tasks.showing import Shown

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from torch import Tensor

    from distilora.batching.rows import Rows


@register
class Classification(Task):
    """`labels` in the order of the logits; columns as found or given in training."""

    name = "classification"
    output_kind = "label"
    pipeline_tag = "text-classification"
    calibrated = True

    def __init__(self, labels: Sequence[str], text_column: str, label_column: str | None) -> None:
        self.labels = tuple(labels)
        self.outputs = len(self.labels)
        self.text_column: str = text_column
        self.label_column = label_column
        self._index = {label: i for i, label in enumerate(self.labels)}
        self._numbers = {
            number: i for i, label in enumerate(self.labels) if (number := whole_number(label)) is not None
        }

    @property
    def settings(self) -> Mapping[str, Any]:  # type: ignore[override]
        """Labels in order and column names."""
        return {"labels": list(self.labels), "text_column": self.text_column, "label_column": self.label_column}

    @classmethod
    def from_source(cls, config: DataConfig, source: Source) -> Self:
        """Find the columns, and the labels with the order they keep for ever.

        Raises DataError naming the field and row at fault.
        """
        first = next(iter(source.records(config.train_split, "data.train_split")), None)
        if first is None:
            raise DataError(f"data.train_split: {source.name} {config.train_split} has no records; give another")
        text = find_column(first.values, config.text_column, TEXT_COLUMNS, "data.text_column")
        label = find_column(first.values, config.label_column, LABEL_COLUMNS, "data.label_column")
        check_columns(text, label)
        names = source.label_names.get(label)
        places = names_in(source.records(config.train_split, "data.train_split"), label) if names is None else {}
        say(f"data: text from column {text!r}, label from column {label!r}")
        task = cls(order_labels(places, names, config.labels), text, label)
        if config.labels is not None:
            for name, place in places.items():
                try:
                    task.index(name)
                except DataError:
                    raise DataError(
                        f"{place}: data.labels: {name!r} is not in the list ({', '.join(task.labels)}); add it, or correct "
                        "the row"
                    ) from None
        elif names is None and (note := order_note(task.labels)):
            say(f"note: {note}")
        return task

    @classmethod
    def from_transformers(cls, config: Mapping[str, Any], name: str) -> Self | None:
        """Set it up for a Transformers classifier, with the labels of its config.json."""
        labels = transformers_labels(config, name)
        return None if labels is None else cls(labels, "text", None)

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

    def read_text(self, text: str) -> Example:
        """A text given by itself, without a label."""
        return Example((text,))

    def records(
        self, source: Source, split: str, setting: str, notes: list[str], training: DataConfig | None = None
    ) -> Iterator[Record]:
        """Stream a split's records, the source's label names in place of its numbers where they are the task's.

        Labels that are only matched by their place are told in `notes`, unless that is how training was set up.
        """
        records = source.records(split, setting)
        if self.label_column is None:
            return records
        names = source.label_names.get(self.label_column)
        if training is not None and (names is not None or training.labels is not None):
            return records
        return matched(records, self, names, f"{source.name}, {split}", notes)

    def aligned_to(
        self, source: Source, split: str, columns: SourceConfig, notes: list[str]
    ) -> tuple[Task, Iterator[Record]]:
        """Set it to the text and label columns of other data (see `measured_columns`)."""
        first = next(iter(source.records(split, "data.split")), None)
        if first is None:
            raise DataError(f"data.path: {source.name} {split} has no records; give another split")
        text, label = measured_columns(self, source, first.values, columns)
        check_columns(text, label)
        for what, trained, now in (("Texts", self.text_column, text), ("Labels", self.label_column, label)):
            if trained is not None and trained != now:
                notes.append(f"{what} are read from column {now!r}; in training it was {trained!r}.")
        task = Classification(self.labels, text, label)
        return task, task.records(source, split, "data.split", notes)

    def for_prediction(self, columns: Collection[str], text_column: str | None = None) -> Task:
        """Set it to the text column given, else that of training, else one found by its name, and to no label."""
        known = text_column or (self.text_column if self.text_column in columns else None)
        return Classification(self.labels, find_column(columns, known, TEXT_COLUMNS, "text-column"), None)

    def declared(self, source: Source) -> bool:
        """Whether the source declares the names of its labels."""
        return self.label_column in source.label_names

    def check(self, examples: Examples) -> None:
        """Raise DataError if fewer than two classes have examples."""
        present = sorted({self.labels[target] for target in examples.targets})
        if len(present) == 1:
            raise DataError(
                f"data.label_column: split {examples.split} holds examples of {present[0]!r} only; two classes or more are "
                "needed"
            )

    def remarks(self, parts: Sequence[Examples]) -> list[str]:
        """Warn of classes that are rare in training or missing in a part."""
        rare = classes.rare_classes(self.labels, parts)
        return [rare] if rare else []

    def counts(self, examples: Examples) -> dict[str, int]:
        """Count the examples of each class."""
        counts = Counter(examples.targets)
        return {label: counts[i] for i, label in enumerate(self.labels)}

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

    def head(self, states: States, rows: "Rows") -> "Tensor":
        """Logits [G, C] of the pooled state of each example's first row."""
        first = np.flatnonzero(rows.row == 0)
        pooled = states.pooled()
        return states.head(pooled if len(first) == len(rows) else pooled[first])

    def loss(self, outputs: "Tensor", targets: Sequence[Any]) -> "Tensor":
        """Cross-entropy of each example, [G]."""
        import torch

        wanted = torch.as_tensor(np.asarray(targets, np.int64), device=outputs.device)
        return torch.nn.functional.cross_entropy(outputs.float(), wanted, reduction="none")

    def fit_temperature(self, outputs: Outputs, targets: Sequence[Any]) -> float:
        """Fit the temperature that makes the validation labels most probable (tasks/calibration.py)."""
        from distilora.tasks.calibration import fit_temperature

        return fit_temperature(outputs, targets)

    def decode(self, outputs: Outputs, examples: Sequence[Example], tokenizer: "Tokenizer") -> list[dict[str, Any]]:
        """`label`, `score` (its probability) and `p_LABEL` for every label."""
        return [
            {
                "label": self.labels[int(np.argmax(row))],
                "score": float(np.max(row)),
                **{f"p_{label}": float(p) for label, p in zip(self.labels, row, strict=True)},
            }
            for row in softmax(outputs)
        ]

    def metrics(self, outputs: Outputs, targets: Sequence[Any], resamples: int = 0) -> dict[str, Any]:
        """Accuracy, macro F1, MCC, AUROC, log loss, Brier score and ECE (see `distilora.tasks.metrics.classification`)."""
        from distilora.tasks.metrics.classification import classification_metrics

        return classification_metrics(softmax(outputs), np.asarray(targets, np.int64), resamples)

    def headline(self, outputs: Outputs, targets: Sequence[Any]) -> tuple[str, float]:
        """Accuracy, without scikit-learn, which would cost a training process 36 MB for nothing else."""
        return "accuracy", float(np.mean(softmax(outputs).argmax(axis=1) == np.asarray(targets, np.int64)))

    def explained(self, outputs: "Tensor", label: int) -> "Tensor":
        """Compute the label's log-odds, log(p / (1 - p)) = z_label - log(sum of exp z over the other labels), [N]."""
        others = [i for i in range(outputs.shape[1]) if i != label]
        return outputs[:, label] - outputs[:, others].logsumexp(1)

    def findings(self, measurement: Measurement) -> dict[str, Any]:
        """Find each class's figures, what the majority baseline reaches, and the most confident mistakes."""
        return classes.class_findings(self.labels, measurement)

    @classmethod
    def report(cls, split: Mapping[str, Any]) -> Shown:
        """Show the baseline, confusion matrix, reliability and ROC curves, each class, and the mistakes."""
        return classes.class_report(split)

    @classmethod
    def lines(cls, split: Mapping[str, Any]) -> list[str]:
        """Show each class beside the majority baseline."""
        return classes.class_lines(split)


def softmax(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    """Probabilities [N, C] of logits [N, C], in float64. Raises ValueError for logits that are not finite."""
    values = np.asarray(logits, np.float64)
    if not np.all(np.isfinite(values)):
        raise ValueError("logits are not finite: the model is damaged or the precision overflowed")
    powers = np.exp(values - values.max(axis=-1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True))
