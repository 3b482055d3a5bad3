"""Guards the file or folder that a command writes: one that exists is refused before anything is computed.

A failed write names it.
"""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from distilora.errors import ConfigError, OutputError

_FIXES = {
    errno.ENOSPC: "make room, or give another file",
    errno.EDQUOT: "make room, or give another file",
    errno.EFBIG: "raise the limit of file sizes (ulimit -f), or give another file",
    errno.EACCES: "check its permissions, or give another file",
    errno.EPERM: "check its permissions, or give another file",
}


def check_free(path: str | Path, overwrite: bool) -> None:
    """Raise an error unless a command may write `path`.

    A folder, or an existing file not to be overwritten, is a ConfigError; a folder it cannot be written in, an OutputError.
    """
    path = Path(path)
    if path.is_dir():
        raise ConfigError(f"--output: {path} is a folder; give the name of a file")
    if path.exists() and not overwrite:
        raise ConfigError(f"--output: {path} exists already; give another name, or --overwrite")
    if path.parent.is_dir() and not os.access(path.parent, os.W_OK):
        raise OutputError(
            f"--output: {path} cannot be written (its folder is read-only, or not yours); give another file"
        )


def check_creatable(folder: Path, setting: str = "output") -> None:
    """Raise OutputError unless a command may write in `folder`, or, where it is missing, in the nearest one above it.

    A file in its place is a ConfigError.
    """
    places = (folder.absolute(), *folder.absolute().parents)
    existing = next(path for path in places if os.path.exists(path))  # noqa: PTH110 - Path.exists raises where it may not look
    if existing == folder.absolute() and not existing.is_dir():
        raise ConfigError(f"{setting}: {folder} is a file; give another folder")
    if existing.is_dir() and os.access(existing, os.W_OK | os.X_OK):
        return
    cause = "is read-only, or not yours" if existing.is_dir() else "is no folder"
    raise OutputError(f"{setting}: {folder} cannot be written ({existing} {cause}); give another folder")


@contextmanager
def writing_file(path: str | Path) -> Iterator[None]:
    """Turn an OSError into an OutputError that names the file being written, the cause, and the fix."""
    try:
        yield
    except BrokenPipeError:  # the reader of standard output went away: no error of ours
        raise
    except OSError as error:
        cause = os.strerror(error.errno) if error.errno else " ".join(str(error).split())
        fix = _FIXES.get(error.errno or 0, "give another file")
        raise OutputError(f"--output: {path} cannot be written ({cause}); {fix}") from None
