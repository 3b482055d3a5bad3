"""Backends compute a model's outputs; predictor.py and lanes.py know only the interface defined here."""

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

FILES: dict[str, dict[InferencePrecision, str]] = {  # of the backends that run graphs
    "onnx": {"fp32": "model.onnx", "int8": "model_quantized.onnx"},
    "openvino": {"fp32": "openvino_model.xml", "bf16": "openvino_model.xml", "int8": "openvino_model_int8.xml"},
}


class Backend(Protocol):
    """Interface of a backend, which runs rows through a model."""

    @property
    def precision(self) -> InferencePrecision:
        """Precision that it computes in."""
        ...

    @property
    def lanes(self) -> int:
        """Number of micro-batches worth computing at once."""
        ...

    token_budget: int
    """Padded tokens per call of `run` that suit the machine."""

    def open(self) -> None:
        """Open everything that would be opened at first use; the model's files may be deleted afterwards."""
        ...

    def run(self, rows: Rows) -> NDArray[np.float32]:
        """Compute the task's outputs for the G examples of one micro-batch, [G, ...]; it is not divided further."""
        ...

    def lane(self) -> Callable[[Rows], NDArray[np.float32]]:
        """Return a `run` for the calling thread, on one core; a lane's thread calls this first.

        The number of threads that others compute with must not change.
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
    """Open the backend of an artifact; `encoder` is its encoder's present location, if it has moved since training.

    `base` is what a qlora model's adapter is put on: '4bit', as in training, or 'full', the full-precision encoder.
    Settings that the artifact does not support are refused before anything heavy is imported. Raises MissingExtra without
    the backend's package, EncoderError without the encoder, ArtifactError if it is another one, ConfigError for settings
    that the artifact does not support.
    """
    check_choices(artifact, precision, device, kind)
    if artifact.backend != "torch":
        if encoder or base != "auto":
            raise ArtifactError(
                f"{'encoder' if encoder else 'base'}: given, but an {artifact.backend} model has its own; drop it"
            )
        return _graph_backend(artifact, precision)
    try:
        from distilora.inference.backends.torch_backend import open_torch
    except ImportError as error:
        raise MissingExtra(error.name or "torch", "train") from None
    return open_torch(artifact, cast(Precision, precision), device, encoder, base)  # check_choices has refused int8


def _graph_backend(artifact: Artifact, precision: InferencePrecision) -> Backend:
    """Import and open the engine of a graph, without PyTorch."""
    if artifact.backend == "onnx":
        try:
            from distilora.inference.backends.onnx_backend import OnnxBackend
        except ImportError as error:
            raise MissingExtra(error.name or "onnxruntime", "serve") from None
        return OnnxBackend(artifact, precision)
    from distilora.inference.backends.openvino_backend import OpenVinoBackend, runtime

    try:
        runtime()
    except ImportError as error:
        raise MissingExtra(error.name or "openvino", "openvino") from None
    return OpenVinoBackend(artifact, precision)


def graphs(artifact: Artifact) -> dict[InferencePrecision, Path]:
    """Find the graphs of an exported artifact, by precision."""
    places = {Path(path).name: artifact.folder / path for path in artifact.files}
    return {precision: places[file] for precision, file in FILES.get(artifact.backend, {}).items() if file in places}


def check_choices(artifact: Artifact, precision: str, device: str, kind: str) -> None:
    """Raise ConfigError for a value that does not exist, or that this artifact does not support."""
    own = artifact.backend
    for name, value, choices in (
        ("backend", kind, get_args(BackendName)),
        ("precision", precision, get_args(InferencePrecision)),
        ("device", device, get_args(Device)),
    ):
        if value not in choices:
            raise ConfigError(f"{name}: {value!r} given, {', '.join(choices[:-1])} or {choices[-1]} wanted")
    if kind not in ("auto", own):
        forms = {"onnx": "onnx or onnx-int8", "openvino": "openvino", "torch": "merged"}
        instead = f"export the run with --to {forms[kind]}"
        raise ConfigError(f"backend: {kind} asked for, but {artifact.folder} is for {own}; drop it, or {instead}")
    if own == "torch":
        if precision == "int8":
            raise ConfigError(
                "precision: int8 given, but the torch backend has none; export the run with --to onnx-int8 or openvino"
            )
        if precision == "bf16" and device == "mps":
            raise ConfigError("precision: bf16 is not supported on mps; choose fp32")
        return
    if device not in ("auto", "cpu"):
        raise ConfigError(f"device: {device} given, but the {own} backend computes on the CPU; drop it")
    paths = graphs(artifact)
    if (artifact.precision if precision == "auto" else precision) not in paths:
        raise ConfigError(f"precision: {precision} given, but {artifact.folder} holds {' and '.join(paths)}; drop it")
