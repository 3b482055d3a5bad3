"""What is frozen, what is trained, in which precision; settings that do not fit are refused."""

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from support.tiny import tiny_config

from distilora.batching.rows import rows_of
from distilora.config.schema import AdapterConfig
from distilora.errors import ArtifactError, ConfigError, EncoderError
from distilora.model.build import load_network, new_network
from distilora.model.encoders.families import in_head
from distilora.model.encoders.find import Encoder, find_encoder
from distilora.model.network import Network
from distilora.model.weights import save_weights
from distilora.runs.resolve import resolve
from distilora.tasks.classification import Classification
from distilora.tasks.regression import Regression

CPU = torch.device("cpu")
TASK = Classification(("neg", "pos"), "text", "label")
ROWS = rows_of([[[2, 10, 11, 3]], [[2, 20, 21, 22, 23, 3]]])


@pytest.fixture(scope="module")
def tiny_encoder(encoder: Path) -> Encoder:
    return find_encoder(str(encoder))


def build(tiny_encoder: Encoder, precision: str = "fp32", dropout: float | None = 0.0, **adapter: object) -> Network:
    settings = AdapterConfig(**{"r": 4, **adapter})
    return new_network(tiny_encoder, TASK, settings, precision=precision, device=CPU, dropout=dropout)


def test_bf16_keeps_what_is_trained_in_fp32(tiny_encoder: Encoder, tmp_path: Path) -> None:
    network = build(tiny_encoder, "bf16")
    trained = network.trained()
    assert {p.dtype for p in trained.values()} == {torch.float32}
    assert {"lora_A", "lora_B", "classifier"} <= {part for name in trained for part in name.split(".")}
    frozen = {name: p.dtype for name, p in network.named_parameters() if name not in trained}
    in_fp32 = {name for name, dtype in frozen.items() if dtype == torch.float32}
    # what updates are added to, and the embeddings, of which few rows are read
    assert in_fp32 == {name for name in frozen if name.endswith("base_layer.weight") or ".embeddings." in name}
    assert {frozen[name] for name in frozen.keys() - in_fp32} == {torch.bfloat16}
    with torch.autocast("cpu", torch.bfloat16):
        TASK.loss(network(ROWS).float(), [0, 1]).sum().backward()
    assert {p.grad.dtype for p in trained.values() if p.grad is not None} == {torch.float32}
    save_weights(network, tmp_path, "peft")
    loaded = load_network(tiny_encoder, TASK, tmp_path, weights="peft", precision="bf16", device=CPU)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(loaded(ROWS), network.eval()(ROWS))
    assert torch.equal(
        dict(loaded.named_parameters())["outer.base_model.model.classifier.modules_to_save.default.weight"],
        trained["outer.base_model.model.classifier.modules_to_save.default.weight"],
    )


@torch.no_grad()
def test_a_fresh_adapter_changes_nothing_yet(tiny_encoder: Encoder) -> None:
    network = build(tiny_encoder).eval()
    fresh = network(ROWS)
    with network.outer.disable_adapter():
        plain = network.encode(ROWS).first()
    torch.testing.assert_close(network.encode(ROWS).first(), plain, rtol=0.0, atol=0.0)
    assert torch.equal(build(tiny_encoder).eval()(ROWS), fresh)  # the same seed, the same head
    other = new_network(tiny_encoder, TASK, AdapterConfig(r=4), precision="fp32", device=CPU, dropout=0.0, seed=1)
    assert not torch.equal(other.eval()(ROWS), fresh)


def test_dropout_is_off_by_default_on_a_cpu(
    encoder: Path, reviews: Path, tmp_path: Path, tiny_encoder: Encoder
) -> None:
    training = resolve(tiny_config(tmp_path / "run", reviews, encoder)).training
    assert training.dropout == 0.0
    with_dropout = resolve(tiny_config(tmp_path / "run", reviews, encoder, training__dropout=0.3)).training
    assert with_dropout.dropout == 0.3
    network = build(tiny_encoder, dropout=training.dropout).train()
    assert torch.equal(network(ROWS), network(ROWS))
    own = build(tiny_encoder, dropout=None).train()  # the encoder's own: 0.1
    assert not torch.equal(own(ROWS), own(ROWS))


def test_dropout_that_the_encoder_does_not_spell_out_is_off_too(encoder: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(encoder, tmp_path / "tiny")
    settings = json.loads((folder / "config.json").read_text())
    short = {key: value for key, value in settings.items() if "dropout" not in key}
    assert len(short) < len(settings)
    (folder / "config.json").write_text(json.dumps(short))
    network = build(find_encoder(str(folder))).train()
    assert {m.p for m in network.modules() if isinstance(m, torch.nn.Dropout)} == {0.0}
    assert torch.equal(network(ROWS), network(ROWS))


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"last_blocks": 3}, "adapter.last_blocks: 3 given, but the encoder has 2"),
        ({"targets": ("nosuch",)}, "adapter.targets: "),
        ({"targets": ("transformer",)}, "adapter.targets: "),
    ],
)
def test_adapters_that_do_not_fit(tiny_encoder: Encoder, settings: dict[str, object], named: str) -> None:
    with pytest.raises(ConfigError) as error:
        build(tiny_encoder, **settings)
    assert str(error.value).startswith(named)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("targets", "names"),
    [
        ("all", {"q_lin", "k_lin", "v_lin", "out_lin", "lin1", "lin2"}),
        ("attention", {"q_lin", "k_lin", "v_lin", "out_lin"}),
        ("query_value", {"q_lin", "v_lin"}),
        (("lin1",), {"lin1"}),
    ],
)
def test_targets(tiny_encoder: Encoder, targets: str | tuple[str, ...], names: set[str]) -> None:
    trained = build(tiny_encoder, targets=targets).trained()
    assert {name.split(".lora_")[0].rsplit(".", 1)[1] for name in trained if "lora_" in name} == names


def test_a_broken_adapter_is_named(tiny_encoder: Encoder, tmp_path: Path) -> None:
    save_weights(build(tiny_encoder), tmp_path, "peft")
    assert sorted(path.name for path in (tmp_path / "adapter").iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
    ]
    other = dataclasses.replace(tiny_encoder, config={**tiny_encoder.config, "n_layers": 1})
    with pytest.raises((ArtifactError, EncoderError)):
        load_network(
            other, Classification(("a", "b", "c"), "text", None), tmp_path, weights="peft", precision="fp32", device=CPU
        )
    assert load_file(tmp_path / "adapter/adapter_model.safetensors")
    (tmp_path / "adapter/adapter_model.safetensors").write_bytes(b"no")
    with pytest.raises((ArtifactError, EncoderError), match="cannot be loaded"):
        load_network(tiny_encoder, TASK, tmp_path, weights="peft", precision="fp32", device=CPU)


def test_a_pickled_adapter_is_never_opened(tiny_encoder: Encoder, tmp_path: Path) -> None:
    save_weights(build(tiny_encoder), tmp_path, "peft")
    weights = tmp_path / "adapter/adapter_model.safetensors"
    torch.save(load_file(weights), weights.with_suffix(".bin"))
    weights.unlink()
    with pytest.raises(ArtifactError, match=r"no adapter_model\.safetensors in adapter/"):
        load_network(tiny_encoder, TASK, tmp_path, weights="peft", precision="fp32", device=CPU)


@pytest.mark.parametrize("plain", [True, False])
@pytest.mark.parametrize(("method", "form"), [("full", "delta"), ("head", "delta"), ("lora", "peft")])
def test_a_head_lies_in_memory_as_it_was_trained(
    method: str, form: Any, plain: bool, tiny_encoder: Encoder, tmp_path: Path
) -> None:
    """Weights that are mapped from a file lie anywhere, and a head of one output then gives other last bits."""
    task = Regression("text", "label", 0.0, 1.0)
    network = new_network(tiny_encoder, task, AdapterConfig(method=method), precision="fp32", device=CPU)
    save_weights(network, tmp_path, form)
    loaded = load_network(tiny_encoder, task, tmp_path, weights=form, precision="fp32", device=CPU, plain=plain)
    head = {name: p for name, p in loaded.named_parameters() if in_head(name, tiny_encoder.architecture)}
    assert len(head) >= 4
    assert {name: p.data_ptr() % 64 for name, p in head.items()} == dict.fromkeys(head, 0)
    with torch.no_grad():
        assert torch.equal(loaded(ROWS), network.eval()(ROWS))
