"""Fills templates: "{name1} liked the {film}." becomes texts, the same ones for the same seed.

A slot {film} takes each value of the list `film`. {film1} and {film2} take two different values of it. {a:film} is the value
with "a" or "an" before it.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations
from math import prod
from random import Random
from typing import Any

from distilora.errors import ConfigError

Slots = Mapping[str, tuple[str, ...]]

MOST_VALUES = 10_000  # of a slot
TRIES = 8  # draws for each case that is wanted: some give no text, or one that is there
_SLOT = re.compile(r"\{(a:)?([A-Za-z_]+?)([0-9]*)\}")
_BRACE = re.compile(r"[{}]")


@dataclass(frozen=True)
class Template:
    """Text with slots; of a pair, `changed` is the second text, with the same values in the same slots."""

    text: str
    changed: str | None = None

    @property
    def slots(self) -> tuple[str, ...]:
        """Slots in the order of their first occurrence, numbers included: name1, name2, film."""
        both = f"{self.text} {self.changed or ''}"
        return tuple(dict.fromkeys(name + number for _, name, number in _SLOT.findall(both)))

    def fill(self, values: Mapping[str, str]) -> tuple[str, str | None]:
        """Put a value into each slot."""

        def value(slot: re.Match[str]) -> str:
            text = values[slot[2] + slot[3]]
            return f"{article(text)} {text}" if slot[1] else text

        return _SLOT.sub(value, self.text), None if self.changed is None else _SLOT.sub(value, self.changed)


def article(word: str) -> str:
    """Choose "a" or "an" by the first letter; words that are spelt otherwise than spoken need an article of their own."""
    return "an" if word[:1].lower() in "aeiou" else "a"


def read_template(value: Any, slots: Slots) -> Template:
    """Read a text, or a pair {from: TEXT, to: TEXT}. Raises ConfigError for anything else, or for an unknown slot."""
    if isinstance(value, Mapping) and set(value) == {"from", "to"}:
        template = Template(value["from"], value["to"])
    else:
        template = Template(value)
    for text in (template.text, template.changed):
        if text is not None and not (isinstance(text, str) and text.strip()):
            raise ConfigError(
                f"templates: {value!r} given, a text or a pair {{from: TEXT, to: TEXT}} wanted; put it in quotes"
            )
    for text in filter(None, (template.text, template.changed)):
        if _BRACE.search(_SLOT.sub("", text)):
            raise ConfigError(f"templates: {text!r}: a brace is no part of a slot; a slot is written {{film}}")
    for slot in template.slots:
        if _list_of(slot) not in slots:
            raise ConfigError(f"templates: {{{slot}}}: there is no such slot; there are {', '.join(slots) or 'none'}")
    return template


def read_slots(tree: Any) -> dict[str, tuple[str, ...]]:
    """Read the lists of slots. A value may itself contain slots: "{actor}" stands for all values of that list.

    Raises ConfigError for what is no list of texts, for slots that contain one another, and for more than MOST_VALUES.
    """
    if not isinstance(tree, Mapping):
        raise ConfigError(f"slots: {tree!r} given, lists of texts by name wanted")
    lists: dict[str, list[str]] = {}
    for name, values in tree.items():
        if not isinstance(name, str) or not re.fullmatch("[A-Za-z_]+", name):
            raise ConfigError(f"slots: {name!r}: a name of letters and _ wanted; numbers are for {{name1}}, {{name2}}")
        if not isinstance(values, list) or not values or not all(isinstance(v, str | int | float) for v in values):
            raise ConfigError(f"slots: {name}: a list of texts wanted; put yes, no and the like in quotes")
        if any(isinstance(value, bool) for value in values):
            raise ConfigError(f"slots: {name}: a list of texts wanted; put yes, no, on, off, true and false in quotes")
        lists[name] = [str(value) for value in values]
    finished: dict[str, tuple[str, ...]] = {}
    for name in lists:
        _expand(name, lists, finished, ())
    return finished


def _expand(
    name: str, lists: Mapping[str, list[str]], finished: dict[str, tuple[str, ...]], within: tuple[str, ...]
) -> None:
    """Fill the slots in the values of a list, those of other lists first."""
    if name in finished:
        return
    if name in within:
        raise ConfigError(f"slots: {name}: contains itself ({' in '.join([*within[::-1], name])}); take it out")
    values: dict[str, None] = {}
    for text in lists[name]:
        template = Template(text)
        for slot in template.slots:
            if _list_of(slot) not in lists:
                raise ConfigError(f"slots: {name}: {text!r}: there is no slot {{{slot}}}")
            _expand(_list_of(slot), lists, finished, (*within, name))
        if size(template, finished) > MOST_VALUES:
            raise ConfigError(f"slots: {name}: {text!r} has more than {MOST_VALUES:,} values; take shorter lists")
        values |= dict.fromkeys(filled for filled, _ in every(template, finished))
    if len(values) > MOST_VALUES:
        raise ConfigError(f"slots: {name}: {len(values):,} values, at most {MOST_VALUES:,} wanted; take shorter lists")
    finished[name] = tuple(values)


def size(template: Template, slots: Slots) -> int:
    """Count the ways to fill a template, those with equal values in {film1} and {film2} included."""
    return prod(len(slots[_list_of(slot)]) for slot in template.slots)


def every(template: Template, slots: Slots) -> Iterator[tuple[str, str | None]]:
    """Yield the template filled in every way, the last slot varying fastest."""
    for number in range(size(template, slots)):
        if (values := _values(template, slots, number)) is not None:
            yield template.fill(values)


def sample(template: Template, slots: Slots, count: int, rng: Random) -> list[tuple[str, str | None]]:
    """Fill a template in up to `count` different ways, chosen by `rng`; all of them if there are no more."""
    ways, most = size(template, slots), TRIES * count
    numbers = rng.sample(range(ways), ways) if ways <= most else (rng.randrange(ways) for _ in range(most))
    texts: dict[tuple[str, str | None], None] = {}
    for number in numbers:
        if len(texts) == count:
            break
        if (values := _values(template, slots, number)) is not None:
            texts[template.fill(values)] = None
    return list(texts)


def _values(template: Template, slots: Slots, number: int) -> dict[str, str] | None:
    """Return the values of way `number`, in mixed radix; None if two slots of one list have equal values."""
    values = {}
    for slot in reversed(template.slots):
        choices = slots[_list_of(slot)]
        number, index = divmod(number, len(choices))
        values[slot] = choices[index]
    equal = any(_list_of(a) == _list_of(b) and values[a] == values[b] for a, b in combinations(values, 2))
    return None if equal else values


def _list_of(slot: str) -> str:
    return slot.rstrip("0123456789")
