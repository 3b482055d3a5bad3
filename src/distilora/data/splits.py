"""Splits examples into parts, seeded and stratified, without splitting a cluster of copies or a group.

Parts are drawn at random, or, in the order of `consecutive`, each from one stretch of every stratum's examples.

Each stratum contributes its share of the part, by largest remainders, but keeps at least one example to train on.
"""

from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import NDArray

from distilora.errors import ConfigError

Counts = NDArray[np.int64]


def carve(
    strata: Sequence[Hashable],
    clusters: NDArray[np.int64],
    size: int,
    seed: int,
    field: str,
    order: NDArray[np.float64] | None = None,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Carve out about `size` examples; return the indices kept and those carved out, both in input order.

    Each stratum contributes its share of `size` (see `quotas`) and keeps at least one example. Clusters are carved out whole, in
    seeded random order or the given one, unless one exceeds a stratum's remaining share; if all clusters are single examples, the
    shares are met exactly. A cluster of several strata (a film's reviews) counts towards each of them. If no cluster fits, the
    smallest one that leaves half of the examples and one of each stratum is carved out; if there is none, nothing is.

    Args:
        strata: stratum of each example, [N].
        clusters: cluster number of each example, [N].
        size: examples to carve out, 0 <= size < N.
        seed: seed of the random order.
        field: the setting, for errors.
        order: position of each example, [N], in the order that clusters are carved out in; a cluster has its first one's.

    Raises ConfigError if no example would be kept.
    """
    stratum, counts = _numbered(strata)
    if not 0 <= size < len(stratum):
        raise ConfigError(f"{field}: {size} given, but there are {len(stratum)} examples; give fewer")
    keys, cluster = np.unique(clusters, return_inverse=True)
    members = np.split(np.argsort(cluster, kind="stable"), np.cumsum(np.bincount(cluster))[:-1])
    if order is None:
        ordered = [members[c] for c in _rng(seed).permutation(len(keys))]
    else:
        ordered = sorted(members, key=lambda cluster: float(order[cluster].min()))
    carved = _fill(ordered, stratum, quotas(counts, size, np.zeros_like(counts), counts - 1))
    if size and not carved.any():
        spare = [
            m for m in ordered if 2 * len(m) <= len(stratum) and np.all(_stratum_counts(stratum, m, counts) < counts)
        ]
        if spare:
            carved[min(spare, key=len)] = True
    return np.flatnonzero(~carved), np.flatnonzero(carved)


def consecutive(strata: Sequence[Hashable], positions: NDArray[np.float64], seed: int) -> NDArray[np.float64]:
    """Order the examples of each stratum by their `positions`, [N], from a seeded place on, back to it around the end.

    Return each example's place in its stratum's order as a share, [N], from 0 to below 1. The seeded place is the same share of
    every stratum's examples, so that stretches of strata that alternate lie together.
    """
    stratum, counts = _numbered(strata)
    start, order = _rng(seed).random(), np.empty(len(stratum))
    for number, count in enumerate(counts):
        members = np.flatnonzero(stratum == number)
        members = members[np.argsort(positions[members], kind="stable")]
        order[members] = (np.arange(count) - int(start * count)) % count / count
    return order


def sample(strata: Sequence[Hashable], size: int, seed: int, field: str) -> NDArray[np.int64]:
    """Draw the indices of a stratified sample of `size` examples, at least one of each stratum, in input order.

    Raises ConfigError, naming `field`, if there are more strata than `size`.
    """
    if size >= len(strata):
        return np.arange(len(strata))
    stratum, counts = _numbered(strata)
    if size < len(counts):
        raise ConfigError(
            f"{field}: {size} given, but there are {len(counts)} classes to train on; give {len(counts)} or more"
        )
    order = [np.asarray([i]) for i in _rng(seed).permutation(len(stratum))]
    return np.flatnonzero(_fill(order, stratum, quotas(counts, size, np.ones_like(counts), counts)))


def nested_order(strata: Sequence[Hashable], seed: int) -> NDArray[np.int64]:
    """Order the indices of all examples, [N], so that the first n of them are a stratified sample for every n.

    Example k of a stratum's m, in seeded random order, has the place (k - 1/2) / m, but the first of every stratum come in
    front. A sample is therefore contained in every larger one, and keeps the shares of the strata (Sainte-Lague's method);
    largest remainders may take back an example of one of three strata where the sample grows (Balinski & Young 1982).
    """
    stratum, counts = _numbered(strata)
    shuffled, place = _rng(seed).permutation(len(stratum)), np.empty(len(stratum))
    for number, count in enumerate(counts):
        members = shuffled[stratum[shuffled] == number]
        place[members] = (np.arange(count) + 0.5) / count
        place[members[0]] -= 1
    return np.asarray(shuffled[np.argsort(place[shuffled], kind="stable")])


def quotas(counts: Counts, size: int, least: Counts, most: Counts) -> Counts:
    """Compute each stratum's quota, [C], in a part of `size`: its share, size * count / N, by largest remainders.

    `least` and `most`, [C], bound it; the difference goes to the strata farthest from their shares.
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


def _numbered(strata: Sequence[Hashable]) -> tuple[NDArray[np.int64], Counts]:
    """Number the strata; return each example's number, [N], and the count of each, [C]."""
    names, stratum = np.unique(np.asarray([str(name) for name in strata]), return_inverse=True)
    return stratum, np.bincount(stratum, minlength=len(names))


def _rng(seed: int) -> np.random.Generator:
    return np.random.default_rng([seed, 0x5B117])


def _stratum_counts(stratum: NDArray[np.int64], members: NDArray[np.int64], counts: Counts) -> Counts:
    return np.asarray(np.bincount(stratum[members], minlength=len(counts)))


def _fill(order: Sequence[NDArray[np.int64]], stratum: NDArray[np.int64], quota: Counts) -> NDArray[np.bool_]:
    """Fill the quotas with whole clusters, in `order`; return a mask of their examples, [N]."""
    mask, remaining = np.zeros(len(stratum), bool), quota.copy()
    for members in order:
        counts = _stratum_counts(stratum, members, remaining)
        if np.all(counts <= remaining):
            remaining -= counts
            mask[members] = True
        if not remaining.any():
            break
    return mask
