"""A source is divided into parts that share no copy and no group."""

import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from support.parts import parts_of, places, test_of, texts, words
from support.tiny import tiny_reviews, write_csv

from distilora.data.examples import Example, Examples
from distilora.data.overlap import shared_copies
from distilora.errors import DataError


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
