"""Runs many artifacts on one encoder in memory: their adapters answer mixed micro-batches (model/mixed.py).

shared = open_shared(artifact)                   None: this one needs a backend of its own
number = shared.add(artifact)                    and any other that `takes` accepts
shared.run(rows, [number, other, number])        the adapter of each group
shared.alone(number)                             one adapter as an ordinary backend
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from distilora.artifact.format import Artifact
from distilora.batching.outputs import stacked
from distilora.batching.rows import Rows
from distilora.errors import ArtifactError
from distilora.hardware import Device, Precision, keep_freed_memory, pick_device, pick_token_budget
from distilora.inference.backends.torch_backend import resolve_precision, trained_on, use_one_core
from distilora.model.encoders.find import Encoder, same_encoder
from distilora.model.mixed import MixedEncoder, open_mixed
from distilora.model.plain import HEADED
from distilora.tasks.registry import restore

Outputs = NDArray[np.float32]


class SharedEncoder:
    """Encoder that the adapters of many artifacts share; `asked` is the precision that it was opened with."""

    def __init__(self, mixed: MixedEncoder, encoder: Encoder, precision: Precision, asked: Precision) -> None:
        self.precision = precision
        self.token_budget = pick_token_budget(None, torch.device("cpu"))
        self._mixed, self._encoder, self._asked = mixed, encoder, asked

    @property
    def lanes(self) -> int:
        """Number of micro-batches worth computing at once: of PyTorch threads in the calling thread."""
        return torch.get_num_threads()

    def obstacle(self, artifact: Artifact) -> str | None:
        """Tell why an artifact cannot share this encoder, as a clause; None: it can. Raises ArtifactError if it is damaged."""
        own = _own_obstacle(artifact)
        if own is not None:
            return own
        if not same_encoder(self._encoder, artifact.encoder):
            return f"it was trained on another encoder, {artifact.encoder['name']}, SHA-256 {artifact.encoder['sha256'][:12]}"
        precision = resolve_precision(artifact, self._asked, torch.device("cpu"))
        if precision != self.precision:
            return f"it computes in {precision}, the encoder in {self.precision}"
        return (
            None if self._mixed.understands(artifact.folder) else "its adapter is not plain LoRA with a head of its own"
        )

    def takes(self, artifact: Artifact) -> bool:
        """Tell whether an artifact can share this encoder. Raises ArtifactError if it is damaged."""
        return self.obstacle(artifact) is None

    def add(self, artifact: Artifact) -> int:
        """Add an artifact's adapter; return its number, which no other will have.

        Raises ArtifactError if it is damaged or this encoder does not take it.
        """
        obstacle = self.obstacle(artifact)
        if obstacle is not None:
            raise ArtifactError(f"{artifact.folder}: cannot share this encoder: {obstacle}; load it by itself")
        task = restore(artifact.task["name"], artifact.task["settings"])
        return self._mixed.add(self._mixed.read(artifact.folder, task))

    def remove(self, number: int) -> None:
        """Remove an adapter; micro-batches that have begun still use it. Raises ArtifactError if it is not there."""
        self._mixed.remove(number)

    def run(self, rows: Rows, numbers: Sequence[int]) -> list[Outputs]:
        """Compute the outputs of each group of one micro-batch by its adapter (`MixedEncoder.run`)."""
        return self._mixed.run(rows, numbers)

    def lane(self) -> Callable[[Rows, Sequence[int]], list[Outputs]]:
        """Return a `run` for the calling thread, on one core; a lane's thread calls this first."""
        use_one_core()
        return self.run

    def alone(self, number: int) -> "SharedAdapter":
        """Return one adapter as a backend, for a Predictor, `run_rows` or a check."""
        return SharedAdapter(self, number)


class SharedAdapter:
    """Backend of one adapter of a shared encoder (`inference.backends.Backend`)."""

    def __init__(self, shared: SharedEncoder, number: int) -> None:
        self.precision, self.token_budget = shared.precision, shared.token_budget
        self._shared, self._number = shared, number

    @property
    def lanes(self) -> int:
        """Number of micro-batches worth computing at once."""
        return self._shared.lanes

    def open(self) -> None:
        """Do nothing: the encoder is open, and the adapter in memory."""

    def run(self, rows: Rows) -> Outputs:
        """Compute the outputs [G, ...] of one micro-batch. Raises ArtifactError if the adapter was removed."""
        return stacked(self._shared.run(rows, [self._number] * rows.groups))

    def lane(self) -> Callable[[Rows], Outputs]:
        """Return a `run` for the calling thread, on one core."""
        use_one_core()
        return self.run


def open_shared(
    artifact: Artifact, precision: Precision = "auto", device: Device = "auto", encoder: str | None = None
) -> SharedEncoder | None:
    """Open an artifact's encoder to be shared, without its adapter; None: it needs a backend of its own (`open_backend`).

    That is so on a GPU, for weights other than a LoRA adapter on a full-precision base, for attention other than packed, and for
    families whose blocks are Transformers' own modules (model/mixed.py).

    `encoder` is the encoder's present location, if it has moved since training. Precision auto is what `open_torch` takes. Raises
    EncoderError if the encoder is missing, ArtifactError if it is not the one the model was trained on, ConfigError without the
    device.
    """
    torch_device = pick_device(device)
    if torch_device.type != "cpu" or _own_obstacle(artifact) is not None:
        return None
    keep_freed_memory()
    resolved = resolve_precision(artifact, precision, torch_device)
    candidate = trained_on(artifact, encoder)
    mixed = open_mixed(candidate, resolved, artifact.attention)
    return None if mixed is None else SharedEncoder(mixed, candidate, resolved, precision)


def _own_obstacle(artifact: Artifact) -> str | None:
    """Tell why an artifact can share no encoder, as a clause; None: it may."""
    if artifact.weights != "peft":
        return f"its weights are {artifact.weights}, not an adapter beside its encoder's"
    if artifact.quantisation is not None:
        return "its adapter was trained on a 4-bit base"
    if artifact.attention != "packed":
        return f"its attention is {artifact.attention}, not packed"
    task = restore(artifact.task["name"], artifact.task["settings"])
    return None if task.transformers_class == HEADED else f"its task, {task.name}, has another head"
