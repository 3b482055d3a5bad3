"""Tells the kind of a table by its file's name; `.gz` or `.zst` behind it says that it is compressed."""

from collections.abc import Iterable
from pathlib import Path

from distilora.errors import DataError
from distilora.files.compression import compression_of

FORMATS = {
    ".csv": "csv", ".tsv": "tsv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "json", ".parquet": "parquet",
    ".xlsx": "xlsx", ".txt": "txt",
}  # fmt: skip
KINDS = "csv, tsv, jsonl, json, parquet or xlsx"  # readable, for messages
PACKED = ("parquet", "xlsx")  # compressed already, so never as .gz or .zst


def kind_of(name: str | Path) -> str | None:
    """Return the kind of table that a file's name stands for, `.gz` and `.zst` aside; None for an unknown suffix."""
    path = Path(name)
    if compression_of(path) is None:
        return FORMATS.get(path.suffix.lower())
    kind = FORMATS.get(Path(path.stem).suffix.lower())
    return None if kind in PACKED else kind


def tables_of(names: Iterable[str]) -> list[str]:
    """Select the names of a folder's tables, sorted: no text files, and none that begin with a dot or an underscore.

    A .json beside tables of other kinds is taken for metadata about them.
    """
    kinds = {name: kind_of(name) for name in names if name[0] not in "._"}
    tables = sorted(name for name, kind in kinds.items() if kind not in (None, "txt"))
    return [name for name in tables if kinds[name] != "json"] or tables


def format_of(path: str | Path, kind: str | None = None) -> str:
    """Return the table format of a path: `kind`, else by its suffix. Raises DataError if neither tells."""
    kind = kind or kind_of(path)
    if kind is None:
        raise DataError(
            f"{path}: unknown kind of file; give one ending in {', '.join(FORMATS)} (all but parquet and xlsx also with "
            ".gz or .zst behind)"
        )
    return kind
