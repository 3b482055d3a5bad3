"""Reads recipes and flags into a config, and says in one line what is wrong with them.

A recipe is YAML with the stages as top-level keys; a flag is `--stage.field value` and wins over the recipe. An
unknown key or a value of the wrong type is an error that names the key, the nearest valid one and what is wanted.
"""

import dataclasses
import difflib
import re
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from distilora.config import RunConfig
from distilora.errors import ConfigError

C = typing.TypeVar("C")


def known_keys(config: type) -> list[str]:
    """Every setting of a config class by its dotted name, stages included."""
    keys = []
    for name, kind in typing.get_type_hints(config).items():
        keys.append(name)
        if dataclasses.is_dataclass(kind):
            keys += [f"{name}.{inner}" for inner in known_keys(typing.cast(type, kind))]
    return keys


def _unknown(key: str, config: type, prefix: str = "") -> ConfigError:
    near = difflib.get_close_matches(key, known_keys(config), 1, 0.5) or difflib.get_close_matches(
        key.rsplit(".", 1)[-1], {k.rsplit(".", 1)[-1]: k for k in known_keys(config)}, 1, 0.6
    )
    full = {k.rsplit(".", 1)[-1]: k for k in known_keys(config)}
    hint = f"; did you mean {prefix}{full.get(near[0], near[0]) if '.' not in near[0] else near[0]}?" if near else ""
    return ConfigError(f"{prefix}{key}: there is no such setting{hint}")


def _check_keys(tree: Mapping[str, Any], config: type, prefix: str = "") -> None:
    known = known_keys(config)
    for key, value in tree.items():
        dotted = f"{prefix}{key}"
        if dotted not in known:
            raise _unknown(dotted, config)
        if any(k.startswith(dotted + ".") for k in known):
            if not isinstance(value, Mapping):
                raise ConfigError(f"{dotted}: {value!r} given, settings of that stage wanted")
            _check_keys(value, config, dotted + ".")
        elif value is None and type(None) not in typing.get_args(_hint(dotted, config)):
            raise ConfigError(f"{dotted}: null given, {_wanted(dotted, config)} wanted")


def read_recipe(path: str | Path, config: type = RunConfig) -> dict[str, Any]:
    """The settings in a YAML recipe, keys checked; raises ConfigError naming the file or the key."""
    import yaml

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


def _parser(config: type, usage: str) -> Any:
    import jsonargparse

    jsonargparse.set_parsing_settings(docstring_parse_attribute_docstrings=True)
    parser = jsonargparse.ArgumentParser(prog="distilora", usage=usage, exit_on_error=False)
    parser.add_class_arguments(config)
    return parser


def help_text(config: type, usage: str) -> str:
    """The help of every setting of a config class."""
    lines: list[str] = _parser(config, usage).format_help().splitlines()
    return "\n".join(line for line in lines if "Path to a configuration file" not in line and "-h, --help" not in line)


def parse(config: type[C], flags: Sequence[str] = (), recipe: Mapping[str, Any] | None = None) -> C:
    """A config from a recipe's settings and `--stage.field value` flags, the flags winning.

    Raises ConfigError for an unknown flag, a wrong type, or values that the stages refuse.
    """
    parser = _parser(config, "distilora")
    known = known_keys(config)
    stages = {key for key in known if any(k.startswith(key + ".") for k in known)}
    for flag in flags:
        name = flag[2:].split("=", 1)[0]
        if flag.startswith("--") and name in stages:
            setting = next(k for k in known if k.startswith(name + "."))
            raise ConfigError(f"--{name}: a stage, not a setting; give one of its settings, such as --{setting}")
        if flag.startswith("--") and name not in known:
            raise _unknown(name, config, "--")
    _check_keys(recipe or {}, config)
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
    given = re.search(r"(?:Given|Got) value: (.*)", text)
    if key is None:
        return " ".join(text.split()) + "; a setting is given as --stage.field value"
    wanted = _wanted(key[1], config)
    return f"{key[1]}: {given[1] if given else 'nothing'} given, {wanted} wanted"


def _hint(key: str, config: type) -> Any:
    kind: Any = config
    for part in key.split("."):
        kind = typing.get_type_hints(kind)[part]
    return kind


def _wanted(key: str, config: type) -> str:
    kind = _hint(key, config)
    if isinstance(kind, type):
        return {"int": "a whole number", "float": "a number", "bool": "true or false", "str": "text"}.get(
            kind.__name__, kind.__name__
        )
    parts = [_kind(part) for part in typing.get_args(kind)] if typing.get_origin(kind) is not Literal else [_kind(kind)]
    return " or ".join(parts)


def _kind(kind: Any) -> str:
    if kind is type(None):
        return "null"
    if typing.get_origin(kind) is Literal:
        return "one of " + ", ".join(map(str, typing.get_args(kind)))
    if typing.get_origin(kind) is tuple:
        return "a list such as [a,b]"
    return {"int": "a whole number", "float": "a number", "str": "text"}.get(getattr(kind, "__name__", ""), str(kind))


def to_tree(config: Any) -> dict[str, Any]:
    """A config as plain dicts and lists, ready for YAML or JSON."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: plain(v) for k, v in value.items()}
        return [plain(v) for v in value] if isinstance(value, list | tuple) else value

    tree = plain(dataclasses.asdict(config))
    assert isinstance(tree, dict)
    return tree
