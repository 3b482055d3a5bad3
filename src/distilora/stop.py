"""A clean stop: the first SIGINT or SIGTERM is noted and acted on between two steps."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from distilora.progress import say


class Stop:
    """Notes the first SIGINT or SIGTERM; a second SIGINT interrupts at once. `agreed`: all processes know of it."""

    signal = 0
    agreed = False

    def note(self, number: int, frame: Any) -> None:
        """A signal handler."""
        if self.signal and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal = number
        say("\nstopping after this step; a checkpoint will be written")


@contextmanager
def noting_signals() -> Iterator[Stop]:
    """Catches both signals meanwhile, in the main thread; elsewhere they are the caller's business."""
    stop = Stop()
    before = {}
    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            before[number] = signal.signal(number, stop.note)
    except ValueError:  # not the main thread: signals are the caller's business
        pass
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
