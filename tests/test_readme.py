"""README and recipes cannot rot: what they tell to type is parsed, and the annotated tree names every module."""

import ast
import re
import shlex
from pathlib import Path

import pytest

import distilora
from distilora.config import MeasureConfig, RunConfig
from distilora.settings import parse, read_recipe

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text("utf-8")
COMMANDS = sorted(set(re.findall(r"^    distilora (.+)$|`distilora (train --\S[^`]+)`", README, re.MULTILINE)))
RECIPES = sorted((ROOT / "recipes").glob("*.yaml"))


@pytest.mark.parametrize("line", [first or second for first, second in COMMANDS])
def test_commands_parse(line: str) -> None:
    command, *words = shlex.split(line)
    if command == "train" and "--resume" not in words:
        recipe = read_recipe(ROOT / words.pop(0)) if not words[0].startswith("--") else {}
        parse(RunConfig, words, recipe)
    elif command == "evaluate":
        parse(MeasureConfig, words[1:])
    else:
        assert command in ("predict", "train", "explain", "export", "score")


def test_there_are_commands() -> None:
    assert {(first or second).split()[0] for first, second in COMMANDS} == {
        "train",
        "predict",
        "explain",
        "evaluate",
        "export",
        "score",
    }


def test_the_tree_names_every_module() -> None:
    package = ROOT / "src" / "distilora"
    modules = [p.name for p in package.glob("*.py") if not p.name.startswith("__")]
    folders = [p.parent.name + "/" for p in package.glob("*/__init__.py")]
    missing = [name for name in modules + folders if name not in README]
    assert missing == []


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_recipes_teach(recipe: Path) -> None:
    config = parse(RunConfig, (), read_recipe(recipe))
    text = recipe.read_text("utf-8")
    assert f"#     distilora train recipes/{recipe.name}" in text
    assert config.output == f"runs/{recipe.stem}"
    assert "#" in text[text.index("data:") :]


def test_the_library_in_ten_lines_exists() -> None:
    block, more = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    used = {
        node.attr
        for node in ast.walk(ast.parse(block + more))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "distilora"
    }
    assert used <= set(distilora.__all__)
    assert len([line for line in block.splitlines() if line.strip()]) <= 10
