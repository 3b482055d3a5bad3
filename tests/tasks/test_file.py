"""A task that no fresh process could load is refused before anything is trained."""

import sys
import types
from pathlib import Path

import pytest
from support.good_share import GoodShare
from support.tiny import tiny_config

from distilora.errors import ConfigError
from distilora.runs.run import Run
from distilora.tasks.base import Task
from distilora.tasks.classification import Classification
from distilora.tasks.file import check_task, task_file

TASK = """
from distilora.tasks.registry import register
from support.good_share import GoodShare
{more}

@register
class Own(GoodShare):
    name = "own"
"""


@pytest.fixture
def of_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> object:
    """Gives a task whose class says that it is of a module, of this file or of none."""

    def of(name: str, file: Path | None) -> Task:
        module = types.ModuleType(name)
        if file is not None:
            module.__file__ = str(file)
        monkeypatch.setitem(sys.modules, name, module)
        kind = type("Own", (GoodShare,), {"__module__": name, "name": "own"})
        return kind()

    return of


@pytest.mark.parametrize("name", ["__main__", "notebook"])
def test_a_task_of_a_notebook_is_refused_before_training(
    name: str, of_module: object, encoder: Path, reviews: Path, tmp_path: Path
) -> None:
    task = of_module(name, None)
    with pytest.raises(ConfigError) as error:
        Run(tiny_config(tmp_path / "run", reviews, encoder), task)
    assert str(error.value) == (
        "task: Own is not defined in a file, so its model could not be loaded again; put it into a .py file and import it from "
        "there"
    )
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_gone_is_none(of_module: object, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is not defined in a file"):
        task_file(of_module("cell", tmp_path / "12345.py"))  # as notebooks name their cells


def test_distilora_s_own_tasks_need_no_file() -> None:
    task = Classification(("a", "b"), "text", "label")
    assert task_file(task) is None
    check_task(task)


@pytest.mark.parametrize(
    ("module", "more", "said"),
    [
        ("tasks_here.own", "from .beside import X", None),  # part of a package
        ("alone", "from beside_it import X", None),
        ("alone", "import nothing_of_this_name", "ModuleNotFoundError: No module named 'nothing_of_this_name'"),
        ("alone", "register = lambda task: task", "task: no task called 'own' is registered"),
        ("alone", "from distilora.tasks.file import check_task\ncheck_task(GoodShare())",
         "starts a training when it is imported; put that under if __name__ == '__main__':"),
    ],
)  # fmt: skip
def test_a_fresh_process_loads_the_file(
    module: str, more: str, said: str | None, of_module: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(
        "PYTHONPATH", f"{Path(__file__).parents[1]}:{Path(sys.modules['distilora'].__file__).parents[1]}"
    )
    (tmp_path / "tasks_here").mkdir()
    for beside in ("tasks_here/__init__.py", "tasks_here/beside.py", "beside_it.py"):
        (tmp_path / beside).write_text("X = 1\n")
    (tmp_path / "numpy.py").write_text("raise SystemExit('shadowed')")
    file = tmp_path / (module.replace(".", "/") + ".py")
    file.write_text(TASK.format(more=more))
    task = of_module(module, file)
    if said is None:
        check_task(task)
        return
    with pytest.raises(ConfigError) as error:
        check_task(task)
    assert str(error.value).startswith(f"task: a fresh process cannot load Own from {file}: ")
    assert said in str(error.value)
