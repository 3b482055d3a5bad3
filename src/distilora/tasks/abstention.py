"""Chooses the score below which to abstain, so that at most a stated share of the answers given is wrong. No torch.

    P( P(wrong | score >= threshold) <= rate ) >= CONFIDENCE        over the draw of the calibration examples

This is selective risk control (Geifman and El-Yaniv 2017) by Learn then Test (Angelopoulos et al. 2021). A threshold t passes if
the W wrong answers among the N with a score of at least t are so few that an error rate above `rate` is ruled out:

    p(t) = P(Binomial(N, rate) <= W) <= budget            exact, Clopper and Pearson 1934

The thresholds, 1 - rate * 2^(k/4), are fixed before an example is seen, and are tested from the strictest to the loosest
by the fallback procedure (Wiens and Dmitrienko 2005): each has its own share of 1 - CONFIDENCE (SHARES), and a
threshold that passes hands its whole budget on to the next. So the chance that any threshold passes wrongly is at most
1 - CONFIDENCE, whatever the model, however badly it is calibrated, and whether or not errors grow rarer with the score. Calibration
makes it find more: of answers that score at least 1 - rate, a calibrated model has fewer wrong than `rate`, so most of the
budget lies there.

The examples must be independent draws of what is answered later, and must not have been trained on. Where the best of M
checkpoints was chosen on these very examples, each of the M has a share of 1 - CONFIDENCE (Bonferroni), so that the guarantee holds
whichever was chosen. A temperature that was fitted on them moves the thresholds a little with the examples, which no bound
covers; simulated, fewer than 1 - CONFIDENCE of the thresholds fail with it all the same (tests/tasks/test_abstention.py).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distilora.data.examples import Example
from distilora.errors import ConfigError
from distilora.tasks.base import Task

CONFIDENCE = 0.95
STEPS = 4  # thresholds to a doubling of 1 - threshold
SHARES = {0.25: 0.2, 1.0: 0.6, 4.0: 0.2}  # (1 - threshold) / rate -> share of 1 - CONFIDENCE


@dataclass(frozen=True)
class Scored:
    """Scores of N answers, [N], and whether each is correct, [N]; where there is an n-gram expert, of its answers, too."""

    scores: NDArray[np.float64]
    correct: NDArray[np.bool_]
    choices: int  # models, such as checkpoints, of which these examples chose one; 1: they chose nothing
    expert_scores: NDArray[np.float64] | None = None  # of the expert's own answers, [N]
    harmed: NDArray[np.bool_] | None = None  # where the model is right and the expert alone wrong, [N]


@dataclass(frozen=True)
class Threshold:
    """A threshold that keeps the error rate, with its counts on the calibration examples."""

    score: float  # answers with a lower one abstain
    rate: float
    answered: int
    wrong: int
    examples: int

    def sentence(self) -> str:
        """Say what the threshold is, and what it guarantees."""
        return (
            f"answers that score below {self.score:.4g} abstain: with {CONFIDENCE:.0%} confidence at most {self.rate:.2%} of the "
            f"others are wrong (of {self.examples:,} calibration texts {self.answered / self.examples:.1%} are answered, "
            f"{self.wrong:,} of {self.answered:,} wrongly)"
        )


def scored_answers(
    task: Task,
    examples: Sequence[Example],
    answers: Sequence[Mapping[str, Any]],
    choices: int,
    expert: Sequence[Mapping[str, Any]] | None = None,
) -> Scored | None:
    """Compare answers with the targets; None for a task whose answers have no label and score, or without examples.

    `expert` has the answers of the n-gram expert alone.
    """
    if not answers or not {"label", "score"} <= set(answers[0]):
        return None
    scores, correct = _compared(task, examples, answers)
    if expert is None:
        return Scored(scores, correct, choices)
    expert_scores, expert_correct = _compared(task, examples, expert)
    return Scored(scores, correct, choices, expert_scores, correct & ~expert_correct)


def _compared(
    task: Task, examples: Sequence[Example], answers: Sequence[Mapping[str, Any]]
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    pairs = zip(examples, answers, strict=True)
    correct = [task.target_name(example.target) == answer["label"] for example, answer in pairs]
    return np.asarray([answer["score"] for answer in answers], np.float64), np.asarray(correct, np.bool_)


def check_rate(rate: float) -> None:
    """Raise ConfigError for an error rate that is no share between 0 and 1."""
    if not 0 < rate < 1:
        raise ConfigError(f"abstain_error: {rate!r} given, a share above 0 and below 1 wanted, such as 0.02")


def choose_threshold(scored: Scored, rate: float) -> Threshold:
    """Choose the lowest threshold that passes; 0 answers everything.

    Raises ConfigError for an impossible rate, for too few examples, and if no threshold passes.
    """
    check_rate(rate)
    examples, needed = len(scored.scores), least_examples(rate, scored.choices)
    advice = (
        "train with more labelled rows or a larger data.validation_size (a fifth of the rows at most), export the run with "
        "--held-out PATH, give a higher rate, or a threshold with abstain_below"
    )
    if examples < needed:
        raise ConfigError(
            f"abstain_error: {rate:g} needs at least {needed:,} calibration texts, answered without a mistake, and this model has "
            f"{examples:,}; {advice}"
        )
    order = np.argsort(-scored.scores, kind="stable")
    descending, mistakes = scored.scores[order], np.cumsum(~scored.correct[order])
    thresholds, shares = _thresholds(rate)
    answered = np.searchsorted(-descending, -thresholds, side="right")
    chosen, budget = None, 0.0
    for threshold, share, count in zip(thresholds.tolist(), shares.tolist(), answered.tolist(), strict=True):
        budget += share * (1 - CONFIDENCE) / scored.choices
        wrong = int(mistakes[count - 1]) if count else 0
        if budget > 0 and binomial_tail(wrong, count, rate) <= budget:
            chosen = Threshold(threshold, rate, count, wrong, examples)
        else:
            budget = 0.0
    if chosen is None:
        wrong = int((~scored.correct).sum())
        raise ConfigError(
            f"abstain_error: no threshold keeps {rate:g} with {CONFIDENCE:.0%} confidence on these {examples:,} calibration texts "
            f"({wrong:,} answered wrongly); {advice}"
        )
    return chosen


def least_examples(rate: float, choices: int = 1) -> int:
    """Return the number of examples below which no threshold can pass: (1 - rate)^N must not exceed the largest budget."""
    return least_examples_of(rate, max(SHARES.values()) * (1 - CONFIDENCE) / choices)


def least_examples_of(rate: float, budget: float) -> int:
    """Return the number of examples below which not even their being all right rules out a higher rate: (1 - rate)^N <= budget."""
    return math.ceil(math.log(budget) / math.log1p(-rate))


def binomial_tail(successes: int, trials: int, rate: float) -> float:
    """Compute P(Binomial(trials, rate) <= successes), summed in logarithms; SciPy is not needed to predict."""
    if successes >= trials:
        return 1.0
    i = np.arange(1, successes + 1)
    steps = np.log((trials - i + 1) / i) + math.log(rate) - math.log1p(-rate)
    logs = np.concatenate([[0.0], np.cumsum(steps)]) + trials * math.log1p(-rate)
    return float(min(np.exp(logs).sum(), 1.0))


def _thresholds(rate: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the thresholds, from the strictest to 0, and each one's share of the budget; the shares add up to 1."""
    exponents = np.arange(round(STEPS * math.log2(min(SHARES))), math.ceil(STEPS * math.log2(1 / rate)))
    multiples = np.append(2.0 ** (exponents / STEPS), 1 / rate)  # of the rate; the last one answers everything
    shares = np.zeros(len(multiples))
    for multiple, share in SHARES.items():
        shares[np.argmin(np.abs(np.log(multiples / multiple)))] += share
    return np.append(1 - rate * multiples[:-1], 0.0), shares
