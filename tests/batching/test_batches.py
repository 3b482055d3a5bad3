"""The plan: every example once, budgets kept, the same for the same seed, and no matter to the gradient."""

from pathlib import Path

import numpy as np
import pytest
import torch
from support.tiny import tiny_reviews, tiny_tokenizer

from distilora.batching.batches import Update, plan_batches
from distilora.batching.rows import Rows, rows_of
from distilora.batching.tokens import tokenise
from distilora.config.schema import AdapterConfig
from distilora.data.examples import Example
from distilora.inference.lanes import run_rows
from distilora.model.build import new_network
from distilora.model.encoders.find import find_encoder
from distilora.tasks.classification import Classification

LENGTHS = np.random.default_rng(7).integers(1, 60, 101)
CASES = [(64, None), (64, 8), (500, 16), (10**6, 7), (1, 5)]


def flat(updates: list[Update]) -> list[list[int]]:
    return [batch.tolist() for update in updates for batch in update]


@pytest.mark.parametrize(("budget", "update_size"), CASES)
def test_every_example_once(budget: int, update_size: int | None) -> None:
    seen = [i for batch in flat(plan_batches(LENGTHS, budget, update_size)) for i in batch]
    assert sorted(seen) == list(range(len(LENGTHS)))


@pytest.mark.parametrize(("budget", "update_size"), CASES)
def test_micro_batches_keep_the_padded_budget(budget: int, update_size: int | None) -> None:
    for batch in flat(plan_batches(LENGTHS, budget, update_size)):
        assert len(batch) * LENGTHS[batch].max() <= budget or len(batch) == 1


def test_what_is_over_the_budget_runs_alone() -> None:
    batches = flat(plan_batches(np.asarray([3, 100, 3, 90, 3]), 30))
    assert batches == [[1], [3], [0, 2, 4]]


def test_update_sizes_are_fixed() -> None:
    sizes = [sum(map(len, update)) for update in plan_batches(LENGTHS, 64, 16)]
    assert sizes == [16] * 6 + [5]


def test_the_budget_does_not_change_the_updates() -> None:
    small, large = plan_batches(LENGTHS, 64, 16, 1, 2), plan_batches(LENGTHS, 1000, 16, 1, 2)
    assert len(flat(small)) > len(flat(large))
    for a, b in zip(small, large, strict=True):
        assert sorted(np.concatenate(a)) == sorted(np.concatenate(b))


def test_seed_and_epoch_decide() -> None:
    same = flat(plan_batches(LENGTHS, 64, 16, 3, 1))
    assert flat(plan_batches(LENGTHS, 64, 16, 3, 1)) == same
    assert flat(plan_batches(LENGTHS, 64, 16, 3, 2)) != same
    assert flat(plan_batches(LENGTHS, 64, 16, 4, 1)) != same


def test_prediction_is_one_update_longest_first() -> None:
    (update,) = plan_batches(LENGTHS, 64)
    order = LENGTHS[np.concatenate(update)]
    assert np.all(np.diff(order) <= 0)
    assert plan_batches(np.asarray([], np.int64), 64) == plan_batches(np.asarray([], np.int64), 64, 4) == []


@pytest.mark.parametrize(("budget", "update_size"), [(0, None), (8, 0)])
def test_sizes_must_be_positive(budget: int, update_size: int | None) -> None:
    with pytest.raises(ValueError, match="positive"):
        plan_batches(LENGTHS, budget, update_size)


class Sums:
    """Answers each example with the sum of its ids."""

    precision = "fp32"

    def run(self, rows: Rows) -> np.ndarray:
        return np.add.reduceat(rows.ids, rows.offsets[:-1])[rows.row == 0, None].astype(np.float32)


def test_answers_come_in_input_order() -> None:
    rows = rows_of([[[i] * int(length)] for i, length in enumerate(LENGTHS)])
    assert run_rows(rows, Sums(), 64)[:, 0].tolist() == [i * length for i, length in enumerate(LENGTHS)]


def test_the_gradient_of_an_update_does_not_depend_on_the_budget(encoder: Path) -> None:
    tiny_encoder = find_encoder(str(encoder))
    task = Classification(("neg", "pos"), "text", "label")
    network = new_network(
        tiny_encoder, task, AdapterConfig(r=4), precision="fp32", device=torch.device("cpu"), dropout=0.0, seed=3
    )
    with torch.no_grad():  # B = 0 would leave A without a gradient
        for parameter in network.trained().values():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    rows = tokenise(tiny_tokenizer(), [Example((text,)) for text, _ in tiny_reviews(24)]).rows
    targets = [i % 2 for i in range(24)]

    def gradients(budget: int) -> tuple[int, dict[str, torch.Tensor]]:
        network.zero_grad()
        (update,) = plan_batches(rows.group_lengths, budget, 24)
        for batch in update:
            (task.loss(network(rows.take(batch)), [targets[i] for i in batch]).sum() / 24).backward()
        return len(update), {name: p.grad.clone() for name, p in network.trained().items() if p.grad is not None}

    (one, whole), (many, cut) = gradients(10_000), gradients(40)
    assert one == 2  # a piece of either half of the lengths
    assert many > 8
    assert set(whole) == set(cut) == set(network.trained())
    for name, gradient in whole.items():
        assert gradient.abs().max() > 0
        torch.testing.assert_close(cut[name], gradient, rtol=1e-4, atol=1e-6)
