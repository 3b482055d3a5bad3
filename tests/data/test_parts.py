"""A source is divided into parts that share no copy and no group; the test split is read once, and last."""

import json
import random
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from support.tiny import divided, tiny_reviews, write_csv

from distilora.config.schema import DataConfig
from distilora.data.examples import Example, Examples
from distilora.data.overlap import shared_copies
from distilora.data.parts import read_parts, settle
from distilora.data.sources import open_source
from distilora.errors import ConfigError, DataError
from distilora.files.tables import write_table
from distilora.runs.preflight import check_data
from distilora.tasks.classification import Classification


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


@pytest.fixture
def splits(tmp_path: Path) -> Path:
    """A folder with train.csv, val.csv and test.csv."""
    folder = tmp_path / "splits"
    folder.mkdir()
    for seed, (name, count) in enumerate({"train": 100, "val": 20, "test": 30}.items()):
        write_csv(folder / f"{name}.csv", tiny_reviews(count, seed))
    return folder


def test_validation_and_test_are_carved(reviews: Path) -> None:
    parts = parts_of(reviews)
    heldout = test_of(parts)
    assert (len(parts.train), len(parts.validation), len(heldout)) == (216, 54, 30)  # a tenth, then a fifth of the rest
    assert len(places(parts.train) | places(parts.validation) | places(heldout)) == 300
    for part in (parts.train, parts.validation, heldout):
        assert abs(Counter(part.targets)[0] - len(part) / 2) <= 1
    assert [p.split for p in (parts.train, parts.validation, heldout)] == ["train", "validation", "heldout"]
    assert parts.summary == {
        "source": str(reviews), "note": "", "read": 300, "blank_skipped": 0, "exact_copies_dropped": 0,
        "group_column": None, "carve": "random",
        "near_copies_kept_together": 0, "train": 216, "validation": 54, "test_split": "heldout",
    }  # fmt: skip


def test_sizes_asked_for(reviews: Path) -> None:
    parts = parts_of(reviews, validation_size=40, heldout=0.2)
    assert (len(parts.validation), len(test_of(parts))) == (40, 60)


def test_the_seed_decides(reviews: Path) -> None:
    first, again, other = (parts_of(reviews, seed=seed) for seed in (3, 3, 4))
    assert places(first.validation) == places(again.validation)
    assert places(test_of(first)) == places(test_of(again))
    assert places(first.validation) != places(other.validation)
    assert places(test_of(first)) != places(test_of(other))


def test_train_size_is_stratified_and_leaves_the_other_parts(reviews: Path) -> None:
    whole, small = parts_of(reviews), parts_of(reviews, train_size=50)
    assert Counter(small.train.targets) == {0: 25, 1: 25}
    assert places(small.train) <= places(whole.train)
    assert places(small.validation) == places(whole.validation)
    assert places(test_of(small)) == places(test_of(whole))
    assert small.summary["train"] == 50


def test_exact_copies_are_dropped_and_counted(tmp_path: Path) -> None:
    rows = tiny_reviews(100)
    copies = [(f"  {text.upper()}\n", label) for text, label in rows[:7]] + [(f"<br />{rows[9][0]}", rows[9][1])]
    path = write_csv(tmp_path / "r.csv", rows + copies)
    parts = parts_of(path)
    remaining = [*texts(parts.train), *texts(parts.validation), *texts(test_of(parts))]
    assert parts.summary["exact_copies_dropped"] == 8
    assert sorted(remaining) == sorted(text for text, _ in rows)  # the first of each stays
    assert parts.summary["read"] == 108


def test_exact_copies_that_stay_do_not_straddle(tmp_path: Path) -> None:
    rows = tiny_reviews(60)
    parts = parts_of(write_csv(tmp_path / "r.csv", rows * 3), deduplicate=False)
    assert parts.summary["exact_copies_dropped"] == 0
    assert len(parts.train) + len(parts.validation) + len(test_of(parts)) == 180
    sides = [set(texts(part)) for part in (parts.train, parts.validation, test_of(parts))]
    assert sum(map(len, sides)) == 60


@pytest.mark.parametrize("seed", range(3))
def test_near_copies_never_straddle(seed: int, tmp_path: Path) -> None:
    rng = random.Random(seed)
    rows = []
    for family in range(120):
        base = words(rng)
        for member in range(rng.randint(1, 3)):
            base = [*base[:-2], f"family{family}", f"x{member}"]
            rows.append((" ".join(base), "pos" if family % 2 else "neg"))
    rng.shuffle(rows)
    parts = parts_of(write_csv(tmp_path / "r.csv", rows), seed=seed)
    side: dict[str, str] = {}
    for part in (parts.train, parts.validation, test_of(parts)):
        for text in texts(part):
            assert side.setdefault(text.split()[-2], part.split) == part.split
    assert len(side) == 120
    assert set(side.values()) == {"train", "validation", "heldout"}
    assert parts.summary["near_copies_kept_together"] > 50
    assert shared_copies({"a": parts.train, "b": parts.validation, "c": test_of(parts)}) == {
        pair: {"exact": 0, "exact or near": 0} for pair in ("a / b", "a / c", "b / c")
    }


def test_groups_never_straddle(tmp_path: Path) -> None:
    rng = random.Random(0)
    rows = [(f"{text} film{(film := rng.randrange(60))}", label, f"film{film}") for text, label in tiny_reviews(300)]
    path = write_csv(tmp_path / "r.csv", rows, ("text", "label", "film"))
    parts = parts_of(path, group_column="film")
    films = [{t.split()[-1] for t in texts(part)} for part in (parts.train, parts.validation, test_of(parts))]
    assert films[0] | films[1] | films[2] == {film for *_, film in rows}
    assert sum(map(len, films)) == len({film for *_, film in rows})
    without = parts_of(path)
    assert {t.split()[-1] for t in texts(without.train)} & {t.split()[-1] for t in texts(without.validation)}


def test_consecutive_parts_divide_few_films(tmp_path: Path) -> None:
    """As in aclImdb: a label's reviews are numbered film by film, and a film has reviews of one label."""
    numbered = [(n % 2, n // 2, text, label) for n, (text, label) in enumerate(tiny_reviews(600))]
    random.Random(0).shuffle(numbered)
    rows = [(text, label, str(n), f"{side} {n // 10}") for side, n, text, label in numbered]
    path = write_csv(tmp_path / "r.csv", rows, ("text", "label", "n", "film"))
    film_of = {text: film for text, _, _, film in rows}

    def divided_films(**settings: Any) -> int:
        parts = parts_of(path, validation_size=60, **settings)
        heldout = test_of(parts)
        assert (len(heldout), len(parts.validation), len(parts.train)) == (60, 60, 480)
        assert Counter(heldout.targets) == {0: 30, 1: 30}
        sides = [{film_of[text] for text in texts(part)} for part in (heldout, parts.validation, parts.train)]
        return sum(map(len, sides)) - 60

    assert divided_films() > 40
    assert divided_films(carve="consecutive") > 40  # in the order of the source, which is shuffled
    assert all(divided_films(carve="consecutive", order_column="n", seed=seed) <= 6 for seed in range(5))
    assert parts_of(path, carve="consecutive", order_column="n").summary["carve"] == "consecutive"


def test_films_of_aclimdb_are_groups(tmp_path: Path) -> None:
    """A film with reviews of both labels stays on one side."""
    addresses: dict[str, list[str]] = {"neg": [], "pos": []}
    for n, (text, label) in enumerate(tiny_reviews(300)):
        number, film = n // 2, n // 2 % 40 + 1
        (tmp_path / "train" / label).mkdir(parents=True, exist_ok=True)
        (tmp_path / "train" / label / f"{number}_{8 if label == 'pos' else 2}.txt").write_text(f"{text} f{film}")
        addresses[label].append(f"http://www.imdb.com/title/tt{film:07}/usercomments\n")
    for label, lines in addresses.items():
        (tmp_path / "train" / f"urls_{label}.txt").write_text("".join(lines))
    parts = parts_of(tmp_path, group_column="film")
    films = [{t.split()[-1] for t in texts(part)} for part in (parts.train, parts.validation, test_of(parts))]
    assert all(films)
    assert sum(map(len, films)) == len(set.union(*films)) == 40


def test_a_group_column_that_is_not_there(reviews: Path) -> None:
    with pytest.raises(DataError, match=r"row 1: data\.group_column: no column 'film' \(columns: text, label\)"):
        parts_of(reviews, group_column="film")


def test_groups_matter_only_where_parts_are_carved(tmp_path: Path) -> None:
    rows = [(*row, f"film{n % 30}") for n, row in enumerate(tiny_reviews(100))]
    path = write_csv(tmp_path / "r.csv", rows, ("text", "label", "film"))
    other = write_csv(tmp_path / "other.csv", tiny_reviews(20, 1))
    assert len(test_of(parts_of(path, group_column="film", test_path=str(other)))) == 20


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
    with pytest.raises(DataError, match=r"^data\.test_split: .* has no split 'final'; it has test, train, validation$"):
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


def test_labels_given(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "r.csv", tiny_reviews(60))
    parts = parts_of(path, labels=("pos", "neg"))
    assert parts.task.labels == ("pos", "neg")
    assert all(("pos", "neg")[e.target] == dict(tiny_reviews(60))[e.texts[0]] for e in parts.train.items)
    message = r"row 1: data\.labels: 'neg' is not in the list \(pos, negative\); add it, or correct the row$"
    with pytest.raises(DataError, match=message):
        parts_of(path, labels=("pos", "negative"))
    absent = parts_of(path, labels=("pos", "mixed", "neg"))
    assert absent.task.labels == ("pos", "mixed", "neg")
    assert "'mixed' has none in train, none in validation, none in heldout." in absent.notes[0]


def test_labels_given_for_whole_numbers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [(text, str(int(label == "pos"))) for text, label in tiny_reviews(60)]
    parts = parts_of(write_csv(tmp_path / "r.csv", rows), labels=("negative", "positive"))
    assert Counter(parts.train.targets) == {0: 22, 1: 22}
    assert parts.notes == []
    assert "place" not in capsys.readouterr().err


def test_labels_of_the_source(tmp_path: Path) -> None:
    for n, (text, label) in enumerate(tiny_reviews(60)):
        (tmp_path / "train" / label).mkdir(parents=True, exist_ok=True)
        (tmp_path / "train" / label / f"{n}_{8 if label == 'pos' else 2}.txt").write_text(text)
    parts = parts_of(tmp_path)
    assert parts.task.labels == ("neg", "pos")
    truth = dict(tiny_reviews(60))
    assert all(parts.task.labels[e.target] == truth[e.texts[0]] for e in parts.train.items)
    assert parts_of(tmp_path, labels=("bad", "good")).task.labels == ("bad", "good")
    with pytest.raises(DataError, match=r"^data\.labels: 3 given, but the source has neg, pos"):
        parts_of(tmp_path, labels=("a", "b", "c"))


def test_labels_found_are_sorted_numbers_by_value(tmp_path: Path) -> None:
    rows = [(text, str((10, 9, 1)[n % 3])) for n, (text, _) in enumerate(tiny_reviews(90))]
    parts = parts_of(write_csv(tmp_path / "r.csv", rows))
    assert parts.task.labels == ("1", "9", "10")
    write_table(tmp_path / "r.jsonl", [{"text": text, "stars": int(stars)} for text, stars in rows])
    numbers = parts_of(tmp_path / "r.jsonl")
    assert numbers.task.labels == ("1", "9", "10")
    assert numbers.task.settings["label_column"] == "stars"
    assert parts_of(write_csv(tmp_path / "w.csv", tiny_reviews(60)[::-1])).task.labels == ("neg", "pos")


@pytest.mark.parametrize("blank", ["", "  "])
def test_a_blank_label_is_no_class(blank: str, tmp_path: Path) -> None:
    rows = [*tiny_reviews(60), ("no label", blank), ("nor this", blank)]
    with pytest.raises(DataError, match=r"row 61: data\.label_column: 'label' is blank; fill it, or drop the row"):
        parts_of(write_csv(tmp_path / "r.csv", rows))


def test_a_null_label_is_no_class(tmp_path: Path) -> None:
    rows = [{"text": text, "label": label} for text, label in tiny_reviews(60)]
    (tmp_path / "r.jsonl").write_text("".join(json.dumps(r) + "\n" for r in [*rows, {"text": "x", "label": None}]))
    with pytest.raises(DataError, match=r"row 61: data\.label_column: 'label' is blank"):
        parts_of(tmp_path / "r.jsonl")


def test_blank_texts_are_skipped_and_counted(tmp_path: Path) -> None:
    rows = [*tiny_reviews(60), ("", "neg"), ("<br />", "pos")]
    parts = parts_of(write_csv(tmp_path / "r.csv", rows))
    assert (parts.summary["read"], parts.summary["blank_skipped"]) == (62, 2)
    assert len(parts.train) + len(parts.validation) + len(test_of(parts)) == 60
    with pytest.raises(DataError, match="row 61: the text is blank"):
        parts_of(tmp_path / "r.csv", strict=True)


def test_too_few_to_divide(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="only the class 'neg' found; two or more are needed"):
        parts_of(write_csv(tmp_path / "same.csv", tiny_reviews(60)[::2]))
    blank = [*tiny_reviews(60)[::2], ("", "pos")]
    with pytest.raises(DataError, match=r"split train holds examples of 'neg' only; two classes or more are needed$"):
        parts_of(write_csv(tmp_path / "blank.csv", blank))
    rows = [(text, "abc"[n % 3]) for n, (text, _) in enumerate(tiny_reviews(90))]
    path = write_csv(tmp_path / "three.csv", rows)
    with pytest.raises(ConfigError, match=r"^data\.train_size: 2 given, but there are 3 classes .*; give 3 or more$"):
        parts_of(path, train_size=2)
    assert sorted(parts_of(path, train_size=3).train.targets) == [0, 1, 2]


def test_columns_are_found_or_named(tmp_path: Path) -> None:
    rows = [(f"{n}", label, text) for n, (text, label) in enumerate(tiny_reviews(60))]
    path = write_csv(tmp_path / "r.csv", rows, ("id", "Sentiment", "Review"))
    assert parts_of(path).task.settings == {
        "labels": ["neg", "pos"], "text_column": "Review", "label_column": "Sentiment"
    }  # fmt: skip
    odd = write_csv(tmp_path / "odd.csv", rows, ("id", "verdict", "words"))
    parts = parts_of(odd, text_column="words", label_column="verdict")
    assert parts.task.settings["label_column"] == "verdict"
    with pytest.raises(
        DataError, match=r"^data\.text_column: no column called text, .* \(columns: id, verdict, words\)"
    ):
        parts_of(odd)
    with pytest.raises(DataError, match=r"^data\.label_column: no column 'x' \(columns: .*; name one with --data"):
        parts_of(odd, text_column="words", label_column="x")


def test_shared_copies_are_counted() -> None:
    rng = random.Random(0)
    base = [words(rng) for _ in range(20)]
    seen = Examples("train", [Example((" ".join(w),)) for w in base[:15]])
    exact = [" ".join(w).upper() for w in base[:3]]
    near = [" ".join([*w, "more"]) for w in base[3:7]]
    new = [" ".join(w) for w in base[15:]]
    test = Examples("test", [Example((text,)) for text in [*new, *near, *exact, near[0]]])
    other = Examples("other", [Example((new[0],))])
    assert shared_copies({"train": seen, "test": test, "other": other}) == {
        "train / test": {"exact": 3, "exact or near": 8},
        "train / other": {"exact": 0, "exact or near": 0},
        "test / other": {"exact": 1, "exact or near": 1},
    }


def test_copies_within_one_part_are_not_shared() -> None:
    rng = random.Random(1)
    text = " ".join(words(rng))
    twice = Examples("test", [Example((text,)), Example((text,))])
    other = Examples("train", [Example((" ".join(words(rng)),))])
    assert shared_copies({"train": other, "test": twice}) == {"train / test": {"exact": 0, "exact or near": 0}}


def test_texts_without_words_are_no_copies_of_one_another(tmp_path: Path) -> None:
    marks = [a + b + c for a in "👍👎🎬😀" for b in "!?…" for c in "😡😢🔥💤✨"]
    rows = [(text, ("neg", "pos")[n % 2]) for n, text in enumerate(marks)]
    parts = parts_of(write_csv(tmp_path / "r.csv", rows))
    assert parts.summary["near_copies_kept_together"] == 0
    assert (len(parts.train), len(parts.validation), len(test_of(parts))) == (44, 10, 6)
    assert sorted(parts.validation.targets) == [0] * 5 + [1] * 5
