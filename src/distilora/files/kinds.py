"""Which kind of table a file is, by its name; `.gz` or `.zst` behind it says that it is compressed."""

from collections.abc import Iterable
from pathlib import Path

from distilora.errors import DataError
from distilora.files.compression import compression_of

FORMATS = {
    ".csv": "csv", ".tsv": "tsv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "json", ".parquet": "parquet",
    ".xlsx": "xlsx", ".txt": "txt",
}  # fmt: skip
KINDS = "csv, tsv, jsonl, json, parquet or xlsx"  # of tables that are read, for messages
PACKED = ("parquet", "xlsx")  # compressed inside


def kind_of(name: str | Path) -> str | None:
    """The kind of table that a file's name says it is, `.gz` and `.zst` aside; None if it says none."""
    path = Path(name)
    if compression_of(path) is None:
        return FORMATS.get(path.suffix.lower())
    kind = FORMATS.get(Path(path.stem).suffix.lower())
    return None if kind in PACKED else kind


def tables_of(names: Iterable[str]) -> list[str]:
    """The names in a folder that are of tables, sorted: neither texts nor notes, hidden or not.

    A .json beside tables of other kinds is taken for a note on them.
    """
    kinds = {name: kind_of(name) for name in names if name[0] not in "._"}
    tables = sorted(name for name, kind in kinds.items() if kind not in (None, "txt"))
    return [name for name in tables if kinds[name] != "json"] or tables


def format_of(path: str | Path, wanted: str | None = None) -> str:
    """The table format of a path: `wanted`, else by its suffix. Raises DataError if neither tells."""
    found = wanted or kind_of(path)
    if found is None:
        raise DataError(
            f"{path}: unknown kind of file; give one ending in {', '.join(FORMATS)} (all but parquet and xlsx also with "
            ".gz or .zst behind)"
        )
    return found
