"""Answers a text with any number of L labels, none among them.

    p_l = sigmoid(z_l)      a label is answered where p_l is at least its threshold      loss: mean over labels of the cross-entropy

The thresholds are those of the best F1 of each label on validation. Targets are a list in one column, names in one cell separated
by comma, semicolon or bar, or a column of 0 and 1 for each label (`data.label_columns`).
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from distilora.config.measuring import SourceConfig
from distilora.config.schema import DataConfig
from distilora.data.examples import Examples
from distilora.data.sources import Source
from distilora.errors import ConfigError, DataError
from distilora.files.tables import Record
from distilora.progress import say
from distilora.tasks.base import Measurement, Outputs, Remeasured, Task
from distilora.tasks.columns import LABEL_COLUMNS, TEXT_COLUMNS, check_columns, find_column, first_record
from distilora.tasks.label_cells import marked, names_in
from distilora.tasks.labels import order_labels
from distilora.tasks.metrics.names import share_text
from distilora.tasks.registry import register
from distilora.tasks.showing import Shown, Table
from distilora.tasks.text import TextTask

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from torch import Tensor

USUAL = (*LABEL_COLUMNS, "tags", "topics", "categories", "genres", "emotions")
EXCERPT = 600  # characters of a mistake's text
JOINED = "; "  # between the labels of an answer


@register
class MultiLabel(TextTask):
    """Multi-label classification; `thresholds` are None until validation has decided on them, which means 0.5."""

    name = "multilabel"
    scored = False
    output_kind = "first"
    problem_type = "multi_label_classification"
    pipeline_tag = "text-classification"
    calibrated = True
    headlines = ("micro_f1", "macro_f1", "mean_average_precision", "exact_match")

    def __init__(
        self,
        labels: Sequence[str],
        text_column: str,
        label_column: str | None,
        label_columns: Sequence[str] | None = None,
        thresholds: Sequence[float] | None = None,
    ) -> None:
        self.labels = tuple(labels)
        self.outputs = len(self.labels)
        self.text_column = text_column
        self.label_column = label_column
        self.label_columns = None if label_columns is None else tuple(label_columns)
        self.thresholds = None if thresholds is None else tuple(thresholds)
        self._index = {label: i for i, label in enumerate(self.labels)}

    @property
    def settings(self) -> Mapping[str, Any]:  # type: ignore[override]
        """Labels, columns and thresholds."""
        return {
            "labels": list(self.labels), "text_column": self.text_column, "label_column": self.label_column,
            "label_columns": None if self.label_columns is None else list(self.label_columns),
            "thresholds": None if self.thresholds is None else list(self.thresholds),
        }  # fmt: skip

    @property
    def phrase(self) -> str:
        """The task and its labels."""
        return f"multi-label classification into {', '.join(self.labels)}"

    @classmethod
    def from_source(cls, config: DataConfig, source: Source) -> Self:
        """Create the task with the columns and labels of the training split. Raises DataError naming the field at fault."""
        first = first_record(source, config.train_split, "data.train_split")
        text = find_column(first, config.text_column, TEXT_COLUMNS, "data.text_column")
        if config.label_columns is not None:
            for column in config.label_columns:
                check_columns(text, find_column(first, column, (), "data.label_columns"))
            if config.labels is not None and len(config.labels) != len(config.label_columns):
                raise ConfigError(
                    f"data.labels: {len(config.labels)} given for {len(config.label_columns)} label_columns; give one for each"
                )
            say(f"data: text from column {text!r}, labels from columns {', '.join(config.label_columns)}")
            return cls(tuple(map(str, config.labels or config.label_columns)), text, None, config.label_columns)
        label = find_column(first, config.label_column, USUAL, "data.label_column")
        check_columns(text, label)
        say(f"data: text from column {text!r}, labels from column {label!r}")
        if config.labels is not None:
            return cls(tuple(map(str, config.labels)), text, label)
        places: dict[str, str] = {}
        for record in source.records(config.train_split, "data.train_split"):
            try:
                for name in names_in(record.values.get(label)):
                    places.setdefault(name, record.place)
            except DataError as error:
                raise DataError(f"{record.place}: {error}") from None
        if not places:
            raise DataError(
                f"data.label_column: {label!r} holds no label in {config.train_split}; there is nothing to learn, name another"
            )
        for name, place in places.items():
            if JOINED in name:
                raise DataError(
                    f"{place}: data.label_column: {name!r} holds {JOINED!r}, which separates labels; rename it"
                )
        return cls(order_labels(places, source.label_names.get(label), None), text, label)

    def with_columns(self, text: str, label: str | None) -> Self:
        """Return the task for other columns; without a label column its label columns are dropped, too."""
        return type(self)(**{**self.settings, "text_column": text, "label_column": label, "label_columns": None})

    def read(self, values: Mapping[str, Any]) -> Any:
        """Read the text and its labels, as a tuple of indices in order."""
        if self.label_columns is None:
            return super().read(values)
        from distilora.data.examples import Example

        marks = [marked(values, column) for column in self.label_columns]
        return Example((self.text_in(values),), tuple(i for i, mark in enumerate(marks) if mark))

    def target(self, value: Any) -> tuple[int, ...]:
        """Read the labels of a cell. Raises DataError for one that was not seen in training."""
        indices = set()
        for name in names_in(value):
            if name not in self._index:
                raise DataError(
                    f"data.label_column: {name!r} is not one of the labels ({', '.join(self.labels)}); correct it, or train with "
                    "it (in data.labels, if that is given)"
                )
            indices.add(self._index[name])
        return tuple(sorted(indices))

    def aligned_to(
        self, source: Source, split: str, columns: SourceConfig, notes: list[str]
    ) -> tuple[Task, Iterator[Record]]:
        """Adapt the task to the columns of other labelled data; columns of 0 and 1 must have the names of training."""
        if self.label_columns is None or columns.label_column is not None:
            return super().aligned_to(source, split, columns, notes)
        first = first_record(source, split, "data.split")
        text = find_column(first, columns.text_column or self.text_column, (), "data.text_column")
        for column in self.label_columns:
            find_column(first, column, (), "data.label_column")
        task = type(self)(**{**self.settings, "text_column": text})
        return task, task.records(source, split, "data.split", notes)

    def check(self, examples: Examples) -> None:
        """Raise DataError if no example has a label."""
        if not any(examples.targets):
            raise DataError(f"data.label_column: no example of {examples.split} has a label; there is nothing to learn")

    def strata(self, targets: Sequence[Any]) -> list[Any]:
        """Return the stratum of each target: its rarest label, so that rare labels are in every part; -1 without one."""
        counts = Counter(index for target in targets for index in target)
        return [min(target, key=lambda index: (counts[index], index)) if target else -1 for target in targets]

    def remarks(self, parts: Sequence[Examples]) -> list[str]:
        """Warn about labels with fewer than five training examples, or none in a part."""
        counts = [Counter(index for target in part.targets for index in target) for part in parts]
        rare = [label for i, label in enumerate(self.labels) if counts[0][i] < 5 or not all(c[i] for c in counts)]
        if not rare:
            return []
        return [
            f"Rare labels: {', '.join(rare[:10])} have fewer than five training examples, or none in another part. They are hardly "
            "learnt, and the figures say little about them; add examples."
        ]

    def counts(self, examples: Examples) -> dict[str, int]:
        """Count the examples of each label."""
        counts = Counter(index for target in examples.targets for index in target)
        return {label: counts[i] for i, label in enumerate(self.labels)}

    def target_name(self, target: Any) -> Any:
        """Return the names of a target's labels, joined; None without a target."""
        return None if target is None else JOINED.join(self.labels[index] for index in target)

    def loss(self, outputs: "Tensor", targets: Sequence[Any]) -> "Tensor":
        """Compute the mean over labels of the binary cross-entropy, [G]."""
        import torch

        goal = torch.from_numpy(self._marks(targets).astype(np.float32)).to(outputs.device)
        losses = torch.nn.functional.binary_cross_entropy_with_logits(outputs.float(), goal, reduction="none")
        return losses.mean(1)

    def fit_temperature(self, outputs: Outputs, targets: Sequence[Any]) -> float:
        """Fit the temperature of all sigmoids together (tasks/calibration.py): logits (0, z) of every label are a case of it."""
        from distilora.tasks.calibration import fit_temperature

        logits = np.asarray(outputs, np.float32).reshape(-1)
        pairs = np.stack([np.zeros_like(logits), logits], axis=1)
        return fit_temperature(pairs, self._marks(targets).reshape(-1).astype(np.int64).tolist())

    def decided(self, outputs: Outputs, targets: Sequence[Any]) -> Task:
        """Return the task with the thresholds of the best F1 of each label."""
        from distilora.tasks.metrics.multilabel import best_thresholds

        thresholds = best_thresholds(sigmoid(outputs), self._marks(targets))
        return type(self)(**{**self.settings, "thresholds": thresholds})

    def answered(self, probabilities: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Tell which labels are answered, [N, L]."""
        return np.asarray(probabilities >= np.asarray(self.thresholds or [0.5] * self.outputs))

    def decode(self, outputs: Outputs, examples: Sequence[Any], tokenizer: "Tokenizer") -> list[dict[str, Any]]:
        """Decode logits into `labels`, joined by semicolons, and `p_LABEL` for every label."""
        probabilities = sigmoid(outputs)
        return [
            {
                "labels": JOINED.join(label for label, yes in zip(self.labels, given, strict=True) if yes),
                **{f"p_{label}": float(p) for label, p in zip(self.labels, row, strict=True)},
            }
            for row, given in zip(probabilities, self.answered(probabilities), strict=True)
        ]

    def agreement(self, ours: Outputs, theirs: Outputs) -> float | None:
        """Compute the share of the decisions on a label that are the same."""
        return float(np.mean(self.answered(sigmoid(ours)) == self.answered(sigmoid(theirs))))

    def explained(self, outputs: "Tensor", label: int) -> "Tensor":
        """Return the label's log-odds, [N]: its logit."""
        return outputs[:, label]

    def explained_answer(self, answer: Mapping[str, Any], label: str | None) -> tuple[str, str]:
        """Explain the probability of `label`, by default the likeliest."""
        if label is not None and label not in self._index:
            raise DataError(f"explain.label: there is no label {label!r}; there are {', '.join(self.labels)}")
        label = label or max(self.labels, key=lambda name: answer[f"p_{name}"])
        return label, f"p_{label}"

    def metrics(self, outputs: Outputs, targets: Sequence[Any], resamples: int = 0) -> dict[str, Any]:
        """Compute micro and macro F1, mean average precision, exact match, Hamming and log loss (metrics/multilabel.py)."""
        from distilora.tasks.metrics.multilabel import label_rows, multilabel_metrics

        probabilities, true = sigmoid(outputs), self._marks(targets)
        answered = self.answered(probabilities)
        measured = multilabel_metrics(probabilities, answered, true, resamples)
        measured["figures"] = {"per_label": label_rows(probabilities, answered, true)}
        return measured

    def headline(self, outputs: Outputs, targets: Sequence[Any]) -> tuple[str, float]:
        """Compute micro F1; 0 where nothing is true or answered."""
        answered, true = self.answered(sigmoid(outputs)), self._marks(targets)
        sums = int(answered.sum() + true.sum())
        return "micro_f1", 2 * int((answered & true).sum()) / sums if sums else 0.0

    def findings(self, measurement: Measurement) -> dict[str, Any]:
        """Collect each label's figures, what the most frequent label alone would reach, and the answers with most wrong labels."""
        rows = measurement.figures.pop("per_label")
        items, answers = measurement.examples.items, measurement.answers
        wrong = (self.answered(sigmoid(measurement.outputs)) != self._marks(measurement.examples.targets)).sum(axis=1)
        worst = [i for i in np.argsort(-wrong, kind="stable")[: measurement.max_mistakes].tolist() if wrong[i]]
        thresholds = self.thresholds or [0.5] * self.outputs
        counts = measurement.training_counts or self.counts(measurement.examples)
        constant = max(self.labels, key=lambda label: counts[label])
        true = self._marks(measurement.examples.targets)
        f1 = 2 * float(true[:, self._index[constant]].sum()) / (len(true) + float(true.sum()))
        return {
            "baseline": {"label": constant, "micro_f1": f1},
            "verdict": ""
            if measurement.metrics["micro_f1"]["value"] > f1
            else f"The model is no better than always answering {constant!r} alone, whose micro F1 is {f1:.1%}.",
            "classes": [
                {"label": label, "threshold": threshold, **row}
                for label, threshold, row in zip(self.labels, thresholds, rows, strict=True)
            ],
            "mistakes": [
                {
                    "place": items[i].place, "target": self.target_name(items[i].target), "labels": answers[i]["labels"],
                    "text": " ".join(items[i].texts)[:EXCERPT],
                }
                for i in worst
            ],
        }  # fmt: skip

    def correct(self, target: Any, answer: Mapping[str, Any]) -> bool:
        """Tell whether an answer has exactly the labels of the target."""
        return bool(answer["labels"] == target)

    def remeasure(self, predictions: Sequence[Mapping[str, Any]], resamples: int) -> Remeasured:
        """Measure the probabilities that were saved; an answer's quality is minus its log loss."""
        from distilora.tasks.metrics.multilabel import multilabel_metrics, resampled_decisions

        probabilities = np.asarray([[row[f"p_{label}"] for label in self.labels] for row in predictions], np.float64)
        answered, true = (
            self._marks([self._index[name] for name in row[key].split(JOINED) if name] for row in predictions)
            for key in ("labels", "target")
        )
        right = np.clip(np.where(true, probabilities, 1 - probabilities), 1e-300, None)
        return Remeasured(
            {name: metric["value"] for name, metric in multilabel_metrics(probabilities, answered, true).items()},
            resampled_decisions(probabilities, answered, true, resamples),
            np.log(right).mean(axis=1),
            (answered == true).all(axis=1),
        )

    def plain_answer(self, temperature: float) -> str | None:
        """Return Python for the labels' probabilities."""
        return f"torch.sigmoid(logits / {temperature!r})"

    @classmethod
    def report(cls, split: Mapping[str, Any]) -> Shown:
        """Show each label, and the answers with the most wrong labels."""
        rows = [
            (
                row["label"],
                *(share_text(row[key]) for key in ("precision", "recall", "f1", "average_precision")),
                f"{row['support']:,}",
                f"{row['predicted']:,}",
                f"{row['threshold']:.3f}",
            )
            for row in split.get("classes", [])
        ]
        columns = ("label", "precision", "recall", "F1", "average precision", "examples", "answered", "threshold")
        tables = [Table("Each label", columns, rows)]
        if split.get("mistakes"):
            mistakes = [(row["target"], row["labels"], row["text"]) for row in split["mistakes"]]
            tables.append(
                Table("The answers with the most wrong labels", ("true", "answered", "text"), mistakes, text=("text",))
            )
        return Shown((), (), tables)

    @classmethod
    def card(cls, splits: Sequence[Mapping[str, Any]]) -> list[str]:
        """Say what the most frequent label alone would reach."""
        return _constant(splits[0])

    @classmethod
    def lines(cls, split: Mapping[str, Any]) -> list[str]:
        """Say what the most frequent label alone would reach; list each label's precision, recall, F1 and number of examples."""
        classes = split.get("classes", [])
        width = max([len("label"), *(len(row["label"]) for row in classes)])
        lines = ["", *(f"  {line}" for line in _constant(split))]
        lines += ["", f"  {'label':<{width}}  precision  recall      F1   examples"]
        for row in classes:
            shares = "  ".join(
                f"{share_text(row[key]):>{size}}" for key, size in (("precision", 9), ("recall", 6), ("f1", 6))
            )
            lines.append(f"  {row['label']:<{width}}  {shares}  {row['support']:>9,}")
        return lines

    def _marks(self, targets: Iterable[Any]) -> NDArray[np.bool_]:
        """Return the targets as marks, [N, L]."""
        targets = list(targets)
        marks = np.zeros((len(targets), self.outputs), bool)
        for row, target in zip(marks, targets, strict=True):
            row[list(target)] = True
        return marks


def _constant(split: Mapping[str, Any]) -> list[str]:
    if "baseline" not in split:
        return []
    label, f1 = split["baseline"]["label"], split["baseline"]["micro_f1"]
    return [f"Always answering {label!r} alone would have a micro F1 of {f1:.2%}."]


def sigmoid(logits: Outputs) -> NDArray[np.float64]:
    """Compute probabilities [N, L] of logits [N, L], in float64. Raises ValueError if a logit is not finite."""
    values = np.asarray(logits, np.float64)
    if not np.all(np.isfinite(values)):
        raise ValueError("logits are not finite: the model is damaged or the precision overflowed")
    return np.asarray(np.exp(-np.logaddexp(0, -values)))
