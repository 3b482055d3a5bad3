"""Finds tasks by name, for a recipe to train one and for an artifact to restore its own."""

import importlib
from collections.abc import Iterator, Mapping
from typing import Any

from distilora.errors import ArtifactError, ConfigError
from distilora.tasks.base import Task

_NAMES = (
    "classification", "ordinal", "regression", "multilabel", "question_answering", "summarization",
    "abstractive_summarization",
)  # fmt: skip
BUILTIN = {name: f"distilora.tasks.{name}" for name in _NAMES}  # imported on first use
_REGISTRY: dict[str, type[Task]] = {}


def register(task: type[Task]) -> type[Task]:
    """Register a task under its name. Usable as a decorator."""
    _REGISTRY[task.name] = task
    return task


def known_tasks() -> list[str]:
    """List the names of all tasks."""
    return [*BUILTIN, *(name for name in _REGISTRY if name not in BUILTIN)]


def find_task(name: str) -> type[Task]:
    """Find a task by its name. Raises ConfigError if no such task is registered."""
    if name not in _REGISTRY and name in BUILTIN:
        importlib.import_module(BUILTIN[name])
    if name not in _REGISTRY:
        raise ConfigError(
            f"task: no task called {name!r} is registered (there is {', '.join(known_tasks())}); name the file that "
            "registers it with --task-file, in Python import it first"
        )
    return _REGISTRY[name]


def builtin_tasks() -> Iterator[type[Task]]:
    """Yield every built-in task."""
    return map(find_task, BUILTIN)


def restore(name: str, settings: Mapping[str, Any]) -> Task:
    """Create the task of an artifact from its settings. Raises ArtifactError if no such task is registered."""
    try:
        task = find_task(name)
    except ConfigError as error:
        raise ArtifactError(str(error)) from None
    return task(**settings)
