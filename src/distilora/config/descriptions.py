"""Describes every setting in words: type, default, meaning. Help, reference page and errors take them from here.

Types become words (`tuple[str, ...] | None` is "list of names or null"), meanings are the docstrings under the fields of
`config/schema.py`. Heavy imports are banned here: `--help` must answer at once.
"""

import dataclasses
import shutil
import textwrap
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

WIDEST = 110  # columns of help on a wide terminal
_NOUNS = {int: "whole number", float: "number", bool: "true or false", str: "text", type(None): "null"}
_ITEMS = {str: "names", int: "whole numbers", float: "numbers"}


@dataclass(frozen=True)
class Setting:
    """A setting by its dotted name, with its type and its default in words (`kind`, `default`)."""

    key: str
    kind: str
    default: str
    meaning: str


@dataclass(frozen=True)
class Stage:
    """The settings of a dataclass, without those of nested stages; `name` is empty for the outermost."""

    name: str
    title: str
    settings: tuple[Setting, ...]


def stages(config: type, name: str = "") -> list[Stage]:
    """List the stages of a config class, outermost first, in the order of its fields."""
    from docstring_parser import parse_from_object

    parsed = parse_from_object(config)
    meanings = {param.arg_name: " ".join((param.description or "").split()) for param in parsed.params}
    hints = get_type_hints(config)
    prefix = f"{name}." if name else ""
    settings, nested = [], []
    for field in dataclasses.fields(config):
        hint = hints[field.name]
        if dataclasses.is_dataclass(hint) and isinstance(hint, type):
            nested += stages(hint, prefix + field.name)
        else:
            meaning = meanings.get(field.name, "")
            settings.append(Setting(prefix + field.name, in_words(hint), as_given(field.default), meaning))
    return [Stage(name, (parsed.short_description or "").rstrip("."), tuple(settings)), *nested]


def in_words(hint: Any, article: bool = False) -> str:
    """Describe a type, such as "one of right, left" or "list of names or null"; `article` puts an "a" where one belongs.

    Raises TypeError for a type that has no words yet.
    """
    if get_origin(hint) in (Union, types.UnionType):
        return " or ".join(in_words(part, article) for part in get_args(hint))
    if get_origin(hint) is Literal:
        return "one of " + ", ".join(map(str, get_args(hint)))
    if get_origin(hint) is tuple:
        items = _item_types(get_args(hint)[0])
        noun = f"list of {_ITEMS[str] if str in items else _ITEMS[items[0]]}"
        return f"a {noun} such as [a,b]" if article and str in items else f"a {noun}" if article else noun
    if hint not in _NOUNS:
        raise TypeError(f"{hint}: a setting of this type cannot be described yet")
    countable = article and hint in (int, float)
    return f"a {_NOUNS[hint]}" if countable else _NOUNS[hint]


def _item_types(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)


def as_given(value: Any) -> str:
    """Format a value as a user types it on the command line."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    return f"[{','.join(map(str, value))}]" if isinstance(value, tuple) else str(value)


def help_text(
    config: type, usage: str, options: Mapping[str, str], reads: Callable[[str], bool] = lambda key: True
) -> str:
    """Format the help of a command whose settings are a config class: usage, the command's own options, settings by stage.

    Settings that `reads` denies are left out.
    """
    width = min(shutil.get_terminal_size().columns, WIDEST)
    outermost, *nested = stages(config)
    about = f"{outermost.title}. A list is given as '[a,b]'; null means that the command decides."
    blocks = [_wrapped(f"usage: {usage}", width, "       "), _wrapped(about, width)]
    blocks.append("\n".join(["options:", *(_entry(option, "", text, width) for option, text in options.items())]))
    for stage in (outermost, *nested):
        settings = [setting for setting in stage.settings if reads(setting.key)]
        titled = stage.name and settings
        lines = [_wrapped(f"{stage.name}: {stage.title[:1].lower()}{stage.title[1:]}", width)] if titled else []
        for setting in settings:
            values = f"{setting.kind}; default: {setting.default or '(nothing)'}"
            lines.append(_entry(f"--{setting.key}", values, setting.meaning, width))
        blocks.append("\n".join(lines))
    return "\n\n".join(block for block in blocks if block)


def _entry(name: str, values: str, meaning: str, width: int) -> str:
    first = _wrapped(f"  {name}  {values}".rstrip(), width, "      ")
    return f"{first}\n{_wrapped(meaning, width, '      ', '      ')}"


def _wrapped(text: str, width: int, hanging: str = "", indent: str = "") -> str:
    return textwrap.fill(text, width, initial_indent=indent, subsequent_indent=hanging, break_on_hyphens=False,
                         break_long_words=False)  # fmt: skip
