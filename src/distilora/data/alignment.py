"""Cleans a text so that a span of the cleaned one can be found again in the original, character by character.

The steps are those of `cleaning.py`, each a list of stretches that are replaced; what lies between them is only moved. Positions go
back through the steps one by one, so memory grows with the number of replacements, not of characters.
"""

import html
import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from distilora.data.cleaning import LONG_REFERENCE, SPACE, Cleaning, markup, shortened

_REFERENCE = re.compile(r"&(#[0-9]+;?|#[xX][0-9a-fA-F]+;?|[^\t\n\f <&#;]{1,32};?)")  # as in html.unescape
Replacement = tuple[int, int, str]  # start, end, what stands there instead


@dataclass(frozen=True)
class Step:
    """Replacements of one step: where they stand in its output and input, in order."""

    out_starts: tuple[int, ...]
    out_ends: tuple[int, ...]
    in_starts: tuple[int, ...]
    in_ends: tuple[int, ...]

    def start(self, place: int) -> int:
        """Return where the character at `place` of the output begins in the input."""
        last = bisect_right(self.out_starts, place) - 1
        if last < 0:
            return place
        return self.in_starts[last] if place < self.out_ends[last] else place - self.out_ends[last] + self.in_ends[last]

    def end(self, place: int) -> int:
        """Return where the character at `place` of the output ends in the input."""
        last = bisect_right(self.out_starts, place) - 1
        return self.in_ends[last] if last >= 0 and place < self.out_ends[last] else self.start(place) + 1


@dataclass(frozen=True)
class Alignment:
    """Alignment of a cleaned text with its original."""

    text: str
    original: str
    steps: tuple[Step, ...] = ()

    def in_original(self, start: int, end: int) -> tuple[int, int]:
        """Return the span of the original that the span of the cleaned text comes from; its end is excluded. start < end."""
        return self._start(start), self._end(end - 1)

    def in_cleaned(self, start: int, end: int) -> tuple[int, int]:
        """Return the smallest span of the cleaned text that comes from all of the original's; empty if cleaning removed it."""
        places = range(len(self.text))
        return bisect_right(places, start, key=self._end), bisect_left(places, end, key=self._start)

    def _start(self, place: int) -> int:
        for step in reversed(self.steps):
            place = step.start(place)
        return place

    def _end(self, place: int) -> int:
        # within a character that one step made of several, the last of those is what ends
        for step in reversed(self.steps):
            place = step.end(place) - 1
        return place + 1


def align(text: str, cleaning: Cleaning) -> Alignment:
    """Clean a text by a step of `cleaning.CLEANINGS`, with the same result. Raises ValueError for a step that is not among them."""
    if cleaning.name == "none":
        return Alignment(text, text)
    if cleaning.name != "html":
        raise ValueError(f"no alignment is known for the cleaning step {cleaning.name!r}")
    steps, current = [], text
    for replacements in (_markup, _long_references, _references, _spaces, _ends):
        current, step = _replaced(current, replacements(current))
        if step.out_starts:
            steps.append(step)
    return Alignment(current, text, tuple(steps))


def _markup(text: str) -> Iterator[Replacement]:
    for start, end in markup(text):
        yield start, end, " "


def _long_references(text: str) -> Iterator[Replacement]:
    for match in LONG_REFERENCE.finditer(text):
        yield match.start(), match.end(), shortened(match)


def _references(text: str) -> Iterator[Replacement]:
    for match in _REFERENCE.finditer(text):
        yield match.start(), match.end(), html.unescape(match[0])


def _spaces(text: str) -> Iterator[Replacement]:
    for match in SPACE.finditer(text):
        yield match.start(), match.end(), " "


def _ends(text: str) -> Iterator[Replacement]:
    left = len(text) - len(text.lstrip())
    right = len(text.rstrip())
    if left:
        yield 0, left, ""
    if left < right < len(text):
        yield right, len(text), ""


def _replaced(text: str, replacements: Iterable[Replacement]) -> tuple[str, Step]:
    """Replace stretches, given in order; one that stays the same is no replacement."""
    pieces: list[str] = []
    places: list[tuple[int, int, int, int]] = []
    copied = moved = 0
    for start, end, new in replacements:
        if text[start:end] == new:
            continue
        pieces += [text[copied:start], new]
        moved += start - copied
        places.append((moved, moved + len(new), start, end))
        moved += len(new)
        copied = end
    columns = tuple(zip(*places, strict=True)) if places else ((), (), (), ())
    return "".join([*pieces, text[copied:]]), Step(*columns)
