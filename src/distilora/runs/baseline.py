"""Measures n-gram baselines alone, on the parts that a run with the same settings would have."""

from typing import Any

from distilora.config.schema import RunConfig
from distilora.data.examples import Examples
from distilora.data.parts import read_parts
from distilora.errors import ConfigError
from distilora.evaluation.baselines import NgramBaseline, fit_baselines, text_of
from distilora.runs.expert import labelled, sampled
from distilora.runs.preflight import check_data
from distilora.tasks.base import Task
from distilora.tasks.registry import find_task


def measure_baselines(config: RunConfig, task: Task | None = None) -> dict[str, Any]:
    """Fit the baselines and measure them on validation and on the test split; only `data`, `task` and `evaluation` are read.

    Returns the source, the number of labels fitted on, and `splits`, the test first if there is one: for each the number of
    examples, the share of the most frequent class of training, and every baseline's metrics and seconds.
    Raises what `read_parts` raises, and ConfigError for a task that n-gram models do not learn.
    """
    data, task = check_data(config.data, find_task(config.task) if task is None else task)
    if task.ngram_classes is None:
        raise ConfigError(f"task: {task.name} has no classes for an n-gram model to tell apart; give one that has")
    parts = read_parts(data, task)
    examples = sampled(labelled(parts))
    baselines = fit_baselines(task, examples)
    counts = task.counts(parts.train)
    splits = [parts.validation] if parts.read_test is None else [parts.read_test(), parts.validation]
    return {
        "task": task.name,
        "source": parts.summary["source"],
        "fitted_on": len(examples),
        "splits": [_measured(task, split, baselines, counts, config.evaluation.bootstrap) for split in splits],
    }


def _measured(
    task: Task, examples: Examples, baselines: list[NgramBaseline], counts: dict[str, int], resamples: int
) -> dict[str, Any]:
    of_split = task.counts(examples)
    majority = max(counts, key=lambda label: counts[label])
    rows: list[dict[str, Any]] = []
    for baseline in baselines:
        logits = baseline.logits([text_of(example) for example in examples.items])
        metrics = task.metrics(logits, examples.targets, resamples)
        metrics.pop("figures", None)
        rows.append({"name": baseline.name, "seconds": round(baseline.seconds, 2), "metrics": metrics})
    return {
        "split": examples.split,
        "examples": len(examples),
        "majority": {"label": majority, "accuracy": of_split[majority] / len(examples)},
        "baselines": rows,
    }
