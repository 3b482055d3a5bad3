"""Backends: what computes a model's outputs. The engine in `predict.py` knows only this interface."""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from distilora.artifact import Artifact
from distilora.config import Base, Device, Precision
from distilora.errors import MissingExtra
from distilora.rows import Rows


class Backend(Protocol):
    """Runs rows through a model."""

    precision: Precision
    token_budget: int
    """Padded tokens per call of `run` that suit the machine."""

    def run(self, rows: Rows) -> NDArray[np.float32]:
        """The task's outputs for the rows' G examples, [G, ...]; one micro-batch, run as it is."""
        ...


def open_backend(
    artifact: Artifact,
    precision: Precision = "auto",
    device: Device = "auto",
    encoder: str | None = None,
    base: Base = "auto",
) -> Backend:
    """The torch backend on an artifact; `encoder` says where its encoder lies now, if not where it lay in training.

    `base` is what a qlora model's adapter is put on: '4bit', as in training, or 'full', the full-precision encoder.
    Raises MissingExtra without torch, EncoderError without its encoder, ArtifactError if that is another one.
    """
    try:
        from distilora.backends.torch_backend import TorchBackend
    except ImportError as error:
        raise MissingExtra(error.name or "torch", "train") from None
    return TorchBackend(artifact, precision, device, encoder, base)
