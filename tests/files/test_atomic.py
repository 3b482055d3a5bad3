"""Files that a power cut leaves whole, on systems that flush folders and on those that cannot open one."""

import os
import sys
from pathlib import Path
from typing import Any

import pytest

from distilora import hardware
from distilora.files.atomic import flush_file, flush_folder
from distilora.files.stores import Place


def flushed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is flushed from now on, by the name of what lies behind the handle."""
    names: list[str] = []
    fsync = os.fsync

    def noted(handle: int) -> None:
        names.append(Path(f"/proc/self/fd/{handle}").readlink().name)
        fsync(handle)

    monkeypatch.setattr(os, "fsync", noted)
    return names


def test_a_file_is_flushed_and_then_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_bytes(b"content")
    names = flushed(monkeypatch)
    Place(str(tmp_path)).keep(tmp_path / "file")
    assert names == ["file", tmp_path.name]
    assert (tmp_path / "file").read_bytes() == b"content"


def test_windows_opens_no_folder_and_flushes_what_is_open_for_writing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()

    def refused(*words: Any) -> int:
        raise PermissionError(13, "Permission denied")

    fsync = os.fsync

    def for_writing(handle: int) -> None:
        os.write(handle, b"")  # raises EBADF, as Windows does, if the file is open for reading alone
        fsync(handle)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", for_writing)
        patch.setattr(os, "open", refused)
        patch.setattr(sys, "platform", "win32")
        flush_file(tmp_path / "file")
        flush_folder(tmp_path)


def test_cores_where_a_process_cannot_be_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 3}, raising=False)
    assert hardware.cores() == 2
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 7)
    assert hardware.cores() == 7
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert hardware.cores() == 1
