"""Every family of the table: found, adapted, saved, loaded, and computing what its Transformers class computes."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from support.families import CPU, FAMILIES, SETTINGS, TASK, build, random_rows
from support.tiny import tiny_config, write_tiny_encoder

from distilora.batching.rows import Rows
from distilora.errors import EncoderError
from distilora.model.build import load_network
from distilora.model.encoders.families import architecture
from distilora.model.encoders.find import Encoder, find_encoder, load_tokenizer
from distilora.model.network import Network
from distilora.model.weights import save_weights
from distilora.runs.resolve import resolve, say_what_is_used
from distilora.runs.run import train


@pytest.fixture(scope="module")
def encoders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Encoder]:
    """A tiny encoder of each family."""
    base = tmp_path_factory.mktemp("families")
    return {
        name: find_encoder(str(write_tiny_encoder(base / name, name, **SETTINGS.get(name, {})))) for name in FAMILIES
    }


def padded(rows: Rows, padding: int) -> dict[str, torch.Tensor]:
    ids = torch.full((len(rows), int(rows.lengths.max())), padding)
    mask = torch.zeros_like(ids)
    for i, length in enumerate(rows.lengths):
        ids[i, :length] = torch.from_numpy(rows.ids[rows.offsets[i] : rows.offsets[i + 1]].astype(np.int64))
        mask[i, :length] = 1
    return {"input_ids": ids, "attention_mask": mask}


def logits_of(network: Network, rows: Rows) -> torch.Tensor:
    """What the Transformers class itself gives, padded, by its own attention."""
    kernel = network.model.config._attn_implementation
    network.model.set_attn_implementation("eager")
    logits = network.outer(**padded(rows, network.padding_id)).logits
    network.model.set_attn_implementation(kernel)
    return logits


@pytest.mark.parametrize("name", FAMILIES)
@torch.no_grad()
def test_outputs_are_the_class_s_own_and_survive_saving(
    name: str, encoders: dict[str, Encoder], tmp_path: Path
) -> None:
    network = build(encoders[name])
    rows = random_rows(encoders[name].max_length)
    outputs = network(rows)
    assert outputs.std(0).min() > 1e-3  # rows are told apart
    logits = logits_of(network, rows)
    torch.testing.assert_close(outputs, logits, rtol=0.0, atol=1e-5)
    with network.outer.disable_adapter():
        assert (network(rows) - outputs).abs().max() > 1e-3  # the adapter matters

    save_weights(network, tmp_path, "peft")
    assert len(load_file(tmp_path / "adapter/adapter_model.safetensors")) == len(network.trained())
    loaded = load_network(encoders[name], TASK, tmp_path, weights="peft", precision="fp32", device=CPU)
    assert torch.equal(loaded(rows), outputs)


@pytest.mark.parametrize("name", FAMILIES)
def test_every_layer_of_the_head_is_trained_and_nothing_else(name: str, encoders: dict[str, Encoder]) -> None:
    network = build(encoders[name])
    trained = network.trained()
    for parameter in network.parameters():
        parameter.requires_grad_(True)
    network.architecture.head(network.model, torch.randn(2, 32)).sum().backward()
    used = {parameter_name for parameter_name, p in network.named_parameters() if p.grad is not None}
    assert used == {parameter_name for parameter_name in trained if "lora_" not in parameter_name}
    assert len(used) >= 4


@pytest.mark.parametrize("name", FAMILIES)
def test_last_blocks_adapts_only_the_upper_ones(name: str, encoders: dict[str, Encoder]) -> None:
    blocks = architecture(name).blocks
    everywhere = [n for n in build(encoders[name]).trained() if "lora_" in n]
    above = [n for n in build(encoders[name], last_blocks=1).trained() if "lora_" in n]
    assert all(f".{blocks}." in n for n in everywhere)
    assert above == [n for n in everywhere if f".{blocks}.1." in n]
    assert 2 * len(above) == len(everywhere)


@pytest.mark.parametrize("name", FAMILIES)
def test_targets_name_layers_of_a_block(name: str, encoders: dict[str, Encoder]) -> None:
    def layers(targets: str) -> int:
        return sum("lora_A" in n for n in build(encoders[name], targets=targets).trained())

    wqkv = name == "modernbert"
    assert (layers("query_value"), layers("attention"), layers("all")) == ((2, 4, 8) if wqkv else (4, 8, 12))


@pytest.mark.parametrize("name", FAMILIES)
def test_the_tokenizer_is_the_folder_s(name: str, encoders: dict[str, Encoder]) -> None:
    tokens = load_tokenizer(encoders[name]).encode("A superb film 12").tokens
    assert tokens == ["[CLS]", "a", "superb", "film", "1", "##2", "[SEP]"]


@torch.no_grad()
def test_modernbert_pooling_by_mean(tmp_path: Path) -> None:
    folder = write_tiny_encoder(tmp_path / "mean", "modernbert", classifier_pooling="mean", **SETTINGS["modernbert"])
    network = build(find_encoder(str(folder)))
    rows = random_rows(40)
    logits = logits_of(network, rows)
    torch.testing.assert_close(network(rows), logits, rtol=0.0, atol=1e-5)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_run_says_which_families_stay_padded(
    name: str, encoders: dict[str, Encoder], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tiny_config(tmp_path / "run", tmp_path / "reviews.csv", encoders[name].folder)
    say_what_is_used(resolve(config), encoders[name])
    said = f"note: {name} does not honour Transformers' attention registry" in capsys.readouterr().err
    assert said == (name in ("deberta-v2", "mpnet"))


def test_a_whole_run_of_bert(encoders: dict[str, Encoder], reviews: Path, tmp_path: Path) -> None:
    summary = train(tiny_config(tmp_path / "run", reviews, encoders["bert"].folder, adapter__last_blocks=1))
    assert summary["encoder"]["architecture"] == "bert"
    assert summary["round_trip"]["run_precision"]["largest_difference"] == 0
    assert summary["training"]["best_validation_loss"] < 0.65  # chance is 0.693
    saved = load_file(tmp_path / "run/model/adapter/adapter_model.safetensors")
    assert any("pooler" in key for key in saved)
    assert any("classifier" in key for key in saved)


def test_an_unknown_family_lists_those_there_are() -> None:
    with pytest.raises(EncoderError, match="'gpt2' is not supported; supported are distilbert, bert"):
        architecture("gpt2")
