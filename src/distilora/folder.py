"""The run's folder: new, replaced, or gone on with; never written by two processes at once.

`.lock` is locked by the process that writes, and the system lets go of it when that process ends, however it ends.
"""

import errno
import os
import shlex
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout
from safetensors import SafetensorError

from distilora.errors import ConfigError, DistiloraError, OutputError

LOCK = ".lock"
LEFT = ".*.tmp"  # temporary names: what a killed process leaves
_held: dict[Path, FileLock] = {}
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)


def check_output(folder: Path, overwrite: bool, resume: bool) -> None:
    """Raises ConfigError if a run may not be written to `folder`, OutputError if another process is writing one."""
    ours = _run_in(folder)
    if ours and folder.resolve() not in _held:
        hold(folder)  # only to see whether it can be had
        let_go(folder)
    if resume or not folder.exists():
        return
    if not folder.is_dir():
        raise ConfigError(f"output: {folder} is a file; give another folder")
    if not any(path.name != LOCK and not path.match(LEFT) for path in folder.iterdir()):
        return
    if overwrite and not ours:
        raise ConfigError(
            f"output: {folder} holds something other than a run and is not overwritten; give another folder"
        )
    if not overwrite:
        more = (
            f", --overwrite, or --resume {shlex.quote(str(folder))}"
            if (folder / "checkpoints").is_dir()
            else " or --overwrite"
        )
        raise ConfigError(f"output: {folder} is not empty; give another --output{more if ours else ''}")


def claim(folder: Path, overwrite: bool, resume: bool) -> None:
    """Makes the folder, locks it, and clears what a former run (`overwrite`) or a killed process left in it.

    Raises ConfigError or OutputError as `check_output` does: another process may have come first.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"output: {folder} cannot be made ({error.strerror}); give another --output") from None
    hold(folder)
    check_output(folder, overwrite, resume)
    for path in [*folder.glob(LEFT), *folder.glob(f"checkpoints/{LEFT}")]:
        _remove(path)
    if overwrite and not resume:
        for path in sorted(folder.iterdir(), key=lambda path: path.name == "run.yaml"):  # by which it is known as a run
            if path.name != LOCK:
                _remove(path)


def hold(folder: Path) -> None:
    """Locks the folder for this process, until `let_go` or its end. Raises OutputError if another one holds it."""
    folder = folder.resolve()
    if folder in _held:
        return
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise OutputError(
            f"output: another process is writing {folder}; wait for it, stop it, or give another --output"
        ) from None
    except OSError as error:
        raise OutputError(f"output: {folder} cannot be written ({error.strerror}); give another --output") from None
    _held[folder] = lock


def let_go(folder: Path) -> None:
    """Unlocks the folder, if this process holds it."""
    lock = _held.pop(folder.resolve(), None)
    if lock is not None:
        (folder / LOCK).unlink(missing_ok=True)  # whoever opened it meanwhile sees that it is gone, and opens another
        lock.release()


@contextmanager
def writing(folder: Path, then: str = "") -> Iterator[None]:
    """Turns a full disk into an OutputError that says how to go on; `then` empty: by resuming or starting the run.

    Threads that meet it too (TensorBoard's writer) print nothing meanwhile.
    """
    hook = threading.excepthook
    threading.excepthook = lambda failure: None if _full(failure.exc_value) else hook(failure)
    try:
        yield
    except DistiloraError:
        raise
    except Exception as error:  # safetensors and tokenizers have errors of their own for a full disk
        if not _full(error) and not isinstance(error, SafetensorError):
            raise
        cause = "the disk is full" if _full(error) else " ".join(str(error).split())
        resume = f"go on from the last whole checkpoint with: distilora train --resume {shlex.quote(str(folder))}"
        then = then or (resume if _run_in(folder) else "start the run again")
        raise OutputError(f"output: {folder} cannot be written ({cause}); make room, then {then}") from None
    finally:
        threading.excepthook = hook


def _full(error: BaseException | None) -> bool:
    return getattr(error, "errno", None) in _NO_ROOM or os.strerror(errno.ENOSPC) in str(error)


def _run_in(folder: Path) -> bool:
    return (folder / "run.yaml").is_file()


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
