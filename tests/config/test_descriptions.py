"""Settings in words: no Python in what a user reads, a default for each, an example for lists; help and page agree."""

import re
import typing
from dataclasses import dataclass

import pytest

from distilora.config import descriptions
from distilora.config.descriptions import Setting, Stage, as_given, help_text, in_words, stages
from distilora.config.measuring import MeasureConfig
from distilora.config.parse import known_keys, parse
from distilora.config.reference import reference_page
from distilora.config.schema import RunConfig

CONFIGS = [RunConfig, MeasureConfig]
PYTHON = re.compile(r"Optional|Union|Literal|tuple|\bint\b|\bstr\b|\bbool\b|\bNone\b|\[str|\btype:|<class|True|False")


@pytest.mark.parametrize(
    ("hint", "words", "with_article"),
    [
        (int, "whole number", "a whole number"),
        (float | None, "number or null", "a number or null"),
        (bool, "true or false", "true or false"),
        (str | None, "text or null", "text or null"),
        (typing.Literal["a", "b"], "one of a, b", "one of a, b"),
        (tuple[str | int, ...] | None, "list of names or null", "a list of names such as [a,b] or null"),
        (typing.Literal["all"] | tuple[str, ...], "one of all or list of names", "one of all or a list of names such as [a,b]"),
        (tuple[int, ...], "list of whole numbers", "a list of whole numbers"),
    ],
)  # fmt: skip
def test_types_in_words(hint: object, words: str, with_article: str) -> None:
    assert in_words(hint) == words
    assert in_words(hint, article=True) == with_article


def test_a_type_without_words_is_not_passed_over() -> None:
    with pytest.raises(TypeError, match="cannot be described yet"):
        in_words(dict[str, int])


@pytest.mark.parametrize(
    ("value", "words"), [(None, "null"), (True, "true"), (0.1, "0.1"), (("a", "b"), "[a,b]"), ("x", "x"), (0, "0")]
)
def test_values_as_they_are_given(value: object, words: str) -> None:
    assert as_given(value) == words


@pytest.mark.parametrize("config", CONFIGS)
def test_every_setting_is_described(config: type) -> None:
    settings = [setting for stage in stages(config) for setting in stage.settings]
    inner = {stage.name for stage in stages(config)} - {""}
    assert sorted(s.key for s in settings) == sorted(set(known_keys(config)) - inner)
    assert [s.key for s in settings if not s.meaning.endswith(".") or not s.kind] == []
    assert [stage.name for stage in stages(config) if not stage.title] == []
    assert [s.key for s in settings if PYTHON.search(s.kind) or PYTHON.search(s.default)] == []


@pytest.mark.parametrize("config", CONFIGS)
def test_a_default_is_what_is_used(config: type) -> None:
    for setting in (setting for stage in stages(config) for setting in stage.settings):
        value: object = config()
        for part in setting.key.split("."):
            value = getattr(value, part)
        assert as_given(value) == setting.default


@pytest.mark.parametrize("config", CONFIGS)
def test_a_default_may_be_given(config: type) -> None:
    settings = [setting for stage in stages(config) for setting in stage.settings if setting.default]
    assert parse(config, [f"--{setting.key}={setting.default}" for setting in settings]) == parse(config)


def test_lists_have_an_example_that_is_accepted() -> None:
    lists = [s for stage in stages(RunConfig) for s in stage.settings if "list of" in s.kind]
    assert {s.key for s in lists} >= {"data.labels", "adapter.targets"}
    for setting in lists:
        (example,) = re.findall(r"such as (\[[^]]+\])", setting.meaning)
        stage, name = setting.key.split(".")
        given = getattr(getattr(parse(RunConfig, [f"--{setting.key}", example]), stage), name)
        assert list(given) == example.strip("[]").split(",")


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("columns", [40, 80, 400])
def test_help(config: type, columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    text = help_text(config, "distilora x RUN", {"--option N": "what it does"})
    assert text.startswith("usage: distilora x RUN\n")
    assert "\n  --option N\n      what it does\n" in text
    assert PYTHON.search(text) is None
    joined = " ".join(text.split())
    for stage in stages(config):
        headline = f"{stage.name}: {stage.title[:1].lower()}{stage.title[1:]}"
        assert headline in joined or not stage.name
        for setting in stage.settings:
            assert (
                f"--{setting.key} {setting.kind}; default: {setting.default or '(nothing)'} {setting.meaning}" in joined
            )
    longest = max(len(word) for word in text.split())
    assert max(map(len, text.splitlines())) <= max(min(columns, descriptions.WIDEST), longest + 6)


def test_the_page_has_the_words_of_help() -> None:
    page = reference_page()
    for setting in (setting for config in CONFIGS for stage in stages(config) for setting in stage.settings):
        assert f"| `{setting.key}` | {setting.kind} | `{setting.default}` | {setting.meaning} |" in page


@dataclass(frozen=True)
class Inner:
    """What is inside."""

    count: int = 3
    """How many."""


@dataclass(frozen=True)
class Outer:
    """The whole."""

    inner: Inner = Inner()
    name: str | None = None
    """Its
    name."""


def test_stages_in_stages() -> None:
    assert stages(Outer) == [
        Stage("", "The whole", (Setting("name", "text or null", "null", "Its name."),)),
        Stage("inner", "What is inside", (Setting("inner.count", "whole number", "3", "How many."),)),
    ]
