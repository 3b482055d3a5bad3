"""Runs Accelerate for the time of one training run: its process group and trackers begin and end with it.

Accelerate keeps an Accelerator's settings in process-wide state and refuses a second one with other settings. A caller may
have an Accelerator already (with mixed precision, say): its state is set aside for the run and restored afterwards.
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
    """Yield an Accelerator without mixed precision, which the loop handles itself.

    Its trackers and its process group are closed even if the run fails.
    """
    from accelerate import Accelerator
    from accelerate.utils import InitProcessGroupKwargs, LoggerType

    with _own_state():
        joined = torch.distributed.is_available() and torch.distributed.is_initialized()  # the caller's, left open
        accelerator = Accelerator(
            mixed_precision="no", cpu=config.device == "cpu", project_dir=run,
            log_with=LoggerType(config.tracker) if config.tracker != "none" and processes.first else None,
            kwargs_handlers=[InitProcessGroupKwargs(timeout=WAIT)],
        )  # fmt: skip
        try:
            yield accelerator
        except BaseException:
            with suppress(Exception):  # a tracker's error must not hide the run's
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
    saved = [dict(state) for state in states]
    for state in states:
        state.clear()
    try:
        yield
    finally:
        for state, values in zip(states, saved, strict=True):
            state.clear()
            state.update(values)
