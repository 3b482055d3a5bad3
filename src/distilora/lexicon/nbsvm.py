"""NB-SVM (Wang & Manning, ACL 2012): a linear classifier of n-grams, each scaled by its log-count ratio.

    x_j = 1 if n-gram j occurs, times sqrt(m / max(K, m)) for a text of K n-grams, m the mean K of training
    r_j = log[(1 + n_j+) / sum_k (1 + n_k+)] - log[(1 + n_j-) / sum_k (1 + n_k-)]
    z   = sum over j of x_j r_j w_j + b

n_j+ and n_j- count the training texts of the class, and of all others, that hold n-gram j. w and b are fitted by
scikit-learn's logistic regression (L2, dual, C = 1): as accurate as the squared hinge loss of the paper, and its z serve as
logits. The factor, which the paper lacks, keeps long texts from answering more surely than they are right (LOG.md: The n-gram
expert); a short text, which tells little, gets no more than its sum (LOG.md: What the expert does to short sentences). Two
classes have one z, of the second; more have one each, against the rest.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distilora.errors import DataError, MissingExtra
from distilora.lexicon.ngrams import LONGEST, Keys, Ngram, ngram_keys, ngrams, stacked_keys
from distilora.progress import Progress

Logits = NDArray[np.float32]


@dataclass(frozen=True)
class Lexicon:
    """Fitted n-gram expert of C classes: weights r_j w_j of V n-grams, for D = 1 logit (C = 2) or D = C."""

    classes: int
    keys: Keys  # sorted, [V]
    weights: NDArray[np.float32]  # [V, D]
    bias: NDArray[np.float32]  # [D]
    mean_size: float  # m
    longest: int = LONGEST

    def logits(self, texts: Sequence[str]) -> Logits:
        """Compute the logits of texts, [N, C]; a softmax of two is the sigmoid of their z."""
        return self.of_keys(*stacked_keys(texts, self.longest))

    def of_keys(self, keys: Keys, offsets: NDArray[np.int64]) -> Logits:
        """Compute the logits, [N, C], of texts given by their stacked n-gram keys."""
        sizes = np.diff(offsets)
        known = self._places(keys)
        inside = known >= 0
        text = np.repeat(np.arange(len(sizes)), sizes)[inside]
        sums = np.zeros((len(sizes), self.weights.shape[1]))
        for column in range(self.weights.shape[1]):
            sums[:, column] = np.bincount(text, self.weights[known[inside], column], minlength=len(sizes))
        return as_logits(sums * self._factor(sizes)[:, None] + self.bias, self.classes)

    def of_counted(self, counted: "Counted", rows: NDArray[np.int64]) -> Logits:
        """Compute the logits, [len(rows), C], of texts whose n-grams are counted in this expert's own columns."""
        sums = counted.presence[rows] @ self.weights
        return as_logits(sums * self._factor(counted.sizes[rows])[:, None] + self.bias, self.classes)

    def contributions(self, text: str) -> list[tuple[Ngram, NDArray[np.float32]]]:
        """List the known n-grams of a text where they first occur, with what each adds to the logits, [C].

        Their sum and the logits of a text without n-grams (`bias`, as logits) are the text's logits, exactly.
        """
        occurrences: dict[int, Ngram] = {}
        for ngram in ngrams(text, self.longest):
            occurrences.setdefault(ngram.key, ngram)
        keys = np.fromiter(occurrences, np.uint64, len(occurrences))
        places = self._places(keys)
        factor = self._factor(np.asarray([len(ngram_keys(text, self.longest))]))[0]
        added = as_logits(self.weights[places] * factor, self.classes)
        return [
            (ngram, row)
            for ngram, place, row in zip(occurrences.values(), places.tolist(), added, strict=True)
            if place >= 0
        ]

    def _places(self, keys: Keys) -> NDArray[np.int64]:
        """Find the keys' places in `self.keys`, [K]; -1 where unknown."""
        if not len(self.keys):
            return np.full(len(keys), -1)
        places = np.minimum(np.searchsorted(self.keys, keys), len(self.keys) - 1)
        return np.where(self.keys[places] == keys, places, -1)

    def _factor(self, sizes: NDArray[Any]) -> NDArray[np.float64]:
        return _factor(sizes, self.mean_size)


@dataclass(frozen=True)
class Counted:
    """Texts as a sparse matrix of n-grams, [N, V], with the keys of its columns; the input of every linear baseline."""

    keys: Keys  # sorted, [V]
    presence: Any  # scipy csr, fp32 ones
    sizes: NDArray[np.int64]  # n-grams of each text, those without a column included, [N]


def count_ngrams(texts: Sequence[str], fitted: NDArray[np.int64] | None = None, longest: int = LONGEST) -> Counted:
    """Count the n-grams of texts; columns are those that enough of the texts `fitted` (None: all) hold.

    Below 1,000 texts every n-gram has a column, below 10,000 those of two texts, beyond those of three: rarer ones make the
    matrix four times as large and the model no better (LOG.md: The n-gram expert). Raises MissingExtra without SciPy.
    """
    try:
        from scipy.sparse import csr_array
    except ImportError:
        raise MissingExtra("scipy", "train") from None
    stacked = []
    with Progress("counting n-grams", len(texts), "texts") as bar:
        for text in texts:
            stacked.append(ngram_keys(text, longest))
            bar.add(1)
    sizes = np.asarray([len(keys) for keys in stacked], np.int64)
    in_columns = stacked if fitted is None else [stacked[i] for i in fitted]
    keys, texts_with = np.unique(np.concatenate([np.empty(0, np.uint64), *in_columns]), return_counts=True)
    count = len(in_columns)
    keys = keys[texts_with >= (1 if count < 1_000 else 2 if count < 10_000 else 3)]
    columns, starts = [], [0]
    for of_text in stacked:
        places = np.searchsorted(keys, of_text)
        known = places[keys[np.minimum(places, len(keys) - 1)] == of_text] if len(keys) else places[:0]
        columns.append(known.astype(np.int32))
        starts.append(starts[-1] + len(known))
    indices = np.concatenate([np.empty(0, np.int32), *columns])
    presence = csr_array(
        (np.ones(len(indices), np.float32), indices, np.asarray(starts, np.int32)), shape=(len(texts), len(keys))
    )
    return Counted(keys, presence, sizes)


def fit_nbsvm(
    counted: Counted, targets: Sequence[int], classes: int, fitted: NDArray[np.int64] | None = None, seed: int = 0
) -> Lexicon:
    """Fit the expert on the texts `fitted` (None: all) of `counted`; targets are class numbers below `classes`, [N].

    A class without an example among them has the logit of a very rare one. Raises DataError if only one class has any,
    MissingExtra without scikit-learn.
    """
    try:
        from sklearn.linear_model import LogisticRegression
    except ImportError:
        raise MissingExtra("scikit-learn", "train") from None
    rows = np.arange(len(targets)) if fitted is None else fitted
    presence, labels = counted.presence[rows], np.asarray(targets, np.int64)[rows]
    if len(np.unique(labels)) < 2:
        raise DataError("lexicon: the texts to fit on are all of one class; two classes or more are needed")
    sizes = counted.sizes[rows]
    mean_size = float(np.maximum(sizes, 1).mean())
    scaled = presence.multiply(_factor(sizes, mean_size).astype(np.float32)[:, None]).tocsr()
    weights, bias = [], []
    for positive in [1] if classes == 2 else range(classes):
        inside = labels == positive
        if not inside.any():
            weights.append(np.zeros(len(counted.keys), np.float32))
            bias.append(-np.log(len(labels) + 1.0))
            continue
        ratio = _log_count_ratio(presence, inside)
        model = LogisticRegression(C=1.0, solver="liblinear", dual=True, max_iter=300, random_state=seed)
        features = scaled.copy()
        features.data *= ratio[features.indices]
        model.fit(features, inside)
        weights.append((model.coef_[0] * ratio).astype(np.float32))
        bias.append(float(model.intercept_[0]))
    return Lexicon(classes, counted.keys, np.stack(weights, axis=1), np.asarray(bias, np.float32), mean_size)


def as_logits(sums: NDArray[Any], classes: int) -> Logits:
    """Turn sums [N, D] into logits [N, C]: one sum z of two classes becomes (-z / 2, z / 2)."""
    sums = np.concatenate([-sums / 2, sums / 2], axis=1) if classes == 2 else sums
    return np.asarray(sums, np.float32)


def _factor(sizes: NDArray[Any], mean_size: float) -> NDArray[np.float64]:
    """Compute sqrt(m / max(K, m)) of texts of K n-grams."""
    return np.asarray(np.sqrt(mean_size / np.maximum(sizes, mean_size)))


def _log_count_ratio(presence: Any, inside: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Compute r, [V], of the texts `inside` the class against all others."""
    smoothed = [1 + np.asarray(presence[np.flatnonzero(mask)].sum(axis=0)).ravel() for mask in (inside, ~inside)]
    logs = [np.log(counts / counts.sum()) for counts in smoothed]
    return np.asarray(logs[0] - logs[1], np.float32)
