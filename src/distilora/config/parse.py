"""Reads recipes and flags into a config, and says in one line what is wrong with them.

A recipe is YAML with the stages as top-level keys; a flag is `--stage.field value` and wins over the recipe. An unknown key
is an error that suggests the key meant (`config/hints.py`), a value of the wrong type one that names the right type.
"""

import dataclasses
import re
import shlex
import typing
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from distilora.config.descriptions import in_words
from distilora.config.hints import nearest
from distilora.config.schema import CARVED, RunConfig
from distilora.errors import ConfigError
from distilora.files.kinds import kind_of

C = typing.TypeVar("C")


def known_keys(config: type) -> list[str]:
    """List every setting of a config class by its dotted name, stages included."""
    keys = []
    for name, kind in typing.get_type_hints(config).items():
        keys.append(name)
        if dataclasses.is_dataclass(kind):
            keys += [f"{name}.{inner}" for inner in known_keys(typing.cast(type, kind))]
    return keys


def _stage_names(config: type) -> set[str]:
    return {key.rsplit(".", 1)[0] for key in known_keys(config) if "." in key}


def _unknown_flag(flag: str, config: type, options: Iterable[str]) -> ConfigError:
    stages = _stage_names(config)
    accepted = [key for key in known_keys(config) if key not in stages]
    accepted += [option.split()[0].removeprefix("--") for option in options if option.startswith("--")]
    meant = nearest(flag.lstrip("-"), accepted)
    hint = f"; did you mean --{meant}?" if meant else "; --help lists them"
    return ConfigError(f"{flag}: there is no such setting{hint}")


def _unknown_key(key: str, value: Any, config: type) -> ConfigError:
    stages = _stage_names(config)
    accepted = [name for name in known_keys(config) if isinstance(value, Mapping) or name not in stages]
    meant = nearest(key, accepted)
    hint = f"; did you mean {meant}?" if meant else ""
    return ConfigError(f"{key}: there is no such setting{hint}")


def _check_keys(tree: Mapping[str, Any], config: type, prefix: str = "") -> None:
    keys, stages = known_keys(config), _stage_names(config)
    for key, value in tree.items():
        dotted = f"{prefix}{key}"
        if dotted not in keys:
            raise _unknown_key(dotted, value, config)
        if dotted in stages:
            if not isinstance(value, Mapping):
                raise ConfigError(f"{dotted}: {value!r} given, settings of that stage wanted")
            _check_keys(value, config, dotted + ".")
        elif value is None and type(None) not in typing.get_args(_hint(dotted, config)):
            raise ConfigError(f"{dotted}: null given, {_type_in_words(dotted, config)} wanted")


def read_recipe(path: str | Path, config: type = RunConfig) -> dict[str, Any]:
    """Read the settings in a YAML recipe and check their keys. Raises ConfigError naming the file or the key."""
    import yaml

    if Path(path).is_dir() or kind_of(path) not in (None, "json"):
        raise ConfigError(
            f"recipe: {path} is no recipe; if it is data, give it as --data.path {shlex.quote(str(path))}"
        )
    try:
        tree = yaml.safe_load(Path(path).read_text("utf-8"))
    except OSError as error:
        raise ConfigError(f"recipe: cannot read {path} ({error.strerror}); see recipes/ for examples") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"recipe: {path} is not YAML: {' '.join(str(error).split())}") from None
    if tree is None:
        return {}
    if not isinstance(tree, dict) or not all(isinstance(key, str) for key in tree):
        raise ConfigError(f"recipe: {path} must hold settings such as 'training: {{epochs: 1}}'")
    _check_keys(tree, config)
    return tree


def read_recorded(path: str | Path) -> dict[str, Any]:
    """Read the settings in a run's run.yaml. Earlier releases recorded null where validation was carved out."""
    tree = read_recipe(path)
    data = tree.get("data", {})
    return {**tree, "data": {**data, "validation_split": data.get("validation_split") or CARVED}}


def _parser(config: type) -> Any:
    import jsonargparse

    parser = jsonargparse.ArgumentParser(prog="distilora", exit_on_error=False)
    parser.add_class_arguments(config)
    return parser


def parse(
    config: type[C], flags: Sequence[str] = (), recipe: Mapping[str, Any] | None = None, options: Iterable[str] = ()
) -> C:
    """Build a config from a recipe's settings and `--stage.field value` flags, the flags winning.

    `options` are the command's further options ("--resume RUN"), for the hint beside an unknown flag. Raises ConfigError for
    an unknown flag, a wrong type, or values that the stages refuse.
    """
    keys, stages = known_keys(config), _stage_names(config)
    for flag in flags:
        name = flag[2:].split("=", 1)[0]
        if flag.startswith("--") and name in stages:
            setting = next(key for key in keys if key.startswith(name + "."))
            raise ConfigError(f"--{name}: a stage, not a setting; give one of its settings, such as --{setting}")
        if (flag.startswith("--") and name not in keys) or re.match(r"-[A-Za-z]", flag):
            raise _unknown_flag(flag.split("=", 1)[0], config, options)
    _check_keys(recipe or {}, config)
    parser = _parser(config)
    try:
        base = parser.parse_object(dict(recipe or {}))
        parsed = parser.parse_args(list(flags), namespace=base)
        return config(**parser.instantiate(parsed).as_dict())
    except ConfigError:
        raise
    except Exception as error:  # jsonargparse raises ArgumentError, TypeError and ValueError for wrong values
        raise ConfigError(_one_line(error, config)) from None


def _one_line(error: Exception, config: type) -> str:
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ConfigError):
            return str(cause)
        cause = cause.__cause__ or cause.__context__
    text = str(error)
    key = re.search(r'Parser key "([\w.]+)"', text) or re.search(r"argument --([\w.]+)", text)
    value = re.search(r"(?:Given|Got) value: (.*)", text)
    if key is None:
        return " ".join(text.split()) + "; a setting is given as --stage.field value"
    return f"{key[1]}: {value[1] if value else 'nothing'} given, {_type_in_words(key[1], config)} wanted"


def _hint(key: str, config: type) -> Any:
    kind: Any = config
    for part in key.split("."):
        kind = typing.get_type_hints(kind)[part]
    return kind


def _type_in_words(key: str, config: type) -> str:
    return in_words(_hint(key, config), article=True)


def to_tree(config: Any) -> dict[str, Any]:
    """Convert a config to plain dicts and lists, ready for YAML or JSON."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: plain(v) for k, v in value.items()}
        return [plain(v) for v in value] if isinstance(value, list | tuple) else value

    tree = plain(dataclasses.asdict(config))
    assert isinstance(tree, dict)
    return tree
