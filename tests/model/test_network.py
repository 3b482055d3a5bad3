"""States of padded batches are those of each row alone; batch-mates do not matter."""

from pathlib import Path

import numpy as np
import pytest
import torch
from support.networks import LENGTHS, ROUTES, TASK, network_of, random_rows
from support.tiny import write_tiny_encoder

from distilora.batching.rows import Rows, rows_of
from distilora.config.schema import AdapterConfig
from distilora.model.build import load_network, new_network
from distilora.model.encoders.find import find_encoder
from distilora.model.network import Network
from distilora.model.weights import save_weights

FAMILIES = ("distilbert", "bert", "roberta", "electra", "modernbert", "mpnet", "deberta-v2")


@pytest.fixture(scope="module")
def network(encoder: Path) -> Network:
    return network_of(encoder)


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tiny encoders of all families; ModernBERT's local attention is narrower than the longest row."""
    settings = {"local_attention": 8, "num_hidden_layers": 4} if request.param == "modernbert" else {}
    return write_tiny_encoder(tmp_path_factory.mktemp("family") / request.param, request.param, **settings)


def alone(network: Network, rows: Rows) -> list[torch.Tensor]:
    """Each row's states when nothing else is there, by Transformers' own class."""
    return [
        network.model.base_model(input_ids=torch.from_numpy(ids.astype(np.int64))[None])[0][0]
        for ids in np.split(rows.ids, rows.offsets[1:-1])
    ]


@torch.no_grad()
@pytest.mark.parametrize("route", ROUTES)
def test_states_are_those_of_each_row_alone(family: Path, route: str) -> None:
    network, rows = network_of(family, route), random_rows()
    states = network.encode(rows)
    expected = alone(network_of(family, "padded"), rows)
    close = {"rtol": 0.0, "atol": 2e-5}
    torch.testing.assert_close(states.first(), torch.stack([hidden[0] for hidden in expected]), **close)
    torch.testing.assert_close(states.tokens(), torch.cat(expected), **close)
    torch.testing.assert_close(states.first(), torch.stack([hidden[0] for hidden in expected]), **close)
    torch.testing.assert_close(states.mean(), torch.stack([hidden.mean(0) for hidden in expected]), **close)
    network.pooling = "cls"
    assert torch.equal(states.pooled(), states.first())
    network.pooling = "mean"
    assert torch.equal(states.pooled(), states.mean())


def test_each_family_takes_the_route_it_can(family: Path) -> None:
    network = network_of(family)
    name = network.architecture.model_type
    assert network.packed == (name not in ("mpnet", "deberta-v2"))
    assert network.computes_blocks == (name in ("distilbert", "bert", "roberta", "electra"))
    assert not network_of(family, "padded").packed


@pytest.mark.parametrize(
    "settings",
    [
        {}, {"last_blocks": 1}, {"targets": "query_value"}, {"targets": ("k_lin", "lin2")}, {"method": "qlora"},
        {"method": "full"}, {"method": "full", "last_blocks": 1}, {"method": "head"},
    ],
    ids=str,
)  # fmt: skip
@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_gradients_are_those_of_the_padded_network(encoder: Path, settings: dict, pooling: str) -> None:
    rows, targets = random_rows(), [0, 1, 1, 0, 1, 0]
    by_route = {}
    for route in ROUTES:
        network = network_of(encoder, route, **settings).train()
        network.pooling = pooling
        loss = TASK.loss(network(rows), targets).sum()
        loss.backward()
        assert network.computes_blocks == (route == "blocks")
        by_route[route] = loss.item(), {name: p.grad for name, p in network.trained().items()}
    largest = max(float(grad.abs().max()) for grad in by_route["padded"][1].values() if grad is not None)
    assert largest > 0.01
    for route in ("blocks", "modules"):
        assert by_route[route][0] == pytest.approx(by_route["padded"][0], rel=1e-5)
        assert by_route[route][1].keys() == by_route["padded"][1].keys()
        for name, expected in by_route["padded"][1].items():
            got = by_route[route][1][name]
            if expected is None or not expected.any():
                assert got is None or not got.any(), name
            else:
                torch.testing.assert_close(got, expected, rtol=1e-3, atol=1e-5 * largest, msg=name)


def test_gradients_of_an_encoder_of_each_family(family: Path) -> None:
    rows, gradients = random_rows(), []
    for route in ("blocks", "padded"):
        network = network_of(family, route).train()
        TASK.loss(network(rows), [0, 1, 1, 0, 1, 0]).sum().backward()
        gradients.append({name: p.grad for name, p in network.trained().items()})
    largest = max(float(grad.abs().max()) for grad in gradients[1].values())
    for name, expected in gradients[1].items():
        torch.testing.assert_close(gradients[0][name], expected, rtol=1e-3, atol=2e-5 * largest, msg=name)


@torch.no_grad()
def test_half_precision_is_near(encoder: Path) -> None:
    rows = random_rows()
    expected = network_of(encoder, "padded")(rows)
    for route in ROUTES:
        with torch.autocast("cpu", torch.bfloat16):
            got = network_of(encoder, route, "bf16")(rows)
        assert got.dtype == torch.float32
        assert (got - expected).abs().max() < 0.05 * expected.abs().max()


@torch.no_grad()
def test_an_updated_weight_is_used_at_once(network: Network, encoder: Path) -> None:
    rows, other = random_rows(), network_of(encoder)
    before = other(rows)
    name = next(name for name in other.trained() if "lora_B" in name)
    other.trained()[name].add_(0.5)
    after = other(rows)
    assert not torch.allclose(before, after, atol=1e-3)
    other.trained()[name].sub_(0.5)
    torch.testing.assert_close(other(rows), before, rtol=0.0, atol=1e-5)


def test_dropout_is_left_to_transformers(encoder: Path) -> None:
    network = new_network(
        find_encoder(str(encoder)), TASK, AdapterConfig(r=4), precision="fp32", device=torch.device("cpu"), dropout=0.5
    )
    rows = random_rows()
    assert not network.train().computes_blocks
    assert not torch.allclose(network(rows), network(rows), atol=1e-3)
    assert network.eval().computes_blocks
    assert torch.equal(network(rows), network(rows))
    adapter = network_of(encoder, dropout=0.5).train()
    assert not adapter.computes_blocks
    assert not torch.allclose(adapter(rows), adapter(rows), atol=1e-3)


@torch.no_grad()
def test_going_in_at_the_cut_changes_nothing(encoder: Path) -> None:
    rows = random_rows()
    for settings, cut in (({}, 0), ({"last_blocks": 1}, 1), ({"method": "head"}, 1), ({"method": "full"}, 0)):
        network = network_of(encoder, **settings)
        assert network.cut == cut
        assert torch.equal(network(rows, entering=network.lower(rows)), network(rows))


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
    save_weights(network, tmp_path, "peft")
    loaded = load_network(
        find_encoder(str(encoder)), TASK, tmp_path, weights="peft", precision="fp32", device=torch.device("cpu")
    )
    loaded.outer.load_adapter(tmp_path / "adapter", "other")
    for name, parameter in loaded.named_parameters():
        if ".other." in name:
            parameter.zero_()
    rows = random_rows()
    expected = network(rows)
    assert torch.equal(loaded(rows), expected)
    assert loaded(rows, adapter="other").abs().max() == 0
    assert loaded(rows).abs().max() == 0  # kept until another is named
    assert torch.equal(loaded(rows, adapter="default"), expected)
