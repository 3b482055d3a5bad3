"""A clean stop: a signal is noted and acted on between two steps, or ends what writes nothing but its end result."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from distilora.errors import Interrupted
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
def unwinding(message: str) -> Iterator[None]:
    """Turns SIGTERM and SIGHUP, which would end the process at once, into Interrupted(`message`), so that `finally` is reached.

    Only in the main thread, and only where the caller has no handler of its own and does not ignore them.
    """
    before = {}

    def leave(number: int, frame: Any) -> None:
        signal.signal(number, signal.SIG_IGN)  # a second one would cut the cleaning short
        raise Interrupted(message, number)

    if threading.current_thread() is threading.main_thread():
        for name in ("SIGTERM", "SIGHUP"):  # Windows has no SIGHUP
            number = getattr(signal, name, None)
            if number is not None and signal.getsignal(number) == signal.SIG_DFL:
                before[number] = signal.signal(number, leave)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


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
