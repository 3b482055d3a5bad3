"""Tables as files: written whatever their format, and read back as dictionaries."""

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import openpyxl
import pyarrow as pa

from distilora.files.tables import read_table

PACKERS: dict[str, Callable[[bytes], bytes]] = {
    ".gz": gzip.compress,
    ".zst": lambda data: pa.compress(data, codec="zstd", asbytes=True),
}


def read(path: Path, separator: str | None = None) -> list[dict[str, Any]]:
    return [dict(record.values) for record in read_table(path, separator)]


def written(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def workbook(path: Path, *rows: list[Any], more: tuple[str, ...] = ()) -> Path:
    book = openpyxl.Workbook()
    book.active.title = "reviews"
    for row in rows:
        book.active.append(row)
    for title in more:
        book.create_sheet(title).append(["other"])
    book.save(path)
    return path
