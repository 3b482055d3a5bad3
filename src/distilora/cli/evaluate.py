"""The command `distilora evaluate`: measures a finished run on other labelled data."""

import json
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from distilora.cli.arguments import EVALUATE_OPTIONS
from distilora.errors import ConfigError

USAGE = (
    "distilora evaluate RUN [--data.path PATH] [--data.split SPLIT] [--checks [FILE.yaml]] [--STAGE.FIELD VALUE ...]"
)

LABELS = ("--checks.negative", "--checks.positive")


def evaluate_command(words: Sequence[str]) -> int:
    """Measure a run as the settings say and print its metrics; return the exit code."""
    from distilora.config.measuring import MeasureConfig
    from distilora.config.parse import parse

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
    config = parse(MeasureConfig, as_settings(words[1:]), options=EVALUATE_OPTIONS)
    if not config.data.path and not config.checks.suite:
        raise ConfigError("data.path: nothing given; name the labelled data with --data.path, or give --checks")
    from distilora.evaluation.evaluate import evaluate

    summary, folder = evaluate(words[0], config)
    if "evaluation" in summary:
        from distilora.cli.console import print_evaluation

        evaluation = summary["evaluation"]
        data = f"{summary['source']}, {evaluation['split']}: {evaluation['examples']:,} examples"
        print_evaluation(f"{words[0]} on {data} (95% intervals)", summary["task"], evaluation)
    if "checks" in summary:
        _print_checks(words[0], summary["checks"])
    if (folder / "report.html").exists():
        print(f"\nThe report: {folder}/report.html")
    return 0


def as_settings(words: Sequence[str]) -> list[str]:
    """Write `--checks [FILE]` and `--checks.positive LABEL` as the settings they are short for."""
    settings: list[str] = []
    remaining = list(words)
    while remaining:
        name, equals, value = remaining.pop(0).partition("=")
        if name == "--checks" or (name in LABELS and not equals):
            value = remaining.pop(0) if not equals and remaining and not remaining[0].startswith("-") else value
        if name == "--checks":
            settings.append(f"--checks.suite={value or 'sentiment'}")
        elif name in LABELS and value and not value.startswith("[") and value != "null":
            settings.append(f"{name}={json.dumps([value])}")
        else:
            settings.append(f"{name}={value}" if equals or name in LABELS else name)
    return settings


def _print_checks(run: str, record: Mapping[str, Any]) -> None:
    from distilora.evaluation.checks.showing import checks_lines, share_line

    print(f"\n{run}: checks {record['suite']} passed: {share_line(record['own'])}")
    if record["data"]["cases"]:
        print(f"on your texts: {share_line(record['data'])}")
    print("\n".join(checks_lines(record)))
