"""Locks a folder for the one process that writes it; the system lets go when that process ends, however it ends."""

from pathlib import Path

from filelock import FileLock, Timeout

from distilora.errors import OutputError

LOCK = ".lock"
_held: dict[Path, FileLock] = {}


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


def is_held(folder: Path) -> bool:
    """Whether this process holds the folder."""
    return folder.resolve() in _held
