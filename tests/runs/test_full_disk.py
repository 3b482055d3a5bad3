"""A disk that is full: one line that says how to go on, the last whole checkpoint kept, the same run in the end."""

import errno
import importlib
import os
import re
import shlex
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import SafetensorError
from support.checkpoints import fresh, save
from support.stopping import fill, no_fresh_process, temporary, told, write_recipe
from support.tiny import tiny_config

from distilora import progress
from distilora.cli.main import main
from distilora.errors import OutputError
from distilora.runs.folder import writing_run
from distilora.runs.run import Run, train
from distilora.training import checkpoint
from distilora.training import loop as fit
from distilora.training.checkpoint import load_checkpoint

NAMESPACE = ["unshare", "--user", "--map-root-user", "--mount"]
FULL = "No space left on device"
LINE = (
    "output: {0} cannot be written (the disk is full); make room, then go on from the last whole checkpoint with: "
    "distilora train --resume {0}"
)


@pytest.fixture(autouse=True)
def loud_again() -> Iterator[None]:
    yield
    progress.quiet(False)


@pytest.fixture(scope="session")
def inside() -> str:
    """What pytest says of this file in a mount namespace of its own, where whoever runs it may mount."""
    again = [sys.executable, "-m", "pytest", "-rA", "-p", "no:cacheprovider", __file__]
    return subprocess.run([*NAMESPACE, *again], capture_output=True, text=True).stdout


@pytest.fixture
def disk(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """A file system of 4 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)]
    done = subprocess.run(mount, capture_output=True, text=True)
    if done.returncode == 0:
        yield folder
        subprocess.run(["umount", "-l", str(folder)], check=True)  # even if a file in it is still open
        return
    if subprocess.run([*NAMESPACE, *mount], capture_output=True).returncode:
        pytest.skip(f"no small file system can be mounted: {done.stderr.strip()}")
    said = request.getfixturevalue("inside")
    if not re.search(rf"^PASSED .*::{re.escape(request.node.name)}$", said, re.MULTILINE):
        pytest.fail(said)
    pytest.skip("passed in a mount namespace of its own")


def refused(run: Path, capfd: pytest.CaptureFixture[str], *words: str) -> None:
    """Has a command refused with the one line of a full disk."""
    capfd.readouterr()
    assert main(["--quiet", *words]) == 2
    assert capfd.readouterr().err == f"distilora: {LINE.format(run)}\n"
    progress.quiet(False)


@pytest.mark.parametrize(("tracker", "every"), [("none", 9), ("tensorboard", 1000)])  # curves need room before 120
def test_in_training(
    tracker: str, every: int, disk: Path, finished: Path, encoder: Path, reviews: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    run = disk / "run"
    config = tiny_config(run, reviews, encoder, training__tracker=tracker, training__checkpoint_every=every)
    steps, step = iter(range(1, 10**6)), fit.make_update

    def count(*words: Any) -> tuple[float, float]:
        if next(steps) == 65:
            fill(disk)
        return step(*words)

    monkeypatch.setattr(threading, "excepthook", threading.__excepthook__)  # not pytest's, which keeps it to itself
    no_fresh_process(monkeypatch)
    with monkeypatch.context() as patch:
        patch.setattr(fit, "make_update", count)
        refused(run, capfd, "train", write_recipe(tmp_path / "recipe.yaml", config))
    last = 63 if tracker == "none" else 60
    assert max(path.name for path in (run / "checkpoints").iterdir()) == f"{last:08d}"
    assert temporary(run) == []
    assert not (run / "model").exists()

    (disk / "fill").unlink()
    assert main(["train", "--resume", str(run)]) == 0
    assert f"resuming after update {last} of 120" in capfd.readouterr().err
    assert told(run) == told(finished)


def test_before_there_is_a_run(
    disk: Path, encoder: Path, reviews: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    fill(disk)
    config = tiny_config(disk / "run", reviews, encoder)
    assert main(["--quiet", "train", write_recipe(tmp_path / "recipe.yaml", config)]) == 2
    line = capfd.readouterr().err
    assert re.fullmatch(
        rf"distilora: output: {re.escape(str(disk / 'run'))} cannot be (written|created)(:| \()[^\n]+\n", line
    )
    assert "--resume" not in line  # there is nothing to resume


SHORT = {"training__epochs": 1, "training__learning_rate": 0.05}
SAVING = (
    "distilora.runs.run.write_model",
    "distilora.export.save.save_weights",
    "distilora.artifact.format.pack_check",
)
TELLING = ("distilora.runs.outcome.write_table", "distilora.runs.outcome.write_report", "distilora.runs.outcome.model_card",
           "distilora.runs.outcome.write_json")  # fmt: skip


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory, encoder: Path, reviews: Path) -> dict[str, Any]:
    """What a short run tells that nothing happened to."""
    folder = tmp_path_factory.mktemp("short") / "run"
    with pytest.MonkeyPatch.context() as patch:
        no_fresh_process(patch)
        train(tiny_config(folder, reviews, encoder, **SHORT))
    return told(folder)


@pytest.fixture
def trained(encoder: Path, reviews: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], Run]:
    """Gives a short run that has been trained and is not saved."""

    def run(folder: Path) -> Run:
        trained_run = Run(tiny_config(folder, reviews, encoder, **SHORT))
        trained_run.read()
        trained_run.build()
        trained_run.fit()
        return trained_run

    no_fresh_process(monkeypatch)
    return run


def tried(run: Run, stage: Callable[[], object], name: str, full: Callable[[], object]) -> str:
    """The error of a stage when the disk is full from the call of a function on."""
    module, _, function = name.rpartition(".")
    called = getattr(importlib.import_module(module), function)

    def filled(*words: Any, **more: Any) -> Any:
        full()
        return called(*words, **more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(name, filled)
        try:
            stage()
            said = "nothing"
        except Exception as error:
            said = f"{type(error).__name__}: {error}"
    assert temporary(run.folder) == [".lock"]
    assert not (run.folder / "metrics.json").exists()
    return said


def test_after_training(disk: Path, trained: Callable[[Path], Run], short: dict[str, Any]) -> None:
    said = {}
    with trained(disk / "run") as run:
        for name in SAVING:
            said[name] = tried(run, run.save, name, lambda: fill(disk))
            (disk / "fill").unlink()
            assert not (run.folder / "model").exists()
        run.save()
        run.evaluate()
        for name in TELLING:
            said[name] = tried(run, run.finish, name, lambda: fill(disk))
            (disk / "fill").unlink()
    assert said == dict.fromkeys(said, f"OutputError: {LINE.format(run.folder)}")
    assert main(["train", "--resume", str(run.folder)]) == 0
    assert told(run.folder) == short
    assert temporary(run.folder) == []


def test_an_array_that_fits_in_part(
    disk: Path, trained: Callable[[Path], Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    with trained(disk / "run") as run:
        run.save()
        run.evaluate()
        monkeypatch.setattr("distilora.runs.run.fingerprints", lambda texts: np.arange(100_000, dtype=np.uint64))
        said = tried(run, run.finish, "distilora.runs.outcome.model_card", lambda: fill(disk, left=20))
    assert said == f"OutputError: {LINE.format(run.folder)}"


def test_after_training_where_nothing_can_be_mounted(
    tmp_path: Path, trained: Callable[[Path], Run], short: dict[str, Any]
) -> None:
    def full() -> None:
        raise OSError(errno.ENOSPC, FULL)

    with trained(tmp_path / "run") as run:
        line = f"OutputError: {LINE.format(run.folder)}"
        assert tried(run, run.save, "distilora.export.save.save_weights", full) == line
        run.save()
        run.evaluate()
        assert tried(run, run.finish, "distilora.runs.outcome.write_json", full) == line
    assert main(["train", "--resume", str(run.folder)]) == 0
    assert told(run.folder) == short


NO_ROOM = OSError(errno.ENOSPC, FULL)


@pytest.mark.parametrize(
    ("owner", "name", "after", "error"),
    [
        (checkpoint, "save_file", 0, NO_ROOM),
        (checkpoint, "save_file", 3, SafetensorError(f"Error while serializing: I/O error: {FULL} (os error 28)")),
        (Path, "write_text", 0, NO_ROOM),
        (Path, "write_text", 1, NO_ROOM),
        (os, "fsync", 0, NO_ROOM),
        (os, "fsync", 6, OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))),
        (os, "replace", 0, NO_ROOM),
    ],
)
def test_in_a_checkpoint(
    owner: Any, name: str, after: int, error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path, 4)
    before, *_ = save(tmp_path, 5)
    called, left = getattr(owner, name), iter(range(after))

    def full(*words: Any, **more: Any) -> Any:
        if next(left, None) is None:
            raise error
        return called(*words, **more)

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, full)
        with pytest.raises(OutputError, match=r"\(the disk is full\)"), writing_run(tmp_path):
            save(tmp_path, 6)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["00000004", "00000005"]
    trained, optimizer = fresh(1)
    loaded = load_checkpoint(tmp_path, "ours", trained, optimizer)
    assert loaded is not None
    assert loaded[0].update == 5
    assert all(torch.equal(trained[name], parameter) for name, parameter in before.items())


def test_another_error_is_left_as_it_is(tmp_path: Path) -> None:
    for error in (PermissionError(errno.EACCES, "Permission denied"), ValueError("a bug")):
        with pytest.raises(type(error)) as raised, writing_run(tmp_path):
            raise error
        assert raised.value is error


def test_the_command_that_goes_on_can_be_typed(tmp_path: Path) -> None:
    folder = tmp_path / "a run's folder"
    folder.mkdir()
    (folder / "run.yaml").touch()
    with pytest.raises(OutputError) as raised, writing_run(folder):
        raise NO_ROOM
    command = str(raised.value).rpartition(" with: ")[2]
    assert shlex.split(command) == ["distilora", "train", "--resume", str(folder)]
