"""Computes batches of independent inputs: of one model, or of many adapters on an encoder that they share."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol
from weakref import finalize

import numpy as np
from numpy.typing import NDArray

from distilora.artifact.format import Artifact
from distilora.batching.rows import Rows, joined
from distilora.errors import MissingExtra
from distilora.hardware import InferencePrecision
from distilora.inference.backends import Backend
from distilora.inference.backends.graph import GraphBackend

if TYPE_CHECKING:
    from distilora.inference.backends.shared import SharedEncoder

Outputs = NDArray[np.float32]
SERVED_TOKENS = 512  # of a batch on PyTorch: no slower than four times as many, and others wait less (LOG 2026-12-01)
Compute = Callable[[Sequence[Rows], Sequence[Any]], list[Outputs]]


class Engine(Protocol):
    """What computes; batches of different engines have nothing in common."""

    lanes: int
    """Batches worth computing at once."""
    budget: int
    """Tokens of a batch that suit the machine."""
    padded: bool
    """Whether inputs are padded to the longest of a batch, so that a batch costs its inputs times that."""

    def lane(self) -> Compute:
        """Return a function for the calling thread, on one core, that computes the outputs of each input, [...].

        Its arguments are each input's rows, one group, and the adapter that answers it (None where the model has no other).
        """
        ...


class Alone:
    """Engine of one model on a backend of its own."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self.padded = isinstance(backend, GraphBackend)
        self.lanes = backend.lanes
        self.budget = backend.token_budget if self.padded else min(backend.token_budget, SERVED_TOKENS)

    def lane(self) -> Compute:
        """Return the backend's lane for lists of inputs."""
        run = self.backend.lane()

        def compute(rows: Sequence[Rows], adapters: Sequence[Any]) -> list[Outputs]:
            return list(run(joined(rows)))

        return compute


class Shared:
    """Engine of one encoder with many adapters, mixed in a batch; an adapter is freed when no model holds it any more."""

    padded = False

    def __init__(self, encoder: "SharedEncoder") -> None:
        self._encoder = encoder
        self._numbers: set[int] = set()
        self.lanes, self.budget = encoder.lanes, min(encoder.token_budget, SERVED_TOKENS)

    def __len__(self) -> int:
        """Return the number of adapters."""
        return len(self._numbers)

    def takes(self, artifact: Artifact) -> bool:
        """Tell whether a model can be an adapter here."""
        return self._encoder.takes(artifact)

    def add(self, artifact: Artifact) -> "Adapter":
        """Read a model's adapter and head. Raises ArtifactError if they are damaged."""
        adapter = Adapter(self._encoder.add(artifact))
        self._numbers.add(adapter.number)
        finalize(adapter, self._free, adapter.number)
        return adapter

    def _free(self, number: int) -> None:
        self._numbers.discard(number)
        self._encoder.remove(number)

    def backend(self, adapter: "Adapter") -> Backend:
        """Return the backend of one adapter alone."""
        return self._encoder.alone(adapter.number)

    def lane(self) -> Compute:
        """Return a lane of mixed batches."""
        run = self._encoder.lane()

        def compute(rows: Sequence[Rows], adapters: Sequence[Any]) -> list[Outputs]:
            return list(run(joined(rows), [adapter.number for adapter in adapters]))

        return compute


class Adapter:
    """An adapter's number on a shared encoder; whoever holds it keeps the adapter."""

    def __init__(self, number: int) -> None:
        self.number = number


def share(artifact: Artifact, precision: InferencePrecision) -> Shared | None:
    """Open the encoder of a model for many adapters; None: it needs an engine of its own.

    Raises MissingExtra without PyTorch, EncoderError without the encoder, ArtifactError if it is another one.
    """
    try:
        from distilora.inference.backends.shared import open_shared
    except ImportError as error:
        raise MissingExtra(error.name or "torch", "train") from None
    if precision == "int8":
        return None
    encoder = open_shared(artifact, precision)
    return None if encoder is None else Shared(encoder)
