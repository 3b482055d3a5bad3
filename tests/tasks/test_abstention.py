"""The threshold for an error rate: its guarantee over many draws, on models that are calibrated and on ones that are not."""

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binom

from distilora.data.examples import Example
from distilora.errors import ConfigError
from distilora.tasks import abstention
from distilora.tasks.abstention import Scored, binomial_tail, choose_threshold, least_examples, scored_answers
from distilora.tasks.calibration import fit_temperature
from distilora.tasks.classification import Classification

POPULATION, DRAWS = 100_000, 500
MOST = binom.ppf(0.999, DRAWS, 1 - abstention.CONFIDENCE) / DRAWS  # violations of a guarantee that just holds
Population = tuple[np.ndarray, np.ndarray]  # scores and correctness


def population(classes: int = 2, overconfidence: float = 1.0) -> Population:
    """A model's answers: softmax of logits that are `overconfidence` times too large."""
    rng = np.random.default_rng(classes)
    logits = rng.normal(size=(POPULATION, classes))
    logits[:, 0] += rng.normal(4, 2, POPULATION)
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    correct = rng.random(POPULATION) < probabilities.max(axis=1)
    sharper = probabilities**overconfidence
    return (sharper / sharper.sum(axis=1, keepdims=True)).max(axis=1), correct


def confidently_wrong() -> Population:
    """A model that is most often wrong where it is most confident: its error rate falls with the threshold, then rises."""
    rng = np.random.default_rng(0)
    scores = rng.uniform(0.5, 1, POPULATION)
    return scores, rng.random(POPULATION) > np.where(scores > 0.99, 0.1, np.where(scores > 0.9, 0.01, 0.09))


def violations(answers: Population, rate: float, count: int) -> tuple[float, float]:
    """Share of draws whose threshold lets too many errors through, and mean coverage; each draw calibrates anew."""
    scores, correct = answers
    order = np.argsort(-scores)
    descending, risk = scores[order], np.cumsum(~correct[order]) / np.arange(1, POPULATION + 1)
    rng = np.random.default_rng(1)
    failed, covered = 0, 0.0
    for _ in range(DRAWS):
        index = rng.integers(0, POPULATION, count)
        try:
            threshold = choose_threshold(Scored(scores[index], correct[index], 1), rate).score
        except ConfigError:
            continue
        answered = int(np.searchsorted(-descending, -threshold, side="right"))
        failed += risk[answered - 1] > rate
        covered += answered / POPULATION
    return failed / DRAWS, covered / DRAWS


@pytest.mark.parametrize(
    ("model", "rate", "least_covered"),
    [
        (population, 0.05, 0.8),
        (partial(population, 3), 0.05, 0.6),
        (partial(population, 3), 0.1, 0.8),
        (partial(population, overconfidence=2.0), 0.05, 0.6),
        (partial(population, overconfidence=0.5), 0.05, 0.7),
        (confidently_wrong, 0.05, 0.0),
    ],
)
def test_the_error_rate_is_kept_in_95_of_100_draws(
    model: Callable[[], Population], rate: float, least_covered: float
) -> None:
    failed, covered = violations(model(), rate, 600)
    assert failed <= MOST
    assert covered >= least_covered


def test_without_the_test_it_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the exact test is for: taking the loosest threshold whose own error rate is low enough fails half the time."""
    naive: Callable[[int, int, float], float] = lambda wrong, count, rate: float(wrong > rate * count)  # noqa: E731
    monkeypatch.setattr(abstention, "binomial_tail", naive)
    assert violations(population(), 0.05, 600)[0] > 0.3


def reused(choices: int, checkpoints: int = 8) -> float:
    """Share of draws that fail where one draw chooses the checkpoint by its loss, fits the temperature and calibrates."""
    rng = np.random.default_rng(2)
    common = rng.normal(3, 2, POPULATION)
    margins = np.stack([common + rng.normal(size=POPULATION) for _ in range(checkpoints)], axis=1)
    rng, failed = np.random.default_rng(3), 0
    for _ in range(DRAWS):
        index = rng.integers(0, POPULATION, 500)
        best = int(np.argmin(np.logaddexp(0, -margins[index]).mean(axis=0)))
        logits = np.stack([margins[index, best], np.zeros(500)], axis=1).astype(np.float32)
        temperature = fit_temperature(logits, [0] * 500)
        margin = margins[index, best] / temperature
        scored = Scored(1 / (1 + np.exp(-np.abs(margin))), margin > 0, choices)
        try:
            score = choose_threshold(scored, 0.05).score
        except ConfigError:
            continue
        answered = np.abs(margins[:, best]) >= temperature * (math.log(score / (1 - score)) if score > 0.5 else 0)
        failed += (margins[answered, best] <= 0).mean() > 0.05
    return failed / DRAWS


def test_it_is_kept_where_checkpoint_and_temperature_were_chosen_on_the_same_examples() -> None:
    assert reused(choices=1, checkpoints=1) <= MOST  # the temperature alone
    assert reused(choices=8) <= MOST
    assert reused(choices=1) > MOST  # which the choice of a checkpoint breaks, if it is not counted


def test_the_tail_is_the_binomial_s() -> None:
    for wrong, count, rate in (
        (0, 1, 0.5),
        (0, 0, 0.1),
        (3, 3, 0.2),
        (7, 1000, 0.02),
        (40, 25_000, 0.002),
        (0, 9, 1e-6),
    ):
        assert binomial_tail(wrong, count, rate) == pytest.approx(binom.cdf(wrong, count, rate), rel=1e-9)


def test_a_perfect_model_answers_everything() -> None:
    found = choose_threshold(Scored(np.linspace(0.5, 1, 1000), np.ones(1000, bool), 1), 0.05)
    assert (found.score, found.answered, found.wrong) == (0.0, 1000, 0)
    assert found.sentence() == (
        "answers that score below 0 abstain: with 95% confidence at most 5.00% of the others are wrong (of 1,000 calibration texts "
        "100.0% are answered, 0 of 1,000 wrongly)"
    )


@pytest.mark.parametrize(("rate", "choices"), [(0.05, 1), (0.2, 1), (0.01, 3)])
def test_the_number_of_examples_that_is_named_is_enough(rate: float, choices: int) -> None:
    needed = least_examples(rate, choices)
    for count in (needed - 1, needed):
        best = Scored(np.full(count, 1 - rate), np.ones(count, bool), choices)  # all in the largest share's reach
        if count == needed:
            assert choose_threshold(best, rate).answered == count
        else:
            message = (
                f"abstain_error: {rate:g} needs at least {needed:,} calibration texts, .* this model has {count:,};"
            )
            with pytest.raises(ConfigError, match=message):
                choose_threshold(best, rate)


def test_where_nothing_passes_it_says_so() -> None:
    coin = Scored(np.random.default_rng(0).uniform(0.5, 1, 1000), np.arange(1000) % 2 == 0, 1)
    message = r"no threshold keeps 0.05 with 95% confidence on these 1,000 calibration texts \(500 answered wrongly\)"
    with pytest.raises(ConfigError, match=message):
        choose_threshold(coin, 0.05)


@pytest.mark.parametrize("rate", [0.0, 1.0, -0.1, 2.0, float("nan")])
def test_a_rate_is_a_share(rate: float) -> None:
    with pytest.raises(
        ConfigError, match=r"^abstain_error: .* given, a share above 0 and below 1 wanted, such as 0.02$"
    ):
        choose_threshold(Scored(np.ones(9), np.ones(9, bool), 1), rate)


def test_answers_are_compared_with_the_targets() -> None:
    task = Classification(("a", "b", "c"), "text", "label")
    examples = [Example(("x",), target) for target in (0, 1, 2)]
    answers = [{"label": label, "score": score} for label, score in (("a", 0.9), ("c", 0.4), ("c", 0.5))]
    found = scored_answers(task, examples, answers, 3)
    assert found is not None
    assert (found.scores.tolist(), found.correct.tolist(), found.choices) == ([0.9, 0.4, 0.5], [True, False, True], 3)
    assert scored_answers(task, examples, [{"tags": "x"}] * 3, 1) is None
    assert scored_answers(task, [], [], 1) is None


@pytest.mark.parametrize("classes", [2, 3])
def test_mapie_finds_the_same_threshold(classes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """MAPIE's Learn then Test tests in a fixed order from one start; with a single share ours does, too."""
    from mapie.risk_control import BinaryRisk, MultiClassificationLTTController

    monkeypatch.setattr(abstention, "SHARES", {1.0: 1.0})
    rng, compared = np.random.default_rng(classes), 0
    for rate in (0.05, 0.1, 0.2):
        probabilities = rng.dirichlet(np.full(classes, 0.2), 800)
        targets = np.asarray([rng.choice(classes, p=row) for row in probabilities])
        scored = Scored(probabilities.max(axis=1), probabilities.argmax(axis=1) == targets, 1)
        thresholds, _ = abstention._thresholds(rate)
        errors = BinaryRisk(lambda true, label: label != true, lambda true, label: ~np.isnan(label), False)
        controller = MultiClassificationLTTController(
            lambda rows: rows, [errors], [rate], abstention.CONFIDENCE, list_predict_params=thresholds,
            classes=np.arange(classes), fwer_method="fixed_sequence",
        ).calibrate(probabilities, targets)  # fmt: skip
        if len(controller.valid_predict_params):
            assert choose_threshold(scored, rate).score == controller.valid_predict_params[-1]
            compared += 1
    assert compared >= 2


def test_the_page_names_the_numbers_that_are_needed() -> None:
    page = (Path(__file__).parents[2] / "docs" / "prediction.md").read_text("utf-8")
    for choices in (1, 2, 3, 6):
        numbers = " | ".join(f"{least_examples(rate, choices):,}" for rate in (0.1, 0.05, 0.02, 0.01))
        assert f"| {choices} | {numbers} |" in page
