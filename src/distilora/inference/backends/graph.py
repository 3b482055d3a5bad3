"""Runs an exported graph without PyTorch: what ONNX Runtime and OpenVINO have in common.

input_ids, attention_mask [B, longest]  ->  outputs [B, ...], or of every token, [B, longest, ...]
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distilora.artifact.format import Artifact
from distilora.batching.rows import Rows
from distilora.errors import ArtifactError
from distilora.hardware import InferencePrecision, threads
from distilora.inference.backends import graphs
from distilora.tasks.registry import restore
from distilora.tasks.token_outputs import TokenTask

Inputs = dict[str, NDArray[np.int64]]
Compute = Callable[[Inputs], NDArray[np.float32]]


class GraphBackend(ABC):
    """Backend of an exported folder, on the CPU, in a precision that it holds (`open_backend` has checked)."""

    token_budget: int

    def __init__(self, artifact: Artifact, precision: InferencePrecision = "auto") -> None:
        self.precision: Any = artifact.precision if precision == "auto" else precision
        self.path = graphs(artifact)[self.precision]
        task = restore(artifact.task["name"], artifact.task["settings"])
        self._collect = task.collect if isinstance(task, TokenTask) else None
        self.threads = threads()
        self.lanes = self.threads
        self._opening = Lock()

    @abstractmethod
    def _load(self, path: Path, lanes: int, threads: int) -> Callable[[], Compute]:
        """Load the graph for so many lanes, each with so many threads; return a function that makes what computes in one.

        Raises ArtifactError if it cannot be loaded.
        """

    @cached_property
    def together(self) -> Callable[[], Compute]:
        """Maker of what computes one micro-batch on all cores."""
        return self._load(self.path, 1, self.threads)

    @cached_property
    def alone(self) -> Callable[[], Compute]:
        """Maker of what computes in a lane."""
        return self._load(self.path, self.lanes, 1)

    def open(self) -> None:
        """Open both, which need no file afterwards."""
        _ = self.together, self.alone

    def run(self, rows: Rows) -> NDArray[np.float32]:
        """Compute the outputs [G, ...] of one micro-batch, padded to its longest row."""
        return self._answer(self.together(), rows)

    def lane(self) -> Callable[[Rows], NDArray[np.float32]]:
        """Return a `run` on one core."""
        with self._opening:  # lanes start together, and the graph is loaded once
            compute = self.alone()
        return lambda rows: self._answer(compute, rows)

    def _answer(self, compute: Compute, rows: Rows) -> NDArray[np.float32]:
        inputs = feed(rows)
        outputs = compute(inputs)
        if self._collect is not None:
            return self._collect(outputs[inputs["attention_mask"] > 0], rows)
        if len(rows) != rows.groups:
            raise ArtifactError("examples of several rows cannot be run as a graph; use backend torch")
        return outputs


def feed(rows: Rows) -> Inputs:
    """Pad rows to a graph's inputs, [B, longest] each."""
    lengths = rows.lengths
    inside = np.arange(int(lengths.max(initial=1)))[None] < lengths[:, None]
    ids = np.zeros(inside.shape, np.int64)
    ids[inside] = rows.ids
    return {"input_ids": ids, "attention_mask": inside.astype(np.int64)}
