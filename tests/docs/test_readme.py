"""README, docs and recipes cannot rot: what they tell to type is parsed, and what they name is there."""

import ast
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

import distilora
from distilora import MeasureConfig, RunConfig, parse, read_recipe
from distilora.cli import curve
from distilora.cli.arguments import take_everywhere
from distilora.cli.audit import read_settings
from distilora.cli.evaluate import as_settings

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
README = PAGES[0].read_text("utf-8")
RECIPES = sorted((ROOT / "recipes").glob("*.yaml"))
MOST_BYTES = 6_000  # of README
OUTSIDE = re.compile(r"\]\((?!https?:|#)([^)#\s]+)")  # links to files


def commands(page: Path) -> Iterator[str]:
    """What a page tells to type: lines of its shell blocks (README's are indented), and whole `train` commands in a sentence."""
    text = page.read_text("utf-8")
    blocks = re.findall(r"^```sh\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    lines = [line for block in blocks for line in block.splitlines()]
    lines += re.findall(r"^    (distilora .+)$", text, re.MULTILINE)
    lines += re.findall(r"`(distilora train (?:--\S|recipes/)[^`]+)`", text)
    return (line.removeprefix("distilora ") for line in lines if line.startswith("distilora "))


COMMANDS = [(page, line) for page in PAGES for line in commands(page)]


@pytest.mark.parametrize(("page", "line"), COMMANDS, ids=lambda value: getattr(value, "name", value))
def test_commands_parse(page: Path, line: str) -> None:
    command, *words = take_everywhere(shlex.split(line, comments=True)).words
    if command in ("train", "baseline") and not {"--resume", "--help"} & set(words):
        words = [word for word in words if word not in ("--overwrite", "--dry-run")]
        recipe = read_recipe(ROOT / words.pop(0)) if not words[0].startswith("--") else {}
        parse(RunConfig, words, recipe)
    elif command == "evaluate":
        parse(MeasureConfig, as_settings(words[1:]))
    elif command == "audit":
        read_settings(words)
    elif command == "curve":
        curve.read_settings([str(ROOT / word) if word.startswith("recipes/") else word for word in words])
    else:
        assert command in ("predict", "train", "compare", "explain", "export", "score", "encoder", "serve")


def test_there_are_commands() -> None:
    expected = {"train", "baseline", "compare", "predict", "explain", "evaluate", "export", "score", "serve"}
    assert {line.split()[0] for page, line in COMMANDS if page == PAGES[0]} == expected
    assert len({page for page, _ in COMMANDS}) > 8


def test_readme_stays_short() -> None:
    assert len(README.encode()) <= MOST_BYTES


def test_each_promise_has_a_test_file_of_its_own() -> None:
    """Its name and its first words are the promise's."""
    section = README.partition("## Five promises")[2].partition("\n## ")[0]
    promises = re.findall(r"^- \*\*(.+?)\.\*\*", section, re.MULTILINE)
    assert len(promises) == 5
    files = {path.stem: path.read_text("utf-8") for path in (ROOT / "tests" / "guarantees").glob("*.py")}
    assert set(files) == {f"test_{promise.lower().replace(' ', '_')}" for promise in promises}
    for promise in promises:
        assert files[f"test_{promise.lower().replace(' ', '_')}"].startswith(f'"""{promise}. ')


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files(page: Path) -> None:
    missing = [link for link in OUTSIDE.findall(page.read_text("utf-8")) if not (page.parent / link).is_file()]
    assert missing == []


def test_the_rooms_are_all_named() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text("utf-8")
    rooms = [file.parent.name for file in (ROOT / "src" / "distilora").glob("*/__init__.py")]
    assert rooms
    assert [room for room in rooms if f"{room}/" not in page] == []


def test_every_page_is_in_the_navigation() -> None:
    import yaml

    def listed(entry: object) -> Iterator[str]:
        if isinstance(entry, str):
            yield entry
        else:
            for inner in entry.values() if isinstance(entry, dict) else entry:
                yield from listed(inner)

    site = yaml.safe_load((ROOT / "mkdocs.yml").read_text("utf-8"))
    assert {page.name for page in PAGES[1:]} == set(listed(site["nav"])) - {"LOG.md", "CHANGELOG.md"}
    assert site["strict"]
    assert site["theme"]["font"] is False  # no font service


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_recipes_teach(recipe: Path) -> None:
    config = parse(RunConfig, (), read_recipe(recipe))
    text = recipe.read_text("utf-8")
    assert f"#     distilora train recipes/{recipe.name}" in text
    assert config.output == f"runs/{recipe.stem}"
    assert "#" in text[text.index("data:") :]


def used(block: str) -> set[str]:
    """The names that a piece of Python takes from distilora."""
    return {
        node.attr
        for node in ast.walk(ast.parse(block))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "distilora"
    }


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_python_blocks_use_exists(page: Path) -> None:
    for block in re.findall(r"```python\n(.*?)```", page.read_text("utf-8"), re.DOTALL):
        assert used(block) <= set(distilora.__all__)


def test_the_library_in_ten_lines() -> None:
    page = (ROOT / "docs" / "python-api.md").read_text("utf-8")
    first = re.findall(r"```python\n(.*?)```", page, re.DOTALL)[0]
    assert {"train", "load"} <= used(first)
    assert len([line for line in first.splitlines() if line.strip()]) <= 10


def test_the_api_page_has_every_public_name() -> None:
    page = (ROOT / "docs" / "python-api.md").read_text("utf-8")
    documented = re.findall(r"^::: distilora\.(\w+)$", page, re.MULTILINE)
    assert sorted(documented) == sorted(distilora.__all__)
