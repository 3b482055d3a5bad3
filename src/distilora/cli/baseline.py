"""The command `distilora baseline`: what n-gram models reach on the data of a run, in seconds, before anything is trained."""

import json
from collections.abc import Sequence
from typing import Any

from distilora.cli.arguments import EVERYWHERE, TRAIN_OPTIONS, require_train_extra
from distilora.errors import ConfigError

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
    from distilora.config.descriptions import help_text
    from distilora.config.schema import RunConfig

    if "-h" in words or "--help" in words:
        print(help_text(RunConfig, USAGE, OPTIONS, reads))
        return 0
    as_json = "--json" in words
    words = [word for word in words if word != "--json"]
    from distilora.config.parse import known_keys, parse, read_recipe

    of_train = {"resume", "overwrite", "dry-run", *(key for key in known_keys(RunConfig) if not reads(key))}
    for option in (word.split("=")[0] for word in words if word.startswith("--")):
        if option[2:] in of_train:
            raise ConfigError(
                f"{option}: goes with distilora train; baseline trains no encoder and writes nothing, drop it"
            )
    require_train_extra()
    from distilora.runs.baseline import measure_baselines

    recipe = {}
    if words and not words[0].startswith("-"):
        recipe = read_recipe(words[0])
        words = words[1:]
    summary = measure_baselines(parse(RunConfig, words, recipe, options=OPTIONS))
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
