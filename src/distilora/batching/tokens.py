"""Tokenises examples into rows, with the artifact's own tokenizer.json, truncation included."""

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from distilora.batching.rows import Rows, rows_of
from distilora.data.examples import Example
from distilora.errors import ArtifactError
from distilora.progress import Progress

MAPPED = 1_000_000  # tokens from which on they are kept in a file instead of in memory
BATCH = 512  # texts handed to the tokenizer at a time: its threads share them


class Tokenised(NamedTuple):
    """Rows of a list of examples, and whether each lost text to truncation, [G]."""

    rows: Rows
    truncated: NDArray[np.bool_]


def with_truncation(tokenizer: Tokenizer, max_length: int, side: str) -> Tokenizer:
    """Sets a tokenizer to cut after `max_length` tokens (special ones included) and never to pad."""
    tokenizer.no_padding()
    tokenizer.enable_truncation(max_length, direction=side)
    return tokenizer


def read_tokenizer(path: Path, max_length: int | None = None) -> Tokenizer:
    """A tokenizer.json that never pads: rows are ragged, and a foreign file may hold the padding of its last call.

    With `max_length` it cuts after as many tokens (special ones included), or where it is told to already, whichever
    comes first; on the side stored with the cut, else in tokenizer_config.json, else on the right.
    Raises ArtifactError if the file is missing or broken.
    """
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # tokenizers raises bare Exception
        raise ArtifactError(f"{path}: not a tokenizer ({error}); the folder is incomplete") from None
    tokenizer.no_padding()
    if max_length is None:
        return tokenizer
    stored = tokenizer.truncation or {
        "max_length": max_length,
        "direction": _side(path.with_name("tokenizer_config.json")),
    }
    return with_truncation(tokenizer, min(stored["max_length"], max_length), stored["direction"])


def _side(path: Path) -> str:
    """The side that a Transformers folder cuts on: 'left' or 'right'."""
    try:
        side = json.loads(path.read_text("utf-8"))["truncation_side"]
    except (OSError, ValueError, KeyError, TypeError):
        return "right"
    return "left" if side == "left" else "right"


def tokenise(tokenizer: Tokenizer, examples: Sequence[Example], label: str = "") -> Tokenised:
    """Rows of the examples, one row for each text, in order; shows progress under `label`.

    The token ids of a large corpus lie in a temporary file without a name, mapped into memory; it goes with the rows.
    """
    ids, parts, truncated = _Ids(), [], []
    with Progress(label, len(examples)) as bar:
        for start in range(0, len(examples), BATCH):
            batch = examples[start : start + BATCH]
            counts = [len(example.texts) for example in batch]
            encodings = tokenizer.encode_batch([text for example in batch for text in example.texts])
            rows, cut, place = [], [], 0
            for count in counts:
                mine = encodings[place : place + count]
                rows.append([encoding.ids for encoding in mine])
                cut.append(any(encoding.overflowing for encoding in mine))
                place += count
            found = rows_of(rows)
            ids.add(found.ids)
            parts.append((found.lengths, found.row, found.group + start))
            truncated.append(np.asarray(cut, bool))
            bar.add(len(batch))
    if not parts:
        return Tokenised(rows_of([]), np.empty(0, bool))
    lengths, row, group = (np.concatenate(column) for column in zip(*parts, strict=True))
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return Tokenised(Rows(ids.whole(), offsets, row, group), np.concatenate(truncated))


def unknown_only(tokenizer: Tokenizer, rows: Rows) -> int:
    """Count the rows that hold unknown tokens and special ones alone, as emoji or another script give them."""
    unknown = tokenizer.token_to_id(getattr(tokenizer.model, "unk_token", None) or "")
    if unknown is None or not len(rows):
        return 0
    special = [place for place, token in tokenizer.get_added_tokens_decoder().items() if token.special]
    known = np.concatenate([[0], np.cumsum(~np.isin(rows.ids, [*special, unknown]))])
    strange = np.concatenate([[0], np.cumsum(rows.ids == unknown)])
    first, last = rows.offsets[:-1], rows.offsets[1:]
    return int(np.sum((known[first] == known[last]) & (strange[first] < strange[last])))


class _Ids:
    """Token ids as they come: in memory, and from MAPPED of them on in a file that is mapped into it."""

    def __init__(self) -> None:
        self.parts: list[NDArray[np.int32]] = []
        self.file: IO[bytes] | None = None
        self.count = 0

    def add(self, ids: NDArray[np.int32]) -> None:
        self.count += len(ids)
        self.parts.append(ids)
        if self.count >= MAPPED:
            self.file = self.file or tempfile.TemporaryFile()  # noqa: SIM115 - the map lives on it
            for part in self.parts:
                self.file.write(part.data)
            self.parts = []

    def whole(self) -> NDArray[np.int32]:
        if self.file is None:
            return np.concatenate(self.parts)
        self.file.flush()
        return np.memmap(self.file, np.int32, "r")
