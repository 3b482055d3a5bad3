"""Datasets saved to disk: splits, label names and rows come in their own order."""

from pathlib import Path

import datasets
import pytest

from distilora.data.sources import open_source
from distilora.errors import DataError

LABELLED = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["neg", "pos"])})


@pytest.fixture
def saved() -> datasets.Dataset:
    datasets.disable_progress_bars()
    rows = {"text": [f"text {n}" for n in range(5)], "label": [0, 1, 0, 1, 1]}
    return datasets.Dataset.from_dict(rows, features=LABELLED)


def test_a_saved_dataset(saved: datasets.Dataset, tmp_path: Path) -> None:
    saved.shuffle(seed=3).save_to_disk(tmp_path / "one")
    source = open_source(str(tmp_path / "one"))
    assert (source.splits, source.label_names) == (("train",), {"label": ("neg", "pos")})
    rows = list(source.records("train", "data.train_split"))
    assert [dict(r.values) for r in rows] == list(saved.shuffle(seed=3))  # in its own order
    assert rows[0].place == f"{tmp_path / 'one'} train: row 1"


def test_saved_datasets_by_split(saved: datasets.Dataset, tmp_path: Path) -> None:
    datasets.DatasetDict({"train": saved, "test": saved.select([4, 0])}).save_to_disk(tmp_path / "all")
    source = open_source(str(tmp_path / "all"))
    assert (source.splits, source.label_names) == (("train", "test"), {"label": ("neg", "pos")})
    assert [r.values["text"] for r in source.records("test", "data.test_split")] == ["text 4", "text 0"]


def test_a_damaged_saved_dataset(saved: datasets.Dataset, tmp_path: Path) -> None:
    saved.save_to_disk(tmp_path / "one")
    next((tmp_path / "one").glob("*.arrow")).write_bytes(b"damaged")
    with pytest.raises(
        DataError, match=r"^data\.test_path: .*one: cannot be read \(.*\); save the dataset again"
    ) as caught:
        open_source(str(tmp_path / "one"), setting="data.test_path")
    assert "\n" not in str(caught.value)
