"""An evaluation on the terminal: the metrics to read first."""

from collections.abc import Mapping
from typing import Any

from distilora.tasks.metrics.names import METRICS, metric_text

HEADLINES = ("accuracy", "macro_f1", "auroc", "ece")


def metric_rows(evaluation: Mapping[str, Any]) -> list[tuple[str, str]]:
    """List the metrics to read first as pairs (name, value with its interval)."""
    metrics = evaluation["metrics"]
    names = [name for name in HEADLINES if name in metrics] or list(metrics)
    return [(METRICS.get(name, (name, ""))[0], metric_text(name, metrics[name])) for name in names]
