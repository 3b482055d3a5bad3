"""What a task has a report show, as data: the report draws it, and knows no task."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Matrix:
    """Counts [true][predicted], as a heat map of each row's shares."""

    caption: str
    counts: Sequence[Sequence[int]]
    names: Sequence[str]


@dataclass(frozen=True)
class Reliability:
    """Accuracy against confidence: rows of `confidence`, `accuracy` and `count`."""

    caption: str
    bins: Sequence[Mapping[str, float]]


@dataclass(frozen=True)
class Curve:
    """A line through points, with its name."""

    name: str
    x: Sequence[float]
    y: Sequence[float]


@dataclass(frozen=True)
class Curves:
    """Curves in the unit square, above its diagonal where they say something."""

    caption: str
    curves: Sequence[Curve]
    x: str
    y: str


@dataclass(frozen=True)
class Histogram:
    """Counts in equal bins from 0 to 1."""

    caption: str
    counts: Sequence[int]
    x: str


@dataclass(frozen=True)
class Table:
    """Rows of cells under a heading; those of `text` are long. `fold` names a table that unfolds when it is clicked."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    text: Sequence[str] = ()
    fold: str = ""


Picture = Matrix | Reliability | Curves | Histogram


@dataclass(frozen=True)
class Shown:
    """Sentences, pictures and tables of a split, in order."""

    sentences: Sequence[str] = ()
    pictures: Sequence[Picture] = ()
    tables: Sequence[Table] = field(default=())
