"""What a job's numbers are computed with, found out once, where the job begins: every part of it is then computed alike.

`auto` means something else on another machine. A job that several machines or days share keeps what it meant on the first.
"""

from dataclasses import dataclass
from typing import cast

from distilora.artifact.format import Artifact
from distilora.config.schema import BackendName, Base
from distilora.errors import MissingExtra
from distilora.hardware import Device, InferencePrecision, Precision
from distilora.inference.backends import check_choices


@dataclass(frozen=True)
class Numerics:
    """The settings of `predict.load` that outputs depend on, none of them `auto` if the model leaves a choice."""

    backend: BackendName
    precision: InferencePrecision
    device: Device
    base: Base


def resolve(
    artifact: Artifact, backend: BackendName, precision: InferencePrecision, device: Device, base: Base
) -> Numerics:
    """What `load` would choose on this machine, without loading the model.

    Raises ConfigError for a device or precision that is not to be had here, MissingExtra without PyTorch where it is needed.
    """
    check_choices(artifact, precision, device, backend)
    if artifact.weights == "onnx":
        own = artifact.precision if precision == "auto" else precision
        return Numerics("onnx" if backend == "auto" else backend, own, "cpu" if device == "auto" else device, base)
    try:
        from distilora.hardware import pick_device
        from distilora.inference.backends.torch_backend import resolve_precision
    except ImportError as error:
        raise MissingExtra(error.name or "torch", "train") from None
    place = pick_device(device)
    own = resolve_precision(artifact, cast(Precision, precision), place)  # check_choices has refused int8
    held: Base = "4bit" if artifact.quantisation is not None and base == "auto" else base
    return Numerics("torch" if backend == "auto" else backend, own, cast(Device, place.type), held)
