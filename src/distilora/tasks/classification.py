"""Classifies a text into one of C classes: softmax of logits, cross-entropy -log p(target)."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from distilora.config.schema import DataConfig
from distilora.data.examples import Example, Examples
from distilora.data.sources import Source
from distilora.errors import DataError
from distilora.files.tables import Record
from distilora.progress import say
from distilora.tasks import classes
from distilora.tasks.base import Measurement, Outputs, Remeasured
from distilora.tasks.columns import (
    LABEL_COLUMNS,
    TEXT_COLUMNS,
    check_columns,
    find_column,
    first_record,
    refuse_label_columns,
)
from distilora.tasks.foreign import transformers_labels
from distilora.tasks.labels import case_warning, collect_names, label_name, order_labels, order_note, whole_number
from distilora.tasks.matching import match_labels
from distilora.tasks.metrics.classification import SHOWN
from distilora.tasks.registry import register
from distilora.tasks.showing import Shown
from distilora.tasks.text import TextTask

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from torch import Tensor


@register
class Classification(TextTask):
    """Classification task; `labels` are in the order of the logits."""

    name = "classification"
    kind: ClassVar[str] = "classification"
    output_kind = "label"
    pipeline_tag = "text-classification"
    calibrated = True
    headlines = ("accuracy", "macro_f1", "auroc", "ece")

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
        """Labels in the order of the logits, and column names."""
        return {"labels": list(self.labels), "text_column": self.text_column, "label_column": self.label_column}

    @property
    def ngram_classes(self) -> int | None:
        """Number of labels."""
        return len(self.labels)

    @property
    def phrase(self) -> str:
        """The task and its classes; of many, their number."""
        if self.outputs > SHOWN:
            return f"{self.kind} into {self.outputs} classes"
        return f"{self.kind} into {', '.join(self.labels)}"

    @classmethod
    def from_source(cls, config: DataConfig, source: Source) -> Self:
        """Create the task with the columns and labels of the training split; the order of the labels is final.

        Raises DataError naming the field and row at fault.
        """
        refuse_label_columns(config, cls.name)
        first = first_record(source, config.train_split, "data.train_split")
        text = find_column(first, config.text_column, TEXT_COLUMNS, "data.text_column")
        label = find_column(first, config.label_column, LABEL_COLUMNS, "data.label_column")
        check_columns(text, label)
        names = source.label_names.get(label)
        places = collect_names(source.records(config.train_split, "data.train_split"), label) if names is None else {}
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
        elif names is None:
            if warning := case_warning(task.labels):
                say(f"warning: {warning}")
            if note := order_note(task.labels):
                say(f"note: {note}")
        return task

    @classmethod
    def from_transformers(cls, config: Mapping[str, Any], name: str) -> Self | None:
        """Create the task from a Transformers classifier's config.json, with its labels."""
        labels = transformers_labels(config, name)
        return None if labels is None else cls(labels, "text", None)

    def target(self, value: Any) -> int:
        """Return the label's index (see `index`)."""
        return self.index(value)

    def records(
        self, source: Source, split: str, setting: str, notes: list[str], training: DataConfig | None = None
    ) -> Iterator[Record]:
        """Stream a split's records, with label numbers replaced by the source's label names if those are the task's.

        A note says when labels are matched by position only, unless training was set up so.
        """
        records = source.records(split, setting)
        if self.label_column is None:
            return records
        names = source.label_names.get(self.label_column)
        if training is not None and (names is not None or training.labels is not None):
            return records
        return match_labels(records, self, names, f"{source.name}, {split}", notes)

    def declared(self, source: Source) -> bool:
        """Tell whether the source declares the names of its labels."""
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
        """Warn about classes that are rare in training or missing in a part."""
        rare = classes.rare_classes(self.labels, parts)
        return [rare] if rare else []

    def counts(self, examples: Examples) -> dict[str, int]:
        """Count the examples of each class."""
        counts = Counter(examples.targets)
        return {label: counts[i] for i, label in enumerate(self.labels)}

    def index(self, label: Any) -> int:
        """Look up the index of a label by its name, by its number (1.0 is 1), else by its position (see `by_position`).

        Raises DataError for a label that was not seen in training.
        """
        index = self._by_name(label_name(label))
        if index is None:
            index = self.by_position(label)
        if index is None:
            raise DataError(
                f"data.label_column: label {label!r} was not seen in training (labels: {', '.join(self.labels)}); "
                "correct it, or train with it"
            )
        return index

    def by_position(self, label: Any) -> int | None:
        """Return the index that an unknown whole-number label stands for, if all class names are words; else None."""
        position = None if self._numbers else whole_number(str(label))
        if position is None or not 0 <= position < len(self.labels) or self._by_name(str(label)) is not None:
            return None
        return position

    def _by_name(self, name: str) -> int | None:
        index = self._index.get(name, self._index.get(name.strip()))
        number = whole_number(name) if index is None else None
        return index if number is None else self._numbers.get(number)

    def soften(self, targets: Sequence[Any], probabilities: NDArray[np.float32] | None, share: float) -> list[Any]:
        """Mix each target with a teacher's probabilities: (1 - share) of the label, share of the teacher, [C]."""
        if len(targets) and isinstance(targets[0], np.ndarray):
            labels = np.stack(targets)
        else:
            labels = np.eye(self.outputs, dtype=np.float32)[np.asarray(targets, np.int64)]
        return list(labels if probabilities is None else (1 - share) * labels + np.float32(share) * probabilities)

    def loss(self, outputs: "Tensor", targets: Sequence[Any]) -> "Tensor":
        """Compute the cross-entropy of each example, [G]; targets are indices, or probabilities [C] from `soften`."""
        import torch

        if len(targets) and isinstance(targets[0], np.ndarray):
            shares = torch.from_numpy(np.stack(targets)).to(outputs.device)
            return torch.nn.functional.cross_entropy(outputs.float(), shares, reduction="none")
        indices = torch.as_tensor(np.asarray(targets, np.int64), device=outputs.device)
        return torch.nn.functional.cross_entropy(outputs.float(), indices, reduction="none")

    def fit_temperature(self, outputs: Outputs, targets: Sequence[Any]) -> float:
        """Fit the temperature that maximises the likelihood of the validation labels (tasks/calibration.py)."""
        from distilora.tasks.calibration import fit_temperature

        return fit_temperature(outputs, targets)

    def chosen(self, probabilities: NDArray[np.float64]) -> NDArray[np.int64]:
        """Choose the class to answer, [N], from probabilities [N, C]: the likeliest."""
        return np.asarray(probabilities.argmax(axis=1))

    def hits(self, outputs: Outputs, targets: Sequence[Any]) -> NDArray[np.bool_]:
        """Tell which answers are correct, [N]."""
        return np.asarray(self.chosen(softmax(outputs)) == np.asarray(targets, np.int64))

    def decode(self, outputs: Outputs, examples: Sequence[Example], tokenizer: "Tokenizer") -> list[dict[str, Any]]:
        """Decode logits into `label`, `score` (its probability) and `p_LABEL` for every label."""
        probabilities = softmax(outputs)
        return [
            {
                "label": self.labels[chosen],
                "score": float(row[chosen]),
                **{f"p_{label}": float(p) for label, p in zip(self.labels, row, strict=True)},
            }
            for row, chosen in zip(probabilities, self.chosen(probabilities).tolist(), strict=True)
        ]

    def metrics(self, outputs: Outputs, targets: Sequence[Any], resamples: int = 0) -> dict[str, Any]:
        """Compute accuracy, macro F1, MCC, AUROC, log loss, Brier score and ECE (see tasks/metrics/classification.py)."""
        from distilora.tasks.metrics.classification import classification_metrics

        probabilities = softmax(outputs)
        return classification_metrics(
            probabilities, np.asarray(targets, np.int64), resamples, self.chosen(probabilities)
        )

    def headline(self, outputs: Outputs, targets: Sequence[Any]) -> tuple[str, float]:
        """Compute the accuracy without scikit-learn, whose import would cost a training process 36 MB."""
        return "accuracy", float(np.mean(self.hits(outputs, targets)))

    def explained(self, outputs: "Tensor", label: int) -> "Tensor":
        """Compute the label's log-odds, log(p / (1 - p)) = z_label - log(sum of exp z over the other labels), [N]."""
        others = [i for i in range(outputs.shape[1]) if i != label]
        return outputs[:, label] - outputs[:, others].logsumexp(1)

    def findings(self, measurement: Measurement) -> dict[str, Any]:
        """Compute each class's figures, those of the majority baseline, and the most confident mistakes."""
        return classes.class_findings(self.labels, measurement)

    def remeasure(self, predictions: Sequence[Mapping[str, Any]], resamples: int) -> Remeasured:
        """Measure the probabilities that were saved; an answer's quality is the probability of the true label."""
        from distilora.tasks.metrics.bootstrap import resampled
        from distilora.tasks.metrics.classification import classification_metrics

        probabilities = np.asarray([[row[f"p_{label}"] for label in self.labels] for row in predictions], np.float64)
        targets = np.asarray([self.index(row["target"]) for row in predictions], np.int64)
        chosen = self.chosen(probabilities)
        measured = classification_metrics(probabilities, targets, predicted=chosen)
        return Remeasured(
            {name: measured[name]["value"] for name in measured if name != "figures"},
            resampled(probabilities, targets, resamples, chosen),
            probabilities[np.arange(len(targets)), targets],
            chosen == targets,
        )

    @classmethod
    def report(cls, split: Mapping[str, Any]) -> Shown:
        """Show the baseline, confusion matrix, reliability and ROC curves, each class, and the mistakes."""
        return classes.class_report(split)

    @classmethod
    def card(cls, splits: Sequence[Mapping[str, Any]]) -> list[str]:
        """Show how often the constant answer would be right."""
        return classes.constant_answer(splits)

    @classmethod
    def lines(cls, split: Mapping[str, Any]) -> list[str]:
        """Show each class beside the majority baseline."""
        return classes.class_lines(split)


def softmax(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    """Compute probabilities [N, C] of logits [N, C], in float64. Raises ValueError if a logit is not finite."""
    values = np.asarray(logits, np.float64)
    if not np.all(np.isfinite(values)):
        raise ValueError("logits are not finite: the model is damaged or the precision overflowed")
    exponentials = np.exp(values - values.max(axis=-1, keepdims=True))
    return np.asarray(exponentials / exponentials.sum(axis=-1, keepdims=True))
