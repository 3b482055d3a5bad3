"""Fits a run's n-gram expert, and combines it with the trained encoder by weights fitted on validation."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distilora.config.schema import RunConfig
from distilora.data.examples import Examples
from distilora.data.parts import Parts
from distilora.errors import ConfigError
from distilora.evaluation.baselines import NgramBaseline, text_of
from distilora.inference.calibrate import Expert
from distilora.lexicon.combination import fit_scale, fit_weights
from distilora.lexicon.format import compact
from distilora.lexicon.nbsvm import Counted, Lexicon, count_ngrams, fit_nbsvm
from distilora.lexicon.out_of_fold import out_of_fold
from distilora.progress import say
from distilora.tasks.base import Task

Logits = NDArray[np.float32]
MOST_TEXTS = 200_000  # to fit n-gram models on: their n-grams are in memory at once, about 6 kB for a review


@dataclass(frozen=True)
class FittedExpert:
    """N-gram expert of a run, as it will be stored, with its logits of the validation texts, [G, C]."""

    lexicon: Lexicon
    validation: Logits
    fitted_on: int
    seconds: float
    agreement: float  # share of validation texts with the label that the expert had before it was pruned and rounded
    teacher: Logits | None  # probabilities of the training examples, [G, C], out of fold

    def combined(self, outputs: Logits, targets: Sequence[int]) -> Expert:
        """Fit the weights of both views on the encoder's validation outputs, [G, C], and class numbers, [G]."""
        expert = Expert(self.lexicon, fit_weights(outputs, self.validation, targets))
        say(
            f"combined: {expert.weights.encoder:.3g} x encoder + {expert.weights.expert:.3g} x n-gram expert, fitted on "
            f"{len(targets):,} validation examples"
        )
        return expert

    def describe(self, expert: Expert) -> dict[str, Any]:
        """Return the artifact's `lexicon`."""
        return {
            "kind": "nbsvm",
            "weights": vars(expert.weights),
            "ngrams": len(self.lexicon.keys),
            "fitted_on": self.fitted_on,
            "agreement": self.agreement,
        }

    def baseline(self) -> NgramBaseline:
        """Return the stored expert as the NB-SVM baseline."""
        return NgramBaseline("nbsvm", self.seconds, self.fitted_on, self.lexicon.logits)


def check_expert(config: RunConfig, task: Task) -> None:
    """Raise ConfigError if an n-gram expert is asked for and the task has no classes for it."""
    if task.ngram_classes is not None:
        return
    for name, value, off in (
        ("lexicon", config.lexicon, "none"), ("training.expert_targets", config.training.expert_targets, 0.0)
    ):  # fmt: skip
        if value != off:
            raise ConfigError(
                f"{name}: {value} given, but an n-gram expert chooses among classes, and task {task.name} does not; give {off}"
            )


def check_fragments(config: RunConfig, task: Task) -> None:
    """Raise ConfigError if fragments are asked for and a part of a text need not have the text's target."""
    if config.data.fragments and task.ngram_classes is None:
        raise ConfigError(
            f"data.fragments: {config.data.fragments} given, but a part of a text is no example of task {task.name}; give 0"
        )


def labelled(parts: Parts) -> Examples:
    """Return all examples that an n-gram model may be fitted on: those of training, and those that `train_size` leaves out."""
    return Examples("labelled", [*parts.train.items, *parts.spare.items])


def sampled(examples: Examples) -> Examples:
    """Draw MOST_TEXTS examples with a fixed seed; keep all, unless there are more."""
    if len(examples) <= MOST_TEXTS:
        return examples
    say(
        f"note: n-gram models are fitted on a random {MOST_TEXTS:,} of {len(examples):,} labelled examples, to bound their memory"
    )
    return examples.take(np.sort(np.random.default_rng(0).permutation(len(examples))[:MOST_TEXTS]))


def fit_expert(task: Task, parts: Parts, teaches: bool = False) -> FittedExpert:
    """Fit the expert of a run on its labelled examples, prune it, and measure what that changes on validation.

    With `teaches`, it also gives the probabilities of the training examples, out of fold.
    """
    assert task.ngram_classes is not None  # check_expert
    started = time.monotonic()
    examples = labelled(parts) if teaches else sampled(labelled(parts))
    if len(examples) > MOST_TEXTS:
        raise ConfigError(
            f"training.expert_targets: {len(examples):,} labelled examples, but an expert teaches {MOST_TEXTS:,} at most; give 0"
        )
    counted = count_ngrams([text_of(example) for example in examples.items])
    complete = fit_nbsvm(counted, examples.targets, task.ngram_classes)
    lexicon = compact(complete, counted)
    seconds = time.monotonic() - started
    texts = [text_of(example) for example in parts.validation.items]
    before, after = complete.logits(texts), lexicon.logits(texts)
    agreement = float(np.mean(before.argmax(axis=1) == after.argmax(axis=1)))
    say(
        f"n-gram expert: {len(complete.keys):,} n-grams of {len(examples):,} examples in {seconds:.0f} s, {len(lexicon.keys):,} "
        f"of them kept ({agreement:.2%} of the validation labels unchanged)"
    )
    teacher = teacher_probabilities(task, parts, counted) if teaches else None
    return FittedExpert(lexicon, after, len(examples), seconds, agreement, teacher)


def teacher_probabilities(task: Task, parts: Parts, counted: Counted) -> Logits:
    """Compute what experts that have not seen them say of the training examples, [len(train), C].

    Experts are fitted on all labelled examples but a fold; copies and groups of a text are in its fold. The scale that
    calibrates their logits is fitted on all of them.
    """
    assert task.ngram_classes is not None  # check_expert
    examples = labelled(parts)
    texts = [text_of(example) for example in examples.items]
    logits = out_of_fold(texts, examples.targets, task.ngram_classes, parts.clusters, counted=counted)
    scaled = np.float32(fit_scale(logits, examples.targets)) * logits
    probabilities = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    return np.asarray(probabilities[: len(parts.train)], np.float32)
