"""What training holds in memory, measured and not estimated: weights, gradients, optimiser, activations, and the peak.

The peak on a CPU is of anonymous memory (RssAnon: what the process itself holds, without the libraries and files mapped
into it), above its value after all imports; on a GPU it is what PyTorch has allocated there. MB are 10^6 bytes.
"""

import re
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import torch

from distilora.model.adapters.quantisation import held, import_offline
from distilora.model.network import Network

_ANONYMOUS = re.compile(rb"^RssAnon:\s+(\d+) kB", re.MULTILINE)


def anonymous_mb() -> float:
    """Anonymous resident memory of this process now, MB; NaN where the system does not tell (not Linux)."""
    try:
        found = _ANONYMOUS.search(Path("/proc/self/status").read_bytes())
    except OSError:
        return float("nan")
    return int(found[1]) * 1024 / 1e6 if found else float("nan")


def after_imports_mb() -> float:
    """Anonymous memory once all that training imports is imported, MB: what a peak is counted above."""
    import_offline()
    import accelerate  # noqa: F401
    import peft  # noqa: F401
    import transformers  # noqa: F401

    return anonymous_mb()


class Peak:
    """`with Peak(device) as peak: ...; peak.mb`: the most memory held meanwhile; on a CPU looked at every 10 ms.

    `above` is subtracted on a CPU: the value after imports. In a process that has trained before, what it kept of that
    and uses again is not counted; the figures to compare are those of fresh processes.
    """

    def __init__(self, device: torch.device, above: float = 0.0, every_s: float = 0.01) -> None:
        self.device, self.above, self.every_s = device, above, every_s
        self.mb = 0.0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        else:
            self.above = min(self.above, anonymous_mb())
            self.mb = anonymous_mb() - self.above
            self._thread.start()
        return self

    def __exit__(self, *failure: object) -> None:
        if self.device.type == "cuda":
            self.mb = torch.cuda.max_memory_allocated(self.device) / 1e6
        else:
            self.stop()

    def stop(self) -> None:
        """Ends the looking; `mb` stays as it is from then on. Once is enough, again does no harm."""
        if not self._done.is_set():
            self._done.set()
            self._thread.join()
            self.mb = max(self.mb, anonymous_mb() - self.above)

    def _watch(self) -> None:
        while not self._done.wait(self.every_s):
            self.mb = max(self.mb, anonymous_mb() - self.above)


class Meter:
    """Measures one update: what autograd keeps for the backward pass, the gradients, the optimiser's state.

    `activations_mb` is of the micro-batch that keeps most; weights do not count as activations, autocast's copies do.
    """

    def __init__(self, network: Network) -> None:
        weights = [part for parameter in network.parameters() for part in held(parameter)]
        weights += network.buffers()
        self.found = {"weights_mb": _mb(weights)}
        self._weights = {part.untyped_storage().data_ptr() for part in weights}
        self.open = True

    @contextmanager
    def forward(self) -> Iterator[None]:
        """Around the forward pass of a micro-batch."""
        if not self.open:
            yield
            return
        kept: dict[int, int] = {}

        def note(tensor: torch.Tensor) -> torch.Tensor:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in self._weights:
                kept[storage.data_ptr()] = storage.nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            yield
        self.found["activations_mb"] = max(self.found.get("activations_mb", 0.0), sum(kept.values()) / 1e6)

    def update(self, trained: Iterable[torch.nn.Parameter], optimizer: torch.optim.Optimizer) -> None:
        """After the optimiser's step, before the gradients are dropped; nothing is measured from then on."""
        if self.open:
            self.found["gradients_mb"] = _mb(p.grad for p in trained if p.grad is not None)
            moments = (v for state in optimizer.state.values() for v in state.values() if isinstance(v, torch.Tensor))
            self.found["optimizer_mb"] = _mb(moments)
            self.open = False


def _mb(tensors: Iterable[torch.Tensor]) -> float:
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}
    return sum(storages.values()) / 1e6
