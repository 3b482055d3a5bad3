"""Classifies a text into one of C ordered classes, such as stars, by a cumulative link model (McCullagh 1980).

    P(y > k) = sigmoid(a_k)        a_0 = z_1 - z_0        a_k = a_(k-1) - softplus(z_(k+1))        k = 0 .. C - 2

z are the C numbers of the Transformers class's head. The a_k fall by construction, so the cumulative probabilities are monotone
whatever the text, and the cut points between the classes may depend on it. The outputs are the logarithms of

    p_0 = sigmoid(-a_0)        p_k = sigmoid(a_(k-1)) - sigmoid(a_k)        p_(C-1) = sigmoid(a_(C-2))

so that their softmax is p, and the loss, cross-entropy of the class, is that of the model's likelihood. A text is answered with
the median class, the first k with P(y <= k) >= 1/2: it has the least expected distance to the true one, where the likeliest
class has the least expected error.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from distilora.config.schema import DataConfig
from distilora.data.sources import Source
from distilora.errors import DataError
from distilora.tasks import classes
from distilora.tasks.base import Outputs, Remeasured
from distilora.tasks.classification import Classification, softmax
from distilora.tasks.metrics.ordinal import distance_metrics, resampled_distances
from distilora.tasks.registry import register
from distilora.tasks.scales import graded_order

if TYPE_CHECKING:
    from torch import Tensor


@register
class Ordinal(Classification):
    """Ordinal classification; `labels` are in order, from low to high."""

    name = "ordinal"
    kind = "ordinal classification"
    finished = True
    headlines = ("accuracy", "mae", "quadratic_kappa", "macro_f1")

    @classmethod
    def from_source(cls, config: DataConfig, source: Source) -> Self:
        """Create the task as a classification, with its labels in order: numbers by value, words on a known scale.

        Raises DataError if the order of the labels is not known and `data.labels` does not give it.
        """
        task = super().from_source(config, source)
        declared = config.labels is not None or task.label_column in source.label_names
        if declared or len(task.labels) == 2 or len(task._numbers) == len(task.labels):
            return task
        order = graded_order(task.labels)
        if order is None:
            raise DataError(
                f"data.labels: the order of {', '.join(task.labels)} is not known; give them from low to high, as "
                "--data.labels [low,middle,high], or choose task classification"
            )
        return cls(order, task.text_column, task.label_column)

    def finish(self, raw: "Tensor") -> "Tensor":
        """Turn the head's numbers z, [G, C], into log-probabilities, [G, C]."""
        import torch
        from torch.nn.functional import logsigmoid, softplus

        z = raw.float()
        falls = softplus(z[:, 2:])
        # thresholds start evenly around 0, since softplus(0) = log 2
        start = z[:, 1:2] - z[:, :1] + 0.5 * float(np.log(2)) * (self.outputs - 2)
        a = torch.cat([start, start - torch.cumsum(falls, 1)], 1)
        # sigmoid(a) - sigmoid(b) = sigmoid(a) sigmoid(-b) (1 - exp(b - a)), and exp(-softplus(z)) = sigmoid(-z)
        inner = logsigmoid(a[:, :-1]) + logsigmoid(-a[:, 1:]) + logsigmoid(z[:, 2:])
        return torch.cat([logsigmoid(-a[:, :1]), inner, logsigmoid(a[:, -1:])], 1)

    def chosen(self, probabilities: NDArray[np.float64]) -> NDArray[np.int64]:
        """Choose the median class, [N]."""
        return np.asarray((np.cumsum(probabilities, axis=1) < 0.5 - 1e-9).sum(axis=1).clip(max=self.outputs - 1))

    def agreement(self, ours: Outputs, theirs: Outputs) -> float | None:
        """Compute the share of examples with the same answer."""
        return float(np.mean(self.chosen(softmax(ours)) == self.chosen(softmax(theirs))))

    def metrics(self, outputs: Outputs, targets: Sequence[Any], resamples: int = 0) -> dict[str, Any]:
        """Compute those of a classification, the mean absolute error in classes, and quadratic kappa (metrics/ordinal.py)."""
        measured = super().metrics(outputs, targets, resamples)
        predicted, indices = self.chosen(softmax(outputs)), np.asarray(targets, np.int64)
        accuracy = {"accuracy": measured.pop("accuracy")}
        return accuracy | distance_metrics(predicted, indices, resamples) | measured

    def remeasure(self, predictions: Sequence[Mapping[str, Any]], resamples: int) -> Remeasured:
        """Measure the probabilities that were saved; an answer's quality is minus its distance to the true class."""
        classification = super().remeasure(predictions, resamples)
        targets = np.asarray([self.index(row["target"]) for row in predictions], np.int64)
        predicted = np.asarray([self.index(row["label"]) for row in predictions], np.int64)
        distances = {name: metric["value"] for name, metric in distance_metrics(predicted, targets, 0).items()}
        return Remeasured(
            {"accuracy": classification.metrics["accuracy"], **distances, **classification.metrics},
            {**classification.resampled, **resampled_distances(predicted, targets, resamples)},
            -np.abs(predicted - targets).astype(np.float64),
            classification.correct,
        )

    @classmethod
    def card(cls, splits: Sequence[Mapping[str, Any]]) -> list[str]:
        """Say how the answer is chosen, and how often the constant answer would be right."""
        return [
            "The answer is the median of the predicted distribution over the ordered classes.",
            *classes.constant_answer(splits),
        ]
