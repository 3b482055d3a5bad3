"""Locks a folder for the one process that writes it; the system releases the lock when that process ends, however it ends."""

from pathlib import Path

from filelock import FileLock, Timeout

from distilora.errors import OutputError

LOCK = ".lock"
_locks: dict[Path, FileLock] = {}


def hold(folder: Path) -> None:
    """Lock the folder for this process, until `let_go` or its end. Raises OutputError if another process holds it."""
    folder = folder.resolve()
    if folder in _locks:
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
    _locks[folder] = lock


def let_go(folder: Path) -> None:
    """Unlock the folder, if this process holds it."""
    lock = _locks.pop(folder.resolve(), None)
    if lock is not None:
        (folder / LOCK).unlink(missing_ok=True)  # a process that has it open sees that it is gone, and opens a new one
        lock.release()


def is_held(folder: Path) -> bool:
    """Tell whether this process holds the folder."""
    return folder.resolve() in _locks
