"""Resolves `auto` once, where a job begins, so that every part of the job is computed alike.

`auto` may resolve differently on another machine; a job that runs on several, or for days, keeps the first one's choice.
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
    """Settings of `load` that the outputs depend on; none is `auto` where the model leaves a choice."""

    backend: BackendName
    precision: InferencePrecision
    device: Device
    base: Base


def resolve(
    artifact: Artifact, backend: BackendName, precision: InferencePrecision, device: Device, base: Base
) -> Numerics:
    """Resolve what `load` would choose on this machine, without loading the model.

    Raises ConfigError for a device or precision not available here, MissingExtra if PyTorch is needed and not installed.
    """
    check_choices(artifact, precision, device, backend)
    if artifact.backend != "torch":
        resolved = artifact.precision if precision == "auto" else precision
        own = artifact.backend if backend == "auto" else backend
        return Numerics(own, resolved, "cpu" if device == "auto" else device, base)
    try:
        from distilora.hardware import pick_device
        from distilora.inference.backends.torch_backend import resolve_precision
    except ImportError as error:
        raise MissingExtra(error.name or "torch", "train") from None
    torch_device = pick_device(device)
    resolved = resolve_precision(artifact, cast(Precision, precision), torch_device)  # check_choices has refused int8
    if artifact.quantisation is not None and base == "auto":
        base = "4bit"
    return Numerics("torch" if backend == "auto" else backend, resolved, cast(Device, torch_device.type), base)
