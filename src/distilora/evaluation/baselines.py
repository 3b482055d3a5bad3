"""N-gram baselines: what a linear model of words reaches on the same labels, in seconds, beside the model's figures.

    tfidf    words and pairs, sublinear TF-IDF, logistic regression (scikit-learn)
    nbsvm    words, pairs and triples, log-count ratios (lexicon/nbsvm.py)

Each is fitted on every labelled example that the other parts leave, and never sees what is measured.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distilora.data.examples import Example, Examples
from distilora.errors import MissingExtra
from distilora.evaluation.views import points
from distilora.lexicon.nbsvm import as_logits, count_ngrams, fit_nbsvm
from distilora.progress import say
from distilora.tasks.base import Task
from distilora.tasks.metrics.names import metric_name, metric_text
from distilora.tasks.metrics.paired import mcnemar, paired_difference
from distilora.tasks.showing import Table

Logits = NDArray[np.float32]
TITLES = {"tfidf": "TF-IDF + logistic regression", "nbsvm": "NB-SVM (n-grams)"}
TFIDF = {"ngram_range": (1, 2), "min_df": 2, "sublinear_tf": True, "dtype": np.float32}


@dataclass(frozen=True)
class NgramBaseline:
    """Fitted n-gram model: `logits` of texts, [N, C], the seconds of fitting, and the number of examples fitted on."""

    name: str
    seconds: float
    fitted_on: int
    logits: Callable[[Sequence[str]], Logits]


def text_of(example: Example) -> str:
    """Return an example's text as n-gram models read it."""
    return " ".join(example.texts)


def fit_baselines(task: Task, labelled: Examples, nbsvm: NgramBaseline | None = None) -> list[NgramBaseline]:
    """Fit the baselines on labelled examples; `nbsvm` is that one, if it is fitted on them already.

    Returns [] for a task that n-gram models do not learn. Raises MissingExtra without scikit-learn.
    """
    if task.ngram_classes is None:
        return []
    texts, targets = [text_of(example) for example in labelled.items], labelled.targets
    return [
        _fit_tfidf(texts, targets, task.ngram_classes),
        nbsvm or fit_nbsvm_baseline(texts, targets, task.ngram_classes),
    ]


def fit_nbsvm_baseline(texts: Sequence[str], targets: Sequence[int], classes: int) -> NgramBaseline:
    """Fit the NB-SVM baseline; targets are class numbers, [N]."""
    started = time.monotonic()
    lexicon = fit_nbsvm(count_ngrams(texts), targets, classes)
    return NgramBaseline("nbsvm", time.monotonic() - started, len(texts), lexicon.logits)


def _fit_tfidf(texts: Sequence[str], targets: Sequence[int], classes: int) -> NgramBaseline:
    try:
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.linear_model import LogisticRegression
    except ImportError:
        raise MissingExtra("scikit-learn", "train") from None
    started = time.monotonic()
    say("baseline: TF-IDF and logistic regression")
    settings = TFIDF if len(texts) >= 1_000 else {**TFIDF, "min_df": 1}
    vectoriser = TfidfVectorizer(**settings)
    features = vectoriser.fit_transform(texts)
    model = LogisticRegression(max_iter=1000).fit(features, np.asarray(targets, np.int64))
    present = np.asarray(model.classes_)

    def logits(texts: Sequence[str]) -> Logits:
        scores = model.decision_function(vectoriser.transform(texts))
        of_present = as_logits(scores[:, None], 2) if len(present) == 2 else np.asarray(scores, np.float32)
        complete = np.full((len(texts), classes), of_present.min() - 10, np.float32)  # a class without an example: last
        complete[:, present] = of_present
        return complete

    return NgramBaseline("tfidf", time.monotonic() - started, len(texts), logits)


def beside_baselines(
    task: Task,
    outputs: NDArray[np.float32],
    targets: Sequence[Any],
    examples: Examples,
    baselines: Sequence[NgramBaseline],
    resamples: int,
) -> list[dict[str, Any]]:
    """Measure the baselines on the examples that the model's `outputs` [G, C] are of.

    Returns for each its name, the headline metric, seconds of fitting and predicting, and `difference`: accuracy of the model minus
    its own, paired, with McNemar's test.
    """
    texts = [text_of(example) for example in examples.items]
    correct = task.hits(outputs, targets)
    rows = []
    for baseline in baselines:
        started = time.monotonic()
        logits = baseline.logits(texts)
        metric, value = task.headline(logits, targets)
        row: dict[str, Any] = {
            "name": baseline.name,
            "metric": metric,
            "value": value,
            "fitted_on": baseline.fitted_on,
            "seconds": round(baseline.seconds + time.monotonic() - started, 2),
        }
        of_baseline = task.hits(logits, targets)
        row["difference"] = paired_difference(correct, of_baseline, resamples)
        row["mcnemar"] = mcnemar(correct, of_baseline)
        rows.append(row)
    return rows


def ngram_verdict(split: Mapping[str, Any]) -> str:
    """Say in a sentence that an n-gram model alone is enough, if this model's accuracy is not clearly above; else "".

    Clearly above: the 95% interval of the paired difference lies above 0 for every n-gram model.
    """
    rows = [row for row in split.get("ngram_baselines", ()) if row["difference"]["low"] is not None]
    enough = [row for row in rows if row["difference"]["low"] <= 0]
    if not enough:
        return ""
    best = max(enough, key=lambda row: float(row["value"]))
    own = next(iter(split["metrics"].values()))["value"]
    return (
        f"As far as these {split['examples']:,} examples tell, an n-gram model alone is enough: {TITLES[best['name']]}, fitted in "
        f"seconds on {best['fitted_on']:,} labels, has an accuracy of {best['value']:.2%}, this model of {own:.2%} "
        f"({points(best['difference'])})."
    )


def baselines_table(split: Mapping[str, Any]) -> Table:
    """Lay the baselines out as a table, with the model in the last row."""
    rows = []
    for row in split["ngram_baselines"]:
        value = metric_text(row["metric"], {"value": row["value"]})
        difference, p = points(row["difference"]), f"{row['mcnemar']['p']:.2g}"
        rows.append((TITLES[row["name"]], f"{row['fitted_on']:,}", f"{row['seconds']:.0f} s", value, difference, p))
    metric, measured = next(iter(split["metrics"].items()))
    rows.append(("this model", "", "", metric_text(metric, measured), "", ""))
    columns = ("model", "labels fitted on", "time", metric_name(metric).lower(), "this model minus it", "McNemar p")
    return Table("Beside n-gram models", columns, rows)


def baseline_lines(split: Mapping[str, Any]) -> list[str]:
    """Format the baselines as lines for the terminal."""
    lines = []
    for row in split.get("ngram_baselines", ()):
        value = metric_text(row["metric"], {"value": row["value"]})
        lines.append(
            f"  {TITLES[row['name']]}, {row['seconds']:.0f} s on {row['fitted_on']:,} labels: {row['metric']} {value}; "
            f"this model {points(row['difference'])}"
        )
    return lines
