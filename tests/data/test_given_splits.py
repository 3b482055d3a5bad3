"""Splits that a source has are used whole; the test split is read once, and last."""

from pathlib import Path

import pytest
from support.parts import parts_of, places, test_of, texts
from support.tiny import tiny_reviews, write_csv

from distilora.config.schema import DataConfig
from distilora.data.parts import read_parts, settle
from distilora.data.sources import open_source
from distilora.errors import ConfigError, DataError
from distilora.runs.preflight import check_data
from distilora.tasks.classification import Classification


@pytest.fixture
def splits(tmp_path: Path) -> Path:
    """A folder with train.csv, val.csv and test.csv."""
    folder = tmp_path / "splits"
    folder.mkdir()
    for seed, (name, count) in enumerate({"train": 100, "val": 20, "test": 30}.items()):
        write_csv(folder / f"{name}.csv", tiny_reviews(count, seed))
    return folder


def test_given_splits_are_used_whole(splits: Path) -> None:
    parts = parts_of(splits, validation_split="validation")
    assert (len(parts.train), len(parts.validation), len(test_of(parts))) == (100, 20, 30)
    assert parts.summary["test_split"] == test_of(parts).split == "test"
    assert test_of(parts).items[0].place == f"{splits / 'test.csv'}: row 1"


def test_a_split_called_validation_is_used(splits: Path, capsys: pytest.CaptureFixture[str]) -> None:
    parts = parts_of(splits)
    assert (len(parts.train), texts(parts.validation)) == (100, [text for text, _ in tiny_reviews(20, 1)])
    assert "20 to validate on (split validation), test split: test" in capsys.readouterr().err
    carved = parts_of(splits, validation_split="carved")
    assert (len(carved.train), len(carved.validation)) == (80, 20)
    assert "20 to validate on (carved out of train), test split: test" in capsys.readouterr().err
    assert settle(DataConfig(train_split="validation"), open_source(str(splits))).validation_split == "carved"


@pytest.mark.parametrize("name", ["dev.csv", "test.csv"])
def test_a_single_file_is_trained_on_whatever_its_name(name: str, tmp_path: Path) -> None:
    path = write_csv(tmp_path / name, tiny_reviews(100))
    config, task = check_data(DataConfig(path=str(path)), Classification)
    assert (config.train_split, config.validation_split) == (open_source(str(path)).splits[0], "carved")
    parts = read_parts(DataConfig(path=str(path)), task)
    assert [len(parts.train), len(parts.validation), len(test_of(parts))] == [72, 18, 10]


def test_test_split_auto(splits: Path, reviews: Path) -> None:
    assert parts_of(splits).summary["test_split"] == "test"
    assert parts_of(reviews).summary["test_split"] == "heldout"
    assert parts_of(reviews, heldout=0.0).summary["test_split"] == "none"


def test_test_split_auto_never_takes_what_is_trained_or_chosen_on(splits: Path) -> None:
    trained = parts_of(splits, train_split="test")
    assert trained.summary["test_split"] == "heldout"
    assert not places(trained.train) & places(test_of(trained))
    assert parts_of(splits, validation_split="test").summary["test_split"] == "heldout"


def test_test_split_none_and_heldout(splits: Path) -> None:
    none = parts_of(splits, test_split="none")
    assert none.read_test is None
    assert (len(none.train), len(none.validation)) == (100, 20)
    heldout = parts_of(splits, test_split="heldout")
    assert {place.split(":")[0] for place in places(test_of(heldout))} == {str(splits / "train.csv")}
    assert len(test_of(heldout)) == 10


def test_test_split_by_name(splits: Path) -> None:
    parts = parts_of(splits, test_split="validation")
    assert texts(test_of(parts)) == [text for text, _ in tiny_reviews(20, 1)]
    assert test_of(parts).split == "test"  # another part is called validation
    with pytest.raises(
        DataError, match=r"^data\.test_split: .* has no split 'final'; it has test, train, validation; name one"
    ):
        parts_of(splits, test_split="final")
    for settings in ({"test_split": "train"}, {"test_split": "validation", "validation_split": "validation"}):
        with pytest.raises(ConfigError, match="is also trained or chosen on"):
            parts_of(splits, **settings)


def test_another_source_for_the_test(splits: Path, reviews: Path, tmp_path: Path) -> None:
    file = write_csv(tmp_path / "elsewhere.csv", tiny_reviews(25, 7))
    parts = parts_of(reviews, test_path=str(file))
    assert texts(test_of(parts)) == [text for text, _ in tiny_reviews(25, 7)]
    assert test_of(parts).split == "test"
    assert len(parts.train) + len(parts.validation) == 300
    assert len(test_of(parts_of(reviews, test_path=str(splits)))) == 30
    assert len(test_of(parts_of(reviews, test_path=str(splits), test_split="validation"))) == 20
    with pytest.raises(DataError, match=r"^data\.test_split: .* has no split 'final'"):
        parts_of(reviews, test_path=str(splits), test_split="final")
    with pytest.raises(DataError, match=r"^data\.test_path: no such file or folder"):
        parts_of(reviews, test_path=str(tmp_path / "nowhere.csv"))


def test_the_test_split_is_not_read_before_it_is_asked_for(splits: Path, reviews: Path) -> None:
    (splits / "test.csv").write_bytes(b"\xff not text, not a table")
    for parts in (parts_of(splits), parts_of(reviews, test_path=str(splits))):
        assert len(parts.train) > 50
        with pytest.raises(DataError, match=r"test\.csv: line 1: byte 1 is not UTF-8"):
            test_of(parts)
