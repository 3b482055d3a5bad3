"""Reads a JSON file of records: an array of objects, element by element, the layout of SQuAD, or JSON Lines under the name .json.

An array may be larger than memory: its text is read in pieces, longer ones only where an element needs them.
"""

import codecs
import io
import json
import re
from collections.abc import Iterator
from typing import BinaryIO

from distilora.errors import DataError
from distilora.files.records import Lines, Record, Reject, checked_object, records
from distilora.files.squad import is_squad, squad_records

PIECE = 1 << 20  # bytes
BEGINNING = 1 << 16  # bytes searched for the bracket of an array
_REQUIREMENT = "each element must be an object"
_LITERAL = 16  # characters; no token but a string or a number is longer (-Infinity has 9)
_BLANK = re.compile(r"\s*")
_DECODE = json.JSONDecoder().raw_decode


def json_records(stream: BinaryIO, name: str, first: int = 0) -> Iterator[Record | Reject]:
    """Yield the records of an open JSON file after the `first`.

    Raises DataError where an array is not JSON: the elements behind cannot be told apart.
    """
    if not stream.seekable():
        stream = io.BytesIO(stream.read())
    beginning = stream.read(BEGINNING).removeprefix(codecs.BOM_UTF8).lstrip()
    stream.seek(0)
    for record in _of_layout(stream, name, beginning):
        if record.row > first:
            yield record


def _of_layout(stream: BinaryIO, name: str, beginning: bytes) -> Iterator[Record | Reject]:
    if is_squad(beginning):
        return squad_records(stream, name)
    return _elements(stream, name) if beginning.startswith(b"[") else records(Lines(stream, name), "jsonl")


def _elements(stream: BinaryIO, name: str) -> Iterator[Record | Reject]:
    """Yield the elements of an array, decoding its text only as far as they need it."""
    text = _Text(stream, name)
    text.skip("[")
    row = 0
    while not text.skip("]"):
        if row and not text.skip(","):
            raise DataError(f"{name}: after row {row}: not JSON (a comma or ']' is missing); correct it")
        row += 1
        place = f"{name}: row {row}"
        try:
            value, raw = text.element()
        except (ValueError, RecursionError) as error:
            raise DataError(f"{place}: not JSON ({getattr(error, 'msg', error)}); {_REQUIREMENT}") from None
        try:
            yield Record(place, checked_object(value, raw, _REQUIREMENT), row)
        except DataError as error:
            yield Reject(place, str(error), row, raw)
    if text.character():
        raise DataError(f"{name}: after row {row}: not JSON (text after the array's end); put all records in one array")


class _Text:
    """The unread rest of a JSON text, its beginning decoded."""

    def __init__(self, stream: BinaryIO, name: str) -> None:
        self._stream, self._name = stream, name
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")()
        self._text, self._at, self._read, self._ended = "", 0, 0, False

    def character(self) -> str:
        """Peek at the next character that is not blank; empty at the end."""
        while True:
            blank = _BLANK.match(self._text, self._at)
            assert blank is not None  # it matches the empty string, too
            self._at = blank.end()
            if self._at < len(self._text) or self._ended:
                return self._text[self._at : self._at + 1]
            self._more(PIECE)

    def skip(self, character: str) -> bool:
        """Consume the next character that is not blank if it is this one; return whether it was."""
        matches = self.character() == character
        self._at += matches
        return matches

    def element(self) -> tuple[object, str]:
        """Consume the next value; return it and its text. Raises ValueError if there is none."""
        self.character()
        size = PIECE
        while True:
            try:
                value, end = _DECODE(self._text, self._at)
            except json.JSONDecodeError as error:  # malformed, or cut by the end of the piece
                cut = error.pos >= len(self._text) - _LITERAL or error.msg.startswith("Unterminated string")
                if self._ended or not cut:
                    raise
            else:
                if end < len(self._text) or self._ended:  # else a number may go on
                    raw, self._at = self._text[self._at : end], end
                    return value, raw
            self._more(size)
            size *= 2  # doubled, so that a long element is decoded only a few times

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
