"""Matches a model's labels to the names that a suite uses: by what one says, by usual names, or along a scale of numbers."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from distilora.errors import ConfigError
from distilora.evaluation.checks.suite import Suite

_NUMBERED = re.compile(r"(?:label )?(\d{1,2})(?: stars?)?")  # after _plain: 4, 4 stars, LABEL_4


@dataclass(frozen=True)
class Naming:
    """The suite's name of each label of a model, "" where it has none."""

    labels: tuple[str, ...]
    names: tuple[str, ...]  # of each label

    @property
    def distinct(self) -> tuple[str, ...]:
        """The names that some label has, in the labels' order."""
        return tuple(dict.fromkeys(name for name in self.names if name))

    def probabilities(self, of_labels: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
        """Sum the probabilities of the labels, [N, C], by name: [N] each."""
        return {
            name: of_labels[:, [i for i, other in enumerate(self.names) if other == name]].sum(axis=1)
            for name in self.distinct
        }

    def sentence(self) -> str:
        """Say which labels have which name; empty if all are called what they are."""
        if all(name == label for name, label in zip(self.names, self.labels, strict=True)):
            return ""
        lists = [
            f"{name}: {', '.join(label for label, other in zip(self.labels, self.names, strict=True) if other == name)}"
            for name in self.distinct
        ]
        nameless = [label for label, name in zip(self.labels, self.names, strict=True) if not name]
        lists += [f"neither: {', '.join(nameless)}"] if nameless else []
        return "Labels are read as " + "; ".join(lists) + "."


def name_labels(suite: Suite, labels: Sequence[str], chosen: Mapping[str, Sequence[str]] | None = None) -> Naming:
    """Give each label the suite's name for it.

    Args:
        chosen: the labels of some names, from settings; they win over usual names.

    Raises ConfigError if a chosen label is not the model's, if the suite has no such name, or if a name that it needs fits
    no label.
    """
    chosen = {name: tuple(map(str, values)) for name, values in (chosen or {}).items() if values}
    for name, values in chosen.items():
        if name not in suite.labels:
            raise ConfigError(f"checks.{name}: the suite {suite.name} has no label of that name; drop the setting")
        if unknown := next((value for value in values if value not in labels), None):
            raise ConfigError(f"checks.{name}: {unknown!r} is no label of the model ({', '.join(labels)})")
    if not suite.labels:
        return _as_they_are(suite, labels)
    by_label = {value: name for name, values in chosen.items() for value in values}
    if sum(map(len, chosen.values())) > len(by_label):
        raise ConfigError("checks: one label is given for two names; give it for one")
    usual = {_plain(value): name for name, values in suite.labels.items() for value in values if name not in chosen}
    graded = {} if chosen else _graded(suite, labels)
    names = tuple(by_label.get(label) or graded.get(label) or usual.get(_plain(label), "") for label in labels)
    for name in suite.labels:
        if name not in names and name not in suite.optional:
            setting = f"--checks.{name} LABEL" if name in ("positive", "negative") else f"labels: {name}: in the file"
            raise ConfigError(
                f"checks: no label of the model ({', '.join(labels)}) is known as {name}; name it with {setting}"
            )
    return Naming(tuple(labels), names)


def _as_they_are(suite: Suite, labels: Sequence[str]) -> Naming:
    for check in suite.checks:
        if unknown := next((name for name in check.names if name not in labels), None):
            raise ConfigError(
                f"checks: check {check.name!r}: {unknown!r} is no label of the model ({', '.join(labels)}); correct it, or "
                "say under labels: what it stands for"
            )
    return Naming(tuple(labels), tuple(labels))


def _graded(suite: Suite, labels: Sequence[str]) -> dict[str, str]:
    """Name labels that are all numbers (or numbers of stars) along the suite's scale.

    The lower half has its first name, the upper half its last; the middle of an odd number has the middle name if there is one.
    """
    numbers = [_NUMBERED.fullmatch(_plain(label)) for label in labels]
    values = [int(number[1]) for number in numbers if number]
    if (
        not suite.scale
        or len(values) < len(labels)
        or sorted(values) != list(range(min(values), min(values) + len(labels)))
    ):
        return {}
    ranks = np.argsort(np.argsort(values))
    middle = suite.scale[1] if len(suite.scale) == 3 else ""
    return {
        label: suite.scale[0]
        if 2 * rank + 1 < len(labels)
        else suite.scale[-1]
        if 2 * rank + 1 > len(labels)
        else middle
        for label, rank in zip(labels, ranks.tolist(), strict=True)
    }


def _plain(label: str) -> str:
    """Return the label in lower case, with single spaces between its words; the sign of -1 stays."""
    return re.sub(r"(?<=\w)[\s_-]+(?=\w)", " ", label.lower().strip())
