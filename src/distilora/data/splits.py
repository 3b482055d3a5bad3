"""Divides examples into parts: seeded, stratified by label, and never dividing a cluster of copies or a group.

What a label gives is its share of the part, largest remainders first, and never its last example: that stays to train on.
"""

from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import NDArray

from distilora.errors import ConfigError

Counts = NDArray[np.int64]


def carve(
    labels: Sequence[Hashable], clusters: NDArray[np.int64], size: int, seed: int, field: str
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Indices of what stays and of about `size` examples carved out, both in input order.

    Each label gives its share of `size` (see `quotas`) and keeps one example at least. Whole clusters are taken, in seeded
    random order, each as long as it leaves no label more than its share; without larger clusters the shares are met
    exactly. A cluster of several labels (a film's reviews) counts for each of its labels. Where every cluster is larger
    than that, the smallest that half of the examples and one of each label outlast is taken. Nothing is carved out where
    there is none either.

    Args:
        labels: stratum of each example, [N].
        clusters: cluster number of each example, [N].
        size: examples wanted, 0 <= size < N.
        field: the setting to name in an error.

    Raises ConfigError if nothing would stay.
    """
    stratum, counts = _strata(labels)
    if not 0 <= size < len(stratum):
        raise ConfigError(f"{field}: {size} asked for, but there are {len(stratum)} examples; ask for fewer")
    keys, cluster = np.unique(clusters, return_inverse=True)
    members = np.split(np.argsort(cluster, kind="stable"), np.cumsum(np.bincount(cluster))[:-1])
    order = [members[c] for c in _rng(seed).permutation(len(keys))]
    taken = _take(order, stratum, quotas(counts, size, np.zeros_like(counts), counts - 1))
    if size and not taken.any():
        spare = [m for m in order if 2 * len(m) <= len(stratum) and np.all(_held(stratum, m, counts) < counts)]
        if spare:
            taken[min(spare, key=len)] = True
    return np.flatnonzero(~taken), np.flatnonzero(taken)


def sample(labels: Sequence[Hashable], size: int, seed: int, field: str) -> NDArray[np.int64]:
    """Indices of a stratified sample of `size` examples, one of each label at least, in input order.

    Raises ConfigError, naming `field`, if there are more labels than that.
    """
    if size >= len(labels):
        return np.arange(len(labels))
    stratum, counts = _strata(labels)
    if size < len(counts):
        raise ConfigError(
            f"{field}: {size} given, but there are {len(counts)} classes to train on; give {len(counts)} or more"
        )
    order = [np.asarray([i]) for i in _rng(seed).permutation(len(stratum))]
    return np.flatnonzero(_take(order, stratum, quotas(counts, size, np.ones_like(counts), counts)))


def quotas(counts: Counts, size: int, least: Counts, most: Counts) -> Counts:
    """What each label, [C], gives to a part of `size`: its share, size * count / N, by largest remainders.

    `least` and `most` bound it, [C]; what a bound takes or adds, the labels farthest from their shares make up for.
    """
    share = size * counts / max(counts.sum(), 1)
    quota = np.floor(share).astype(np.int64)
    quota[np.argsort(quota - share, kind="stable")[: size - quota.sum()]] += 1
    quota = np.minimum(np.maximum(quota, least), most)
    while missing := size - int(quota.sum()):
        step = 1 if missing > 0 else -1
        free = np.flatnonzero(quota < most if missing > 0 else quota > least)
        if not len(free):
            break
        quota[free[np.argsort(step * (quota - share)[free], kind="stable")][: abs(missing)]] += step
    return np.asarray(quota)


def _strata(labels: Sequence[Hashable]) -> tuple[NDArray[np.int64], Counts]:
    """The number of each example's label, [N], and the examples of each label, [C]."""
    names, stratum = np.unique(np.asarray([str(label) for label in labels]), return_inverse=True)
    return stratum, np.bincount(stratum, minlength=len(names))


def _rng(seed: int) -> np.random.Generator:
    return np.random.default_rng([seed, 0x5B117])


def _held(stratum: NDArray[np.int64], members: NDArray[np.int64], counts: Counts) -> Counts:
    return np.asarray(np.bincount(stratum[members], minlength=len(counts)))


def _take(order: Sequence[NDArray[np.int64]], stratum: NDArray[np.int64], quota: Counts) -> NDArray[np.bool_]:
    """Which examples are taken, [N]: of the clusters in `order`, each that fits into what is left of the quotas."""
    taken, left = np.zeros(len(stratum), bool), quota.copy()
    for members in order:
        needs = _held(stratum, members, left)
        if np.all(needs <= left):
            left -= needs
            taken[members] = True
        if not left.any():
            break
    return taken
