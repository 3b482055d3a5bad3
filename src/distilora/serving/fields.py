"""Reads the fields of a request: each of the right kind and within its limits, or a refusal that names the field."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from distilora.config.hints import nearest
from distilora.serving.bodies import kind_of
from distilora.serving.limits import Limits
from distilora.serving.refusals import Invalid, TooLong, TooMany

LONGEST_NAME = 200  # characters of a model's name


def known(body: Any, names: Sequence[str]) -> Mapping[str, Any]:
    """Return a body as an object with no other fields than `names`. Raises Invalid."""
    if not isinstance(body, dict):
        raise Invalid(f"body: {kind_of(body)} given, an object wanted", "body")
    for name in body:
        if name not in names:
            meant = nearest(name, names)
            hint = f"did you mean {meant}?" if meant else f"there are {', '.join(names)}"
            raise Invalid(f"{name!r:.60}: no such field; {hint}", name[:LONGEST_NAME])
    return body


def flag(body: Mapping[str, Any], name: str) -> bool:
    """Return a field that is true or false; false where it is missing or null. Raises Invalid."""
    value = body.get(name)
    if value is None or isinstance(value, bool):
        return bool(value)
    raise Invalid(f"{name}: {kind_of(value)} given, true or false wanted", name)


def whole(body: Mapping[str, Any], name: str, least: int = 1) -> int | None:
    """Return a field that is a whole number, None where it is missing or null. Raises Invalid."""
    value = body.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value < 2**31:
        given = json.dumps(value)[:20] if isinstance(value, int | float) else kind_of(value)
        raise Invalid(f"{name}: {given} given, a whole number of at least {least} wanted", name)
    return value


def word(body: Mapping[str, Any], name: str) -> str | None:
    """Return a field that is a short text, None where it is missing or null. Raises Invalid."""
    value = body.get(name)
    if value is None:
        return None
    if not isinstance(value, str):
        raise Invalid(f"{name}: {kind_of(value)} given, a text wanted", name)
    if len(value) > LONGEST_NAME:
        raise Invalid(f"{name}: {len(value):,} characters given, at most {LONGEST_NAME} wanted", name)
    return value


def text(value: Any, field: str, limits: Limits) -> str:
    """Return a value that is an input's text. Raises Invalid for another kind, TooLong."""
    if not isinstance(value, str):
        raise Invalid(f"{field}: {kind_of(value)} given, a text wanted", field)
    if len(value) > limits.characters:
        raise TooLong(
            f"{field}: {len(value):,} characters given, at most {limits.characters:,} wanted (limit characters); shorten it",
            field,
        )
    return value


def texts(body: Mapping[str, Any], name: str, limits: Limits) -> list[str]:
    """Return a field that is a text or a list of texts, as a list. Raises Invalid, TooLong, TooMany."""
    value = body.get(name)
    if value is None:
        raise Invalid(f"{name}: none given; give a text or a list of texts", name)
    if isinstance(value, str):
        return [text(value, name, limits)]
    return [text(part, f"{name}[{number}]", limits) for number, part in enumerate(listed(value, name, limits))]


def listed(
    value: Any, name: str, limits: Limits, wanted: str = "a text or a list of texts", one: str = "text"
) -> list[Any]:
    """Return a value that is a list of inputs. Raises Invalid for another kind and for an empty one, TooMany.

    Args:
        wanted: what the field takes, and `one` what an input is, for messages.
    """
    if not isinstance(value, list):
        raise Invalid(f"{name}: {kind_of(value)} given, {wanted} wanted", name)
    if not value:
        raise Invalid(f"{name}: an empty list given; give at least one {one}", name)
    if len(value) > limits.inputs:
        raise TooMany(
            f"{name}: {len(value):,} given, at most {limits.inputs:,} wanted (limit inputs); send several requests",
            name,
        )
    return value
