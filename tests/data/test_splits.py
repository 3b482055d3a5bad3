"""Carving is stratified, seeded, exact where it can be, and never divides a cluster."""

from collections import Counter

import numpy as np
import pytest

from distilora.data.splits import carve, consecutive, nested_order, sample
from distilora.errors import ConfigError


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
    with pytest.raises(ConfigError, match=rf"^data\.heldout: {size} given, but there are 10 examples; give fewer$"):
        carve(["a", "b"] * 5, alone(10), size, 0, "data.heldout")


@pytest.mark.parametrize(
    ("size", "taken"), [(10, {"a": 10}), (60, {"a": 59, "b": 1}), (90, {"a": 89, "b": 1}), (98, {"a": 97, "b": 1})]
)
def test_a_class_keeps_one_example_to_train_on(size: int, taken: dict[str, int]) -> None:
    rare = ["a"] * 98 + ["b"] * 2
    _, out = carve(rare, alone(100), size, 0, "f")
    assert Counter(rare[i] for i in out) == taken


def test_what_a_class_cannot_give_the_others_make_up_for() -> None:
    labels = ["a"] * 10 + ["b"] * 10 + ["c"]
    _, out = carve(labels, alone(21), 18, 0, "f")
    assert Counter(labels[i] for i in out) == {"a": 9, "b": 9}
    stay, out = carve(labels, alone(21), 20, 0, "f")  # two more than there are to spare
    assert Counter(labels[i] for i in stay) == {"a": 1, "b": 1, "c": 1}


def test_a_class_that_is_one_group_stays() -> None:
    labels = ["a"] * 10 + ["b"] * 10
    _, out = carve(labels, np.asarray([0] * 10 + list(range(1, 11))), 6, 0, "f")
    assert Counter(labels[i] for i in out) == {"b": 3}


@pytest.mark.parametrize("seed", range(3))
def test_where_every_cluster_is_too_large_the_smallest_is_taken(seed: int) -> None:
    labels = ["a", "b"] * 50
    clusters = np.repeat([0, 1, 2], [40, 36, 24])
    _, out = carve(labels, clusters, 10, seed, "f")
    assert set(clusters[out].tolist()) == {2}


@pytest.mark.parametrize("clusters", [[0] * 100, [0] * 60 + [1] * 40], ids=["one cluster", "a class in each"])
def test_nothing_is_carved_where_nothing_can_be_spared(clusters: list[int]) -> None:
    labels = ["a"] * 60 + ["b"] * 40
    stay, out = carve(labels, np.asarray(clusters), 10, 0, "f")
    assert (len(stay), len(out)) == (100, 0)
    assert len(carve(["a", "b", "c"], alone(3), 1, 0, "f")[1]) == 0


def test_most_of_the_examples_are_never_carved_out_as_one_cluster() -> None:
    labels = ["a", "b"] * 50
    assert (
        len(carve(labels, np.asarray([0] * 98 + [1] * 2), 1, 0, "f")[1]) == 2
    )  # a share of one label; two is the smallest
    assert len(carve(labels, np.asarray([0] * 60 + [1] * 40), 10, 0, "f")[1]) == 40
    mixed = ["a"] * 60 + ["b"] + ["b"] * 39
    assert len(carve(mixed, np.asarray([0] * 59 + [1] * 41), 30, 0, "f")[1]) == 0  # b would be left with none


def stretches(places: list[int], count: int) -> int:
    """Count the runs of neighbours among `places` of a circle of `count`."""
    return sum((place + 1) % count not in places for place in places)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("alternating", [False, True])
def test_consecutive_parts_are_a_stretch_of_each_label(seed: int, alternating: bool) -> None:
    labels = ["a", "b"] * 100 if alternating else ["b"] * 100 + ["a"] * 100
    order = consecutive(labels, np.arange(200.0), seed)
    first = carve(labels, alone(200), 30, seed, "f", order)[1].tolist()
    left = np.setdiff1d(alone(200), first)
    second = left[carve([labels[i] for i in left], left, 20, seed, "f", order[left])[1]].tolist()
    assert (len(first), len(second)) == (30, 20)
    for label in "ab":
        members = [i for i, name in enumerate(labels) if name == label]
        places = [[members.index(i) for i in part if labels[i] == label] for part in (first, second)]
        assert [stretches(part, 100) for part in (*places, [*places[0], *places[1]])] == [1, 1, 1]  # and they adjoin
    if alternating:
        assert stretches(first, 200) == 1


def test_consecutive_follows_the_positions_and_the_seed() -> None:
    labels, positions = ["a"] * 50 + ["b"] * 7, np.random.default_rng(0).permutation(57).astype(float)
    order = consecutive(labels, positions, 3)
    for members in (range(50), range(50, 57)):
        ranked = sorted(members, key=lambda i: positions[i])
        start = ranked.index(min(members, key=lambda i: order[i]))
        assert [*ranked[start:], *ranked[:start]] == sorted(members, key=lambda i: order[i])
    assert order.tolist() == consecutive(labels, positions, 3).tolist()
    assert order.tolist() != consecutive(labels, positions, 4).tolist()
    assert np.all((order >= 0) & (order < 1))


def test_a_cluster_is_carved_out_whole_in_a_given_order() -> None:
    clusters = alone(100)
    clusters[90] = clusters[3]  # a copy far from its stretch
    order = np.arange(100.0)
    assert carve(["a"] * 100, clusters, 10, 0, "f", order)[1].tolist() == [*range(9), 90]


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


def test_a_sample_has_every_class() -> None:
    labels = ["a"] * 95 + ["b"] * 4 + ["c"]
    assert Counter(labels[i] for i in sample(labels, 10, 0, "f")) == {"a": 8, "b": 1, "c": 1}
    assert Counter(labels[i] for i in sample(labels, 3, 0, "f")) == {"a": 1, "b": 1, "c": 1}
    with pytest.raises(
        ConfigError, match=r"^data\.train_size: 2 given, but there are 3 classes to train on; give 3 or more$"
    ):
        sample(labels, 2, 0, "data.train_size")


def test_nested_samples_keep_the_shares_of_the_strata() -> None:
    strata = ["a"] * 600 + ["b"] * 300 + ["c"] * 95 + ["d"] * 5
    order = nested_order(strata, 3)
    assert sorted(order) == list(range(1_000))
    names = np.asarray(strata)
    for size in range(4, 1_001):
        counts = Counter(names[order[:size]].tolist())
        assert len(counts) == 4  # every stratum has an example, however rare
        if size >= 100:
            for name, count in (("a", 600), ("b", 300), ("c", 95), ("d", 5)):
                assert abs(counts[name] - size * count / 1_000) <= 1.5
    assert nested_order(strata, 3).tolist() == order.tolist()
    assert nested_order(strata, 4).tolist() != order.tolist()
    assert 150 < np.mean(order[:200][names[order[:200]] == "a"]) < 450  # not the first ones of a stratum
