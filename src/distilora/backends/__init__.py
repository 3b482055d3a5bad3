"""Backends: what computes a model's outputs. The engine (`predict.py`, `lanes.py`) knows only this interface."""

from collections.abc import Callable
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from distilora.artifact import Artifact
from distilora.config import BackendName, Base, Device, InferencePrecision
from distilora.errors import ArtifactError, ConfigError, MissingExtra
from distilora.progress import say
from distilora.rows import Rows


class Backend(Protocol):
    """Runs rows through a model."""

    @property
    def precision(self) -> InferencePrecision:
        """What it computes in."""
        ...

    token_budget: int
    """Padded tokens per call of `run` that suit the machine."""
    lanes: int
    """Micro-batches worth computing at once."""

    def run(self, rows: Rows) -> NDArray[np.float32]:
        """The task's outputs for the rows' G examples, [G, ...]; one micro-batch, run as it is."""
        ...

    def lane(self) -> Callable[[Rows], NDArray[np.float32]]:
        """Called first in a thread that computes beside others: `run` for it, on one core."""
        ...

    def end_lanes(self) -> None:
        """Called in the thread that waited for them."""
        ...


def open_backend(
    artifact: Artifact,
    precision: InferencePrecision = "auto",
    device: Device = "auto",
    encoder: str | None = None,
    base: Base = "auto",
    kind: BackendName = "auto",
) -> Backend:
    """The backend for an artifact; `encoder` says where its encoder lies now, if not where it lay in training.

    `base` is what a qlora model's adapter is put on: '4bit', as in training, or 'full', the full-precision encoder.
    Raises MissingExtra without its package, EncoderError without its encoder, ArtifactError if that is another one,
    ConfigError if the artifact cannot be run so.
    """
    holds = "onnx" if artifact.weights == "onnx" else "torch"
    if kind not in ("auto", holds):
        does = "export the run with --to onnx or onnx-int8" if kind == "onnx" else "export the run with --to merged"
        raise ConfigError(f"backend: {kind} asked for, but {artifact.folder} is for {holds}; drop it, or {does}")
    _say_if_elsewhere(artifact)
    if holds == "onnx":
        if encoder or base != "auto":
            raise ArtifactError(f"{'encoder' if encoder else 'base'}: given, but an onnx model has its own; drop it")
        try:
            from distilora.backends.onnx_backend import OnnxBackend
        except ImportError as error:
            raise MissingExtra(error.name or "onnxruntime", "serve") from None
        return OnnxBackend(artifact, precision, device)
    try:
        from distilora.backends.torch_backend import open_torch
    except ImportError as error:
        raise MissingExtra(error.name or "torch", "train") from None
    return open_torch(artifact, precision, device, encoder, base)


def _say_if_elsewhere(artifact: Artifact) -> None:
    """Low precision rounds otherwise on another kind of processor: says so, where the export was checked on one."""
    if artifact.precision != "int8" or "flags" not in artifact.parity:
        return
    from distilora.hardware import flags

    if artifact.parity["flags"] != flags():
        say(
            f"note: checked on a processor with {' '.join(artifact.parity['flags']) or 'other flags'}, this one has "
            f"{' '.join(flags()) or 'none of them'}: int8 answers may differ a little; export again here to be sure"
        )
