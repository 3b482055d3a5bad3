"""Compressed files: `reviews.csv.gz` and `reviews.csv.zst` are read as the table inside them.

gzip is Python's own; zstd comes with pyarrow. Offsets count decompressed bytes; seeking decompresses up to the offset.
"""

import gzip
import io
import zlib
from pathlib import Path
from typing import Any, BinaryIO

from distilora.errors import DataError, MissingExtra

SUFFIXES = (".gz", ".zst")
_CHUNK = 1 << 20  # bytes decompressed at a time while seeking


def compression_of(name: str | Path) -> str | None:
    """Return `.gz` or `.zst` if a file's name ends in it, else None."""
    suffix = Path(name).suffix.lower()
    return suffix if suffix in SUFFIXES else None


def decompressed(stream: BinaryIO, name: str) -> BinaryIO:
    """Return the decompressed content of an open file if its name says that it is compressed, else the stream itself.

    Raises MissingExtra without pyarrow for zstd; reading raises DataError if the file is cut short or damaged.
    """
    kind = compression_of(name)
    return stream if kind is None else io.BufferedReader(_Content(stream, kind, name), 1 << 16)


class _Content(io.RawIOBase):
    """The bytes inside a compressed stream; seeking backwards decompresses from the start again."""

    def __init__(self, stream: BinaryIO, kind: str, name: str) -> None:
        self._stream, self._kind, self._name = stream, kind, name
        self._inner = self._begin()
        self._at = 0

    def _begin(self) -> Any:
        if self._kind == ".gz":
            return gzip.GzipFile(fileobj=self._stream, mode="rb")
        try:
            import pyarrow
        except ImportError:
            raise MissingExtra("pyarrow (needed for .zst)", "parquet") from None
        return pyarrow.CompressedInputStream(_Unclosed(self._stream), "zstd")

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: Any) -> int:
        try:
            content: bytes = self._inner.read(len(buffer))
        except (OSError, EOFError, zlib.error) as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            raise DataError(
                f"{self._name}: broken {self._kind} file after {self._at:,} bytes of its content ({reason}); "
                "compress it again"
            ) from None
        buffer[: len(content)] = content
        self._at += len(content)
        return len(content)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if whence == io.SEEK_CUR:
            offset += self._at
        elif whence != io.SEEK_SET:
            raise io.UnsupportedOperation("the end of a compressed file is not known")
        if offset < self._at:
            self._stream.seek(0)
            self._inner, self._at = self._begin(), 0
        while self._at < offset:
            if not self.readinto(bytearray(min(_CHUNK, offset - self._at))):
                break
        return self._at


class _Unclosed(io.RawIOBase):
    """A wrapper that pyarrow may drop or close without closing the caller's file."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        return self._stream.read(size)
