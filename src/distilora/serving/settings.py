"""The settings of a service, as the command hands them to each process that serves; nothing heavy is imported by them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from distilora.hardware import InferencePrecision
from distilora.serving.keys import Keys
from distilora.serving.limits import Limits


@dataclass(frozen=True)
class Settings:
    """What a process serves, and to whom.

    `runs` are folders of models by name; `on_ray` says that it is a replica behind Ray's proxy.
    """

    runs: Mapping[str, str]
    limits: Limits
    precision: InferencePrecision = "auto"
    keys: Keys = field(default_factory=Keys)
    admin_keys: Keys = field(default_factory=Keys)
    origins: Sequence[str] = ()
    log_requests: bool = True
    corrections: Path | None = None
    otlp_endpoint: str | None = None
    on_ray: bool = False
