"""Logits of the n-gram expert for its own training texts, each from an expert that has not seen the text nor a copy of it.

An expert fits its training texts almost perfectly (99.8% of IMDB's), so what it says of them is no measure of anything;
out of fold its answers are as good as on new texts.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from distilora.lexicon.nbsvm import Counted, Logits, count_ngrams, fit_nbsvm
from distilora.progress import Progress

FOLDS = 5


def out_of_fold(
    texts: Sequence[str],
    targets: Sequence[int],
    classes: int,
    clusters: NDArray[np.int64] | None = None,
    folds: int = FOLDS,
    seed: int = 0,
    counted: Counted | None = None,
) -> Logits:
    """Compute the out-of-fold logits of texts, [N, C].

    Args:
        targets: class numbers, [N].
        clusters: cluster number of each text, [N]; a cluster (near copies, reviews of one film) is in one fold. None: none.
        folds: experts to fit, each on the other folds' texts.
        counted: n-grams of `texts`, if they are counted already. Columns chosen on all texts give nothing away: only
            presence in texts, never a target, decides on a column.

    Raises DataError if a fold leaves texts of one class only.
    """
    counted = counted or count_ngrams(texts)
    fold = assign_folds(targets, clusters, folds, seed)
    logits = np.zeros((len(targets), classes), np.float32)
    with Progress("n-gram expert, out of fold", int(fold.max(initial=0)) + 1, "folds") as bar:
        for number in range(int(fold.max(initial=0)) + 1):
            inside = np.flatnonzero(fold == number)
            expert = fit_nbsvm(counted, targets, classes, np.flatnonzero(fold != number), seed)
            logits[inside] = expert.of_counted(counted, inside)
            bar.add(1)
    return logits


def assign_folds(
    targets: Sequence[int], clusters: NDArray[np.int64] | None, folds: int, seed: int
) -> NDArray[np.int64]:
    """Assign each text to a fold, [N]: whole clusters, in random order, each to the fold with fewest texts of its classes."""
    labels = np.asarray(targets, np.int64)
    _, cluster = np.unique(np.arange(len(labels)) if clusters is None else clusters, return_inverse=True)
    count = int(cluster.max(initial=-1)) + 1
    folds = min(folds, count)
    members = np.split(np.argsort(cluster, kind="stable"), np.cumsum(np.bincount(cluster, minlength=count))[:-1])
    filled = np.zeros((folds, int(labels.max(initial=0)) + 1), np.int64)
    fold = np.zeros(len(labels), np.int64)
    order = np.random.default_rng([seed, 0xF01D]).permutation(count)
    for number in sorted(order, key=lambda c: -len(members[c])):  # stable: large clusters first, else at random
        inside = members[number]
        of_class = np.bincount(labels[inside], minlength=filled.shape[1])
        chosen = int(np.argmin(filled @ of_class * 1.0 + filled.sum(axis=1) * 1e-9))
        fold[inside] = chosen
        filled[chosen] += of_class
    return fold
