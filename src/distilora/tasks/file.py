"""The Python file of a task of one's own: found before training, loaded by the fresh process that verifies the run.

A model names its task and does not hold its code. Whoever loads it must import the file that registers the task, so a task
typed into a notebook or an interpreter would leave a model that nothing can load.
"""

import argparse
import importlib
import importlib.util
import inspect
import json
import sys
from pathlib import Path

from distilora.errors import ConfigError, DistiloraError
from distilora.fresh_process import run_fresh
from distilora.tasks.base import Task
from distilora.tasks.registry import restore

_loading: str | None = None  # the file that this process is loading for another one
_used: str | None = None  # the file that the user named


def task_file(task: Task) -> Path | None:
    """The file that registers a task; None for a task of distilora's own.

    Raises ConfigError if it has none, as one typed into a notebook or an interpreter.
    """
    kind = type(task)
    if kind.__module__.startswith("distilora."):
        return None
    try:
        file = inspect.getsourcefile(kind)
    except (OSError, TypeError):
        file = None
    if file is None or not Path(file).is_file():
        raise ConfigError(
            f"task: {kind.__name__} is defined in no file, and nothing could load its model again; put it into a .py file "
            "and import it from there"
        )
    return Path(file).resolve()


def check_task(task: Task) -> None:
    """Has a fresh process load a task of one's own, as it must when the model is verified and whenever it is used.

    Raises ConfigError if there is no file, or the file does not register the task or itself starts a training.
    """
    if _loading is not None:
        raise ConfigError(
            f"task: {_loading} starts a training when it is imported; put that under if __name__ == '__main__':"
        )
    file = task_file(task)
    if file is None:
        return
    words = (*as_words(task), "--settings", json.dumps({"name": task.name, "settings": dict(task.settings)}))
    done = run_fresh("distilora.tasks.file", *words)
    if done.code:
        raise ConfigError(f"task: a fresh process cannot load {type(task).__name__} from {file}: {done.error}")


def as_words(task: Task) -> tuple[str, ...]:
    """The arguments that tell a fresh process where the task is."""
    file = task_file(task)
    return () if file is None else ("--task-file", str(file), "--task-module", _module(task, file))


def add_task_file(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `as_words` to the fresh process's parser."""
    parser.add_argument("--task-file", help="Python file that registers the task")
    parser.add_argument("--task-module", default="", help="its name, where it is part of a package")


def load_task_file(file: str | None, module: str = "") -> None:
    """Imports the file; what lies beside it, or beside its package, can be imported by it, but shadows nothing."""
    global _loading
    if file is None:
        return
    _loading = file
    try:
        sys.path.append(str(_root(Path(file), module)))
        if module:
            importlib.import_module(module)
            return
        spec = importlib.util.spec_from_file_location("distilora_task", file)
        assert spec is not None
        assert spec.loader is not None
        found = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = found  # dataclasses look their module up there
        spec.loader.exec_module(found)
    finally:
        _loading = None


def use_task_file(file: str) -> None:
    """Import the file that a user names, so that its task is known by its name. Raises ConfigError if that fails."""
    global _used
    path = Path(file).expanduser()
    if not path.is_file():
        raise ConfigError(f"--task-file: no such file: {file}; name the Python file that registers the task")
    try:
        load_task_file(str(path.resolve()))
    except DistiloraError:
        raise
    except Exception as error:  # whatever the file does
        reason = " ".join(str(error).split())
        raise ConfigError(
            f"--task-file: {file} cannot be imported ({type(error).__name__}: {reason}); correct it"
        ) from None
    _used = str(path.resolve())


def used_task_file() -> str | None:
    """The file that the user named, for processes that this one starts; None if there was none."""
    return _used


def _module(task: Task, file: Path) -> str:
    """The dotted name of a module in a package; empty for a file by itself."""
    name = type(task).__module__
    if name == "__main__":  # started by python -m
        name = getattr(getattr(sys.modules["__main__"], "__spec__", None), "name", "")
    return name if "." in name or file.name == "__init__.py" else ""


def _root(file: Path, module: str) -> Path:
    """The folder from which the file is imported."""
    levels = module.count(".") + (file.name == "__init__.py") if module else 0
    return file.parents[levels]


def main() -> int:
    """The fresh process: loads the file and restores the task, or says on stderr why it cannot."""
    parser = argparse.ArgumentParser(prog="python -m distilora.tasks.file", description=__doc__)
    add_task_file(parser)
    parser.add_argument("--settings", type=json.loads, required=True, help="name and settings of the task")
    args = parser.parse_args()
    try:
        load_task_file(args.task_file, args.task_module)
        restore(**args.settings)
    except DistiloraError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0
