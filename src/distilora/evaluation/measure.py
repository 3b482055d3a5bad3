"""Metrics of one split: with intervals, before and after the temperature, by class and slice, with mistakes and predictions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from distilora.batching.tokens import Tokenised
from distilora.config.schema import EvaluationConfig
from distilora.data.examples import Examples
from distilora.evaluation.baselines import NgramBaseline, beside_baselines, ngram_verdict
from distilora.evaluation.slices import slice_metrics
from distilora.evaluation.views import measure_views
from distilora.inference.calibrate import Calibrator
from distilora.tasks.base import Measurement, Task
from distilora.tasks.calibration import at_limit
from distilora.tasks.metrics.names import OF_PROBABILITIES


@dataclass(frozen=True)
class Measured:
    """Measurements of one split: figures for metrics.json, records for predictions.parquet."""

    metrics: dict[str, Any]
    predictions: list[dict[str, Any]]


def measure(
    task: Task,
    examples: Examples,
    tokens: Tokenised,
    outputs: NDArray[np.float32],
    calibrate: Calibrator,
    settings: EvaluationConfig,
    tokenizer: Tokenizer,
    trained: Mapping[str, int] | None = None,
    baselines: Sequence[NgramBaseline] = (),
) -> Measured:
    """Measure the encoder's outputs [G, ...] of `examples`, whose rows are `tokens`, as the model calibrates them.

    Args:
        trained: the task's counts of the training examples, or None if they are unknown.
        baselines: models to put beside this one, fitted on none of the examples.
    """
    targets = task.targets(examples.items, tokenizer)
    scaled = calibrate(outputs, examples.items)
    temperature = calibrate.temperature
    metrics = task.metrics(scaled, targets, settings.bootstrap)
    figures = metrics.pop("figures", {})
    answers = task.decode(scaled, examples.items, tokenizer)
    result: dict[str, Any] = {
        "split": examples.split,
        "examples": len(examples),
        "blank_skipped": examples.skipped,
        "truncated": int(tokens.truncated.sum()),
        "temperature": temperature,
        "metrics": metrics,
        "slices": slice_metrics(task, examples, tokens, scaled, targets),
        "labels": list(task.labels),
        "figures": figures,
    }
    if views := measure_views(task, calibrate, outputs, scaled, examples, targets, settings.bootstrap):
        result["views"] = views
    if task.calibrated and not views:
        raw = task.metrics(outputs, targets)
        result["temperature_at_limit"] = at_limit(temperature)
        result["before_temperature"] = {k: raw[k]["value"] for k in OF_PROBABILITIES if k in raw}
    result |= task.findings(Measurement(examples, scaled, answers, metrics, figures, trained, settings.mistakes))
    if baselines:
        result["ngram_baselines"] = beside_baselines(task, scaled, targets, examples, baselines, settings.bootstrap)
        result["verdict"] = " ".join(filter(None, [result.get("verdict"), ngram_verdict(result)]))
    lengths = tokens.lengths
    predictions = [
        {
            "split": examples.split,
            "place": example.place,
            "digest": example.digest,
            "target": task.target_name(example.target),
            **answer,
            "tokens": int(lengths[i]),
            "truncated": bool(tokens.truncated[i]),
        }
        for i, (example, answer) in enumerate(zip(examples.items, answers, strict=True))
    ]
    return Measured(result, predictions)
