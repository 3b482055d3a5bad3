"""The command `distilora curve`: accuracy against labels, of n-gram models and the encoder, and which to take for how many."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from distilora.cli.arguments import EVERYWHERE, TRAIN_OPTIONS, require_train_extra
from distilora.cli.settings import take_recipe
from distilora.errors import ConfigError

if TYPE_CHECKING:
    from distilora.config.schema import RunConfig

USAGE = "distilora curve [RECIPE.yaml] [--STAGE.FIELD VALUE ...] [--sizes 100,300,1000] [--updates K] --output DIR"
OPTIONS = {
    "RECIPE.yaml": TRAIN_OPTIONS["RECIPE.yaml"],
    "--sizes N,N,...": "numbers of labels, or all; larger ones than there are become all "
    "(default: 100,300,1000,3000,10000,25000,all)",
    "--updates K": "train for at least K updates: on few labels for more epochs than training.epochs (default: 200)",
    **EVERYWHERE,
}


def curve_command(words: Sequence[str]) -> int:
    """Measure a learning curve, or go on with one, print it, and return the exit code."""
    if "-h" in words or "--help" in words:
        from distilora.config.descriptions import help_text
        from distilora.config.schema import RunConfig

        print(help_text(RunConfig, USAGE, OPTIONS))
        return 0
    config, sizes, updates = read_settings(words)
    require_train_extra()
    from distilora.runs.curve_folder import check_folder, curve_config
    from distilora.runs.preflight import check_run  # before anything imports torch, which takes seconds

    folder = Path(config.output)
    check_folder(folder, updates)
    checked = check_run(curve_config(config, folder), resume=True)
    from distilora.evaluation.curve import lines
    from distilora.runs.curve import learning_curve

    summary = learning_curve(config, folder, sizes, updates, checked=checked)
    print("\n".join(lines(summary)))
    print(f"\nThe page: {config.output}/curve.html")
    return 0


def read_settings(words: Sequence[str]) -> "tuple[RunConfig, tuple[int | str, ...], int]":
    """Read the settings of the runs, the sizes and the least number of updates. Raises ConfigError."""
    for option in ("--resume", "--overwrite", "--dry-run"):
        if any(word.split("=")[0] == option for word in words):
            raise ConfigError(f"{option}: goes with distilora train; a curve goes on by itself where it was, drop it")
    settings, sizes, updates = _take(words)
    from distilora.config.parse import parse
    from distilora.config.schema import RunConfig
    from distilora.runs.resolve import check_given

    recipe, settings = take_recipe(settings)
    config = parse(RunConfig, settings, recipe, options=OPTIONS)
    flags = {word[2:].split("=")[0] for word in settings if word.startswith("--")}
    if "output" not in flags:
        raise ConfigError("--output: nothing given; name the folder of the curve")
    check_given(config, flags, recipe)
    return config, sizes, updates


def _take(words: Sequence[str]) -> tuple[list[str], tuple[int | str, ...], int]:
    """Take --sizes and --updates out of a command line; return the other words, the sizes and the updates."""
    from distilora.runs.curve_folder import ALL, SIZES, UPDATES

    sizes, updates, others = SIZES, UPDATES, []
    remaining = iter(words)
    for word in remaining:
        name, equals, value = word.partition("=")
        if name not in ("--sizes", "--updates"):
            others.append(word)
            continue
        value = value if equals else next(remaining, "")
        if name == "--updates":
            updates = _count(name, value)
        else:
            sizes = tuple(size if size == ALL else _count(name, size) for size in value.split(","))
    return others, sizes, updates


def _count(option: str, text: str) -> int:
    if not (text.isdecimal() and int(text) >= 1):
        wanted = "whole numbers such as 100,300,1000, or all" if option == "--sizes" else "a whole number of 1 or more"
        raise ConfigError(f"{option}: {text or 'nothing'} given, {wanted} wanted")
    return int(text)
