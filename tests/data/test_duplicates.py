"""Copies are found, texts that only share a topic are not, and the search agrees with brute force."""

import random
import re
from itertools import combinations

import numpy as np

from distilora.data.duplicates import (
    CROWD,
    SHINGLE,
    clusters,
    exact_key,
    near_copies,
    near_matches,
    shingles,
    similarity,
)


def text_of(rng: random.Random, words: int = 60, vocabulary: int = 3000) -> str:
    return " ".join(f"w{rng.randrange(vocabulary)}" for _ in range(words))


def pairs_of(texts: list[str], threshold: float = 0.5) -> set[tuple[int, int]]:
    return {(int(a), int(b)) for a, b in near_copies(shingles(texts, ""), threshold)}


def jaccard(a: str, b: str) -> float:
    """The definition, on tuples of words."""
    sets = []
    for text in (a, b):
        words = re.findall(r"\w+", text.lower())
        width = min(SHINGLE, len(words))
        sets.append({tuple(words[i : i + width]) for i in range(len(words) - width + 1)})
    return len(sets[0] & sets[1]) / len(sets[0] | sets[1])


def altered(rng: random.Random, text: str, changes: int) -> str:
    words = text.split()
    for place in rng.sample(range(len(words)), changes):
        words[place] = f"x{rng.randrange(10**6)}"
    return " ".join(words)


def test_exact_copies_whatever_their_case_and_markup() -> None:
    text = text_of(random.Random(0))
    texts = [text, "other " + text_of(random.Random(1)), text.upper(), "<br />" + text.replace(" ", ",  ") + "!"]
    assert {(0, 2)} <= pairs_of(texts)
    assert (0, 1) not in pairs_of(texts)
    assert exact_key(" A  Film\n") == exact_key("a film")
    assert exact_key("a film") != exact_key("a film!")


def test_near_copies_are_found_and_unrelated_texts_are_not() -> None:
    rng = random.Random(2)
    texts = [text_of(rng) for _ in range(40)]
    copies = [altered(rng, text, 2) for text in texts[:10]]
    assert pairs_of(texts + copies) == {(i, 40 + i) for i in range(10)}


def test_agrees_with_brute_force() -> None:
    rng = random.Random(3)
    texts: list[str] = []
    for _ in range(12):
        base = text_of(rng)
        texts += [base, *(altered(rng, base, changes) for changes in (1, 2, 3, 5, 9))]
    expected = {(i, j) for i, j in combinations(range(len(texts)), 2) if jaccard(texts[i], texts[j]) >= 0.5}
    assert len(expected) > 20
    assert pairs_of(texts) == expected


def test_texts_with_a_near_copy_elsewhere_are_marked() -> None:
    rng = random.Random(8)
    others = [text_of(rng) for _ in range(30)]
    texts = [altered(rng, text, changes) for text in others[:10] for changes in (0, 1, 3, 6, 12)] + [text_of(rng)]
    texts += [texts[0]] * 2  # copies of one another say nothing
    for threshold in (0.3, 0.5, 0.8):
        found = near_matches(shingles(texts, ""), shingles(others, ""), threshold)
        assert found.tolist() == [any(jaccard(text, other) >= threshold for other in others) for text in texts]
    assert near_matches(shingles(texts, ""), []).tolist() == [False] * len(texts)
    assert near_matches([], shingles(texts, "")).tolist() == []


def test_a_crowd_elsewhere_is_matched() -> None:
    rng = random.Random(9)
    text = text_of(rng)
    crowd = [altered(rng, text, 1) for _ in range(CROWD + 20)]
    assert near_matches(shingles([text, text_of(rng)], ""), shingles(crowd, "")).tolist() == [True, False]


def test_similarity_is_jaccard() -> None:
    rng = random.Random(4)
    base = text_of(rng)
    for changes in (0, 1, 4, 20):
        other = altered(rng, base, changes)
        a, b = shingles([base, other], "")
        assert abs(similarity(a, b) - jaccard(base, other)) < 1e-12


def test_the_threshold_is_inclusive() -> None:
    a, b = np.arange(3, dtype=np.uint64), np.arange(1, 4, dtype=np.uint64)  # 2 of 4 shared
    assert near_copies([a, b], 0.5).tolist() == [[0, 1]]
    assert near_copies([a, b], 0.51).tolist() == []


def test_short_texts_are_copies_only_as_a_whole() -> None:
    texts = ["A fine film.", "a fine film", "a fine movie", "fine film a", "a fine film indeed, really"]
    assert pairs_of(texts) == {(0, 1)}


def test_texts_without_words_are_told_apart_by_their_exact_key() -> None:
    texts = ["👍", "👎", "!!!", "!", "", " !!!\n", "?! :-)", "👍👍", "👍"]
    assert pairs_of(texts) == {(2, 5), (0, 8)}


def test_texts_whose_script_has_no_spaces_are_told_apart() -> None:
    texts = [
        "この映画は素晴らしい",
        "この映画はつまらない",
        "电影很好看",
        "电影很难看",
        "หนังเรื่องนี้ดีมาก",
        "หนังเรื่องนี้แย่มาก",
        "电影很好看。",
    ]
    assert pairs_of(texts) == {(2, 6)}


def test_a_chain_is_one_cluster() -> None:
    rng = random.Random(5)
    words = text_of(rng, 100).split()
    texts = [" ".join(words[start : start + 40]) for start in (0, 10, 20, 30)] + [text_of(rng, 40)]
    pairs = near_copies(shingles(texts, ""))
    assert [0, 3] not in pairs.tolist()
    assert clusters(len(texts), pairs).tolist() == [0, 0, 0, 0, 4]


def test_a_crowd_of_copies_is_one_cluster() -> None:
    rng = random.Random(6)
    texts = [text_of(rng)] * (CROWD + 10) + [text_of(rng)]
    assert clusters(len(texts), near_copies(shingles(texts, ""))).tolist() == [0] * (CROWD + 10) + [CROWD + 10]


def test_deterministic_and_indifferent_to_order() -> None:
    rng = random.Random(7)
    texts = [text_of(rng) for _ in range(30)]
    texts += [altered(rng, text, 3) for text in texts]
    order = list(range(len(texts)))
    rng.shuffle(order)
    pairs = pairs_of(texts)
    shuffled = {tuple(sorted((order[a], order[b]))) for a, b in pairs_of([texts[i] for i in order])}
    assert pairs == pairs_of(texts) == shuffled
    assert pairs


def test_hashes_do_not_hang_on_the_process() -> None:
    """Splits must come out the same on another day: no seeded hash of Python's."""
    assert shingles(["one two three four five six"], "")[0].tolist() == [3036003141074525552, 4264058031883421490]


def test_nothing_to_compare() -> None:
    assert near_copies([]).shape == (0, 2)
    assert near_copies(shingles(["alone"], "")).shape == (0, 2)
    assert clusters(3, np.empty((0, 2), np.int64)).tolist() == [0, 1, 2]


def test_clusters_are_connected_components() -> None:
    pairs = np.asarray([[4, 5], [1, 3], [3, 4], [0, 6]])
    assert clusters(8, pairs).tolist() == [0, 1, 2, 1, 1, 1, 0, 7]
