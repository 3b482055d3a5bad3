"""Describes the pictures and tables of a task as data, so that the report can draw them without knowing the task."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Matrix:
    """Confusion matrix of counts [true][predicted], drawn as a heat map of each row's shares."""

    caption: str
    counts: Sequence[Sequence[int]]
    names: Sequence[str]


@dataclass(frozen=True)
class Reliability:
    """Reliability diagram, accuracy against confidence: bins of `confidence`, `accuracy` and `count`."""

    caption: str
    bins: Sequence[Mapping[str, float]]


@dataclass(frozen=True)
class Curve:
    """Named line through points."""

    name: str
    x: Sequence[float]
    y: Sequence[float]


@dataclass(frozen=True)
class Curves:
    """Curves in the unit square; its diagonal is chance."""

    caption: str
    curves: Sequence[Curve]
    x: str
    y: str


@dataclass(frozen=True)
class Coverage:
    """Accuracy of the most confident answers against coverage, the share of the examples that they answer."""

    caption: str
    coverage: Sequence[float]
    accuracy: Sequence[float]


@dataclass(frozen=True)
class Points:
    """Points of equal axes; on the diagonal both numbers are the same."""

    caption: str
    x: Sequence[float]
    y: Sequence[float]
    x_name: str
    y_name: str


@dataclass(frozen=True)
class Histogram:
    """Counts in equal bins from 0 to 1."""

    caption: str
    counts: Sequence[int]
    x: str


@dataclass(frozen=True)
class Table:
    """Table of cells; columns in `text` hold long texts. With `fold`, the table is folded under that name."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    text: Sequence[str] = ()
    fold: str = ""


Picture = Matrix | Reliability | Curves | Coverage | Histogram | Points


@dataclass(frozen=True)
class Shown:
    """Sentences, pictures and tables of a split, in order."""

    sentences: Sequence[str] = ()
    pictures: Sequence[Picture] = ()
    tables: Sequence[Table] = field(default=())


@dataclass(frozen=True)
class Number:
    """Figure to read first, formatted, with a line below it such as its interval."""

    name: str
    value: str
    below: str = ""


@dataclass(frozen=True)
class Section:
    """Section of the report beside those of the splits."""

    title: str
    numbers: Sequence[Number]
    sentences: Sequence[str]
    tables: Sequence[Table]
