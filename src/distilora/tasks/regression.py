"""Predicts a number for a text, such as stars or a price.

    value = mean + scale * z        z: the number of the Transformers class's head
    loss  = ((value - target) / scale)^2

mean and scale, the standard deviation, are those of the training examples.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from distilora.config.schema import DataConfig
from distilora.data.examples import Examples
from distilora.data.sources import Source
from distilora.errors import DataError
from distilora.progress import say
from distilora.tasks.base import Measurement, Outputs, Remeasured, Task
from distilora.tasks.columns import TEXT_COLUMNS, check_columns, find_column, first_record, refuse_label_columns
from distilora.tasks.registry import register
from distilora.tasks.showing import Points, Shown, Table
from distilora.tasks.text import TextTask

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from torch import Tensor

VALUE_COLUMNS = ("value", "score", "rating", "stars", "target", "label", "grade", "price")
CLOSE = 0.05  # of the scale: two values so near are the same answer
EXCERPT = 600  # characters of a mistake's text
STRATA = 10  # of equal width, over which carved parts are spread
MOST_POINTS = 500  # in the report's picture


@register
class Regression(TextTask):
    """Regression of one number; `mean` and `scale` are None until the training examples are known."""

    name = "regression"
    scored = False
    outputs = 1
    output_kind = "first"
    finished = True
    problem_type = "regression"
    pipeline_tag = "text-classification"
    target_words = "a number"

    def __init__(
        self, text_column: str, label_column: str | None, mean: float | None = None, scale: float | None = None
    ) -> None:
        self.text_column = text_column
        self.label_column = label_column
        self.mean, self.scale = mean, scale

    @property
    def settings(self) -> Mapping[str, Any]:  # type: ignore[override]
        """Columns, and mean and standard deviation of the training targets."""
        return {
            "text_column": self.text_column, "label_column": self.label_column, "mean": self.mean, "scale": self.scale
        }  # fmt: skip

    @property
    def phrase(self) -> str:
        """The task, and what it predicts."""
        return f"regression of {self.label_column}" if self.label_column else self.name

    @classmethod
    def from_source(cls, config: DataConfig, source: Source) -> Self:
        """Create the task with the columns of the training split. Raises DataError naming the field at fault."""
        if config.labels is not None:
            raise DataError("data.labels: given, but task regression predicts a number; drop it")
        refuse_label_columns(config, cls.name)
        first = first_record(source, config.train_split, "data.train_split")
        text = find_column(first, config.text_column, TEXT_COLUMNS, "data.text_column")
        value = find_column(first, config.label_column, VALUE_COLUMNS, "data.label_column")
        check_columns(text, value)
        say(f"data: text from column {text!r}, number from column {value!r}")
        return cls(text, value)

    def target(self, value: Any) -> float:
        """Read a number. Raises DataError for anything else, and for one that is not finite."""
        try:
            number = float("nan") if isinstance(value, bool) else float(value)
        except (TypeError, ValueError, OverflowError):
            number = float("nan")
        if not np.isfinite(number):
            raise DataError(
                f"data.label_column: {self.label_column!r} holds {value!r:.60}, not a number; correct it, or drop the row"
            )
        return number

    def strata(self, targets: Sequence[Any]) -> list[Any]:
        """Return the stratum of each target: one of ten ranges of equal width."""
        values = np.asarray(targets, np.float64)
        low, high = values.min(), values.max()
        return [int(s) for s in np.minimum((values - low) / max(high - low, 1e-300) * STRATA, STRATA - 1)]

    def check(self, examples: Examples) -> None:
        """Raise DataError if all targets are equal."""
        if len(set(examples.targets)) < 2:
            raise DataError(
                f"data.label_column: every number in {examples.split} is {examples.targets[0]:g}; there is nothing to learn"
            )

    def learnt_from(self, train: Examples) -> Task:
        """Return the task with mean and standard deviation of the training targets."""
        values = np.asarray(train.targets, np.float64)
        scale = float(values.std()) or 1.0
        return Regression(self.text_column, self.label_column, float(values.mean()), scale)

    def finish(self, raw: "Tensor") -> "Tensor":
        """Turn the head's number into the value, [G, 1]."""
        mean, scale = self._constants()
        return raw.float() * scale + mean

    def loss(self, outputs: "Tensor", targets: Sequence[Any]) -> "Tensor":
        """Compute the squared error of each example, [G], in units of the training targets' variance."""
        import torch

        goal = torch.as_tensor(np.asarray(targets, np.float32), device=outputs.device)
        return ((outputs.float()[:, 0] - goal) / self._constants()[1]) ** 2

    def decode(self, outputs: Outputs, examples: Sequence[Any], tokenizer: "Tokenizer") -> list[dict[str, Any]]:
        """Decode outputs into `value`."""
        return [{"value": float(value)} for value in _finite(outputs)]

    def agreement(self, ours: Outputs, theirs: Outputs) -> float | None:
        """Compute the share of examples whose values differ by at most a twentieth of the targets' standard deviation."""
        return float(np.mean(np.abs(ours - theirs)[:, 0] <= CLOSE * self._constants()[1]))

    def explained(self, outputs: "Tensor", label: int) -> "Tensor":
        """Return the value, [N]."""
        return outputs[:, 0]

    def explained_answer(self, answer: Mapping[str, Any], label: str | None) -> tuple[str, str]:
        """Explain the value. Raises DataError if a label is asked for."""
        if label is not None:
            raise DataError(f"explain.label: {label!r} given, but task regression has a value, no labels; drop it")
        return "value", "value"

    def metrics(self, outputs: Outputs, targets: Sequence[Any], resamples: int = 0) -> dict[str, Any]:
        """Compute Spearman's and Pearson's correlation, RMSE, MAE and R2 (tasks/metrics/regression.py)."""
        from distilora.tasks.metrics.regression import regression_metrics

        values, goal = _finite(outputs), np.asarray(targets, np.float64)
        measured = regression_metrics(values, goal, resamples)
        if resamples:
            chosen = np.sort(np.random.default_rng(0).permutation(len(goal))[:MOST_POINTS])
            measured["figures"] = {"points": {"true": goal[chosen].tolist(), "predicted": values[chosen].tolist()}}
        return measured

    def headline(self, outputs: Outputs, targets: Sequence[Any]) -> tuple[str, float]:
        """Compute Spearman's correlation; 0 where it is undefined."""
        value = self.metrics(outputs, targets)["spearman"]["value"]
        return "spearman", 0.0 if value is None else float(value)

    def findings(self, measurement: Measurement) -> dict[str, Any]:
        """Compute the error of always answering the training mean, and list the largest errors."""
        goal = np.asarray(measurement.examples.targets, np.float64)
        mean, _ = self._constants()
        errors = _finite(measurement.outputs) - goal
        worst = np.argsort(-np.abs(errors), kind="stable")[: measurement.max_mistakes]
        items = measurement.examples.items
        rmse = float(np.sqrt(np.mean((goal - mean) ** 2)))
        learnt = measurement.metrics["rmse"]["value"] < rmse
        return {
            "baseline": {"value": mean, "rmse": rmse, "mae": float(np.mean(np.abs(goal - mean)))},
            "verdict": "" if learnt else f"The model is no better than always answering the training mean, {mean:.4g}.",
            "mistakes": [
                {
                    "place": items[i].place, "target": goal[i], "value": goal[i] + errors[i],
                    "text": " ".join(items[i].texts)[:EXCERPT],
                }
                for i in worst.tolist()
            ],
        }  # fmt: skip

    def correct(self, target: Any, answer: Mapping[str, Any]) -> bool:
        """Tell whether a value is within half a standard deviation of the training targets."""
        return bool(abs(answer["value"] - target) <= self._constants()[1] / 2)

    def remeasure(self, predictions: Sequence[Mapping[str, Any]], resamples: int) -> Remeasured:
        """Measure the values that were saved; an answer's quality is minus its absolute error."""
        from distilora.tasks.metrics.regression import regression_metrics, resampled_errors

        values = np.asarray([row["value"] for row in predictions], np.float64)
        goal = np.asarray([row["target"] for row in predictions], np.float64)
        measured = regression_metrics(values, goal)
        return Remeasured(
            {name: metric["value"] for name, metric in measured.items()},
            resampled_errors(values, goal, resamples),
            -np.abs(values - goal),
            None,
        )

    def plain_answer(self, temperature: float) -> str | None:
        """Return Python for the value."""
        mean, scale = self._constants()
        return f"logits * {scale!r} + {mean!r}"

    @classmethod
    def report(cls, split: Mapping[str, Any]) -> Shown:
        """Show predicted against true values, the constant answer's errors, and the largest errors."""
        points, rows = split["figures"].get("points"), split.get("mistakes", [])
        pictures = (
            []
            if not points
            else [
                Points("Predicted against true value", points["true"], points["predicted"], "true value", "predicted")
            ]
        )
        tables = []
        if rows:
            cells = [(f"{row['target']:.4g}", f"{row['value']:.4g}", row["text"]) for row in rows]
            tables = [Table("The largest errors", ("true", "predicted", "text"), cells, text=("text",))]
        return Shown(_constant(split), pictures, tables)

    @classmethod
    def card(cls, splits: Sequence[Mapping[str, Any]]) -> list[str]:
        """Show the errors of the constant answer."""
        return _constant(splits[0])

    @classmethod
    def lines(cls, split: Mapping[str, Any]) -> list[str]:
        """Show the errors of the constant answer."""
        return ["", *(f"  {line}" for line in _constant(split))]

    def _constants(self) -> tuple[float, float]:
        if self.mean is None or self.scale is None:
            raise ValueError("task regression knows no training examples yet: see learnt_from")
        return self.mean, self.scale


def _constant(split: Mapping[str, Any]) -> list[str]:
    baseline = split.get("baseline")
    if not baseline:
        return []
    return [
        f"Always answering the training mean, {baseline['value']:.4g}, would have an RMSE of {baseline['rmse']:.4g} and a mean "
        f"absolute error of {baseline['mae']:.4g}."
    ]


def _finite(outputs: Outputs) -> "np.ndarray[Any, np.dtype[np.float64]]":
    """Return the values, [G]. Raises ValueError if one is not finite."""
    values = np.asarray(outputs, np.float64)[:, 0]
    if not np.all(np.isfinite(values)):
        raise ValueError("values are not finite: the model is damaged or the precision overflowed")
    return values
