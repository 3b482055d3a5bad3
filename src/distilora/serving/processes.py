"""Several processes that serve one socket: each loads the models for itself, and one that dies is started again.

The parent accepts nothing. It passes SIGTERM and SIGINT on, waits for all, and ends itself when a process cannot even begin. If the
parent is killed, the others leave as after SIGTERM: they hold one end of a pipe, and nothing but its death closes the other.
"""

import logging
import os
import select
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Callable

from distilora.errors import ConfigError, DistiloraError
from distilora.serving.logs import log

Work = Callable[[Callable[[], None]], int]


def serve_together(count: int, work: Work, announce: Callable[[], None]) -> int:
    """Do work in several processes; return 0 if every one ended well.

    Args:
        work: serves, calls its argument when it does, and returns an exit code.
        announce: called when all of them serve.

    Nothing that has threads may be loaded yet: the processes are forks. Raises ConfigError where there are none.
    """
    if not hasattr(os, "fork"):
        raise ConfigError("--workers: this system cannot fork; start several services on ports of their own")
    folder = tempfile.mkdtemp(prefix="distilora-measures-")
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = folder
    try:
        return _Herd(work).serve(count, announce)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class _Herd:
    """The processes that run, by their ids, and whether each has begun to serve."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._running: dict[int, bool] = {}
        self._leaving = False

    def serve(self, count: int, announce: Callable[[], None]) -> int:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._leave)
        self._ready, self._tell = os.pipe()
        self._alive, self._lifeline = os.pipe()
        for _ in range(count):
            self._start()
        worst, announced = 0, False
        while self._running:
            readable, _, _ = select.select([self._ready], [], [], 0.1)
            if readable:
                for line in os.read(self._ready, 4096).split():
                    self._running[int(line)] = True
            if not announced and all(self._running.values()) and len(self._running) == count:
                announced = True
                announce()
            worst = max(worst, self._reap())
        return worst

    def _start(self) -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        child = os.fork()
        if child:
            self._running[child] = False
            return
        code = 1
        try:
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, signal.SIG_DFL)
            os.close(self._lifeline)
            threading.Thread(target=_leave_with_parent, args=(self._alive,), daemon=True).start()
            code = self._work(lambda: _say(self._tell))
        except DistiloraError as error:
            sys.stderr.write(" ".join(["distilora:", *str(error).splitlines()]) + "\n")
            code = error.exit_code
        except BaseException as error:
            log(logging.ERROR, "failed", error)
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)

    def _reap(self) -> int:
        """Collect processes that ended; return the worst exit code of those that ought not to have, or 0."""
        from prometheus_client.multiprocess import mark_process_dead  # it looks for the folder when it is imported

        worst = 0
        while self._running:
            child, status = os.waitpid(-1, os.WNOHANG)
            if not child:
                break
            had_begun = self._running.pop(child, False)
            mark_process_dead(child)  # type: ignore[no-untyped-call]  # its gauges are not added up any more
            code = os.waitstatus_to_exitcode(status)
            if self._leaving:  # one that still loads just ends
                worst = max(worst, abs(code) if had_begun else 0)
            elif had_begun:
                log(logging.ERROR, "process died", pid=child, code=code)
                self._start()
            else:  # the next one would end in the same way
                worst = abs(code) or 1
                self._leave(signal.SIGTERM, None)
        return worst

    def _leave(self, number: int, frame: object) -> None:
        self._leaving = True
        for child in self._running:
            os.kill(child, number)


def _leave_with_parent(pipe: int) -> None:
    os.read(pipe, 1)  # returns when the parent is no more
    os.kill(os.getpid(), signal.SIGTERM)


def _say(pipe: int) -> None:
    os.write(pipe, f"{os.getpid()}\n".encode())
