"""Tokenises examples into rows, with the artifact's own tokenizer.json and truncation."""

import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding, Tokenizer

from distilora.batching.middle import MiddleTruncated, Shortened
from distilora.batching.rows import Rows, rows_of
from distilora.data.examples import Example
from distilora.errors import ArtifactError
from distilora.progress import Progress

MAPPED = 1_000_000  # tokens; from that number on they are kept in a file instead of in memory
BATCH = 512  # texts per call of the tokenizer, whose threads share them


@dataclass(frozen=True)
class Tokenised:
    """Rows of a list of examples, and which of them lost text to truncation, [G]."""

    rows: Rows
    truncated: NDArray[np.bool_]
    once: NDArray[np.int64] | None = None  # [G], where the rows of an example repeat tokens

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each example as it was read, [G]: what several of its rows repeat counts once."""
        return self.rows.group_lengths if self.once is None else self.once


def with_truncation(tokenizer: Tokenizer, max_length: int, side: str) -> Tokenizer:
    """Set a tokenizer to truncate to `max_length` tokens (special ones included) and never to pad; return it, or a wrapper.

    `side` is the part that is cut off, right or left, or cut out, middle (batching/middle.py).
    """
    tokenizer.no_padding()
    if side == "middle":
        return cast(Tokenizer, MiddleTruncated(tokenizer, max_length))
    tokenizer.enable_truncation(max_length, direction=side)
    return tokenizer


def read_tokenizer(path: Path, max_length: int | None = None, side: str | None = None) -> Tokenizer:
    """Read a tokenizer.json, without the padding that a foreign file may have stored: rows are ragged.

    With `max_length` it truncates after that many tokens (special ones included) or at its own stored length, whichever is
    less, on the side stored with that length, else in tokenizer_config.json, else on the right. The `side` middle, which no
    file can store, goes before the stored ones.
    Raises ArtifactError if the file is missing or broken.
    """
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # tokenizers raises a bare Exception
        raise ArtifactError(f"{path}: not a tokenizer ({error}); the folder is incomplete") from None
    tokenizer.no_padding()
    if max_length is None:
        return tokenizer
    if side == "middle":
        return with_truncation(tokenizer, max_length, side)
    stored = tokenizer.truncation or {
        "max_length": max_length,
        "direction": _side(path.with_name("tokenizer_config.json")),
    }
    return with_truncation(tokenizer, min(stored["max_length"], max_length), stored["direction"])


def _side(path: Path) -> str:
    """Read the side that a Transformers folder truncates on: 'left' or 'right'."""
    try:
        side = json.loads(path.read_text("utf-8"))["truncation_side"]
    except (OSError, ValueError, KeyError, TypeError):
        return "right"
    return "left" if side == "left" else "right"


def tokenise(tokenizer: Tokenizer, examples: Sequence[Example], label: str = "") -> Tokenised:
    """Tokenise the examples into rows, one for each text, in order, and show progress under `label`.

    The token ids of a large corpus lie in an unnamed temporary file, mapped into memory; it vanishes with the rows.
    """
    ids, parts, truncated = _Ids(), [], []
    with Progress(label, len(examples)) as bar:
        for start in range(0, len(examples), BATCH):
            batch = examples[start : start + BATCH]
            counts = [len(example.texts) for example in batch]
            encodings = tokenizer.encode_batch([text for example in batch for text in example.texts])
            spans, cut, first = [], [], 0
            for count in counts:
                of_example = encodings[first : first + count]
                spans.append([encoding.ids for encoding in of_example])
                cut.append(any(encoding.overflowing for encoding in of_example))
                first += count
            rows = rows_of(spans)
            ids.add(rows.ids)
            parts.append((rows.lengths, rows.row, rows.group + start))
            truncated.append(np.asarray(cut, bool))
            bar.add(len(batch))
    if not parts:
        return Tokenised(rows_of([]), np.empty(0, bool))
    lengths, row, group = (np.concatenate(column) for column in zip(*parts, strict=True))
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return Tokenised(Rows(ids.whole(), offsets, row, group), np.concatenate(truncated))


def stretches_read(encoding: Encoding | Shortened, text: str) -> list[tuple[int, int]]:
    """Find start and end of the stretches of a text that truncation keeps: the whole, its beginning, its end, or both."""
    special = encoding.special_tokens_mask
    if not encoding.overflowing or all(special):
        return [(0, len(text))]
    cut = encoding.head if isinstance(encoding, Shortened) else len(special)
    offsets = encoding.offsets
    pieces = (zip(offsets[:cut], special[:cut], strict=True), zip(offsets[cut:], special[cut:], strict=True))
    spans = [[span for span, is_special in piece if not is_special] for piece in pieces]
    return [(min(start for start, _ in piece), max(end for _, end in piece)) for piece in spans if piece]


def unknown_only(tokenizer: Tokenizer, rows: Rows) -> int:
    """Count the rows of nothing but unknown and special tokens, such as those of emoji or of another script."""
    unknown = tokenizer.token_to_id(getattr(tokenizer.model, "unk_token", None) or "")
    if unknown is None or not len(rows):
        return 0
    special = [token_id for token_id, token in tokenizer.get_added_tokens_decoder().items() if token.special]
    words_before = np.concatenate([[0], np.cumsum(~np.isin(rows.ids, [*special, unknown]))])
    unknown_before = np.concatenate([[0], np.cumsum(rows.ids == unknown)])
    start, end = rows.offsets[:-1], rows.offsets[1:]
    return int(np.sum((words_before[start] == words_before[end]) & (unknown_before[start] < unknown_before[end])))


class _Ids:
    """A growing array of token ids: in memory, and from MAPPED of them on in a file that is mapped into it."""

    def __init__(self) -> None:
        self.parts: list[NDArray[np.int32]] = []
        self.file: IO[bytes] | None = None
        self.count = 0

    def add(self, ids: NDArray[np.int32]) -> None:
        self.count += len(ids)
        self.parts.append(ids)
        if self.count >= MAPPED:
            self.file = self.file or tempfile.TemporaryFile()  # noqa: SIM115 - the memory map needs it open
            for part in self.parts:
                self.file.write(part.data)
            self.parts = []

    def whole(self) -> NDArray[np.int32]:
        if self.file is None:
            return np.concatenate(self.parts)
        self.file.flush()
        return np.memmap(self.file, np.int32, "r")
