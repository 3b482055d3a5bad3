"""Ordinal classification: a cumulative link model whose cut points cannot cross, answered with its median."""

from pathlib import Path

import numpy as np
import pytest
import torch
from support.tiny import write_csv

from distilora.config.schema import DataConfig
from distilora.data.sources import open_source
from distilora.errors import DataError
from distilora.tasks.classification import softmax
from distilora.tasks.ordinal import Ordinal

TASK = Ordinal(["1", "2", "3", "4", "5"], "text", "label")


def raw(count: int = 500, scale: float = 5.0, classes: int = 5) -> torch.Tensor:
    return scale * torch.randn(count, classes, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("scale", [0.1, 5.0, 60.0])
def test_cumulative_probabilities_are_those_of_falling_logits(scale: float) -> None:
    z = raw(scale=scale).double()
    falls = torch.nn.functional.softplus(z[:, 2:])
    start = z[:, 1:2] - z[:, :1] + 0.5 * np.log(2) * 3
    a = torch.cat([start, start - falls.cumsum(1)], 1)
    above = torch.sigmoid(a).numpy()  # P(y > k)
    assert (np.diff(above, axis=1) <= 0).all()
    p = softmax(TASK.finish(z.float()).numpy())
    np.testing.assert_allclose(1 - p.cumsum(axis=1)[:, :-1], above, atol=2e-5)


def test_outputs_are_logarithms_of_probabilities() -> None:
    outputs = TASK.finish(raw())
    np.testing.assert_allclose(outputs.exp().sum(1).numpy(), 1, atol=1e-5)
    assert torch.isfinite(TASK.finish(raw(scale=80.0))).all()


def test_zeros_give_an_even_distribution() -> None:
    p = TASK.finish(torch.zeros(1, 5)).exp()[0].numpy()
    np.testing.assert_allclose(p, p[::-1], atol=1e-6)


def test_two_classes_are_the_sigmoid_of_a_difference() -> None:
    two = Ordinal(["no", "yes"], "text", "label")
    z = raw(classes=2)
    np.testing.assert_allclose(two.finish(z).exp()[:, 1], torch.sigmoid(z[:, 1] - z[:, 0]), atol=1e-6)


def test_the_answer_is_the_median() -> None:
    p = np.asarray([[0.4, 0.05, 0.05, 0.25, 0.25], [0.5, 0.5, 0, 0, 0], [0, 0, 0, 0, 1], [0.2, 0.2, 0.2, 0.2, 0.2]])
    assert TASK.chosen(p).tolist() == [2, 0, 4, 2]


def test_the_median_has_the_least_expected_distance() -> None:
    p = np.random.default_rng(0).dirichlet(np.ones(5), 200)
    distance = np.abs(np.arange(5)[:, None] - np.arange(5))
    best = (p @ distance).min(axis=1)
    np.testing.assert_allclose((p * distance[TASK.chosen(p)]).sum(axis=1), best, atol=1e-12)


def test_gradients_reach_every_number() -> None:
    z = raw(8).requires_grad_()
    TASK.loss(TASK.finish(z), [0, 1, 2, 3, 4, 0, 2, 4]).sum().backward()
    assert z.grad is not None
    assert (z.grad.abs().sum(0) > 0).all()


def found_in(tmp_path: Path, labels: list[str]) -> Ordinal:
    data = write_csv(tmp_path / "data.csv", [(f"text {i}", label) for i, label in enumerate(labels * 3)])
    return Ordinal.from_source(DataConfig(path=str(data)), open_source(str(data)))


@pytest.mark.parametrize(
    ("labels", "order"),
    [
        (["10", "9", "2"], ("2", "9", "10")),
        (["good", "bad", "excellent"], ("bad", "good", "excellent")),
        (["no", "yes"], ("no", "yes")),
    ],
)
def test_the_order_is_found(labels: list[str], order: tuple[str, ...], tmp_path: Path) -> None:
    assert found_in(tmp_path, labels).labels == order


def test_two_words_of_one_level_have_no_order(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"data\.labels: the order of .* is not known"):
        found_in(tmp_path, ["good", "bad", "excellent", "poor"])


def test_an_unknown_order_is_refused_and_a_given_one_taken(tmp_path: Path) -> None:
    data = write_csv(tmp_path / "data.csv", [(f"text {i}", "abc"[i % 3] * 3) for i in range(9)])
    with pytest.raises(DataError, match=r"data\.labels: the order of aaa, bbb, ccc is not known; give them from low"):
        Ordinal.from_source(DataConfig(path=str(data)), open_source(str(data)))
    given = DataConfig(path=str(data), labels=("ccc", "aaa", "bbb"))
    assert Ordinal.from_source(given, open_source(str(data))).labels == ("ccc", "aaa", "bbb")
