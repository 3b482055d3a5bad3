"""The command `distilora baseline`: what n-gram models reach on the data of a run, in seconds, before anything is trained."""

import json
from collections.abc import Sequence
from typing import Any

from distilora.cli.arguments import EVERYWHERE, TRAIN_OPTIONS, require_train_extra
from distilora.cli.settings import settings_to_look_at

USAGE = "distilora baseline [RECIPE.yaml] [--data.FIELD VALUE ...] [--json]"
OPTIONS = {
    "RECIPE.yaml": TRAIN_OPTIONS["RECIPE.yaml"],
    "--json": "print JSON, with all metrics",
    **EVERYWHERE,
}


def reads(key: str) -> bool:
    """Tell whether a setting of a run makes a difference to its baselines."""
    return key in ("task", "data", "evaluation.bootstrap") or (
        key.startswith("data.") and not key.startswith("data.unlabelled")
    )


def baseline_command(words: Sequence[str]) -> int:
    """Fit the baselines, print what they reach, and return the exit code."""
    settings = settings_to_look_at("baseline", words, USAGE, OPTIONS, reads)
    if settings is None:
        return 0
    config, as_json = settings
    require_train_extra()
    from distilora.runs.baseline import measure_baselines

    summary = measure_baselines(config)
    if as_json:
        print(json.dumps(summary, ensure_ascii=False))
    else:
        _print(summary)
    return 0


def _print(summary: dict[str, Any]) -> None:
    from distilora.cli.console import print_table
    from distilora.evaluation.baselines import TITLES
    from distilora.tasks.metrics.names import metric_text

    for split in summary["splits"]:
        majority = split["majority"]
        rows = [(f"always {majority['label']!r}", f"{majority['accuracy']:.2%}")]
        for row in split["baselines"]:
            metric, measured = next(iter(row["metrics"].items()))
            rows.append((TITLES[row["name"]], f"{metric_text(metric, measured)}  {row['seconds']:.1f} s"))
        title = f"{summary['source']}: {split['split']}, {split['examples']:,} examples"
        print_table(f"{title}; fitted on {summary['fitted_on']:,} labels", rows)
