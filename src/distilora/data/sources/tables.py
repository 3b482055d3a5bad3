"""Reads a table file, or a folder of table files named after their splits: train.csv, test-00000-of-00002.parquet, ..."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from distilora.data.sources import Source
from distilora.errors import DataError
from distilora.files.kinds import KINDS, kind_of, tables_of
from distilora.files.records import DELIMITERS, parquet_schema
from distilora.files.separators import separator_from
from distilora.files.tables import Record, read_table

_SYNONYMS = {"valid": "validation", "val": "validation", "dev": "validation", "eval": "validation"}


def files_source(path: Path, separator: str | None = None) -> Source:
    """Open a file (one split, named after it or else train) or a folder as a source.

    `separator` is that of csv and tsv files; None: detect it. Raises DataError if the folder holds no table, the file is
    no table, or a separator is given and no file is csv or tsv.
    """
    if path.is_dir():
        splits: dict[str, list[Path]] = {}
        for name in tables_of(file.name for file in path.iterdir() if file.is_file()):
            splits.setdefault(_split(path / name), []).append(path / name)
        if not splits:
            raise DataError(f"{path}: no {KINDS} file in this folder; name them after their splits")
    else:
        if kind_of(path) in (None, "txt"):
            raise DataError(f"{path}: unknown kind of file; give a {KINDS}, one of these as .gz or .zst, or a .tar.gz")
        splits = {_split(path) if _split(path) in ("train", "validation", "test") else "train": [path]}
    if separator is not None:
        separator = separator_from(separator, "data.separator")
        if not any(kind_of(file) in DELIMITERS for files in splits.values() for file in files):
            raise DataError(f"data.separator: given, but {path} holds no csv or tsv file; drop it")

    def read(split: str) -> Iterator[Record]:
        for file in splits[split]:
            yield from read_table(file, separator)

    def schema(split: str) -> Any:
        first = splits[split][0]
        return parquet_schema(first) if kind_of(first) == "parquet" else None

    return Source(str(path), tuple(splits), read, schema=schema)


def _split(file: Path) -> str:
    stem = re.split(r"[-_.]", file.name)[0].lower()
    return _SYNONYMS.get(stem, stem)
