"""Tokenises examples into rows, with the artifact's own tokenizer.json, truncation included."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from distilora.errors import ArtifactError
from distilora.examples import Example
from distilora.progress import Progress
from distilora.rows import Rows, concatenate, rows_of

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


def read_tokenizer(path: Path) -> Tokenizer:
    """A tokenizer.json. Raises ArtifactError if it is missing or broken."""
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # tokenizers raises bare Exception
        raise ArtifactError(f"{path}: not a tokenizer ({error}); the folder is incomplete") from None


def tokenise(tokenizer: Tokenizer, examples: Sequence[Example], label: str = "") -> Tokenised:
    """Rows of the examples, one row for each text, in order; shows progress under `label`."""
    parts, truncated = [], []
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
            parts.append(rows_of(rows))
            truncated.append(np.asarray(cut, bool))
            bar.add(len(batch))
    return Tokenised(concatenate(parts), np.concatenate(truncated) if truncated else np.empty(0, bool))
