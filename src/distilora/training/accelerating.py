"""Accelerate for the time of one run: its process group and trackers begin and end with it.

Accelerate keeps what an Accelerator decided for the whole process, and refuses a second one that decides otherwise. A caller
may have one of his own (with mixed precision, say): what it keeps is put aside meanwhile and given back.
"""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch

from distilora.config.schema import TrainingConfig
from distilora.training.processes import WAIT, Processes


@contextmanager
def accelerating(config: TrainingConfig, run: Path, processes: Processes) -> Iterator[Any]:
    """An Accelerator without mixed precision, which is ours; its trackers and process group are ended however it ends."""
    from accelerate import Accelerator
    from accelerate.utils import InitProcessGroupKwargs, LoggerType

    with _own_state():
        joined = torch.distributed.is_available() and torch.distributed.is_initialized()  # by the caller, who ends it
        accelerator = Accelerator(
            mixed_precision="no", cpu=config.device == "cpu", project_dir=run,
            log_with=LoggerType(config.tracker) if config.tracker != "none" and processes.first else None,
            kwargs_handlers=[InitProcessGroupKwargs(timeout=WAIT)],
        )  # fmt: skip
        try:
            yield accelerator
        except BaseException:
            with suppress(Exception):  # that a tracker could not be ended, too, is not what went wrong
                _end_trackers(accelerator)
            raise
        else:
            _end_trackers(accelerator)
        finally:
            if not joined:
                processes.part()


def _end_trackers(accelerator: Any) -> None:
    for tracker in accelerator.trackers:
        tracker.finish()


@contextmanager
def _own_state() -> Iterator[None]:
    from accelerate.state import AcceleratorState, GradientState, PartialState

    states = [state._shared_state for state in (AcceleratorState, PartialState, GradientState)]
    before = [dict(state) for state in states]
    for state in states:
        state.clear()
    try:
        yield
    finally:
        for state, kept in zip(states, before, strict=True):
            state.clear()
            state.update(kept)
