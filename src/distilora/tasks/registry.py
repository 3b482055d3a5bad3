"""Knows tasks by name, so that a recipe can ask for one and an artifact can be loaded."""

import importlib
from collections.abc import Iterator, Mapping
from typing import Any

from distilora.errors import ArtifactError, ConfigError
from distilora.tasks.base import Task

OWN = {"classification": "distilora.tasks.classification"}  # imported on first use
_REGISTRY: dict[str, type[Task]] = {}


def register(task: type[Task]) -> type[Task]:
    """Make a task known by its name. Usable as a decorator."""
    _REGISTRY[task.name] = task
    return task


def known_tasks() -> list[str]:
    """List the names of all tasks."""
    return [*OWN, *(name for name in _REGISTRY if name not in OWN)]


def find_task(name: str) -> type[Task]:
    """Find a task by its name. Raises ConfigError if no such task is registered."""
    if name not in _REGISTRY and name in OWN:
        importlib.import_module(OWN[name])
    if name not in _REGISTRY:
        raise ConfigError(
            f"task: no task called {name!r} is registered (there is {', '.join(known_tasks())}); name the file that "
            "registers it with --task-file, in Python import it first"
        )
    return _REGISTRY[name]


def own_tasks() -> Iterator[type[Task]]:
    """Give every task of distilora's own."""
    return map(find_task, OWN)


def restore(name: str, settings: Mapping[str, Any]) -> Task:
    """Make the task that an artifact names. Raises ArtifactError if no such task is registered."""
    try:
        kind = find_task(name)
    except ConfigError as error:
        raise ArtifactError(str(error)) from None
    return kind(**settings)
