"""Finds labels that look wrong: cleanlab's confident learning on probabilities from models that have not seen the row.

    n-gram expert    out of fold; copies and groups of a row are in its fold
    a run's model    where the run was neither trained nor chosen on the row nor a copy of it; both are averaged

No expert is fitted on a test row: those are judged by one of all other rows but their copies, or where more than half of the rows
have a copy in the test split, by several, each without the copies of the test rows that it judges. Confident learning:
Northcutt, Jiang & Chuang (JAIR 2021), pruning by noise rate; a label's score is the probability that the models give it. With a
handful of errors its thresholds, each class's mean score, are so near 1 that it finds none; a score below SURE is enough, too.
"""

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distilora.data.audit import Table
from distilora.data.cleaning import cleaning
from distilora.data.examples import Example, Examples
from distilora.data.overlap import seen_among, seen_file
from distilora.errors import ConfigError, DataError, MissingExtra
from distilora.lexicon.combination import fit_scale
from distilora.lexicon.nbsvm import Counted, count_ngrams, fit_nbsvm
from distilora.lexicon.out_of_fold import FOLDS, assign_folds, out_of_fold
from distilora.progress import say

Probabilities = NDArray[np.float64]
SURE = 0.1  # score below which a label looks wrong whatever confident learning says
MOST_ROWS = 200_000  # whose n-grams are in memory at once, about 6 kB for a review


@dataclass(frozen=True)
class Judged:
    """Labels as the models see them: for each of N rows the label's probability, the likeliest class, and a verdict."""

    score: NDArray[np.float64]  # [N]; 0: certainly wrong
    likeliest: NDArray[np.int64]  # [N]
    probability: NDArray[np.float64]  # [N], of the likeliest class
    wrong: NDArray[np.bool_]  # [N]

    def spread(self, places: NDArray[np.int64], targets: NDArray[np.int64]) -> "Judged":
        """Put the N rows at `places` among M rows with class numbers `targets`; another row has its own label, score NaN."""
        score, probability = np.full(len(targets), np.nan), np.full(len(targets), np.nan)
        likeliest, wrong = targets.copy(), np.zeros(len(targets), bool)
        score[places], likeliest[places] = self.score, self.likeliest
        probability[places], wrong[places] = self.probability, self.wrong
        return Judged(score, likeliest, probability, wrong)


def check_cleanlab() -> None:
    """Raise MissingExtra if cleanlab is not installed."""
    try:
        import cleanlab  # noqa: F401
    except ImportError:
        raise MissingExtra("cleanlab", "audit") from None


def expert_probabilities(
    texts: list[str], targets: NDArray[np.int64], classes: int, clusters: NDArray[np.int64], fitted: NDArray[np.bool_]
) -> Probabilities:
    """Compute probabilities of texts, [N, C], by n-gram experts that have seen neither them nor their copies.

    Args:
        targets: class numbers, [N].
        clusters: cluster number of each text, [N], of copies and groups.
        fitted: texts that experts may be fitted on, [N]; the others (a test split's) are only judged.

    Raises ConfigError for too many texts, DataError if without a text and its copies only one class is left to fit on.
    """
    if len(texts) > MOST_ROWS:
        raise ConfigError(
            f"data.path: {len(texts):,} rows, but an audit reads {MOST_ROWS:,} at most; give a part of them"
        )
    try:
        logits = _expert_logits(texts, targets, classes, clusters, fitted)
    except DataError:
        raise DataError(
            "data.path: too few rows to judge labels by; give two classes or more, each with texts that are no copies"
        ) from None
    inside = np.flatnonzero(fitted)
    scaled = fit_scale(logits[inside], targets[inside]) * logits.astype(np.float64)  # type: ignore[arg-type]
    exponentials = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    return np.asarray(exponentials / exponentials.sum(axis=1, keepdims=True))


def _expert_logits(
    texts: list[str], targets: NDArray[np.int64], classes: int, clusters: NDArray[np.int64], fitted: NDArray[np.bool_]
) -> NDArray[np.float32]:
    """Compute the logits of `expert_probabilities`, [N, C]. Raises DataError if an expert has one class only to be fitted on."""
    inside, outside = np.flatnonzero(fitted), np.flatnonzero(~fitted)
    counted = count_ngrams(texts, inside)
    of_inside = Counted(counted.keys, counted.presence[inside], counted.sizes[inside])
    inner = [texts[i] for i in inside]
    logits = np.zeros((len(texts), classes), np.float32)
    logits[inside] = out_of_fold(inner, targets[inside], classes, clusters[inside], counted=of_inside)  # type: ignore[arg-type]
    if len(outside):
        copied = np.isin(clusters[inside], clusters[outside]).sum()
        part = assign_folds(targets[outside], clusters[outside], FOLDS if 2 * copied > len(inside) else 1, 0)  # type: ignore[arg-type]
        for number in range(int(part.max()) + 1):
            asked = outside[part == number]
            apart = inside[~np.isin(clusters[inside], clusters[asked])]
            logits[asked] = fit_nbsvm(counted, targets, classes, apart).of_counted(counted, asked)  # type: ignore[arg-type]
    return logits


def run_probabilities(
    run: str, table: Table, labels: tuple[str, ...], clusters: NDArray[np.int64]
) -> tuple[Probabilities, NDArray[np.bool_]]:
    """Compute a run's probabilities of the table's rows that are not blank, [N, C], and where it has not seen them, [N].

    `clusters`, [N], are those of the rows' copies; a copy of a seen text is seen. Rows that are seen have zeros.
    Raises ConfigError if the run's labels are others, or its folder does not tell what it has seen.
    """
    from distilora.inference.predictor import load

    predictor = load(run)
    if sorted(predictor.labels) != sorted(labels):
        raise ConfigError(
            f"run: {run} tells apart {', '.join(predictor.labels)}, but the data hold {', '.join(labels)}; give a run on "
            "these labels, or drop --run"
        )
    file = seen_file(predictor.artifact.folder)
    if file is None:
        raise ConfigError(
            f"run: {run} has no seen_texts.npy, so the texts it was trained on are unknown; give a run's folder"
        )
    clean = cleaning(predictor.artifact.cleaning["name"], predictor.artifact.cleaning["version"]).clean
    rows = [table.rows[i] for i in table.filled]
    examples = Examples("audit", [Example(tuple(map(clean, row.texts)), place=row.place) for row in rows])
    readable = np.asarray([any(text.strip() for text in example.texts) for example in examples.items], bool)
    unseen = readable & ~np.isin(clusters, clusters[seen_among(examples, file)])
    say(f"{run}: answers {unseen.sum():,} of {len(rows):,} rows; of the others it has seen the text or a copy")
    probabilities = np.zeros((len(rows), len(labels)))
    asked = np.flatnonzero(unseen)
    chunks = (examples.take(asked[start : start + 512]).items for start in range(0, len(asked), 512))
    answers = [answer for chunk in predictor.answers(chunks) for answer in chunk] if len(asked) else []
    for i, answer in zip(asked, answers, strict=True):
        probabilities[i] = [answer[f"p_{label}"] for label in labels]
    return probabilities, unseen


def judge(targets: NDArray[np.int64], probabilities: Probabilities) -> Judged:
    """Judge labels, class numbers [N], by out-of-sample probabilities [N, C]. Raises MissingExtra without cleanlab."""
    check_cleanlab()
    from cleanlab.filter import find_label_issues
    from cleanlab.rank import get_label_quality_scores

    likeliest = probabilities.argmax(axis=1)
    wrong = np.zeros(len(targets), bool)
    score: Any = np.zeros(0)
    if len(targets):
        score = get_label_quality_scores(targets, probabilities, method="self_confidence")
    if len(np.unique(targets)) > 1:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a class without an example, which is no fault here
            wrong = find_label_issues(targets, probabilities, filter_by="prune_by_noise_rate", n_jobs=1)
    wrong = (np.asarray(wrong, bool) | (score < SURE)) & (likeliest != targets)
    return Judged(np.asarray(score, np.float64), likeliest, probabilities.max(axis=1, initial=0.0), wrong)


def judge_apart(targets: NDArray[np.int64], probabilities: Probabilities, fitted: NDArray[np.bool_]) -> Judged:
    """Judge the rows that are fitted on, and the others, each by themselves; return both in the order given."""
    judged = Judged(np.zeros(len(targets)), np.zeros(len(targets), np.int64), np.zeros(len(targets)),
                    np.zeros(len(targets), bool))  # fmt: skip
    for side in (fitted, ~fitted):
        part = judge(targets[side], probabilities[side])
        for name, values in vars(part).items():
            getattr(judged, name)[side] = values
    return judged


def most_suspicious(targets: NDArray[np.int64], probabilities: Probabilities, count: int) -> NDArray[np.int64]:
    """Return the indices of the `count` labels that look most wrong, worst first; those that cleanlab flags in front."""
    judged = judge(targets, probabilities)
    return np.lexsort((judged.score, ~judged.wrong))[:count]
