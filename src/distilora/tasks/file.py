"""Locates the Python file of a custom task before training, and imports it in the fresh processes that load its models.

An artifact stores the name of its task, not the code. A process that loads it must import the file that registers the task, so
a model of a task typed into a notebook or an interpreter could never be loaded.
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

_loading: str | None = None  # file that is being imported
_used: str | None = None  # file named by --task-file


def task_file(task: Task) -> Path | None:
    """Return the file that defines a task; None for a built-in task.

    Raises ConfigError if there is no file, as for a task typed into a notebook or an interpreter.
    """
    task_class = type(task)
    if task_class.__module__.startswith("distilora."):
        return None
    try:
        file = inspect.getsourcefile(task_class)
    except (OSError, TypeError):
        file = None
    if file is None or not Path(file).is_file():
        raise ConfigError(
            f"task: {task_class.__name__} is not defined in a file, so its model could not be loaded again; put it into a .py file "
            "and import it from there"
        )
    return Path(file).resolve()


def check_task(task: Task) -> None:
    """Load a custom task in a fresh process, as the round trip and every later use of the model must.

    Raises ConfigError if there is no file, or if the file does not register the task or starts a training itself.
    """
    if _loading is not None:
        raise ConfigError(
            f"task: {_loading} starts a training when it is imported; put that under if __name__ == '__main__':"
        )
    file = task_file(task)
    if file is None:
        return
    arguments = (*task_arguments(task), "--settings", json.dumps({"name": task.name, "settings": dict(task.settings)}))
    outcome = run_fresh("distilora.tasks.file", *arguments)
    if outcome.code:
        raise ConfigError(f"task: a fresh process cannot load {type(task).__name__} from {file}: {outcome.error}")


def task_arguments(task: Task) -> tuple[str, ...]:
    """Return the command-line arguments by which a fresh process finds the task; none for a built-in one."""
    file = task_file(task)
    return () if file is None else ("--task-file", str(file), "--task-module", _module(task, file))


def add_task_file(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `task_arguments` to a fresh process's parser."""
    parser.add_argument("--task-file", help="Python file that registers the task")
    parser.add_argument("--task-module", default="", help="its name, where it is part of a package")


def load_task_file(file: str | None, module: str = "") -> None:
    """Import the file. It can import its neighbours, or those of its package, but they shadow no other module."""
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
        imported = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = imported  # dataclasses look their module up there
        spec.loader.exec_module(imported)
    finally:
        _loading = None


def use_task_file(file: str) -> None:
    """Import the file named by `--task-file`, which registers its task. Raises ConfigError if that fails."""
    global _used
    path = Path(file).expanduser()
    if not path.is_file():
        raise ConfigError(f"--task-file: no such file: {file}; name the Python file that registers the task")
    try:
        load_task_file(str(path.resolve()))
    except DistiloraError:
        raise
    except Exception as error:  # the file may raise anything
        reason = " ".join(str(error).split())
        raise ConfigError(
            f"--task-file: {file} cannot be imported ({type(error).__name__}: {reason}); correct it"
        ) from None
    _used = str(path.resolve())


def used_task_file() -> str | None:
    """Return the file named by `--task-file`, for child processes; None if there is none."""
    return _used


def _module(task: Task, file: Path) -> str:
    """Return the dotted name of a module in a package; empty for a stand-alone file."""
    name = type(task).__module__
    if name == "__main__":  # started by python -m
        name = getattr(getattr(sys.modules["__main__"], "__spec__", None), "name", "")
    return name if "." in name or file.name == "__init__.py" else ""


def _root(file: Path, module: str) -> Path:
    """Return the folder from which the file is imported."""
    levels = module.count(".") + (file.name == "__init__.py") if module else 0
    return file.parents[levels]


def main() -> int:
    """Load the file and restore the task, in a fresh process; on failure print the reason to stderr."""
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
