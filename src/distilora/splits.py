"""Divides examples into parts: seeded, stratified by label, and never dividing a cluster of copies or a group."""

from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import NDArray

from distilora.errors import ConfigError


def carve(
    labels: Sequence[Hashable], clusters: NDArray[np.int64], size: int, seed: int, field: str
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Indices of what stays and of about `size` examples carved out, both in input order.

    Each label gives its share of `size` (largest remainders, so that the shares add up). Whole clusters are taken, in
    seeded random order, each as long as it leaves no label more than its share; without larger clusters the shares are
    met exactly. A cluster of several labels (a film's reviews) counts for each of its labels.

    Args:
        labels: stratum of each example, [N].
        clusters: cluster number of each example, [N].
        size: examples wanted, 0 <= size < N.
        field: the setting to name in an error.

    Raises ConfigError if nothing would stay, or a label would be left without an example on either side.
    """
    names, stratum = np.unique(np.asarray([str(label) for label in labels]), return_inverse=True)
    if not 0 <= size < len(stratum):
        raise ConfigError(f"{field}: {size} asked for, but there are {len(stratum)} examples; ask for fewer")
    counts = np.bincount(stratum, minlength=len(names))
    share = size * counts / max(len(stratum), 1)
    quota = np.floor(share).astype(np.int64)
    quota[np.argsort(quota - share, kind="stable")[: size - quota.sum()]] += 1

    rng = np.random.default_rng([seed, 0x5B117])
    keys, cluster = np.unique(clusters, return_inverse=True)
    members = np.split(np.argsort(cluster, kind="stable"), np.cumsum(np.bincount(cluster))[:-1])
    taken = np.zeros(len(stratum), bool)
    for c in rng.permutation(len(keys)):
        needs = np.bincount(stratum[members[c]], minlength=len(names))
        if np.all(needs <= quota):
            quota -= needs
            taken[members[c]] = True
        if not quota.any():
            break
    inside = np.bincount(stratum[taken], minlength=len(names))
    if size and np.any((inside == 0) | (inside == counts)):
        short = str(names[np.flatnonzero((inside == 0) | (inside == counts))[0]])
        raise ConfigError(f"{field}: {size} leaves class {short!r} empty on one side; choose another size")
    return np.flatnonzero(~taken), np.flatnonzero(taken)


def sample(labels: Sequence[Hashable], size: int, seed: int, field: str) -> NDArray[np.int64]:
    """Indices of a stratified sample of `size` examples, in input order."""
    if size >= len(labels):
        return np.arange(len(labels))
    return carve(labels, np.arange(len(labels)), size, seed, field)[1]
