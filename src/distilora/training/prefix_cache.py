"""The frozen-prefix cache: states entering the lowest trained block, computed once and read again in every epoch.

Blocks below everything that is trained give the same states each time. They are computed in micro-batches of the plan, before
the first update, and written to a file that is mapped into memory, in the precision of the run: nothing is rounded that
was not rounded before. The file belongs to one process and one run, and is deleted however it ends; a run that was killed
computes it again, in the same micro-batches, so that it goes on with the same numbers.

Processes that share a run have caches all of them, or none: with a cache each computes the examples it owns, without one
every `count`-th of a micro-batch, and between the two some would be computed twice and others never.
"""

import os
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from distilora.batching.batches import plan_batches
from distilora.batching.rows import Rows
from distilora.config.schema import TrainingConfig
from distilora.model.network import Network
from distilora.progress import Progress, say
from distilora.signals import Stop
from distilora.training.processes import Processes

ROOM = 0.8  # share of the free disk that a cache may take


class PrefixCache:
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
        """Whether the disk has room for `size` bytes of caches. Raises OSError if there cannot be a file."""
        self._file.parent.mkdir(parents=True, exist_ok=True)
        return size <= ROOM * shutil.disk_usage(self._file.parent).free

    def reserve(self) -> None:
        """Takes the room on disk and maps it. Raises OSError if the disk does not give it."""
        self._file.unlink(missing_ok=True)
        with open(self._file, "wb") as stream:
            if self.bytes:
                _reserve(stream, self.bytes)
        shape = (self.tokens, self._width)
        size = self.tokens * self._width
        states = torch.from_file(str(self._file), shared=True, size=size, dtype=self._dtype) if size else torch.empty(0)
        self._states = states.view(shape)

    def fill(self, token_budget: int, precision: str, label: str, stop: Callable[[], bool] = lambda: False) -> bool:
        """Computes and writes all states; False if `stop` said so before the end. Call `reserve` first."""
        assert self._states is not None, "reserve() first"
        self._network.eval()
        with Progress(label, len(self._owned)) as bar:
            for update in plan_batches(self._lengths[self._owned], token_budget):
                for batch in update:
                    if stop():
                        return False
                    examples = self._owned[batch]
                    device = self._network.device
                    with (
                        torch.inference_mode(),
                        torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"),
                    ):
                        self._write(examples, self._network.lower(self._rows.take(examples)))
                    bar.add(len(batch))
        return True

    def _write(self, examples: NDArray[np.int64], states: Tensor) -> None:
        assert self._states is not None
        for part, example in zip(torch.split(states, self._lengths[examples].tolist()), examples, strict=True):
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


class PrefixCaches:
    """The frozen-prefix caches of a run, where they save anything: of training for several epochs, of validations."""

    train: PrefixCache | None = None
    validation: PrefixCache | None = None
    owner: NDArray[np.int64] | None = None  # process that holds each training example's states

    def __init__(
        self,
        network: Network,
        train: Rows,
        validation: Rows,
        config: TrainingConfig,
        budget: int,
        folder: Path,
        processes: Processes,
    ) -> None:
        network.train()
        self.folder, self.budget, self.precision = folder, budget, config.precision
        self._processes, self._device = processes, network.device
        self.summary: dict[str, Any] = {"blocks": network.cut, "bytes": 0}
        shutil.rmtree(folder, ignore_errors=True)  # of a run that was killed; each process sees to its own disk
        processes.wait(self._device)  # before any writes there, in case the disk is shared
        if not network.computes_blocks or not network.cut:
            return

        def prefix(name: str, rows: Rows, owned: NDArray[np.int64]) -> PrefixCache:
            return PrefixCache(
                network, rows, folder / f"{name}-{processes.index}.bin", config.precision, np.sort(owned)
            )

        if config.validations > 1:
            dealt = processes.deal(validation.group_lengths, budget)
            self.validation = prefix("validation", validation, np.concatenate([[], *dealt]).astype(np.int64))
        if config.epochs > 1:
            self.owner = processes.owners(train.groups)
            self.train = prefix("train", train, np.flatnonzero(self.owner == processes.index))

    def fill(self, stop: Stop) -> float:
        """Computes them, if all processes' disks have room; returns early when stopped. Seconds spent on that of training."""
        caches = {"validation": self.validation, "train": self.train}
        if not any(caches.values()):
            return 0.0
        size = sum(cache.bytes for cache in caches.values() if cache)
        if not self._reserved([cache for cache in caches.values() if cache], size):
            say(f"warning: no room for a frozen-prefix cache of {size / 1e6:,.0f} MB below {self.folder}; the blocks below "
                "what is trained are computed again in every epoch")  # fmt: skip
            self.close()
            self.train = self.validation = self.owner = None
            return 0.0
        say(
            f"frozen-prefix cache: {self.summary['blocks']} blocks computed once, {size / 1e6:,.0f} MB, deleted at the end"
        )
        self.summary["bytes"] = size
        started = time.monotonic()
        for name, cache in caches.items():
            started = time.monotonic()
            if cache:
                cache.fill(self.budget, self.precision, f"lower blocks of {name}", lambda: bool(stop.signal))
        return time.monotonic() - started  # of the last one

    def _reserved(self, caches: list[PrefixCache], size: int) -> bool:
        """Whether every process has the room for its caches, taken. All ask twice, whatever their own answer."""
        try:
            fits = all(cache.fits(size) for cache in caches)
        except OSError:
            fits = False
        if not self._processes.all(fits, self._device):
            return False
        try:
            for cache in caches:
                cache.reserve()
            reserved = True
        except OSError:
            reserved = False
        return self._processes.all(reserved, self._device)

    def close(self) -> None:
        """Deletes this process's files, and the folder with the last of them."""
        for cache in (self.train, self.validation):
            if cache:
                cache.close()
        with suppress(OSError):  # another process's may be there still
            self.folder.rmdir()


def _reserve(stream: BinaryIO, size: int) -> None:
    """Takes the room on disk now, so that a full disk is an error here and no crash while the file is mapped."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(stream.fileno(), 0, size)
        return
    zeros = bytes(1 << 20)  # macOS and Windows: a file made longer without them would have holes
    for start in range(0, size, len(zeros)):
        stream.write(zeros[: size - start])
    stream.flush()
    os.fsync(stream.fileno())
