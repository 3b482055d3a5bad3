"""Reads a JSON file of records: an array of objects, one element at a time, or objects one a line under the name .json.

An array may be larger than memory: its text is held a piece at a time, and a longer one where an element needs it.
"""

import codecs
import io
import json
import re
from collections.abc import Iterator
from typing import BinaryIO

from distilora.errors import DataError
from distilora.files.records import Lines, Record, Reject, checked_object, records

PIECE = 1 << 20  # bytes
BEGINNING = 1 << 16  # bytes looked at for the bracket of an array
_WANTED = "each element must be an object"
_LITERAL = 16  # characters of the longest token but a string or a number, such as -Infinity
_BLANK = re.compile(r"\s*")
_DECODE = json.JSONDecoder().raw_decode


def json_records(stream: BinaryIO, name: str, first: int = 0) -> Iterator[Record | Reject]:
    """The records of an open JSON file after the `first`.

    Raises DataError where an array is not JSON: what follows cannot be told apart.
    """
    if not stream.seekable():
        stream = io.BytesIO(stream.read())
    begins = stream.read(BEGINNING).removeprefix(codecs.BOM_UTF8).lstrip()
    stream.seek(0)
    for found in _elements(stream, name) if begins.startswith(b"[") else records(Lines(stream, name), "jsonl"):
        if found.row > first:
            yield found


def _elements(stream: BinaryIO, name: str) -> Iterator[Record | Reject]:
    """The elements of an array, whose text is decoded as far as they need it."""
    text = _Text(stream, name)
    text.skip("[")
    row = 0
    while not text.skip("]"):
        if row and not text.skip(","):
            raise DataError(f"{name}: after row {row}: not JSON (a comma or ']' is missing); correct it")
        row += 1
        place = f"{name}: row {row}"
        try:
            value, spelled = text.element()
        except (ValueError, RecursionError) as error:
            raise DataError(f"{place}: not JSON ({getattr(error, 'msg', error)}); {_WANTED}") from None
        try:
            yield Record(place, checked_object(value, spelled, _WANTED), row)
        except DataError as error:
            yield Reject(place, str(error), row, spelled)
    if text.character():
        raise DataError(f"{name}: after row {row}: not JSON (text after the array's end); put all records in one array")


class _Text:
    """What is left of a JSON text, the beginning of it decoded."""

    def __init__(self, stream: BinaryIO, name: str) -> None:
        self._stream, self._name = stream, name
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")()
        self._text, self._at, self._read, self._ended = "", 0, 0, False

    def character(self) -> str:
        """The next character that is not blank, still to be read; empty at the end."""
        while True:
            blank = _BLANK.match(self._text, self._at)
            assert blank is not None  # it may be empty
            self._at = blank.end()
            if self._at < len(self._text) or self._ended:
                return self._text[self._at : self._at + 1]
            self._more(PIECE)

    def skip(self, character: str) -> bool:
        """Reads the next character that is not blank if it is this one, and says whether it is."""
        there = self.character() == character
        self._at += there
        return there

    def element(self) -> tuple[object, str]:
        """The next value and how it is spelled. Raises ValueError if there is none."""
        self.character()
        size = PIECE
        while True:
            try:
                value, end = _DECODE(self._text, self._at)
            except json.JSONDecodeError as error:  # wrong, or cut
                cut = error.pos >= len(self._text) - _LITERAL or error.msg.startswith("Unterminated string")
                if self._ended or not cut:
                    raise
            else:
                if end < len(self._text) or self._ended:  # else a number may go on
                    spelled, self._at = self._text[self._at : end], end
                    return value, spelled
            self._more(size)
            size *= 2  # so that a long element is decoded a few times only

    def _more(self, size: int) -> None:
        piece = self._stream.read(size)
        self._ended = not piece
        try:
            decoded = self._decoder.decode(piece, self._ended)
        except UnicodeDecodeError as error:
            raise DataError(
                f"{self._name}: byte {self._read + len(piece) - len(error.object) + error.start + 1} is not UTF-8; "
                "convert the file, for example with iconv -f latin1 -t utf-8"
            ) from None
        self._read += len(piece)
        self._text, self._at = self._text[self._at :] + decoded, 0
