"""Perturbs texts for checks of invariance and direction: typos, case, punctuation, words exchanged, sentences added.

A perturbation that leaves a text as it is makes no case of it: a text without a name has no names to exchange.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from random import Random
from typing import Any

from distilora.errors import ConfigError
from distilora.evaluation.checks.templates import Slots

WORDS_PER_TYPO = 20  # of a long text; a short one has one typo
_WORD = re.compile(r"[^\W\d_]{5,}")  # long enough to be read with two inner letters swapped
_PUNCTUATION = re.compile(r"[.,;:!]+(?=\s|$)")
_CONTRACTIONS = {
    "is not": "isn't", "was not": "wasn't", "are not": "aren't", "were not": "weren't", "do not": "don't",
    "does not": "doesn't", "did not": "didn't", "has not": "hasn't", "have not": "haven't", "had not": "hadn't",
    "would not": "wouldn't", "could not": "couldn't", "should not": "shouldn't", "cannot": "can't", "will not": "won't",
    "it is": "it's", "that is": "that's", "there is": "there's", "I am": "I'm", "I have": "I've", "I would": "I'd",
    "they are": "they're", "we are": "we're", "you are": "you're",
}  # fmt: skip
_SHORT = {short.lower(): full for full, short in _CONTRACTIONS.items()}
_CONTRACTED = re.compile(rf"\b(?:{'|'.join(map(re.escape, _SHORT))})\b(?!['’])", re.IGNORECASE)
_FULL = {full.lower(): short for full, short in _CONTRACTIONS.items()}
_UNCONTRACTED = re.compile(rf"\b(?:{'|'.join(_FULL)})\b(?=\s+[a-z])", re.IGNORECASE)  # not "Yes, it is."


def typos(text: str, rng: Random) -> str:
    """Swap two neighbouring inner letters of one word in WORDS_PER_TYPO, of one at least."""
    places = [
        word.start() + i
        for word in _WORD.finditer(text)
        for i in range(1, len(word[0]) - 2)
        if text[word.start() + i] != text[word.start() + i + 1]
    ]
    letters = list(text)
    swapped: list[int] = []
    rng.shuffle(places)
    for place in places:
        if len(swapped) == max(len(text.split()) // WORDS_PER_TYPO, 1):
            break
        if all(abs(place - other) > 1 for other in swapped):
            letters[place], letters[place + 1] = letters[place + 1], letters[place]
            swapped.append(place)
    return "".join(letters)


def lower_case(text: str, rng: Random) -> str:
    """Write the text in lower case."""
    return text.lower()


def upper_case(text: str, rng: Random) -> str:
    """Write the text in capitals."""
    return text.upper()


def punctuation(text: str, rng: Random) -> str:
    """Drop full stops, commas, colons, semicolons and exclamation marks; add a full stop to a text that has none."""
    dropped = _PUNCTUATION.sub("", text)
    return dropped if dropped != text else f"{text}."


def white_space(text: str, rng: Random) -> str:
    """Double one space in three, and put a line break at the end."""
    words = text.split(" ")
    spaces = ["  " if rng.random() < 1 / 3 else " " for _ in words[1:]]
    return "".join(part for pair in zip(words, [*spaces, "\n"], strict=True) for part in pair)


def contractions(text: str, rng: Random) -> str:
    """Expand the contractions (isn't), or contract what can be if there are none (is not)."""
    expanded = _CONTRACTED.sub(lambda found: _as_written(found[0], _SHORT[found[0].lower()]), text)
    if expanded != text:
        return expanded
    return _UNCONTRACTED.sub(lambda found: _as_written(found[0], _FULL[found[0].lower()]), text)


def _as_written(old: str, new: str) -> str:
    return new[0].upper() + new[1:] if old[0].isupper() else new


PLAIN: Mapping[str, Callable[[str, Random], str]] = {
    function.__name__: function for function in (typos, lower_case, upper_case, punctuation, white_space, contractions)
}
WITH_LIST = ("append", "prepend", "replace")  # each with the name of a slot


@dataclass(frozen=True)
class Perturbation:
    """Perturbation by name, with the values it takes from a slot."""

    name: str
    values: tuple[str, ...] = ()

    def __call__(self, text: str, rng: Random) -> str | None:
        """Return the perturbed text; None if it would be the same."""
        if self.name in PLAIN:
            perturbed = PLAIN[self.name](text, rng)
        elif self.name == "replace":
            perturbed = _replaced(text, self.values, rng)
        else:
            added = rng.choice(self.values)
            perturbed = f"{text.rstrip()} {added}" if self.name == "append" else f"{added} {text.lstrip()}"
        return None if perturbed == text else perturbed


def read_perturbation(value: Any, slots: Slots) -> Perturbation:
    """Read the name of a perturbation, or {append: SLOT} and the like. Raises ConfigError for anything else."""
    if isinstance(value, str) and value in PLAIN:
        return Perturbation(value)
    if isinstance(value, Mapping) and len(value) == 1:
        ((name, slot),) = value.items()
        if name in WITH_LIST and isinstance(slot, str) and slot in slots:
            return Perturbation(name, slots[slot])
        if name in WITH_LIST:
            raise ConfigError(f"perturb: {name}: {slot!r} is no slot; there are {', '.join(slots) or 'none'}")
    lists = ", ".join(f"{{{name}: SLOT}}" for name in WITH_LIST)
    raise ConfigError(f"perturb: {value!r} given, one of {', '.join(PLAIN)}, {lists} wanted")


def _replaced(text: str, values: tuple[str, ...], rng: Random) -> str:
    """Exchange each of the values that occurs as a word of the text for another one, the same everywhere."""
    if len(values) < 2:
        return text
    words = re.compile(rf"(?<!\w)(?:{'|'.join(re.escape(v) for v in sorted(values, key=len, reverse=True))})(?!\w)")
    chosen: dict[str, str] = {}
    free = [value for value in values if value not in set(words.findall(text))] or list(values)

    def other(found: re.Match[str]) -> str:
        if found[0] not in chosen:
            choices = [value for value in free if value != found[0] and value not in chosen.values()] or free
            chosen[found[0]] = rng.choice(choices)
        return chosen[found[0]]

    return words.sub(other, text)
