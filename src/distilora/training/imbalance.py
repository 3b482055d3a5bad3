"""Counters class imbalance, of C classes with n_c of N training examples each, by any of three means.

    class_weights balanced     loss of an example times w_c = N / (C n_c)
    class_weights effective    w_c proportional to (1 - b) / (1 - b^n_c), b = 0.999, their mean 1   (Cui et al., CVPR 2019)
    sampling balanced          an epoch has N / C examples of each class: of a large one a part, another in each epoch, of a
                               small one every example several times
    logit_adjustment t         loss of logits + t log(n_c / N), in training alone                  (Menon et al., ICLR 2021)

Validation is left as it is. A model trained by any of them answers rare classes more often than they occur: its probabilities are
those of other shares of the classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from distilora.config.schema import TrainingConfig

BETA = 0.999


@dataclass(frozen=True)
class Balance:
    """What counters imbalance in a training; nothing by default."""

    weights: NDArray[np.float32] | None = None  # of the examples' losses, [G], mean 1
    shift: NDArray[np.float32] | None = None  # added to the outputs in training, [C]
    classes: NDArray[np.int64] | None = None  # class of each example, [G], to sample them evenly

    def order(self, seed: int, epoch: int) -> NDArray[np.int64] | None:
        """Draw the examples of an epoch, [G], as many of each class up to one; None: all of them."""
        if self.classes is None:
            return None
        rng = np.random.default_rng([seed, epoch, 0xBA1A])
        present = np.unique(self.classes)
        share = np.full(len(present), len(self.classes) // len(present))
        share[: len(self.classes) - share.sum()] += 1
        drawn = []
        for number, count in zip(present, share, strict=True):
            members = np.flatnonzero(self.classes == number)
            rounds = [rng.permutation(members) for _ in range(-(-int(count) // len(members)))]
            drawn.append(np.concatenate(rounds)[:count])
        return np.sort(np.concatenate(drawn))


NONE = Balance()


def overdone(config: TrainingConfig) -> str:
    """Say that several means are asked for at once; an empty string otherwise."""
    default = TrainingConfig()
    names = [
        f"training.{name}"
        for name in ("class_weights", "sampling", "logit_adjustment")
        if getattr(config, name) != getattr(default, name)
    ]
    if len(names) < 2:
        return ""
    return (
        f"{' and '.join(names)} each make up for rare classes; together they favour them beyond that, so that frequent ones "
        "are answered too rarely. One of them is enough."
    )


def balance_of(targets: Sequence[int], classes: int, config: TrainingConfig) -> Balance:
    """Make the balance that the settings ask for; targets are class numbers of the training examples, [G]."""
    indices = np.asarray(targets, np.int64)
    counts = np.bincount(indices, minlength=classes)
    weights: NDArray[np.float32] | None = None
    shift: NDArray[np.float32] | None = None
    if config.class_weights != "none":
        present = np.maximum(counts, 1)
        of_class = 1 / present if config.class_weights == "balanced" else (1 - BETA) / (1 - BETA**present)
        of_example = of_class[indices]
        weights = (of_example / of_example.mean()).astype(np.float32)
    if config.logit_adjustment:
        shares = np.maximum(counts, 0.5) / len(indices)
        shift = (config.logit_adjustment * np.log(shares)).astype(np.float32)
    return Balance(weights, shift, indices if config.sampling == "balanced" else None)
