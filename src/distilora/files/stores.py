"""Finds, reads and writes files on a disk, or with fsspec in an object store (s3://, gs://, memory://).

A file appears whole: on a disk by a move, in a store by a single upload.
"""

import io
import json
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from distilora.errors import DataError, MissingExtra, OutputError
from distilora.files.atomic import flush_file, flush_folder, write_json
from distilora.files.compression import decompressed
from distilora.files.kinds import KINDS, tables_of

MAGIC = "*?["


class Input(NamedTuple):
    """A file to read: its path or address, and its size and state, by which a changed file is noticed."""

    path: str
    size: int
    state: str


def is_address(path: str) -> bool:
    """Tell whether a path is an address in a store rather than a path on a disk."""
    return "://" in path and not path.startswith("file://")


def local(path: str) -> Path:
    """Return the path on the disk of `path` or file://path."""
    return Path(path.removeprefix("file://"))


def find_inputs(source: str) -> list[Input]:
    """List the files that a file, a folder (not its subfolders) or a glob names, sorted. Raises DataError if there is none.

    Of a folder, text files and those that begin with a dot or an underscore are skipped.
    """
    inputs = _in_store(source) if is_address(source) else _on_disk(source)
    if not inputs:
        raise DataError(f"{source}: no {KINDS} file there; give a file, a folder of them, or a glob")
    empty = next((file for file in inputs if file.size == 0), None)
    if empty is not None:
        raise DataError(f"{empty.path}: the file is empty; give one with records, or remove it")
    return inputs


def _on_disk(source: str) -> list[Input]:
    path = local(source)
    if path.is_dir():
        paths = [path / name for name in tables_of(file.name for file in path.iterdir() if file.is_file())]
    elif path.is_file():
        paths = [path]
    elif any(sign in source for sign in MAGIC):
        import glob

        paths = [Path(name) for name in glob.glob(str(path), recursive=True) if Path(name).is_file()]  # noqa: PTH207
    else:
        raise DataError(f"{source}: no such file or folder; check the path")
    stats = [(file, file.stat()) for file in sorted(paths)]
    return [Input(str(file), stat.st_size, str(stat.st_mtime_ns)) for file, stat in stats]


def _in_store(source: str) -> list[Input]:
    fs, path = file_system(source)
    try:
        if any(sign in path for sign in MAGIC):
            infos = list(fs.glob(path, detail=True).values())
        else:
            info = fs.info(path)
            infos = [info]
            if info["type"] == "directory":
                inside = {Path(entry["name"]).name: entry for entry in fs.ls(path) if entry["type"] == "file"}
                infos = [inside[name] for name in tables_of(inside)]
    except OSError as error:
        raise DataError(f"{source}: cannot be read ({error}); check the address and its credentials") from None
    files = sorted((info for info in infos if info["type"] == "file"), key=lambda info: str(info["name"]))
    return [Input(fs.unstrip_protocol(i["name"]), int(i["size"]), str(fs.ukey(i["name"]))) for i in files]


def file_system(address: str) -> tuple[Any, str]:
    """Return fsspec's file system of an address, and the path in it. Raises MissingExtra or DataError."""
    try:
        from fsspec.core import url_to_fs
    except ImportError:
        raise MissingExtra("fsspec", "ray") from None
    try:
        fs, path = url_to_fs(address)
    except (ImportError, ValueError) as error:
        raise DataError(
            f"{address}: {error}; install what fsspec needs for such addresses, or check its beginning"
        ) from None
    return fs, path


@contextmanager
def opened(path: str) -> Iterator[BinaryIO]:
    """Open a file for reading bytes, a .gz or .zst decompressed. Raises DataError if it cannot be read."""
    try:
        if is_address(path):
            fs, inner = file_system(path)
            with fs.open(inner, "rb") as stream:
                buffered = stream if hasattr(stream, "getbuffer") else io.BufferedReader(stream, 1 << 20)
                yield decompressed(buffered, path)
        else:
            with open(local(path), "rb") as stream:
                yield decompressed(stream, path)
    except OSError as error:
        raise DataError(
            f"{path}: cannot be read ({error.strerror or error}); check that it exists and that you may read it"
        ) from None


class Place:
    """A folder to write to, on a disk or in a store; names may contain subfolders."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.folder = None if is_address(address) else local(address)
        if self.folder is None:
            self.fs, self.root = file_system(address)

    @contextmanager
    def new(self, name: str) -> Iterator[Path]:
        """Yield the path to write a new file to; a store gets it uploaded when it is whole."""
        if self.folder is not None:
            (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
            yield self.folder / name
            return
        with tempfile.TemporaryDirectory(prefix="distilora-") as folder:
            path = Path(folder) / Path(name).name
            yield path
            try:
                self.fs.put_file(str(path), f"{self.root}/{name}")
            except OSError as error:
                raise OutputError(
                    f"output: {self.address}/{name} cannot be written ({error}); check your permissions"
                ) from None

    def write_json(self, name: str, value: Any) -> None:
        """Write a value as JSON."""
        with self.new(name) as path:
            write_json(path, value)

    def read_json(self, names: Sequence[str]) -> list[Any]:
        """Read the values of JSON files; None for one that is missing or, after a power cut, not whole."""
        if self.folder is not None:
            texts = [(self.folder / name).read_bytes() if (self.folder / name).is_file() else b"null" for name in names]
        else:  # all at once: a store answers each in tens of milliseconds
            paths = [f"{self.root}/{name}" for name in names]
            contents = self.fs.cat(paths, on_error="omit") if paths else {}
            texts = [contents.get(self.fs._strip_protocol(path), b"null") for path in paths]
        return [_parsed(text) for text in texts]

    def sizes(self, folder: str = "") -> dict[str, int]:
        """Return the sizes of the files in the folder, or in one below it, by name."""
        if self.folder is not None:
            path = self.folder / folder
            return (
                {file.name: file.stat().st_size for file in path.iterdir() if file.is_file()} if path.is_dir() else {}
            )
        inner = f"{self.root}/{folder}".rstrip("/")
        self.fs.invalidate_cache()
        infos = self.fs.ls(inner) if self.fs.exists(inner) else []
        return {Path(i["name"]).name: int(i["size"]) for i in infos if i["type"] == "file"}

    def read(self, name: str) -> str:
        """Return the path or address by which `opened` reads a file."""
        return str(self.folder / name) if self.folder is not None else f"{self.address.rstrip('/')}/{name}"

    def remove(self, name: str) -> None:
        """Remove a file, if it exists."""
        if self.folder is not None:
            (self.folder / name).unlink(missing_ok=True)
        elif self.fs.exists(f"{self.root}/{name}"):
            self.fs.rm_file(f"{self.root}/{name}")

    def keep(self, path: Path) -> None:
        """Flush to the disk what was written to a path that `new` gave, so that a power cut does not empty it."""
        if self.folder is not None:
            flush_file(path)
            flush_folder(path.parent)


def _parsed(text: bytes) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None
