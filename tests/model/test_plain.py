"""A saved model in PyTorch's modules alone gives, bit for bit, what it gives in those of Transformers and PEFT."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from support.tiny import write_tiny_encoder

from distilora.batching.rows import rows_of
from distilora.config.schema import AdapterConfig
from distilora.errors import ArtifactError
from distilora.model.adapters.methods import METHODS
from distilora.model.build import load_merged, load_network, new_network
from distilora.model.encoders.families import ARCHITECTURES
from distilora.model.encoders.find import Encoder, find_encoder
from distilora.model.network import Network, run_network
from distilora.model.plain import PlainModel, plain_run
from distilora.model.weights import merge, save_weights
from distilora.tasks.classification import Classification

CPU = torch.device("cpu")
TASK = Classification(("bad", "fair", "good"), "text", "label")
SETTINGS: dict[str, dict[str, object]] = {
    "roberta": {"pad_token_id": 1, "layer_norm_eps": 1e-5},
    "electra": {"embedding_size": 16},
}
FAMILIES = [name for name, row in ARCHITECTURES.items() if row.parts is not None]
_rng = np.random.default_rng(0)
ROWS = rows_of([[_rng.integers(5, 50, length).tolist()] for length in (3, 11, 40, 6)])


@pytest.fixture(scope="module")
def encoders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Encoder]:
    base = tmp_path_factory.mktemp("families")
    return {
        name: find_encoder(str(write_tiny_encoder(base / name, name, **SETTINGS.get(name, {})))) for name in FAMILIES
    }


def saved(encoder: Encoder, folder: Path, precision: str = "fp32", **adapter: object) -> Network:
    """A network whose trained weights matter, saved to the folder."""
    settings = AdapterConfig(**{"r": 4, "alpha": 6.0, **adapter})
    network = new_network(encoder, TASK, settings, precision=precision, device=CPU, dropout=0.0).eval()
    torch.manual_seed(2)
    with torch.no_grad():
        for parameter in network.trained().values():
            parameter.add_(torch.randn_like(parameter), alpha=0.2)
    folder.mkdir(exist_ok=True)
    save_weights(network, folder, METHODS[settings.method].saved)
    return network


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize(
    "adapter",
    [{}, {"targets": "query_value", "last_blocks": 1}, {"method": "full"}, {"method": "full", "last_blocks": 1},
     {"method": "head"}],
    ids=str,
)  # fmt: skip
@pytest.mark.parametrize("name", FAMILIES)
def test_outputs_are_equal(
    name: str, adapter: dict[str, object], precision: str, encoders: dict[str, Encoder], tmp_path: Path
) -> None:
    trained = saved(encoders[name], tmp_path, precision, **adapter)
    weights = METHODS[str(adapter.get("method", "lora"))].saved
    loaded = {
        plain: load_network(
            encoders[name], TASK, tmp_path, weights=weights, precision=precision, device=CPU, plain=plain
        )
        for plain in (False, True)
    }
    assert isinstance(loaded[True].outer, PlainModel)
    assert not isinstance(loaded[False].outer, PlainModel)
    outputs = run_network(loaded[True], ROWS, precision)
    assert np.abs(outputs - outputs[0]).max() > 1e-3  # rows are told apart
    assert np.array_equal(outputs, run_network(loaded[False], ROWS, precision))
    assert np.array_equal(outputs, run_network(trained, ROWS, precision))


def test_a_merged_folder_and_an_encoder_with_the_names_of_the_first_years(
    encoders: dict[str, Encoder], tmp_path: Path
) -> None:
    network = saved(encoders["bert"], tmp_path / "run")
    outputs = run_network(network, ROWS, "fp32")
    merged = tmp_path / "merged"
    merge(network).save_pretrained(merged)
    for plain in (False, True):
        loaded = load_merged(merged, TASK, precision="fp32", device=CPU, plain=plain)
        assert isinstance(loaded.outer, PlainModel) == plain
        np.testing.assert_allclose(run_network(loaded, ROWS, "fp32"), outputs, atol=1e-5)

    file = merged / "model.safetensors"  # with a head, as a whole pretrained model has one
    old = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): tensor
        for name, tensor in load_file(file).items()
    }
    assert any(name.endswith("gamma") for name in old)
    save_file(old, file, metadata={"format": "pt"})
    loaded = load_merged(merged, TASK, precision="fp32", device=CPU, plain=True)
    assert isinstance(loaded.outer, PlainModel)
    np.testing.assert_allclose(run_network(loaded, ROWS, "fp32"), outputs, atol=1e-5)


@pytest.mark.parametrize(
    "change",
    [{"use_dora": True}, {"lora_bias": True}, {"init_lora_weights": "pissa"}, {"rank_pattern": {"q_lin": 2}},
     {"peft_type": "ADALORA"}, {"a_method_to_come": 1}],
    ids=str,
)  # fmt: skip
def test_what_is_not_exactly_lora_is_left_to_peft(
    change: dict[str, object], encoders: dict[str, Encoder], tmp_path: Path
) -> None:
    saved(encoders["distilbert"], tmp_path)
    assert plain_run(encoders["distilbert"], TASK, tmp_path, "peft", "packed") is not None
    config = tmp_path / "adapter/adapter_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | change))
    assert plain_run(encoders["distilbert"], TASK, tmp_path, "peft", "packed") is None


def test_rank_stabilised_scale(encoders: dict[str, Encoder], tmp_path: Path) -> None:
    saved(encoders["distilbert"], tmp_path)
    config = tmp_path / "adapter/adapter_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"use_rslora": True}))
    one, other = (
        load_network(encoders["distilbert"], TASK, tmp_path, weights="peft", precision="fp32", device=CPU, plain=plain)
        for plain in (False, True)
    )
    assert isinstance(other.outer, PlainModel)
    assert np.array_equal(run_network(one, ROWS, "fp32"), run_network(other, ROWS, "fp32"))


def test_padded_attention_another_activation_and_updates_elsewhere_are_left_to_transformers(
    encoders: dict[str, Encoder], tmp_path: Path
) -> None:
    saved(encoders["electra"], tmp_path, targets=("embeddings_project", "query"))
    assert plain_run(encoders["electra"], TASK, tmp_path, "peft", "packed") is None
    saved(encoders["distilbert"], tmp_path / "run")
    assert plain_run(encoders["distilbert"], TASK, tmp_path / "run", "peft", "eager") is None
    relu = find_encoder(str(write_tiny_encoder(tmp_path / "relu", activation="relu")))
    assert plain_run(relu, TASK, tmp_path / "run", "peft", "packed") is None


def test_a_missing_weight_is_an_error_and_not_a_random_layer(encoders: dict[str, Encoder], tmp_path: Path) -> None:
    saved(encoders["distilbert"], tmp_path, method="head")
    file = tmp_path / "delta/delta.safetensors"
    tensors = load_file(file)
    del tensors["classifier.bias"]
    save_file(tensors, file)
    assert plain_run(encoders["distilbert"], TASK, tmp_path, "delta", "packed") is None
    file.write_bytes(b"torn")
    with pytest.raises(ArtifactError, match="cannot be loaded"):
        load_network(encoders["distilbert"], TASK, tmp_path, weights="delta", precision="fp32", device=CPU, plain=True)


def test_a_saved_run_answers_without_transformers_or_peft(finished: Path) -> None:
    script = (
        "import sys; from distilora.cli.main import main; code = main(sys.argv[1:]); "
        "print(*sorted({'transformers', 'peft', 'accelerate', 'bitsandbytes', 'sklearn', 'torch._dynamo'} & set(sys.modules)))"
    )
    words = ["predict", str(finished), "a superb film", "--precision", "fp32"]
    done = subprocess.run([sys.executable, "-c", script, *words], capture_output=True, text=True, check=True)
    answer, loaded = done.stdout.split("\n")[:2]
    assert answer.startswith("pos")
    assert loaded == ""
