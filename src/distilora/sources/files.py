"""A table file, or a folder of table files named after their splits: train.csv, test-00000-of-00002.parquet, ..."""

import re
from collections.abc import Iterator
from pathlib import Path

from distilora.errors import DataError
from distilora.sources import Source
from distilora.tables import FORMATS, Record, read_table

_SYNONYMS = {"valid": "validation", "val": "validation", "dev": "validation", "eval": "validation"}


def files_source(path: Path) -> Source:
    """The source in a file (one split, called after its name or else train) or a folder.

    Raises DataError if the folder holds no table, or the file is of another kind.
    """
    if path.is_dir():
        splits: dict[str, list[Path]] = {}
        for file in sorted(path.iterdir()):
            if file.is_file() and FORMATS.get(file.suffix.lower(), "txt") != "txt":
                splits.setdefault(_split(file), []).append(file)
        if not splits:
            raise DataError(f"{path}: no csv, tsv, jsonl or parquet file in this folder; name them after their splits")
    else:
        if FORMATS.get(path.suffix.lower(), "txt") == "txt":
            raise DataError(f"{path}: unknown kind of file; give a csv, tsv, jsonl, parquet or .tar.gz")
        splits = {_split(path) if _split(path) in ("train", "validation", "test") else "train": [path]}

    def read(split: str) -> Iterator[Record]:
        for file in splits[split]:
            yield from read_table(file)

    return Source(str(path), tuple(splits), read)


def _split(file: Path) -> str:
    stem = re.split(r"[-_.]", file.name)[0].lower()
    return _SYNONYMS.get(stem, stem)
