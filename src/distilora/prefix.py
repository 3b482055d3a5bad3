"""The frozen-prefix cache: states entering the lowest trained block, computed once and read again in every epoch.

Blocks below everything that is trained give the same states each time. They are computed in micro-batches of the plan, before
the first update, and written to a file that is mapped into memory, in the precision of the run: nothing is rounded that
was not rounded before. The file belongs to one process and one run, and is deleted at its end; a run that was killed
computes it again, in the same micro-batches, so that it goes on with the same numbers.
"""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from distilora.encode import Network
from distilora.plan import plan
from distilora.progress import Progress
from distilora.rows import Rows

ROOM = 0.8  # share of the free disk that a cache may take


class Prefix:
    """States entering block `network.cut` of the examples in `owned` (all of `rows` if None); `states(examples)` reads them."""

    def __init__(self, network: Network, rows: Rows, file: Path, precision: str,
                 owned: NDArray[np.int64] | None = None) -> None:  # fmt: skip
        self._network, self._rows, self._file = network, rows, file
        self._dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        self._width = int(getattr(network.model.config, "dim", None) or network.model.config.hidden_size)
        self._owned = np.arange(rows.groups) if owned is None else owned
        lengths = rows.group_lengths
        self._starts = np.full(rows.groups, -1, np.int64)
        ends = np.cumsum(lengths[self._owned])
        self._starts[self._owned] = ends - lengths[self._owned]
        self._lengths = lengths
        self.tokens = int(ends[-1]) if len(ends) else 0
        self.bytes = self.tokens * self._width * self._dtype.itemsize
        self._states: Tensor | None = None

    def fits(self, size: int) -> bool:
        """Whether the disk has room for `size` bytes of caches."""
        self._file.parent.mkdir(parents=True, exist_ok=True)
        return size <= ROOM * shutil.disk_usage(self._file.parent).free

    def fill(self, token_budget: int, precision: str, label: str, stop: Callable[[], bool] = lambda: False) -> bool:
        """Computes and writes all states; False if `stop` said so before the end. Raises OSError on a full disk."""
        self._file.unlink(missing_ok=True)
        with open(self._file, "wb") as stream:
            if self.bytes:
                _reserve(stream.fileno(), self.bytes)
        shape = (self.tokens, self._width)
        size = self.tokens * self._width
        states = torch.from_file(str(self._file), shared=True, size=size, dtype=self._dtype) if size else torch.empty(0)
        self._states = states.view(shape)
        self._network.eval()
        with Progress(label, len(self._owned)) as bar:
            for update in plan(self._lengths[self._owned], token_budget):
                for batch in update:
                    if stop():
                        return False
                    examples = self._owned[batch]
                    device = self._network.device
                    with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
                        self._write(examples, self._network.lower(self._rows.take(examples)))
                    bar.add(len(batch))
        return True

    def _write(self, examples: NDArray[np.int64], states: Tensor) -> None:
        assert self._states is not None
        for part, example in zip(states.split(self._lengths[examples].tolist()), examples, strict=True):
            start = int(self._starts[example])
            self._states[start : start + len(part)] = part

    def states(self, examples: NDArray[np.int64]) -> Tensor:
        """States of the examples, in the order of `rows.take(examples)`, [T, D]. Raises KeyError for one not owned."""
        assert self._states is not None, "fill() first"
        starts = self._starts[examples]
        if np.any(starts < 0):
            raise KeyError(f"examples {examples[starts < 0].tolist()} are another process's")
        return torch.cat([self._states[s : s + n] for s, n in zip(starts, self._lengths[examples], strict=True)])

    def close(self) -> None:
        """Deletes the file."""
        self._states = None
        self._file.unlink(missing_ok=True)


def _reserve(handle: int, size: int) -> None:
    """Takes the room on disk now, so that a full disk is an error here and no crash while the file is mapped."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(handle, 0, size)
    else:
        os.ftruncate(handle, size)
