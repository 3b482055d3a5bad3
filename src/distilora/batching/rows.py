"""Holds tokenised examples as rows, ragged and never padded: the input of encoders and backends.

Row i is `ids[offsets[i]:offsets[i+1]]`. One example may give several rows (chunks of a long review, windows of a
context, sentences of a document): `row[i]` is the position of row i within its example and `group[i]` the example it
belongs to. Rows of one example are adjacent and groups are numbered 0..G-1 in input order, so that
`group[0] == 0`, `diff(group) in {0, 1}`, `offsets[0] == 0`, `offsets[-1] == len(ids)`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Rows:
    """B ragged rows of token ids, T tokens in all, in G groups."""

    ids: NDArray[np.int32]  # [T]
    offsets: NDArray[np.int64]  # [B + 1]
    row: NDArray[np.int64]  # [B]
    group: NDArray[np.int64]  # [B]

    def __post_init__(self) -> None:
        """Check shapes and order. Raises ValueError if they do not hold."""
        count = len(self.offsets) - 1
        if count < 0 or len(self.row) != count or len(self.group) != count:
            raise ValueError(f"{len(self.offsets)} offsets, {len(self.row)} rows and {len(self.group)} groups disagree")
        if self.offsets[0] != 0 or self.offsets[-1] != len(self.ids) or np.any(np.diff(self.offsets) < 0):
            raise ValueError("offsets must rise from 0 to the number of ids")
        if count and (self.group[0] != 0 or np.any((np.diff(self.group) < 0) | (np.diff(self.group) > 1))):
            raise ValueError("groups must be numbered from 0 in input order")

    def __len__(self) -> int:
        """Return the number of rows, B."""
        return len(self.offsets) - 1

    @property
    def groups(self) -> int:
        """The number of examples, G."""
        return int(self.group[-1]) + 1 if len(self.group) else 0

    @cached_property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each row, [B]."""
        return np.diff(self.offsets)

    @cached_property
    def group_offsets(self) -> NDArray[np.int64]:
        """Row offsets of the groups, [G + 1]: rows of group g are `group_offsets[g]:group_offsets[g + 1]`."""
        return np.searchsorted(self.group, np.arange(self.groups + 1)).astype(np.int64)

    @cached_property
    def group_lengths(self) -> NDArray[np.int64]:
        """Tokens of each example, [G]: the input of a plan."""
        return np.diff(self.offsets[self.group_offsets])

    def take(self, groups: NDArray[np.int64] | Sequence[int]) -> "Rows":
        """Return the rows of the given examples, in that order; groups are renumbered from 0."""
        starts = self.group_offsets
        groups = np.asarray(groups, np.int64)
        counts = starts[groups + 1] - starts[groups]
        index = _ranges(starts[groups], counts)
        lengths = self.lengths[index]
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        ids = np.asarray(self.ids[_ranges(self.offsets[index], lengths)])
        return Rows(ids, offsets, self.row[index], np.repeat(np.arange(len(groups)), counts).astype(np.int64))


def _ranges(starts: NDArray[np.int64], counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Concatenate the ranges starts[i], starts[i] + 1, ..., counts[i] numbers each."""
    ends = np.cumsum(counts)
    numbers = np.arange(ends[-1] if len(ends) else 0) + np.repeat(starts - (ends - counts), counts)
    return np.asarray(numbers, np.int64)


def joined(parts: Sequence[Rows]) -> Rows:
    """Join rows: the examples of the first part, then those of the next, and so on."""
    starts = np.cumsum([0, *(len(part.ids) for part in parts)])
    groups = np.cumsum([0, *(part.groups for part in parts)])
    return Rows(
        ids=np.concatenate([part.ids for part in parts]),
        offsets=np.concatenate([[0], *(part.offsets[1:] + start for part, start in zip(parts, starts, strict=False))]),
        row=np.concatenate([part.row for part in parts]),
        group=np.concatenate([part.group + first for part, first in zip(parts, groups, strict=False)]),
    )


def rows_of(spans: Sequence[Sequence[Sequence[int]]]) -> Rows:
    """Build rows from examples given as lists of rows of token ids. Raises ValueError for an example without rows."""
    flat = [np.asarray(ids, np.int32) for example in spans for ids in example]
    counts = np.asarray([len(example) for example in spans], np.int64)
    if np.any(counts == 0):
        raise ValueError("an example without rows")
    positions = [np.arange(n, dtype=np.int64) for n in counts]
    return Rows(
        ids=np.concatenate(flat) if flat else np.empty(0, np.int32),
        offsets=np.concatenate([[0], np.cumsum([len(ids) for ids in flat])]).astype(np.int64),
        row=np.concatenate(positions) if positions else np.empty(0, np.int64),
        group=np.repeat(np.arange(len(spans)), counts).astype(np.int64),
    )
