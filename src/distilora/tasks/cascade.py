"""Chooses how sure the n-gram expert must be to answer alone, in place of the whole model, at hardly any loss. No torch.

    harm    the expert is sure, the whole model right and the expert wrong         P(harm) >= accuracy that a cascade loses

A threshold t passes if the H harms among N examples are so few that a share above MOST_LOST is ruled out:

    p(t) = P(Binomial(N, MOST_LOST) <= H) <= (1 - CONFIDENCE) / choices            exact, Clopper and Pearson 1934

The thresholds, 1 - 2^(-k/2), are fixed before an example is seen, and are tested from the strictest to the loosest until one fails
(fixed sequence testing, Maurer et al. 1995), so that the chance that any passes wrongly is at most 1 - CONFIDENCE. What the expert
mends is not set against harms: the bound holds all the more.

As with abstention (tasks/abstention.py) the examples must be independent draws of what is answered later, and must not have been
trained on; where they chose the best of M checkpoints, `choices` is M. The temperatures and the weights that combine encoder and
expert, a few numbers, were fitted on them all the same: no bound covers that.
"""

from dataclasses import dataclass

from distilora.errors import ConfigError
from distilora.tasks.abstention import CONFIDENCE, Scored, binomial_tail, least_examples_of

MOST_LOST = 0.001  # 0.1 points of accuracy
STRICTEST, LOOSEST = 40, 3  # k


@dataclass(frozen=True)
class CascadeThreshold:
    """A threshold that keeps the loss, with its counts on the calibration examples."""

    score: float  # the expert answers alone from this score of its own on
    alone: int
    harms: int
    examples: int

    def sentence(self) -> str:
        """Say what the threshold is, and what it guarantees."""
        return (
            f"where the n-gram expert's own score is {self.score:.4g} or more it answers alone: with {CONFIDENCE:.0%} confidence "
            f"that costs at most {100 * MOST_LOST:.2g} points of accuracy (of {self.examples:,} calibration texts it answers "
            f"{self.alone / self.examples:.1%}, {self.harms:,} of them worse)"
        )


def least_texts(choices: int) -> int:
    """Return the number of calibration texts below which no threshold can pass."""
    return least_examples_of(MOST_LOST, (1 - CONFIDENCE) / choices)


def choose_cascade(scored: Scored) -> CascadeThreshold:
    """Choose the lowest threshold that passes.

    Raises ConfigError for scores without an expert's, for too few examples, and if the expert is sure of none.
    """
    if scored.expert_scores is None or scored.harmed is None:
        raise ConfigError(
            "cascade: the model holds no scores of its n-gram expert to choose a threshold by; train or export it with this release"
        )
    budget, examples = (1 - CONFIDENCE) / scored.choices, len(scored.harmed)
    if examples < (needed := least_texts(scored.choices)):
        raise ConfigError(
            f"cascade: at least {needed:,} calibration texts are needed to bound the loss, and this model has {examples:,}; train "
            "with a larger data.validation_size (a fifth of the rows at most) or fewer training.validations, or drop the cascade"
        )
    chosen = None
    for k in range(STRICTEST, LOOSEST - 1, -1):
        threshold = 1 - 2.0 ** (-k / 2)
        sure = scored.expert_scores >= threshold
        harms = int((sure & scored.harmed).sum())
        if binomial_tail(harms, examples, MOST_LOST) > budget:
            break
        chosen = CascadeThreshold(threshold, int(sure.sum()), harms, examples)
    if chosen is None or not chosen.alone:
        raise ConfigError(
            f"cascade: of {examples:,} calibration texts the n-gram expert is sure enough of none; leave the cascade out"
        )
    return chosen
