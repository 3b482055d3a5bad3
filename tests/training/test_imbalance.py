"""Class imbalance is countered by weights, by sampling and by shifted logits, in training alone."""

import numpy as np
import pytest

from distilora.config.schema import TrainingConfig
from distilora.training.imbalance import balance_of, overdone

TARGETS = [0] * 90 + [1] * 9 + [2]


def test_by_default_nothing_is_changed() -> None:
    balance = balance_of(TARGETS, 3, TrainingConfig())
    assert balance.weights is None
    assert balance.shift is None
    assert balance.order(0, 0) is None


def test_balanced_weights_give_every_class_the_same_share() -> None:
    weights = balance_of(TARGETS, 3, TrainingConfig(class_weights="balanced")).weights
    assert weights is not None
    np.testing.assert_allclose([weights[:90].sum(), weights[90:99].sum(), weights[99:].sum()], 100 / 3, rtol=1e-5)


def test_effective_weights_are_the_papers() -> None:
    weights = balance_of(TARGETS, 3, TrainingConfig(class_weights="effective")).weights
    assert weights is not None
    assert weights.mean() == pytest.approx(1)
    assert weights[95] / weights[0] == pytest.approx((1 - 0.999**90) / (1 - 0.999**9), rel=1e-5)


def test_logits_are_shifted_by_the_shares() -> None:
    shift = balance_of(TARGETS, 3, TrainingConfig(logit_adjustment=2.0)).shift
    assert shift is not None
    np.testing.assert_allclose(shift, 2 * np.log([0.9, 0.09, 0.01]), rtol=1e-5)


def test_an_epoch_has_as_many_of_each_class() -> None:
    balance = balance_of(TARGETS, 3, TrainingConfig(sampling="balanced"))
    first, second = balance.order(0, 0), balance.order(0, 1)
    assert first is not None
    assert second is not None
    classes = np.bincount(np.asarray(TARGETS)[first])
    assert len(first) == 100
    assert sorted(classes) == [33, 33, 34]
    assert len(np.unique(first[first < 90])) == (first < 90).sum()  # of the large class none twice
    assert not np.array_equal(first, second)
    assert np.array_equal(first, balance.order(0, 0))


def test_several_means_at_once_are_said() -> None:
    assert not overdone(TrainingConfig())
    assert not overdone(TrainingConfig(sampling="balanced"))
    note = overdone(TrainingConfig(sampling="balanced", logit_adjustment=1.0))
    assert note.startswith("training.sampling and training.logit_adjustment each make up for rare classes")
