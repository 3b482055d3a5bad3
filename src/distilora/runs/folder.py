"""The run's folder: new, replaced or resumed; never written by two processes at once.

The writing process holds `.lock` (files/locks.py). `.distilora` marks a folder as a run's. A folder is only overwritten if it
has two marks: run.yaml, and `.distilora` or another file that only distilora writes. Overwriting removes only the files of
a run (`FILES`).
"""

import json
import os
import re
import shlex
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from distilora.errors import ConfigError, OutputError
from distilora.files.full_disk import writing
from distilora.files.locks import LOCK, hold, is_held, let_go
from distilora.files.output import check_creatable
from distilora.progress import say
from distilora.version import __version__

LEFT = ".*.tmp"  # temporary names that a killed process leaves behind
MARK = ".distilora"
FILES = (
    "model", "model.rejected", "metrics.json", "predictions.parquet", "environment.json", "seen_texts.npy", "events",
    "report.html", "README.md", "checkpoints", "teacher", "cache", "evaluations", "run.yaml",
)  # fmt: skip
_STAGES = {"output", "data", "encoder", "training"}  # keys that run.yaml has had in every version
_TEMPORARY = re.compile(r"\.(?P<name>.+?)\.\d+(\.old)?\.tmp")  # of `FILES`, and of a checkpoint


def check_output(folder: Path, overwrite: bool, resume: bool) -> None:
    """Raise ConfigError if a run may not be written to `folder`, OutputError if another process is writing one there."""
    ours = _is_run(folder)
    if ours and not is_held(folder):
        hold(folder)  # raises if another process holds it
        let_go(folder)
    check_creatable(folder)
    if resume or not folder.exists():
        return
    if not any(path.name not in (LOCK, MARK) and not _is_temporary(path) for path in folder.iterdir()):
        return
    if overwrite:
        _check_overwriting(folder, ours)
        return
    choices = (
        f", --overwrite, or --resume {shlex.quote(str(folder))}"
        if (folder / "checkpoints").is_dir()
        else " or --overwrite"
    )
    raise ConfigError(f"output: {folder} is not empty; give another --output{choices if ours else ''}")


def _check_overwriting(folder: Path, ours: bool) -> None:
    """Raise ConfigError for a folder that must never be emptied, or that is not a run's."""
    resolved = folder.resolve()
    protected = [(Path.cwd(), "the working directory"), (Path(os.path.expanduser("~")), "your home")]  # noqa: PTH111 - Path.home() raises where there is none
    for path, what in ((path.resolve(), what) for path, what in protected):
        if path.is_relative_to(resolved):
            relation = "is" if path == resolved else "holds"
            raise ConfigError(f"output: {folder} {relation} {what} and is never overwritten; give another folder")
    if (folder / ".git").exists():
        raise ConfigError(f"output: {folder} holds a .git and is never overwritten; give another folder")
    if not ours:
        raise ConfigError(
            f"output: {folder} holds something other than a run and is not overwritten; give another folder"
        )


def claim(folder: Path, overwrite: bool, resume: bool) -> None:
    """Create, lock and mark the folder, and remove what a former run (`overwrite`) or a killed process left in it.

    Files that are not part of a run stay, with a note. Raises ConfigError or OutputError as `check_output` does: another
    process may have come first.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"output: {folder} cannot be created ({error.strerror}); give another --output") from None
    hold(folder)
    check_output(folder, overwrite, resume)
    for path in [*folder.glob(LEFT), *folder.glob(f"checkpoints/{LEFT}")]:
        if _is_temporary(path):
            _remove(path)
    # The mark comes first: a process killed while removing the rest then leaves a folder still recognised as a run's.
    (folder / MARK).write_text(json.dumps({"distilora": __version__, "holds": "run"}) + "\n", "utf-8")
    if overwrite and not resume:
        for name in FILES:  # run.yaml, a mark, comes last
            _remove(folder / name)
        foreign = sorted(path.name for path in folder.iterdir() if path.name not in (LOCK, MARK))
        if foreign:
            say(f"note: {folder}: {', '.join(foreign)}: not part of a run, left unchanged")


@contextmanager
def writing_run(folder: Path) -> Iterator[None]:
    """Turn a full disk into an OutputError that says to resume the run, or to start it again if nothing was written."""

    def advice() -> str:
        if (folder / "run.yaml").is_file():
            return f"go on from the last whole checkpoint with: distilora train --resume {shlex.quote(str(folder))}"
        return "start the run again"

    with writing(folder, advice):
        yield


def _is_run(folder: Path) -> bool:
    """Tell whether the folder has two marks of a run, or was left by a process killed while overwriting."""
    if _is_marked(folder):
        return _has_settings(folder) or not any((folder / name).exists() for name in FILES)
    return _has_settings(folder) and (
        _has_versions(folder) or (folder / "model" / "artifact.json").is_file() or (folder / "checkpoints").is_dir()
    )


def _is_marked(folder: Path) -> bool:
    try:
        mark = json.loads((folder / MARK).read_text("utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(mark, dict) and mark.get("holds") == "run"


def _has_settings(folder: Path) -> bool:
    """Tell whether run.yaml is a run's, of any version: only the names of the stages are checked."""
    import yaml

    try:
        tree = yaml.safe_load((folder / "run.yaml").read_text("utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return False
    return isinstance(tree, dict) and set(tree) >= _STAGES


def _has_versions(folder: Path) -> bool:
    try:
        versions = json.loads((folder / "environment.json").read_text("utf-8"))["versions"]
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return isinstance(versions, dict) and "distilora" in versions


def _is_temporary(path: Path) -> bool:
    """Tell whether the name is one that a run writes a file under before renaming it."""
    match = _TEMPORARY.fullmatch(path.name)
    return match is not None and (match["name"] in FILES or match["name"].rstrip("+").isdigit())


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
