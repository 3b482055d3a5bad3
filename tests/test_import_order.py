"""Imports go one way: a room imports only what stands above it, and torch stays out of the rooms that promise so.

A room's place in the pipeline is its line in ORDER, ground first; docs/architecture.md says why.
"""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "src" / "distilora"
ORDER = (
    ("errors", "progress", "version"),
    ("hardware", "signals", "fresh_process", "files"),
    ("config", "ray_cluster"),
    ("data",),
    ("batching",),
    ("tasks", "lexicon"),
    ("model",),
    ("training", "artifact"),
    ("inference",),
    ("evaluation", "explanation", "scoring", "export"),
    ("runs", "serving"),
    ("cli",),
    ("__init__",),
    ("__main__",),
)
LEVEL = {room: level for level, rooms in enumerate(ORDER) for room in rooms}
WITHOUT_TORCH = ("errors", "progress", "version", "hardware", "signals", "fresh_process", "files", "config", "ray_cluster", "data",
                 "batching", "tasks", "lexicon", "artifact", "inference", "scoring", "serving", "cli", "__init__")  # fmt: skip
WITH_TORCH = (
    "inference/backends/torch_backend.py",
    "inference/backends/shared.py",
)  # those of these rooms that may import it
TORCH = ("torch", "transformers", "peft", "accelerate", "safetensors.torch")
IN_A_TASK = ("finish", "head", "loss", "explained")  # methods of a task that run where torch is


def room(module: str) -> str:
    """The room of a module, by its dotted name below distilora; '' is the package itself."""
    return module.split(".")[0] or "__init__"


def imported(tree: ast.AST) -> Iterator[str]:
    """Every module of distilora that a file imports, anywhere in it."""
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        yield from (name.removeprefix("distilora").lstrip(".") for name in names if name.split(".")[0] == "distilora")


def upward(module: str, source: str) -> list[str]:
    """The imports of a module that do not go to a room above its own."""
    own = room(module)
    return [
        name
        for name in imported(ast.parse(source))
        if room(name) != own and LEVEL.get(room(name), LEVEL["__init__"]) >= LEVEL[own]
    ]


def modules() -> list[tuple[str, Path]]:
    files = sorted(PACKAGE.rglob("*.py"))
    return [(".".join(file.relative_to(PACKAGE).with_suffix("").parts), file) for file in files]


MODULES = modules()


def test_every_room_has_a_place_and_opens_with_a_sentence() -> None:
    assert {room(name) for name, _ in MODULES} == set(LEVEL)
    for name, file in MODULES:
        if name.endswith(".__init__"):
            tree = ast.parse(file.read_text("utf-8"))
            assert (ast.get_docstring(tree) or "").split("\n")[0].endswith((".", ":")), name
            if name.count(".") == 1:  # a room re-exports nothing
                assert len(tree.body) == 1, name


@pytest.mark.parametrize(("module", "file"), MODULES, ids=[name for name, _ in MODULES])
def test_imports_go_one_way(module: str, file: Path) -> None:
    assert upward(module, file.read_text("utf-8")) == []


def test_an_import_that_goes_up_is_found() -> None:
    assert upward("data.parts", "from distilora.tasks.base import Task") == ["tasks.base.Task"]
    assert upward("training.loop", "def f():\n    from distilora.artifact import format") == ["artifact.format"]
    assert upward("model.build", "import distilora") == [""]
    assert upward("training.loop", "from distilora.model.build import x\nfrom distilora.training.step import y") == []


def test_torch_stays_out_of_the_rooms_that_promise_so() -> None:
    """Imported by a process in which there is no torch, and none of what builds on it."""
    names = [
        ".".join(("distilora", *name.removesuffix("__init__").split("."))).rstrip(".")
        for name, file in MODULES
        if room(name) in WITHOUT_TORCH and file.relative_to(PACKAGE).as_posix() not in WITH_TORCH
    ]
    names = [name for name in names if name != "distilora.inference.backends.onnx_backend"]  # needs the extra `serve`
    code = "import importlib, sys\nsys.modules |= dict.fromkeys(sys.argv[1].split(','))\n"
    code += "for name in sys.argv[2].split(','):\n    importlib.import_module(name)\n"
    done = subprocess.run(
        [sys.executable, "-c", code, ",".join(TORCH), ",".join(names)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert len(names) > 60


def test_a_task_imports_torch_where_there_is_torch() -> None:
    for name, file in MODULES:
        if room(name) != "tasks":
            continue
        for function in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(function, ast.FunctionDef) and function.name not in IN_A_TASK:
                inside = {n.name for node in function.body if isinstance(node, ast.Import) for n in node.names}
                assert inside.isdisjoint(TORCH), f"{name}.{function.name}"
