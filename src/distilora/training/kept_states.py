"""Keeps finished prefix caches between runs: a second run, a sweep or a resumed run reads what an earlier one computed.

A file is found by content: its name is a SHA-256 of everything that its states come from. Beside it stands the SHA-256 of its
bytes, without which it is not read. The folder holds at most `limit` bytes; what was used longest ago goes first. A run that
reads a file keeps it, mapped, when another run deletes it; Windows does not delete it before.
"""

import json
import os
import shutil
import time
from contextlib import suppress
from pathlib import Path

from distilora.files.atomic import replacing, sha256, write_bytes
from distilora.progress import say

FOLDER = "states"
ABANDONED_S = 86_400  # age of a temporary file that nobody is writing any more


def cache_folder() -> Path:
    """Name the folder that outlives runs: $DISTILORA_CACHE, or distilora below $XDG_CACHE_HOME or ~/.cache."""
    named = os.environ.get("DISTILORA_CACHE")
    if named:
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "distilora"


class KeptStates:
    """Files of states by key, at most `limit` bytes of them; a limit of 0 neither finds nor keeps any."""

    def __init__(self, limit: int, folder: Path | None = None) -> None:
        self.limit = limit
        self.folder = cache_folder() / FOLDER if folder is None else folder

    def find(self, key: str, size: int) -> Path | None:
        """Return the file of `key` if it has `size` bytes and its own checksum; one that has not is deleted."""
        path = self.folder / f"{key}.bin"
        if not self.limit or not path.is_file():
            return None
        try:
            recorded = json.loads(path.with_suffix(".json").read_text("utf-8"))["sha256"]
            intact = path.stat().st_size == size and sha256(path) == recorded
        except (OSError, ValueError, KeyError, TypeError):
            intact = False
        if not intact:
            say(f"warning: {path} is damaged; its states are computed again")
            self.drop(key)
            return None
        with suppress(OSError):  # another user's, or a disk that is read only: used all the same
            os.utime(path, (time.time(),) * 2)  # it was used now
        return path

    def keep(self, key: str, file: Path) -> bool:
        """Keep a finished file under `key`, by a second name where the disk is the same; return False if it does not fit."""
        size = file.stat().st_size
        if size > self.limit:
            return False
        path = self.folder / f"{key}.bin"
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._make_room(self.limit - size)
            with replacing(path) as temporary:
                temporary.unlink(missing_ok=True)
                try:
                    os.link(file, temporary)
                except OSError:  # another disk, or one without links
                    shutil.copyfile(file, temporary)
            write_bytes(path.with_suffix(".json"), json.dumps({"sha256": sha256(file)}).encode())
        except OSError as error:
            say(f"warning: the states of frozen blocks are not kept in {self.folder} ({error.strerror})")
            return False
        return True

    def drop(self, key: str) -> None:
        """Delete the file of `key`, if it is there and can be deleted."""
        for suffix in (".json", ".bin"):
            with suppress(OSError):
                (self.folder / f"{key}{suffix}").unlink(missing_ok=True)

    def _make_room(self, limit: int) -> None:
        """Delete what was used longest ago until the files hold at most `limit` bytes."""
        for path in self.folder.glob(".*.tmp"):
            with suppress(OSError):
                if time.time() - path.stat().st_mtime > ABANDONED_S:
                    path.unlink()
        held = []
        for path in self.folder.glob("*.bin"):
            with suppress(OSError):  # deleted by another run meanwhile
                status = path.stat()
                held.append((status.st_mtime, status.st_size, path.stem))
        total = sum(size for _, size, _ in held)
        for _, size, key in sorted(held):
            if total <= limit:
                break
            self.drop(key)
            total -= size
