"""Backends: what computes a model's outputs. The engine (predictor.py, lanes.py) knows only this interface."""

from collections.abc import Callable
from pathlib import Path
from typing import Protocol, cast, get_args

import numpy as np
from numpy.typing import NDArray

from distilora.artifact.format import Artifact
from distilora.batching.rows import Rows
from distilora.config.schema import BackendName, Base
from distilora.errors import ArtifactError, ConfigError, MissingExtra
from distilora.hardware import Device, InferencePrecision, Precision

FILES: dict[InferencePrecision, str] = {"fp32": "model.onnx", "int8": "model_quantized.onnx"}  # of the onnx backend


class Backend(Protocol):
    """Runs rows through a model."""

    @property
    def precision(self) -> InferencePrecision:
        """What it computes in."""
        ...

    @property
    def lanes(self) -> int:
        """Micro-batches worth computing at once."""
        ...

    token_budget: int
    """Padded tokens per call of `run` that suit the machine."""

    def run(self, rows: Rows) -> NDArray[np.float32]:
        """The task's outputs for the rows' G examples, [G, ...]; one micro-batch, run as it is."""
        ...

    def lane(self) -> Callable[[Rows], NDArray[np.float32]]:
        """Called first in a new thread that computes beside others: `run` for it, on one core.

        What other threads compute with must stay as it is.
        """
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
    What the artifact cannot be run with is refused before anything heavy is imported. Raises MissingExtra without its
    package, EncoderError without its encoder, ArtifactError if that is another one, ConfigError if the artifact cannot be
    run so.
    """
    holds = "onnx" if artifact.weights == "onnx" else "torch"
    check_choices(artifact, precision, device, kind)
    if holds == "onnx":
        if encoder or base != "auto":
            raise ArtifactError(f"{'encoder' if encoder else 'base'}: given, but an onnx model has its own; drop it")
        try:
            from distilora.inference.backends.onnx_backend import OnnxBackend
        except ImportError as error:
            raise MissingExtra(error.name or "onnxruntime", "serve") from None
        return OnnxBackend(artifact, precision)
    try:
        from distilora.inference.backends.torch_backend import open_torch
    except ImportError as error:
        raise MissingExtra(error.name or "torch", "train") from None
    return open_torch(artifact, cast(Precision, precision), device, encoder, base)  # check_choices has refused int8


def graphs(artifact: Artifact) -> dict[InferencePrecision, Path]:
    """The graphs of an onnx artifact, by precision."""
    return {
        precision: artifact.folder / path
        for path in artifact.files
        for precision, file in FILES.items()
        if Path(path).name == file
    }


def check_choices(artifact: Artifact, precision: str, device: str, kind: str) -> None:
    """Raises ConfigError for a setting that does not exist, or that this artifact does not have."""
    holds = "onnx" if artifact.weights == "onnx" else "torch"
    for name, value, choices in (
        ("backend", kind, get_args(BackendName)),
        ("precision", precision, get_args(InferencePrecision)),
        ("device", device, get_args(Device)),
    ):
        if value not in choices:
            raise ConfigError(f"{name}: {value!r} given, {', '.join(choices[:-1])} or {choices[-1]} wanted")
    if kind not in ("auto", holds):
        does = "export the run with --to onnx or onnx-int8" if kind == "onnx" else "export the run with --to merged"
        raise ConfigError(f"backend: {kind} asked for, but {artifact.folder} is for {holds}; drop it, or {does}")
    if holds == "torch":
        if precision == "int8":
            raise ConfigError(
                "precision: int8 given, but the torch backend has none; export the run with --to onnx-int8"
            )
        if precision == "bf16" and device == "mps":
            raise ConfigError("precision: bf16 is not supported on mps; choose fp32")
        return
    if device not in ("auto", "cpu"):
        raise ConfigError(f"device: {device} given, but the onnx backend computes on the CPU; drop it")
    there = graphs(artifact)
    if (artifact.precision if precision == "auto" else precision) not in there:
        raise ConfigError(f"precision: {precision} given, but {artifact.folder} holds {' and '.join(there)}; drop it")
