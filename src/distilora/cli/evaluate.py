"""The command `distilora evaluate`: measures a finished run on other labelled data."""

import shlex
from collections.abc import Sequence

from distilora.cli.arguments import EVALUATE_OPTIONS
from distilora.errors import ConfigError

USAGE = "distilora evaluate RUN --data.path PATH [--data.split SPLIT] [--STAGE.FIELD VALUE ...]"


def evaluate_command(words: Sequence[str]) -> int:
    """Measure a run as the settings say and print its metrics; return the exit code."""
    from distilora.config.parse import parse
    from distilora.config.schema import MeasureConfig

    if "-h" in words or "--help" in words:
        from distilora.config.descriptions import help_text

        print(help_text(MeasureConfig, USAGE, EVALUATE_OPTIONS))
        return 0
    if not words or words[0].startswith("-"):
        raise ConfigError(f"RUN: the run's folder comes first; usage: {USAGE}")
    if len(words) > 1 and not words[1].startswith("-"):
        raise ConfigError(
            f"{words[1]}: say what it is; labelled data is given with --data.path {shlex.quote(words[1])}"
        )
    config = parse(MeasureConfig, words[1:], options=EVALUATE_OPTIONS)
    if not config.data.path:
        raise ConfigError("data.path: nothing given; name the labelled data with --data.path")
    from distilora.cli.console import print_evaluation
    from distilora.evaluation.evaluate import evaluate

    summary, folder = evaluate(words[0], config)
    evaluation = summary["evaluation"]
    data = f"{summary['source']}, {evaluation['split']}: {evaluation['examples']:,} examples"
    print_evaluation(f"{words[0]} on {data} (95% intervals)", summary["task"], evaluation)
    print(f"\nThe report: {folder}/report.html")
    return 0
