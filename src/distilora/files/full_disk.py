"""Reports a full disk: whatever is raised for it while a folder is written becomes an OutputError that says how to go on."""

import errno
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from distilora.errors import DistiloraError, OutputError

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)


@contextmanager
def writing(folder: Path, then: str | Callable[[], str]) -> Iterator[None]:
    """Turn a full disk into an OutputError that says how to go on: `make room, then {then}`; a callable `then` is called first.

    Other threads that run into it (TensorBoard's writer) print no traceback meanwhile.
    """
    hook = threading.excepthook
    threading.excepthook = lambda failure: None if _full(failure.exc_value) else hook(failure)
    try:
        yield
    except DistiloraError:
        raise
    except Exception as error:  # safetensors and tokenizers raise errors of their own for a full disk
        if not _full(error) and not isinstance(error, SafetensorError):
            raise
        cause = "the disk is full" if _full(error) else " ".join(str(error).split())
        advice = then if isinstance(then, str) else then()
        raise OutputError(f"output: {folder} cannot be written ({cause}); make room, then {advice}") from None
    finally:
        threading.excepthook = hook


def _full(error: BaseException | None) -> bool:
    return getattr(error, "errno", None) in _NO_ROOM or os.strerror(errno.ENOSPC) in str(error)
