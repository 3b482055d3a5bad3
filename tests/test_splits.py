"""Carving is stratified, seeded, exact where it can be, and never divides a cluster."""

from collections import Counter

import numpy as np
import pytest

from distilora.errors import ConfigError
from distilora.splits import carve, sample


def alone(count: int) -> np.ndarray:
    return np.arange(count)


@pytest.mark.parametrize("size", [2, 7, 30, 98])
@pytest.mark.parametrize("seed", [0, 1])
def test_without_clusters_every_class_gives_its_share(size: int, seed: int) -> None:
    labels = ["a"] * 50 + ["b"] * 50
    stay, out = carve(labels, alone(100), size, seed, "f")
    assert len(out) == size
    assert sorted([*stay, *out]) == list(range(100))
    counts = Counter(labels[i] for i in out)
    assert abs(counts["a"] - counts["b"]) <= 1


def test_shares_follow_the_classes() -> None:
    labels = ["a"] * 700 + ["b"] * 200 + ["c"] * 100
    _, out = carve(labels, alone(1000), 50, 0, "f")
    assert Counter(labels[i] for i in out) == {"a": 35, "b": 10, "c": 5}


def test_largest_remainders_add_up() -> None:
    labels = ["a"] * 33 + ["b"] * 33 + ["c"] * 34
    _, out = carve(labels, alone(100), 10, 0, "f")
    assert len(out) == 10
    assert sorted(Counter(labels[i] for i in out).values()) == [3, 3, 4]


def test_both_sides_keep_the_input_order() -> None:
    for part in carve([0, 1] * 50, alone(100), 20, 3, "f"):
        assert np.all(np.diff(part) > 0)


def test_the_seed_decides() -> None:
    labels = [0, 1] * 50
    first, again, other = (carve(labels, alone(100), 20, seed, "f")[1].tolist() for seed in (5, 5, 6))
    assert first == again
    assert first != other


@pytest.mark.parametrize("seed", range(5))
def test_clusters_and_groups_never_straddle(seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, 400).tolist()
    clusters = rng.integers(0, 120, 400)  # of mixed labels, three or four each
    stay, out = carve(labels, clusters, 80, seed, "f")
    assert not set(clusters[stay]) & set(clusters[out])
    assert 60 <= len(out) <= 80
    counts = Counter(labels[i] for i in out)
    assert all(counts[label] <= 80 * labels.count(label) / 400 + 1 for label in (0, 1))


def test_a_cluster_larger_than_the_part_stays() -> None:
    labels = ["a", "b"] * 50
    clusters = np.where(alone(100) < 60, 0, alone(100))
    stay, out = carve(labels, clusters, 20, 0, "f")
    assert len(out) == 20
    assert set(range(60)) <= set(stay.tolist())


def test_nothing_asked_for_nothing_carved() -> None:
    stay, out = carve(["a", "b"], alone(2), 0, 0, "f")
    assert (stay.tolist(), out.tolist()) == ([0, 1], [])


@pytest.mark.parametrize("size", [10, 11, -1])
def test_something_must_stay(size: int) -> None:
    with pytest.raises(
        ConfigError, match=rf"^data\.heldout: {size} asked for, but there are 10 examples; ask for fewer$"
    ):
        carve(["a", "b"] * 5, alone(10), size, 0, "data.heldout")


def test_no_class_is_left_empty() -> None:
    rare = ["a"] * 98 + ["b"] * 2
    with pytest.raises(ConfigError, match=r"^data\.heldout: 10 leaves class 'b' empty on one side"):
        carve(rare, alone(100), 10, 0, "data.heldout")
    with pytest.raises(ConfigError, match="leaves class 'b' empty on one side"):
        carve(rare, alone(100), 90, 0, "data.heldout")
    with pytest.raises(ConfigError, match="leaves class 'a' empty on one side"):  # one group holds all of its class
        carve(["a"] * 10 + ["b"] * 10, np.asarray([0] * 10 + list(range(1, 11))), 6, 0, "f")


def test_sample_is_stratified_and_in_order() -> None:
    labels = ["a"] * 80 + ["b"] * 20
    index = sample(labels, 10, 0, "f")
    assert Counter(labels[i] for i in index) == {"a": 8, "b": 2}
    assert np.all(np.diff(index) > 0)
    assert sample(labels, 10, 0, "f").tolist() == index.tolist()
    assert sample(labels, 10, 1, "f").tolist() != index.tolist()


def test_a_sample_of_all_is_all() -> None:
    assert sample(["a", "b"], 2, 0, "f").tolist() == [0, 1]
    assert sample(["a", "b"], 5, 0, "f").tolist() == [0, 1]
