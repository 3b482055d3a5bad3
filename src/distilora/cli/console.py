"""Printing of tables and evaluations on the terminal."""

from collections.abc import Mapping, Sequence
from typing import Any

from distilora.tasks.metrics.names import METRICS, metric_text


def print_table(title: str, rows: Sequence[tuple[str, str]]) -> None:
    """Print a title and rows (name, value), the values aligned."""
    width = max(len(name) for name, _ in rows)
    print(title)
    for name, value in rows:
        print(f"  {name:<{width}}  {value}")


def print_evaluation(
    title: str, task: str, evaluation: Mapping[str, Any], more_rows: Sequence[tuple[str, str]] = ()
) -> None:
    """Print an evaluation: its verdict, its headline metrics with `more_rows` below, and the lines of its task."""
    from distilora.evaluation.baselines import baseline_lines
    from distilora.evaluation.views import step_lines, view_lines
    from distilora.tasks.registry import find_task

    if evaluation.get("verdict"):
        print(f"{evaluation['verdict']}\n")
    task_class = find_task(task)
    print_table(title, [*metric_rows(evaluation, task_class.headlines), *more_rows])
    for line in [
        *task_class.lines(evaluation),
        *view_lines(evaluation),
        *step_lines(evaluation),
        *baseline_lines(evaluation),
    ]:
        print(line)


def metric_rows(evaluation: Mapping[str, Any], headlines: Sequence[str] = ()) -> list[tuple[str, str]]:
    """List the metrics named in `headlines`, or all, as pairs (name, value with its interval)."""
    metrics = evaluation["metrics"]
    names = [name for name in headlines if name in metrics] or list(metrics)
    return [(METRICS.get(name, (name, ""))[0], metric_text(name, metrics[name])) for name in names]
