"""Caches the frozen prefix: the states entering the lowest trainable block, computed once and read in every epoch.

Blocks below everything trainable give the same states each time. These are computed in planned micro-batches before the
first update and written to a memory-mapped file, in the precision of the run, so the cache adds no rounding. The file
belongs to one process and one run and is deleted when the run ends, however it ends. A finished one is kept under its
content (kept_states.py): a later run, or the same one resumed, reads what it would compute in the same micro-batches, and so
has the same numbers.

Of the processes that share a run either all have caches or none has: with a cache a process computes the examples it owns,
without one every `count`-th of a micro-batch; a mixture would compute some examples twice and others never.
"""

import hashlib
import json
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
from distilora.model.encoders.families import state_width
from distilora.model.network import Network
from distilora.model.precision import computing_in
from distilora.progress import Progress, plural, say
from distilora.signals import Stop
from distilora.training.kept_states import KeptStates
from distilora.training.processes import Processes
from distilora.version import __version__

ROOM = 0.8  # fraction of the free disk that caches may take


class PrefixCache:
    """Cache of the states entering block `network.cut`, for the examples in `owned` (None: all of `rows`)."""

    def __init__(self, network: Network, rows: Rows, file: Path, precision: str,
                 owned: NDArray[np.int64] | None = None) -> None:  # fmt: skip
        self._network, self._rows, self._file = network, rows, file
        self._precision = precision
        self._dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        self._width = state_width(network.model.config)
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
        """Tell whether the disk has room for `size` bytes of caches. Raises OSError if the folder cannot be made."""
        self._file.parent.mkdir(parents=True, exist_ok=True)
        return size <= ROOM * shutil.disk_usage(self._file.parent).free

    def reserve(self) -> None:
        """Allocate the file and map it into memory. Raises OSError if the disk has no room."""
        self._file.unlink(missing_ok=True)
        with open(self._file, "wb") as stream:
            if self.bytes:
                _reserve(stream, self.bytes)
        self._states = self._mapped(self._file, shared=True)

    def find(self, kept: KeptStates, token_budget: int) -> bool:
        """Map what an earlier run computed from the same, if it was kept; tell whether it was.

        The first micro-batch is computed anew and must come out bit for bit the same.
        """
        if not (self.bytes and kept.limit):
            return False
        key = self._key(token_budget)
        file = kept.find(key, self.bytes)
        if file is None:
            return False
        self._states = self._mapped(file, shared=False)
        batch = self._owned[plan_batches(self._lengths[self._owned], token_budget)[0][0]]
        if torch.equal(self._computed(batch), self.states(batch)):
            return True
        say(f"warning: {file} has other states than are computed here now; they are computed again")
        self._states = None
        kept.drop(key)
        return False

    def fill(self, token_budget: int, label: str, stop: Callable[[], bool] = lambda: False) -> bool:
        """Compute and write all states; return False if `stop` interrupted it. Call `reserve` first."""
        assert self._states is not None, "reserve() first"
        with Progress(label, len(self._owned)) as bar:
            for update in plan_batches(self._lengths[self._owned], token_budget):
                for batch in update:
                    if stop():
                        return False
                    examples = self._owned[batch]
                    self._write(examples, self._computed(examples))
                    bar.add(len(batch))
        return True

    def keep(self, kept: KeptStates, token_budget: int) -> bool:
        """Keep the states, all of which have been filled in, for other runs; tell whether there was room for them."""
        return bool(self.bytes and kept.limit) and kept.keep(self._key(token_budget), self._file)

    def _computed(self, examples: NDArray[np.int64]) -> Tensor:
        self._network.eval()
        with torch.inference_mode(), computing_in(self._precision, self._network.device):
            return self._network.lower(self._rows.take(examples))

    def _mapped(self, file: Path, *, shared: bool) -> Tensor:
        size = self.tokens * self._width
        states = torch.from_file(str(file), shared=shared, size=size, dtype=self._dtype) if size else torch.empty(0)
        return states.view(self.tokens, self._width)

    def _key(self, token_budget: int) -> str:
        """Return the SHA-256 of all that the states and their bits come from: weights, tokens, micro-batches, arithmetic."""
        digest = hashlib.sha256()
        config = self._network.model.config.to_dict()
        arithmetic = {
            "distilora": __version__,
            "torch": torch.__version__,
            "processor": torch.backends.cpu.get_cpu_capability(),
            "threads": torch.get_num_threads(),
            "precision": self._precision,
            "token_budget": token_budget,
            "config": {k: v for k, v in config.items() if isinstance(v, bool | int | float)},
            "activation": str(config.get("activation", config.get("hidden_act"))),
        }
        digest.update(json.dumps(arithmetic, sort_keys=True).encode())
        for name, tensor in sorted(self._network.frozen_below().items()):
            values = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
            digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
            digest.update(values.numpy().data)
        owned = self._rows.take(self._owned)
        for array in (owned.ids, owned.offsets, owned.row, owned.group):
            digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()

    def _write(self, examples: NDArray[np.int64], states: Tensor) -> None:
        assert self._states is not None
        for part, example in zip(torch.split(states, self._lengths[examples].tolist()), examples, strict=True):
            start = int(self._starts[example])
            self._states[start : start + len(part)] = part

    def states(self, examples: NDArray[np.int64]) -> Tensor:
        """Return the examples' states, [T, D], in the order of `rows.take(examples)`. Raises KeyError for one not owned."""
        assert self._states is not None, "fill() first"
        starts = self._starts[examples]
        if np.any(starts < 0):
            raise KeyError(f"examples {examples[starts < 0].tolist()} are another process's")
        return torch.cat([self._states[s : s + n] for s, n in zip(starts, self._lengths[examples], strict=True)])

    def close(self) -> None:
        """Delete the file."""
        self._states = None
        self._file.unlink(missing_ok=True)


class PrefixCaches:
    """Prefix caches of a run, where they save work: for training with several epochs, and for several validations."""

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
        self.folder, self.budget = folder, budget
        self._kept = KeptStates(round(config.cache_gb * 1e9))
        self._processes, self._device = processes, network.device
        self.summary: dict[str, Any] = {"blocks": network.cut, "bytes": 0, "found_bytes": 0}
        shutil.rmtree(folder, ignore_errors=True)  # left by a killed run; each process clears its own disk
        processes.wait(self._device)  # nobody may write before all have cleared: the disk may be shared
        if not network.computes_blocks or not network.cut:
            return

        def cache(name: str, rows: Rows, owned: NDArray[np.int64]) -> PrefixCache:
            file = folder / f"{name}-{processes.index}.bin"
            return PrefixCache(network, rows, file, config.precision, np.sort(owned))

        if config.validations > 1:
            batches = processes.deal(validation.group_lengths, budget)
            self.validation = cache("validation", validation, np.concatenate([[], *batches]).astype(np.int64))
        if config.epochs > 1:
            self.owner = processes.owners(train.groups)
            self.train = cache("train", train, np.flatnonzero(self.owner == processes.index))

    def fill(self, stop: Stop) -> float:
        """Find or fill the caches, if every process's disk has room; return the seconds spent on the training cache.

        Returns early when stopped.
        """
        caches = {name: cache for name, cache in (("validation", self.validation), ("train", self.train)) if cache}
        if not caches:
            return 0.0
        missing = {name: cache for name, cache in caches.items() if not cache.find(self._kept, self.budget)}
        found = sum(cache.bytes for name, cache in caches.items() if name not in missing)
        size = sum(cache.bytes for cache in missing.values())
        if not self._reserved(list(missing.values()), size):
            say(f"warning: no room for a frozen-prefix cache of {size / 1e6:,.0f} MB below {self.folder}; the blocks below "
                "what is trained are computed again in every epoch")  # fmt: skip
            self.close()
            self.train = self.validation = self.owner = None
            return 0.0
        of_blocks = f"frozen-prefix cache: {plural(self.summary['blocks'], 'block')}"
        if found:
            say(f"{of_blocks} of an earlier run on the same texts, {found / 1e6:,.0f} MB, from {self._kept.folder}")
        self.summary |= {"bytes": size + found, "found_bytes": found}
        spent = {"train": 0.0}
        for name, cache in missing.items():
            say(f"{of_blocks} computed once for {name}, {cache.bytes / 1e6:,.0f} MB")
            started = time.monotonic()
            if cache.fill(self.budget, f"lower blocks of {name}", lambda: bool(stop.signal)):
                cache.keep(self._kept, self.budget)
            spent[name] = time.monotonic() - started
        return spent["train"]

    def _reserved(self, caches: list[PrefixCache], size: int) -> bool:
        """Reserve the caches' files; tell whether every process could.

        Every process takes part in a vote, whatever its own answer: one that is missing would block the others.
        """
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
        """Delete this process's files, and the folder once it is empty."""
        for cache in (self.train, self.validation):
            if cache:
                cache.close()
        with suppress(OSError):  # another process's files may still be there
            self.folder.rmdir()


def _reserve(stream: BinaryIO, size: int) -> None:
    """Allocate the file's blocks now: on a mapped file a full disk would be a crash instead of an error."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(stream.fileno(), 0, size)
        return
    zeros = bytes(1 << 20)  # macOS and Windows: extending the file without them would leave it sparse
    for start in range(0, size, len(zeros)):
        stream.write(zeros[: size - start])
    stream.flush()
    os.fsync(stream.fileno())
