"""Draws a run's random numbers from its seed, without a trace in the caller's."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Seed PyTorch on the CPU and on `device` within the context; afterwards the caller's random state is restored."""
    on_mps = device.type == "mps" and torch.backends.mps.is_available()
    before = torch.mps.get_rng_state() if on_mps else None
    number = torch.cuda.current_device() if device.type == "cuda" and device.index is None else device.index
    with torch.random.fork_rng(devices=[number] if device.type == "cuda" else []):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed devices that are none of the run's
        if device.type == "cuda":
            with torch.cuda.device(number):
                torch.cuda.manual_seed(seed)
        elif on_mps:
            torch.mps.manual_seed(seed)
        try:
            yield
        finally:
            if before is not None:
                torch.mps.set_rng_state(before)
