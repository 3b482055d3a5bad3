"""Writes files whole, keeps them through a power cut, and computes the checksums that every shipped file is verified by."""

import hashlib
import json
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def sha256(path: str | Path) -> str:
    """Compute the SHA-256 of a file, 64 hex digits."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def temporary_name(path: Path) -> Path:
    """Name the file or folder beside `path` that this process writes before it moves it there."""
    return path.with_name(f".{path.name}.{os.getpid()}.tmp")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path to write to, and move it to `path` when all went well; it never outlives the context."""
    temporary = temporary_name(path)
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder to fill, and move it to `path` when all went well; it never outlives the context.

    Raises OSError if `path` is by then a folder that is not empty.
    """
    temporary = temporary_name(path)
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file under a temporary name, then move it to `path`."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def flush_file(path: Path) -> None:
    """Wait until a file's content is on the disk, so that a power cut does not empty it. Raises OSError."""
    with open(path, "r+b") as stream:  # Windows flushes no file that is open for reading only
        os.fsync(stream.fileno())


def flush_folder(folder: Path) -> None:
    """Wait until the names in a folder, which a move changes, are on the disk. Raises OSError.

    Does nothing on Windows, which cannot open a folder and whose file system journals names by itself.
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
    """Open a text file for writing under a temporary name, and move it to `path` when all went well."""
    with replacing(Path(path)) as temporary, open(temporary, "w", encoding="utf-8", newline="\n") as stream:
        yield stream


def write_json(path: str | Path, value: Any) -> None:
    """Write indented JSON, under a temporary name first. Raises ValueError for NaN."""
    with atomic_text(path) as stream:
        stream.write(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
