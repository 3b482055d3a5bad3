"""Reads the settings of a run from a command line: a recipe, if the first word names one, and options, which win over it."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from distilora.errors import ConfigError

if TYPE_CHECKING:
    from distilora.config.schema import RunConfig


def take_recipe(words: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    """Return the settings of the recipe that the first word names, if it is one, and the other words. Raises ConfigError."""
    from distilora.config.parse import read_recipe

    if words and not words[0].startswith("-"):
        return read_recipe(words[0]), list(words[1:])
    return {}, list(words)


def settings_to_look_at(
    command: str, words: Sequence[str], usage: str, options: Mapping[str, str], reads: Callable[[str], bool]
) -> "tuple[RunConfig, bool] | None":
    """Read the settings of a command that looks at a run's data and writes nothing, and whether it is to print JSON.

    Prints the help instead and returns None if that is asked for.

    Args:
        reads: tells whether a setting makes a difference to the command.

    Raises ConfigError for an option that only training reads.
    """
    from distilora.config.parse import known_keys, parse
    from distilora.config.schema import RunConfig

    if "-h" in words or "--help" in words:
        from distilora.config.descriptions import help_text

        print(help_text(RunConfig, usage, options, reads))
        return None
    of_train = {"resume", "overwrite", "dry-run", *(key for key in known_keys(RunConfig) if not reads(key))}
    for option in (word.split("=")[0] for word in words if word.startswith("--")):
        if option[2:] in of_train:
            raise ConfigError(
                f"{option}: goes with distilora train; {command} trains no encoder and writes nothing, drop it"
            )
    recipe, others = take_recipe([word for word in words if word != "--json"])
    return parse(RunConfig, others, recipe, options=options), "--json" in words
