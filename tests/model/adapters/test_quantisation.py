"""Four-bit blocks: what they hold and compute with, that nothing changes them, and what bitsandbytes must not do."""

import gc
import importlib.util
import json
import weakref
from pathlib import Path

import bitsandbytes as bnb
import pytest
import torch
from support.fresh import COMPARE, Done, Fresh
from support.tiny import tiny_config, tiny_model_config, write_tiny_encoder
from torch import nn
from torch.nn.functional import linear
from transformers import AutoModelForSequenceClassification

from distilora.artifact.format import read_artifact
from distilora.batching.rows import rows_of
from distilora.config.schema import AdapterConfig
from distilora.errors import ConfigError, MissingExtra
from distilora.hardware import pick_precision
from distilora.inference.predictor import load
from distilora.model.adapters.quantisation import check_device, dequantise, quantise, size, storage_of, widened
from distilora.model.build import BaseForm, new_network
from distilora.model.encoders.families import architecture
from distilora.model.encoders.find import Encoder, find_encoder
from distilora.model.network import Network, run_network
from distilora.runs.run import train
from distilora.tasks.classification import Classification
from distilora.training.memory import Meter

CPU = torch.device("cpu")
TASK = Classification(("neg", "pos"), "text", "label")
ROWS = rows_of([[[2, 10, 11, 3]], [[2, 20, 21, 22, 23, 3]]])
NF4 = [
    -1.0, -0.6961928, -0.5250731, -0.3949175, -0.2844414, -0.1847734, -0.0910500, 0.0,
    0.0795803, 0.1609302, 0.2461123, 0.3379152, 0.4407098, 0.5626170, 0.7229568, 1.0,
]  # fmt: skip
MISSING = "bitsandbytes is not installed; install it with: pip install 'distilora[qlora]'"
INSTEAD = "predict on the full-precision encoder with --base full (in Python: base='full')"
WIDE = {"dim": 64, "hidden_dim": 128}  # widths that bitsandbytes could repack, in whole blocks of 64


@pytest.fixture(scope="module")
def tiny_encoder(tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    return find_encoder(str(write_tiny_encoder(tmp_path_factory.mktemp("wide") / "encoder", **WIDE)))


def build(tiny_encoder: Encoder, precision: str = "fp32", base: BaseForm | None = None, **adapter: object) -> Network:
    """A qlora network whose adapter matters."""
    settings = AdapterConfig(**{"method": "qlora", "r": 4, **adapter})
    network = new_network(tiny_encoder, TASK, settings, precision=precision, device=CPU, dropout=0.0, base=base)
    torch.manual_seed(2)
    with torch.no_grad():
        for name, parameter in network.trained().items():
            if "lora_" in name:
                parameter.normal_(std=0.1)
    return network


def four_bits(network: Network) -> dict[str, bnb.nn.Linear4bit]:
    """The 4-bit layers by their names in the Transformers class."""
    modules = network.model.named_modules()
    return {n.removesuffix(".base_layer"): m for n, m in modules if isinstance(m, bnb.nn.Linear4bit)}


def originals(tiny_encoder: Encoder) -> dict[str, nn.Linear]:
    """The linear layers of the blocks as they are."""
    model = build(tiny_encoder, base="full", method="head").model
    layers = {name: layer for name, layer in model.named_modules() if isinstance(layer, nn.Linear)}
    return {name: layer for name, layer in layers.items() if "transformer.layer." in name}


def test_linear_layers_of_the_blocks_and_nothing_else(tiny_encoder: Encoder) -> None:
    network, full = build(tiny_encoder), build(tiny_encoder, base="full")
    expected = originals(tiny_encoder)
    assert set(four_bits(network)) == set(expected)
    assert len(expected) == 12
    plain = {name: p for name, p in network.named_parameters() if not hasattr(p, "quant_state")}
    assert {name.rsplit(".", 2)[1] for name in set(dict(full.named_parameters())) - set(plain)} == {"base_layer"}
    for name, parameter in full.named_parameters():
        if name in plain:  # embeddings, norms, biases, head, adapter
            assert torch.equal(plain[name], parameter), name
    assert {"word_embeddings", "LayerNorm", "output_layer_norm", "classifier"} <= {
        part for name in plain for part in name.split(".")
    }


def test_half_a_byte_a_weight(tiny_encoder: Encoder) -> None:
    network, full = build(tiny_encoder), build(tiny_encoder, base="full")
    layers = four_bits(network)
    bytes_stored = {name: [part.nbytes for part in storage_of(layer.weight)] for name, layer in layers.items()}
    for name, layer in originals(tiny_encoder).items():
        count = layer.weight.numel()
        assert layers[name].weight.dtype == torch.uint8
        assert bytes_stored[name][:2] == [count // 2, count // 64]  # the codes; a byte of scale for each block
        assert sum(bytes_stored[name]) < 4 * count / 2.9  # a table of 1 kB each, which only a tiny layer feels
        assert size(layers[name].weight) == count
    linears = sum(layer.weight.nbytes for layer in originals(tiny_encoder).values())
    saved = (linears - sum(map(sum, bytes_stored.values()))) / 1e6
    assert Meter(full).figures["weights_mb"] - Meter(network).figures["weights_mb"] == pytest.approx(saved)
    assert sum(map(size, network.parameters())) == sum(p.numel() for p in full.parameters())


def test_nothing_keeps_the_original_weights() -> None:
    model = AutoModelForSequenceClassification.from_config(tiny_model_config(**WIDE))
    layers = [layer for layer in model.distilbert.transformer.modules() if isinstance(layer, nn.Linear)]
    gone = [weakref.ref(layer.weight) for layer in layers]
    del layers
    quantise(model, architecture("distilbert"), "bf16")
    gc.collect()
    assert [weight() for weight in gone] == [None] * 12


def test_widened_is_what_the_four_bits_say(tiny_encoder: Encoder) -> None:
    expected = originals(tiny_encoder)
    for name, layer in four_bits(build(tiny_encoder)).items():
        state, weight = layer.weight.quant_state, widened(layer.weight)
        torch.testing.assert_close(state.code, torch.tensor(NF4), rtol=0.0, atol=1e-6)
        codes = torch.stack((layer.weight >> 4, layer.weight & 15), -1).reshape(-1, 64).long()
        scales = state.state2.code[state.absmax.long()] * state.state2.absmax + state.offset
        by_hand = scales[:, None] * torch.tensor(NF4)[codes]
        torch.testing.assert_close(weight, by_hand.reshape(weight.shape), rtol=1e-5, atol=1e-6)

        original = expected[name].weight.detach()
        off = (weight - original).abs().reshape(-1, 64)
        largest = original.abs().reshape(-1, 64).amax(1)
        assert (off.amax(1) < 0.16 * largest).all()  # half the widest gap of NF4 is 0.152
        assert off.mean() < 0.1 * original.abs().mean()
        assert off.mean() > 0.05 * original.abs().mean()  # four bits cannot do better

        assert weight.dtype == torch.float32
        assert torch.equal(
            layer(torch.eye(layer.in_features)), linear(torch.eye(layer.in_features), weight, layer.bias)
        )


def test_the_same_four_bits_every_time(tiny_encoder: Encoder) -> None:
    def bits(precision: str) -> list[torch.Tensor]:
        layers = four_bits(build(tiny_encoder, precision)).values()
        return [part.reshape(-1).view(torch.uint8) for layer in layers for part in storage_of(layer.weight)]

    first = bits("fp32")
    for precision in ("fp32", "bf16"):
        assert all(torch.equal(ours, theirs) for ours, theirs in zip(first, bits(precision), strict=True))
    for ours, theirs in zip(*(four_bits(build(tiny_encoder, p)).values() for p in ("fp32", "bf16")), strict=True):
        assert torch.equal(widened(ours.weight), widened(theirs.weight))


@torch.no_grad()
def test_dequantised_it_computes_the_same(tiny_encoder: Encoder) -> None:
    network, wide, full = (build(tiny_encoder, base=base).eval() for base in (None, "widened", "full"))
    assert not four_bits(wide)
    assert {p.dtype for p in wide.parameters()} == {torch.float32}
    torch.testing.assert_close(wide(ROWS), network(ROWS), rtol=0.0, atol=1e-5)
    assert (full(ROWS) - network(ROWS)).abs().max() > 1e-3

    model = AutoModelForSequenceClassification.from_config(tiny_model_config(**WIDE)).eval()
    quantise(model, architecture("distilbert"), "bf16")
    dequantise(model, architecture("distilbert"))
    kinds = {type(layer) for layer in model.modules() if isinstance(layer, nn.Linear)}
    assert kinds == {nn.Linear}
    assert not model.is_loaded_in_4bit
    assert {p.dtype for p in model.parameters()} == {torch.float32}


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("last_blocks", [None, 1])
def test_validation_changes_nothing(
    tiny_encoder: Encoder, precision: str, last_blocks: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    # There, without gradients, bitsandbytes would repack the weights and round their scales.
    monkeypatch.setattr("bitsandbytes.nn.modules.has_avx512bf16", lambda: True)
    network = build(tiny_encoder, precision, last_blocks=last_blocks)

    def outputs_and_gradients() -> list[torch.Tensor]:
        network.train().zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            outputs = network(ROWS)
        TASK.loss(outputs.float(), [0, 1]).sum().backward()
        return [outputs.detach(), *(p.grad.clone() for p in network.trained().values())]

    before = outputs_and_gradients()
    lowest = 0 if last_blocks is None else 1
    reached = [p for name, p in network.trained().items() if f".layer.{lowest}." in name and "lora_B" in name]
    assert len(reached) == 6
    assert all(p.grad.abs().max() > 0 for p in reached)
    validated = torch.from_numpy(run_network(network.eval(), ROWS, precision))
    assert torch.equal(validated, before[0].float())
    assert all(torch.equal(x, y) for x, y in zip(outputs_and_gradients(), before, strict=True))
    assert torch.equal(torch.from_numpy(run_network(network.eval(), ROWS, precision)), validated)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_what_computes_is_in_the_run_s_precision(tiny_encoder: Encoder, precision: str) -> None:
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    for layer in four_bits(build(tiny_encoder, precision)).values():
        assert {layer.compute_dtype, layer.weight.quant_state.dtype, layer.bias.dtype} == {dtype}


def test_mps_is_refused(tiny_encoder: Encoder) -> None:
    with pytest.raises(ConfigError) as error:
        check_device(torch.device("mps"))
    assert str(error.value) == "adapter.method: qlora does not run on mps; use lora, or --training.device cpu"
    with pytest.raises(ConfigError, match="does not run on mps"):
        new_network(tiny_encoder, TASK, AdapterConfig(method="qlora"), precision="fp32", device=torch.device("mps"))


def test_without_bitsandbytes_nothing_is_written(
    encoder: Path, reviews: Path, runs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "bitsandbytes" else there(name, *rest)
    )
    with pytest.raises(MissingExtra) as error:
        train(tiny_config(tmp_path / "run", reviews, encoder, adapter__method="qlora"))
    assert str(error.value) == MISSING
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(MissingExtra) as error:
        load(runs["qlora"])
    assert str(error.value) == f"{MISSING}, or {INSTEAD}"


@pytest.fixture(scope="module")
def trained(
    tmp_path_factory: pytest.TempPathFactory, encoder: Path, reviews: Path, fresh: Fresh
) -> dict[str, tuple[Path, Done]]:
    """Runs of a fresh process: their folders, and what it said."""
    base = tmp_path_factory.mktemp("trained")
    by_case = {}
    for method, precision in (("lora", "fp32"), ("qlora", "bf16")):
        flags = f"""
        --data.path {reviews} --data.max_length 64 --data.validation_size 40 --data.train_size 96
        --encoder.name {encoder} --adapter.method {method} --adapter.r 8 --training.epochs 1
        --training.learning_rate 0.004 --training.device cpu --training.precision {precision}
        --training.tracker none --evaluation.bootstrap 100 --output {base / method}
        """
        by_case[method] = (base / method, fresh("train", *flags.split()))
    return by_case


def offline(done: Done) -> Done:
    """A command that went well, and in which bitsandbytes did not look for its kernel on the Hub."""
    assert done.code == 0, done.err
    assert done.marks == set()
    assert "kernels-community" not in done.err
    return done


@pytest.mark.parametrize("method", ["lora", "qlora"])
def test_training_fetches_no_kernel(trained: dict[str, tuple[Path, Done]], method: str) -> None:
    offline(trained[method][1])


def test_prediction_fetches_no_kernel(trained: dict[str, tuple[Path, Done]], fresh: Fresh) -> None:
    offline(fresh("predict", trained["lora"][0], "superb"))


def test_export_fetches_no_kernel(trained: dict[str, tuple[Path, Done]], fresh: Fresh, tmp_path: Path) -> None:
    offline(fresh("export", trained["qlora"][0], "--to", "merged", "--output", tmp_path / "merged"))
    candidates = read_artifact(tmp_path / "merged").parity["candidates"]
    assert candidates["torch fp32"]["largest_difference"] <= 1e-5
    assert ("torch bf16" in candidates) == (pick_precision("auto", torch.device("cpu")) == "bf16")
    assert candidates.get("torch bf16", {"largest_difference": 0.0})["largest_difference"] < 0.1


def test_a_user_can_still_import_kernels(fresh: Fresh) -> None:
    lines = (
        "from distilora.model.adapters.quantisation import import_offline",
        "import_offline()",
        "import bitsandbytes, kernels",
    )
    done = fresh(code="\n".join((*lines, "assert callable(kernels.get_kernel)")))
    assert (done.code, done.err) == (0, "")
    assert done.marks == {"imported"}


@pytest.mark.parametrize("method", ["lora", "qlora"])
def test_memory_is_measured(trained: dict[str, tuple[Path, Done]], method: str) -> None:
    memory = json.loads((trained[method][0] / "metrics.json").read_text())["memory"]
    assert set(memory) == {"weights_mb", "gradients_mb", "optimizer_mb", "activations_mb", "peak_mb"}
    assert all(value > 0 for value in memory.values()), memory
    assert memory["peak_mb"] > memory["activations_mb"]


def test_a_bf16_run_reloads_bit_for_bit(trained: dict[str, tuple[Path, Done]], fresh: Fresh) -> None:
    folder, _ = trained["qlora"]
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["agreement"]["4bit"]["largest_difference"] == 0.0
    done = offline(fresh(folder, code=COMPARE))
    assert json.loads(done.out)["run_precision"] == {"precision": "bf16", "largest_difference": 0.0, "allowed": 0.0}


def test_where_bitsandbytes_is_not_installed(
    trained: dict[str, tuple[Path, Done]], runs: dict[str, Path], fresh: Fresh
) -> None:
    def predict(folder: Path, *words: str) -> Done:
        return fresh("predict", folder, "superb", "--json", *words, without=["bitsandbytes"])

    assert predict(runs["lora"]).code == 0
    folder, _ = trained["qlora"]
    done = predict(folder)
    assert (done.code, done.err) == (2, f"distilora: {MISSING}, or {INSTEAD}\n")
    done = predict(folder, "--base", "full")
    assert done.code == 0, done.err
    assert done.err.startswith("note: on the full-precision encoder instead of the 4-bit one of training; on 40 ")
    assert set(json.loads(done.out)) == {"text", "label", "score", "p_neg", "p_pos", "truncated", "abstain"}
