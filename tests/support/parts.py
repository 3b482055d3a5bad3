"""Parts of a source, as a run divides it."""

import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from support.tiny import divided

from distilora.config.schema import DataConfig
from distilora.data.examples import Examples


def parts_of(path: Path, **settings: Any) -> SimpleNamespace:
    return divided(DataConfig(path=str(path), **settings))


def test_of(parts: SimpleNamespace) -> Examples:
    assert parts.read_test is not None
    return parts.read_test()


test_of.__test__ = False


def places(examples: Examples) -> set[str]:
    return {example.place for example in examples.items}


def texts(examples: Examples) -> list[str]:
    return [example.texts[0] for example in examples.items]


def words(rng: random.Random, count: int = 40) -> list[str]:
    return [f"w{rng.randrange(5000)}" for _ in range(count)]
