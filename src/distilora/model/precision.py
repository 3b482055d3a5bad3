"""Chooses the precision to compute in: autocast for a run's precision, and around the parts that stay outside it."""

from contextlib import AbstractContextManager
from typing import Any

import torch


def computing_in(precision: str, device: torch.device) -> torch.autocast:
    """Return a context that computes in bf16 by autocast, if that is the `precision`, else in fp32."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")


class WithoutAutocast(AbstractContextManager[torch.dtype]):
    """Context in which autocast is off; entering it returns the type that autocast would have computed in."""

    def __init__(self, device: str) -> None:
        on = torch.is_autocast_enabled(device)
        self.dtype = torch.get_autocast_dtype(device) if on else torch.float32
        self.off: Any = torch.autocast(device, enabled=False)

    def __enter__(self) -> torch.dtype:
        self.off.__enter__()
        return self.dtype

    def __exit__(self, *failure: Any) -> None:
        self.off.__exit__(*failure)
