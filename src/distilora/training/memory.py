"""Measures the memory of training: weights, gradients, optimiser state, activations, and the peak.

On a CPU the peak is that of anonymous memory (RssAnon: without mapped libraries and files), minus its value after all imports;
on a GPU it is the memory allocated by PyTorch. An MB is 10^6 bytes.
"""

import re
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import torch

from distilora.model.adapters.quantisation import import_offline, storage_of
from distilora.model.network import Network

_ANONYMOUS = re.compile(rb"^RssAnon:\s+(\d+) kB", re.MULTILINE)


def anonymous_mb() -> float:
    """Return this process's anonymous resident memory, MB; NaN if the system does not report it (not Linux)."""
    try:
        match = _ANONYMOUS.search(Path("/proc/self/status").read_bytes())
    except OSError:
        return float("nan")
    return int(match[1]) * 1024 / 1e6 if match else float("nan")


def after_imports_mb() -> float:
    """Import the libraries of training and return the anonymous memory, MB: the baseline of a peak."""
    import_offline()
    import accelerate  # noqa: F401
    import peft  # noqa: F401
    import transformers  # noqa: F401

    return anonymous_mb()


class Peak:
    """Peak memory of a `with` block, in `peak.mb`; on a CPU sampled every 10 ms.

    On a CPU `baseline`, the value after imports, is subtracted. In a process that has trained before,
    reused memory is not counted, so only figures of fresh processes are comparable.
    """

    def __init__(self, device: torch.device, baseline: float = 0.0, every_s: float = 0.01) -> None:
        self.device, self.baseline, self.every_s = device, baseline, every_s
        self.mb = 0.0
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        else:
            self.baseline = min(self.baseline, anonymous_mb())
            self.mb = anonymous_mb() - self.baseline
            self._thread.start()
        return self

    def __exit__(self, *failure: object) -> None:
        if self.device.type == "cuda":
            self.mb = torch.cuda.max_memory_allocated(self.device) / 1e6
        else:
            self.stop()

    def stop(self) -> None:
        """Stop sampling; `mb` is final. A second call has no effect."""
        if not self._stopped.is_set():
            self._stopped.set()
            self._thread.join()
            self.mb = max(self.mb, anonymous_mb() - self.baseline)

    def _watch(self) -> None:
        while not self._stopped.wait(self.every_s):
            self.mb = max(self.mb, anonymous_mb() - self.baseline)


class Meter:
    """Memory meter of one update: activations saved for the backward pass, gradients, optimiser state.

    `activations_mb` is the maximum over micro-batches; weights do not count as activations, but autocast's copies do.
    """

    def __init__(self, network: Network) -> None:
        weights = [part for parameter in network.parameters() for part in storage_of(parameter)]
        weights += network.buffers()
        self.figures = {"weights_mb": _mb(weights)}
        self._weights = {part.untyped_storage().data_ptr() for part in weights}
        self.open = True

    @contextmanager
    def forward(self) -> Iterator[None]:
        """Measure the forward pass of a micro-batch, run inside this context."""
        if not self.open:
            yield
            return
        sizes: dict[int, int] = {}  # of the storages saved for the backward pass, by address

        def record(tensor: torch.Tensor) -> torch.Tensor:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in self._weights:
                sizes[storage.data_ptr()] = storage.nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(record, lambda tensor: tensor):
            yield
        self.figures["activations_mb"] = max(self.figures.get("activations_mb", 0.0), sum(sizes.values()) / 1e6)

    def update(self, trained: Iterable[torch.nn.Parameter], optimizer: torch.optim.Optimizer) -> None:
        """Measure gradients and optimiser state, between the optimiser's step and `zero_grad`, then close the meter."""
        if self.open:
            self.figures["gradients_mb"] = _mb(p.grad for p in trained if p.grad is not None)
            moments = (v for state in optimizer.state.values() for v in state.values() if isinstance(v, torch.Tensor))
            self.figures["optimizer_mb"] = _mb(moments)
            self.open = False


def _mb(tensors: Iterable[torch.Tensor]) -> float:
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}
    return sum(storages.values()) / 1e6
