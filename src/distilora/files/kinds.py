"""Maps file names to kinds of tables; a second suffix, `.gz` or `.zst`, marks a compressed file."""

from collections.abc import Iterable
from pathlib import Path

from distilora.errors import DataError
from distilora.files.compression import compression_of

FORMATS = {
    ".csv": "csv", ".tsv": "tsv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "json", ".parquet": "parquet",
    ".xlsx": "xlsx", ".txt": "txt",
}  # fmt: skip
KINDS = "csv, tsv, jsonl, json, parquet or xlsx"  # readable, for messages
COMPRESSED = ("parquet", "xlsx")  # in themselves, so not read as .gz or .zst


def kind_of(name: str | Path) -> str | None:
    """Return the kind of table of a file name, ignoring `.gz` and `.zst`; None for an unknown suffix."""
    path = Path(name)
    if compression_of(path) is None:
        return FORMATS.get(path.suffix.lower())
    kind = FORMATS.get(Path(path.stem).suffix.lower())
    return None if kind in COMPRESSED else kind


def tables_of(names: Iterable[str]) -> list[str]:
    """Select the tables among the file names of a folder, sorted: no text files, no names with a leading dot or underscore.

    A .json file beside tables of other kinds counts as their metadata.
    """
    kinds = {name: kind_of(name) for name in names if name[0] not in "._"}
    tables = sorted(name for name, kind in kinds.items() if kind not in (None, "txt"))
    return [name for name in tables if kinds[name] != "json"] or tables


def format_of(path: str | Path, kind: str | None = None) -> str:
    """Return `kind`, or if that is None the kind of table of a path. Raises DataError for an unknown suffix."""
    kind = kind or kind_of(path)
    if kind is None:
        raise DataError(
            f"{path}: unknown kind of file; give one ending in {', '.join(FORMATS)} (all but parquet and xlsx also with "
            ".gz or .zst behind)"
        )
    return kind
