"""Texts without labels are read and cleaned, and no copy of a training, validation or test text is among them."""

import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from support.tiny import divided, tiny_reviews, write_csv

from distilora.config.schema import DataConfig
from distilora.data.duplicates import near_matches, shingles
from distilora.data.examples import Examples
from distilora.data.unlabelled import check_unlabelled, find_unlabelled, read_unlabelled
from distilora.errors import DataError


def text_of(rng: random.Random, words: int = 40) -> str:
    return " ".join(f"w{rng.randrange(5000)}" for _ in range(words))


def near(text: str) -> str:
    """A near copy, no exact one."""
    return f"{text} and more"


def labelled(count: int, seed: int) -> list[tuple[str, str]]:
    rng = random.Random(seed)
    return [(text_of(rng), ("neg", "pos")[n % 2]) for n in range(count)]


def read(**settings: Any) -> tuple[list[str], dict[str, Any], SimpleNamespace]:
    """The texts kept, the counts of the others, and the run's parts."""
    config = DataConfig(**{name: str(value) if isinstance(value, Path) else value for name, value in settings.items()})
    parts = divided(config)
    examples, counts = read_unlabelled(config, parts.task, parts)
    assert examples.split == "unlabelled"
    assert examples.targets == [None] * len(examples)
    return [example.texts[0] for example in examples.items], counts, parts


def texts(examples: Examples) -> list[str]:
    return [example.texts[0] for example in examples.items]


def write_texts(path: Path, rows: list[str]) -> Path:
    return write_csv(path, [(text,) for text in rows], ("text",))


def test_copies_of_every_part_are_removed_and_counted(tmp_path: Path) -> None:
    data = write_csv(tmp_path / "r.csv", labelled(100, 0))
    parts = divided(DataConfig(path=str(data)))
    rng = random.Random(1)
    fresh = [text_of(rng) for _ in range(12)]
    train, validation, heldout = (texts(part) for part in (parts.train, parts.validation, parts.read_test()))
    rows = [
        fresh[0],
        train[0].upper(),
        train[1],
        near(train[2]),
        validation[0],
        near(validation[1]),
        near(validation[2]),
    ]
    rows += [*fresh[1:], "", "<br />", f"  {fresh[3]}<br />", near(fresh[4]), heldout[0], heldout[1], near(heldout[2])]
    kept, counts, _ = read(path=data, unlabelled=write_texts(tmp_path / "u.csv", rows))
    assert kept == [*fresh, near(fresh[4])]  # near copies of one another stay
    assert counts == {
        "source": str(tmp_path / "u.csv"), "split": "train", "read": len(rows), "blank_skipped": 2, "exact_copies_dropped": 1,
        "copies_removed": {
            "heldout": {"exact": 2, "near": 1}, "validation": {"exact": 1, "near": 2}, "train": {"exact": 2, "near": 1},
        },
        "kept": 13,
    }  # fmt: skip


def test_texts_of_a_test_split_are_removed_and_its_labels_are_not_looked_at(tmp_path: Path) -> None:
    data, test = labelled(60, 2), [(text, "no label of the model") for text, _ in labelled(20, 3)]
    path, test_path = write_csv(tmp_path / "r.csv", data), write_csv(tmp_path / "test.csv", test)
    rng = random.Random(4)
    fresh = [text_of(rng) for _ in range(5)]
    rows = [*fresh, test[0][0], near(test[1][0]), data[0][0]]
    kept, counts, parts = read(path=path, test_path=test_path, unlabelled=write_texts(tmp_path / "u.csv", rows))
    assert kept == fresh
    assert counts["copies_removed"]["test"] == {"exact": 1, "near": 1}
    assert counts["copies_removed"]["validation"]["exact"] + counts["copies_removed"]["train"]["exact"] == 1
    assert parts.notes == []


def test_a_text_counts_for_the_first_part_that_has_it(tmp_path: Path) -> None:
    data = labelled(60, 5)
    path, test = write_csv(tmp_path / "r.csv", data), write_csv(tmp_path / "test.csv", data[:30])
    unlabelled = write_texts(tmp_path / "u.csv", [data[0][0], text_of(random.Random(6))])
    _, counts, _ = read(path=path, test_path=test, unlabelled=unlabelled)
    assert [part["exact"] for part in counts["copies_removed"].values()] == [1, 0, 0]
    assert list(counts["copies_removed"]) == ["test", "validation", "train"]


def test_without_a_test(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "r.csv", labelled(60, 7))
    unlabelled = write_texts(tmp_path / "u.csv", [text_of(random.Random(8))])
    _, counts, _ = read(path=path, test_split="none", unlabelled=unlabelled)
    assert list(counts["copies_removed"]) == ["validation", "train"]


@pytest.mark.parametrize("seed", range(3))
def test_nothing_kept_is_near_to_anything_of_the_run(seed: int, tmp_path: Path) -> None:
    rng, data = random.Random(seed), labelled(80, seed)
    rows = []
    for text, _ in data * 2:
        words = text.split()
        for place in rng.sample(range(len(words)), rng.randrange(8)):
            words[place] = f"x{rng.randrange(10**6)}"
        rows.append(" ".join(words))
    rows += [text_of(rng) for _ in range(20)]
    path = write_csv(tmp_path / "r.csv", data)
    kept, counts, parts = read(path=path, unlabelled=write_texts(tmp_path / "u.csv", rows), seed=seed)
    own = [*texts(parts.train), *texts(parts.validation), *texts(parts.read_test())]
    assert not near_matches(shingles(kept, ""), shingles(own, "")).any()
    assert 20 <= len(kept) < len(rows)
    removed = sum(part["exact"] + part["near"] for part in counts["copies_removed"].values())
    assert counts["kept"] + counts["exact_copies_dropped"] + removed == counts["read"]


def test_the_unsupervised_split_is_taken(tmp_path: Path) -> None:
    for n, (text, label) in enumerate([*tiny_reviews(60), *((text, "unsup") for text, _ in tiny_reviews(30, 1))]):
        (tmp_path / "train" / label).mkdir(parents=True, exist_ok=True)
        stars = {"neg": 2, "pos": 8, "unsup": 0}[label]
        (tmp_path / "train" / label / f"{n}_{stars}.txt").write_text(text)
    kept, counts, _ = read(path=tmp_path, unlabelled=tmp_path)
    assert counts["split"] == "unsupervised"
    assert sorted(kept) == sorted(text for text, _ in tiny_reviews(30, 1))


def test_a_split_by_name(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "r.csv", tiny_reviews(60))
    folder = tmp_path / "texts"
    folder.mkdir()
    for name, seed in (("one", 1), ("two", 2)):
        write_csv(folder / f"{name}.csv", tiny_reviews(20, seed))
    with pytest.raises(DataError, match=r"has several splits \(one, two\); name one with --data\.unlabelled_split$"):
        find_unlabelled(DataConfig(path=str(path), unlabelled=str(folder)))
    with pytest.raises(DataError, match=r"^data\.unlabelled_split: .* has no split 'three'; it has one, two$"):
        find_unlabelled(DataConfig(path=str(path), unlabelled=str(folder), unlabelled_split="three"))
    kept, _, _ = read(path=path, unlabelled=folder, unlabelled_split="two")  # labels are there, and not looked at
    assert kept == [text for text, _ in tiny_reviews(20, 2)]


def test_wrong_texts_are_named(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "r.csv", tiny_reviews(60))
    task = divided(DataConfig(path=str(path))).task
    other = write_csv(tmp_path / "other.csv", [("a",)], ("words",))
    empty = tmp_path / "empty.csv"
    empty.touch()
    cases = {
        str(tmp_path / "nowhere.csv"): r"^data\.unlabelled: no such file or folder: ",
        str(
            other
        ): r"^data\.unlabelled: .*row 1: no column of texts \(columns: words\); call it 'text' as in training, or give ",
        str(empty): r"^data\.unlabelled: .*empty\.csv: the file is empty; give one with records$",
        str(write_csv(tmp_path / "none.csv", [], ("text",))): r"^data\.unlabelled: .* has no records; give another$",
    }
    for unlabelled, message in cases.items():
        with pytest.raises(DataError, match=message) as caught:
            check_unlabelled(DataConfig(path=str(path), unlabelled=unlabelled), task)
        assert "\n" not in str(caught.value)
    with pytest.raises(DataError, match=r"^data\.unlabelled: every text of .* is a copy of the run's own; give other"):
        read(path=path, unlabelled=path)
    blank = write_csv(tmp_path / "blank.csv", [("a fine text", ""), ("", "")], ("text", "n"))
    with pytest.raises(DataError, match=r"row 2: the text is blank; fill it, or drop --data\.strict"):
        read(path=path, unlabelled=blank, strict=True)
    nothing = write_csv(tmp_path / "nothing.csv", [("", "1"), ("", "2")], ("text", "n"))
    with pytest.raises(
        DataError, match=r"^data\.unlabelled: unlabelled: no example with a text; check data\.text_column$"
    ):
        read(path=path, unlabelled=nothing)
