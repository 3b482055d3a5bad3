"""Stops a process cleanly: a signal is noted and obeyed between two steps, or unwinds a command that writes one result only."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from distilora.errors import Interrupted
from distilora.progress import say


class Stop:
    """Record of the first SIGINT or SIGTERM; a second SIGINT interrupts at once. `agreed`: all processes know of it."""

    signal = 0
    agreed = False

    def note(self, number: int, frame: Any) -> None:
        """Record the signal, as its handler; raise KeyboardInterrupt at a second SIGINT."""
        if self.signal and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal = number
        say("\nstopping after this step; a checkpoint will be written")


@contextmanager
def unwinding(message: str) -> Iterator[None]:
    """Turn SIGTERM and SIGHUP, which would end the process at once, into Interrupted(`message`), so that `finally` is reached.

    Does so only in the main thread, and only where the caller neither handles nor ignores them.
    """
    handlers = {}

    def leave(number: int, frame: Any) -> None:
        signal.signal(number, signal.SIG_IGN)  # a second one would cut the clean-up short
        raise Interrupted(message, number)

    if threading.current_thread() is threading.main_thread():
        for name in ("SIGTERM", "SIGHUP"):  # Windows has no SIGHUP
            number = getattr(signal, name, None)
            if number is not None and signal.getsignal(number) == signal.SIG_DFL:
                handlers[number] = signal.signal(number, leave)
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


@contextmanager
def noting_signals() -> Iterator[Stop]:
    """Catch SIGINT and SIGTERM within the context and yield their record. Does nothing outside the main thread."""
    stop = Stop()
    handlers = {}
    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            handlers[number] = signal.signal(number, stop.note)
    except ValueError:  # not the main thread: signals are the caller's business
        pass
    try:
        yield stop
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
