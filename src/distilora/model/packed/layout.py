"""Packs the rows of a micro-batch one after the other into a single sequence, so that no work is spent on padding.

    tokens   a a a a a b b b c c .          rows a, b, c; the tail '.' rounds the sequence up to a multiple of STRIDE
    starts   0         5     8              where each row's first token stands

Attention alone must tell the rows apart. It works on groups of rows of about equal length, each group padded to a
multiple of 32, so that a row meets nobody else's tokens and few shapes occur.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from distilora.batching.rows import Rows

# Matrix kernels are compiled for each new shape, and on a CPU that costs more than the padding (LOG.md: Shapes, again).
STRIDE = 128  # tokens of a packed sequence are a multiple of this, of 32 below 512
ROUND = 32  # lengths within a group
ALIKE = 0.8  # a row joins a group if it is at least this share of the longest in it


@dataclass(frozen=True)
class Group:
    """B rows for attention, padded to `longest` tokens each."""

    rows: Tensor  # [B] their numbers
    index: Tensor  # [B * longest] place in the packed sequence of each padded place; padding repeats the row's start
    inside: Tensor | None  # [n] the padded places that hold tokens; None: all do
    tokens: Tensor  # [n] their places in the packed sequence
    starts: tuple[int, ...]  # place of each row's first token
    lengths: tuple[int, ...]  # of each row
    longest: int


class Packed:
    """The layout of B rows, T tokens in all, in one sequence of `size` >= T places."""

    def __init__(self, rows: Rows, device: torch.device) -> None:
        self.lengths: NDArray[np.int64] = rows.lengths
        self.device = device
        self.total = int(self.lengths.sum())
        stride = STRIDE if self.total > 512 else ROUND
        self.size = -(-self.total // stride) * stride
        self._starts = rows.offsets[:-1] - rows.offsets[0]

    @cached_property
    def starts(self) -> Tensor:
        """Place of each row's first token, [B]."""
        return torch.from_numpy(self._starts.astype(np.int64)).to(self.device)

    @cached_property
    def positions(self) -> Tensor:
        """Position of each token within its row, 0 in the tail, [size]."""
        positions = np.zeros(self.size, np.int64)
        positions[: self.total] = np.arange(self.total) - np.repeat(self._starts, self.lengths)
        return torch.from_numpy(positions).to(self.device)

    @cached_property
    def bounds(self) -> Tensor:
        """Row boundaries, [B + 1] of int32, as kernels for packed attention take them."""
        return torch.from_numpy(np.append(self._starts, self.total).astype(np.int32)).to(self.device)

    @cached_property
    def groups(self) -> list[Group]:
        """Groups of rows of about equal length, for attention; empty rows are in none."""
        order = np.argsort(-self.lengths, kind="stable")
        order = order[self.lengths[order] > 0]
        groups, start = [], 0
        while start < len(order):
            longest = -(-int(self.lengths[order[start]]) // ROUND) * ROUND
            stop = start
            while stop < len(order) and self.lengths[order[stop]] >= ALIKE * (longest - ROUND):
                stop += 1
            groups.append(self._group(order[start:stop], longest))
            start = stop
        return groups

    def _group(self, rows: NDArray[np.int64], longest: int) -> Group:
        place = np.arange(longest)[None]
        inside = place < self.lengths[rows][:, None]
        index = np.where(inside, self._starts[rows][:, None] + place, self._starts[rows][:, None]).reshape(-1)
        flat = np.flatnonzero(inside)
        return Group(
            rows=self._put(rows),
            index=self._put(index),
            inside=None if inside.all() else self._put(flat),
            tokens=self._put(index[flat]),
            starts=tuple(self._starts[rows].tolist()),
            lengths=tuple(self.lengths[rows].tolist()),
            longest=longest,
        )

    def _put(self, values: NDArray[np.int64]) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(values, np.int64)).to(self.device)

    def pack(self, ids: NDArray[np.int32], filler: int) -> Tensor:
        """Lay token ids [T] out as the packed sequence, [size], its tail filled with `filler`."""
        sequence = np.full(self.size, filler, np.int64)
        sequence[: self.total] = ids
        return torch.from_numpy(sequence).to(self.device)
