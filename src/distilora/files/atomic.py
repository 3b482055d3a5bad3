"""Checksums of files, by which everything that is shipped or relied upon is verified, and writing them whole and for good."""

import hashlib
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def sha256(path: str | Path) -> str:
    """The SHA-256 of a file, 64 hex digits."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def write_bytes(path: Path, content: bytes) -> None:
    """Writes a file under a temporary name, then moves it to `path`."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(content)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def flush_file(path: Path) -> None:
    """Waits until the disk holds a file's content, so that a power cut does not empty it. Raises OSError."""
    with open(path, "r+b") as stream:  # for reading alone, Windows flushes nothing
        os.fsync(stream.fileno())


def flush_folder(folder: Path) -> None:
    """Waits until the disk holds the names in a folder, which a move changes. Raises OSError.

    Windows opens no folder, and its file system keeps a journal of names by itself.
    """
    if sys.platform == "win32":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def atomic_text(path: str | Path) -> Iterator[Any]:
    """Opens a text file for writing under a temporary name and moves it to `path` when all went well."""
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "w", encoding="utf-8", newline="\n") as stream:
            yield stream
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: str | Path, value: Any) -> None:
    """Writes indented JSON, under a temporary name first. NaN is refused (ValueError)."""
    with atomic_text(path) as stream:
        stream.write(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
