"""The threshold of a cascade: what it bounds, and that it is refused where too little is known."""

import numpy as np
import pytest

from distilora.errors import ConfigError
from distilora.tasks.abstention import Scored, binomial_tail
from distilora.tasks.cascade import CONFIDENCE, MOST_LOST, choose_cascade


def scored(expert_scores: np.ndarray, harmed: np.ndarray, choices: int = 1) -> Scored:
    ones = np.ones(len(harmed), bool)
    return Scored(np.ones(len(harmed)), ones, choices, expert_scores, harmed)


def test_the_lowest_threshold_that_passes() -> None:
    scores = np.linspace(0.5, 1, 10_000, endpoint=False)
    threshold = choose_cascade(scored(scores, scores < 0.7))
    assert threshold.score == 0.75  # the next one, 0.646, would harm a thousand
    assert threshold.harms == 0
    assert threshold.alone == int((scores >= threshold.score).sum())


def test_harms_end_the_search() -> None:
    rng = np.random.default_rng(0)
    scores = rng.uniform(0.5, 1, 20_000)
    harmed = (scores > 0.9) & (scores < 0.93)
    threshold = choose_cascade(scored(scores, harmed))
    assert threshold.harms == 0
    assert 0.93 <= threshold.score < 0.97
    assert (
        f"of 20,000 calibration texts it answers {threshold.alone / 20_000:.1%}, 0 of them worse"
        in threshold.sentence()
    )


def test_every_threshold_passed_is_sure_by_the_exact_binomial() -> None:
    rng = np.random.default_rng(1)
    scores = rng.uniform(0.5, 1, 30_000)
    harmed = rng.uniform(size=30_000) < 0.004 * (1 - scores)
    threshold = choose_cascade(scored(scores, harmed))
    harms = int((harmed & (scores >= threshold.score)).sum())
    assert harms == threshold.harms > 0
    assert binomial_tail(harms, 30_000, MOST_LOST) <= 1 - CONFIDENCE


@pytest.mark.parametrize(("choices", "needed"), [(1, 2995), (6, 4786)])
def test_too_few_texts_bound_nothing(choices: int, needed: int) -> None:
    def of(count: int) -> Scored:
        return scored(np.full(count, 0.99), np.zeros(count, bool), choices)

    assert choose_cascade(of(needed)).alone == needed
    with pytest.raises(
        ConfigError, match=rf"^cascade: at least {needed:,} calibration texts are needed .* has {needed - 1:,};"
    ):
        choose_cascade(of(needed - 1))


def test_an_expert_that_is_never_sure_and_one_that_was_not_scored() -> None:
    with pytest.raises(ConfigError, match="sure enough of none; leave the cascade out"):
        choose_cascade(scored(np.full(5000, 0.51), np.zeros(5000, bool)))
    with pytest.raises(ConfigError, match="holds no scores of its n-gram expert"):
        choose_cascade(Scored(np.ones(5000), np.ones(5000, bool), 1))


def test_the_guarantee_holds_over_draws() -> None:
    """Of many calibration sets drawn from one population at most 5% choose a threshold that loses more than it may."""
    rng = np.random.default_rng(2)
    draws, failed = 400, 0
    # in the population harms grow as the expert is less sure: P(harm and score >= t) is known exactly
    levels = 1 - 2.0 ** (-np.arange(40, 2, -1) / 2)
    rate = 0.02  # of harm among texts with a score below 0.9, none above
    for _ in range(draws):
        scores = rng.uniform(0.5, 1, 6000)
        harmed = (scores < 0.9) & (rng.uniform(size=6000) < rate)
        threshold = choose_cascade(scored(scores, harmed)).score
        lost = rate * max(0.0, 0.9 - threshold) / 0.5
        failed += lost > MOST_LOST
        assert threshold in levels
    assert failed / draws <= 1 - CONFIDENCE + 0.02
