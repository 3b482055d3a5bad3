"""The command `distilora train`: trains from a recipe and settings, or resumes a run, and prints where its results are."""

import re
import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from distilora.cli.arguments import TRAIN_OPTIONS, Parser, require_train_extra
from distilora.cli.settings import take_recipe
from distilora.errors import ConfigError

if TYPE_CHECKING:
    from distilora.config.schema import RunConfig

USAGE = "distilora train [RECIPE.yaml] [--STAGE.FIELD VALUE ...] [--overwrite] [--dry-run] | --resume RUN [--dry-run]"


def train_command(words: Sequence[str]) -> int:
    """Train as the settings say, or only check them under --dry-run; return the exit code."""
    if "-h" in words or "--help" in words:
        _print_help()
        return 0
    overwrite, only_check = "--overwrite" in words, "--dry-run" in words
    words = [word for word in words if word not in ("--overwrite", "--dry-run")]
    resume = any(word.split("=")[0] == "--resume" for word in words)
    if resume and overwrite:
        raise ConfigError(
            "--overwrite: given with --resume, which continues the run that is there; drop one of the two"
        )
    config = _resumed(words) if resume else _new(words)
    require_train_extra()
    from distilora.runs.preflight import check_run  # before anything imports torch, which takes seconds

    checked = check_run(config, overwrite=overwrite, resume=resume)
    if only_check:
        from distilora.cli.console import print_table
        from distilora.runs.dry_run import dry_run

        lines = dry_run(config, checked, overwrite=overwrite, resume=resume)
        print_table(f"{config.output}: nothing is trained or written (--dry-run)", list(lines.items()))
        return 0
    from distilora.runs.run import train

    summary = train(config, overwrite=overwrite, resume=resume, checked=checked)
    if summary:  # of several processes of a run, the first alone has one
        _print_summary(config, summary)
    return 0


def _print_help() -> None:
    from distilora.config.descriptions import help_text
    from distilora.config.schema import RunConfig

    print(help_text(RunConfig, USAGE, TRAIN_OPTIONS))


def _new(words: list[str]) -> "RunConfig":
    """Read the settings of a new run from its recipe, if one is named, and the options, which win over it."""
    from distilora.config.parse import parse
    from distilora.config.schema import RunConfig
    from distilora.runs.resolve import check_given

    recipe, words = take_recipe([re.sub(r"^--init-from(?==|$)", "--init_from", word) for word in words])
    config = parse(RunConfig, words, recipe, options=TRAIN_OPTIONS)
    check_given(config, {word[2:].split("=")[0] for word in words if word.startswith("--")}, recipe)
    return config


def _resumed(words: list[str]) -> "RunConfig":
    """Read the settings of the run to resume from its folder."""
    parser = Parser(prog="distilora train", add_help=False)
    parser.add_argument("--resume", required=True)
    parser.add_argument("--training.threads", dest="threads", type=int)
    args, others = parser.parse_known_args(words)
    if others:
        raise ConfigError(
            f"--resume: {' '.join(others)} given, but a resumed run keeps its settings; drop it, or start another run"
        )
    from distilora.runs.resolve import resume_config

    return resume_config(args.resume, args.threads)


def _print_summary(config: "RunConfig", summary: dict[str, Any]) -> None:
    """Print the test metrics and costs of a finished run, and the commands to continue with."""
    from distilora.cli.console import print_evaluation
    from distilora.runs.outcome import memory_rows
    from distilora.tasks.registry import find_task

    folder, test = config.output, summary["evaluations"][0]
    costs, parameters = summary["costs"], summary["parameters"]
    share = f"{parameters['trained']:,} of {parameters['total']:,} ({parameters['share']:.1%})"
    rows = [
        ("time", f"{costs['wall_s'] / 60:.1f} minutes"),
        *memory_rows(costs),
        ("trainable parameters", share),
    ]
    title = f"{folder}: {test['split']}, {test['examples']:,} examples (95% intervals)"
    print()
    print_evaluation(title, summary["task"], test, rows)
    for note in summary["notes"]:
        print(f"note: {note}")
    print(f"\nThe report: {folder}/report.html\nNext:")
    folder = shlex.quote(folder)
    print(f"  distilora predict {folder} {find_task(summary['task']).example}")
    print(f"  distilora predict {folder} --input reviews.csv --output scored.parquet")
    print(f"  distilora evaluate {folder} --data.path DIR_OR_FILE --data.split test")
    form = "merged" if config.lexicon == "none" else "onnx-int8"  # which has room for the n-gram expert
    print(f"  distilora export {folder} --to {form} --output {folder}-{form}")
