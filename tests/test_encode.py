"""States of padded batches are those of each row alone; batch-mates do not matter."""

from pathlib import Path

import numpy as np
import pytest
import torch

from distilora.config import AdapterConfig
from distilora.encode import Network
from distilora.encoders import find_encoder
from distilora.network import load_network, new_network, save_weights
from distilora.rows import Rows, rows_of
from distilora.tasks.classification import Classification

TASK = Classification(("neg", "pos"), "text", "label")
LENGTHS = (5, 17, 3, 64, 9, 1)


def random_rows(lengths: tuple[int, ...] = LENGTHS) -> Rows:
    rng = np.random.default_rng(0)
    return rows_of([[rng.integers(5, 50, length).tolist()] for length in lengths])


@pytest.fixture(scope="module")
def network(encoder: Path) -> Network:
    network = new_network(
        find_encoder(str(encoder)), TASK, AdapterConfig(r=4), precision="fp32", device=torch.device("cpu"), dropout=0.0
    )
    with torch.no_grad():
        for parameter in network.trained().values():
            parameter.normal_(std=0.2)
    return network.eval()


@torch.no_grad()
def test_states_are_those_of_each_row_alone(network: Network) -> None:
    rows = random_rows()
    states = network.encode(rows)
    alone = [
        network.model.base_model(input_ids=torch.from_numpy(ids.astype(np.int64))[None])[0][0]
        for ids in np.split(rows.ids, rows.offsets[1:-1])
    ]
    close = {"rtol": 0.0, "atol": 1e-5}
    torch.testing.assert_close(states.tokens(), torch.cat(alone), **close)
    torch.testing.assert_close(states.first(), torch.stack([hidden[0] for hidden in alone]), **close)
    torch.testing.assert_close(states.mean(), torch.stack([hidden.mean(0) for hidden in alone]), **close)
    torch.testing.assert_close(states.pooled(), states.first(), **close)
    network.pooling = "mean"
    torch.testing.assert_close(states.pooled(), states.mean(), **close)
    network.pooling = "cls"


@torch.no_grad()
def test_batch_mates_do_not_change_an_answer(network: Network) -> None:
    rows = random_rows()
    together = network(rows)
    assert together.shape == (len(LENGTHS), 2)
    assert together.std(0).min() > 0.01  # the rows are told apart at all
    for i in range(rows.groups):
        torch.testing.assert_close(network(rows.take([i]))[0], together[i], rtol=0.0, atol=1e-5)
    backwards = list(range(rows.groups))[::-1]
    torch.testing.assert_close(network(rows.take(backwards)), together.flip(0), rtol=0.0, atol=1e-5)


@torch.no_grad()
def test_only_the_first_row_of_an_example_is_classified(network: Network) -> None:
    several = rows_of([[[5, 6, 7], [8, 9]], [[10, 11]], [[12], [13, 14, 15], [16]]])
    first = rows_of([[[5, 6, 7]], [[10, 11]], [[12]]])
    torch.testing.assert_close(network(several), network(first), rtol=0.0, atol=1e-5)


@torch.no_grad()
def test_an_adapter_is_chosen_by_name(network: Network, encoder: Path, tmp_path: Path) -> None:
    save_weights(network, tmp_path)
    loaded = load_network(
        find_encoder(str(encoder)), TASK, tmp_path, weights="peft", precision="fp32", device=torch.device("cpu")
    )
    loaded.outer.load_adapter(tmp_path / "adapter", "other")
    for name, parameter in loaded.named_parameters():
        if ".other." in name:
            parameter.zero_()
    rows = random_rows()
    wanted = network(rows)
    assert torch.equal(loaded(rows), wanted)
    assert loaded(rows, adapter="other").abs().max() == 0
    assert loaded(rows).abs().max() == 0  # kept until another is named
    assert torch.equal(loaded(rows, adapter="default"), wanted)
