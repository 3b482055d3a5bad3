"""Whatever PEFT puts into the blocks, the network's outputs are those of PEFT's own forward pass, row by row."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, PeftType, get_peft_model
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
from peft.tuners.lora import config as lora_configs
from support.networks import TASK, network_of, random_rows

from distilora.config.schema import AdapterConfig
from distilora.errors import ArtifactError
from distilora.model.adapters.saved import BY_TOKEN
from distilora.model.build import load_network, new_network
from distilora.model.encoders.find import find_encoder
from distilora.model.network import Network
from distilora.model.quiet import quiet_libraries
from distilora.model.weights import save_weights

TARGETS = ["q_lin", "v_lin", "lin1", "lin2"]
LORA: dict[str, dict[str, Any]] = {  # those that are W + s B A
    "plain": {}, "rslora": {"use_rslora": True}, "pissa": {"init_lora_weights": "pissa"},
    "olora": {"init_lora_weights": "olora"}, "orthogonal": {"init_lora_weights": "orthogonal"},
    "patterns": {"rank_pattern": {"q_lin": 2}, "alpha_pattern": {"lin1": 11}}, "biases": {"bias": "all"},
    "tokens": {"trainable_token_indices": {"word_embeddings": [5, 6, 7]}},
    "embeddings": {"target_modules": ["word_embeddings", "q_lin"]},
}  # fmt: skip
NOT_LORA: dict[str, dict[str, Any]] = {
    "dora": {"use_dora": True}, "lora_bias": {"lora_bias": True}, "mica": {"init_lora_weights": "mica"},
    "norm saved": {"modules_to_save": ["sa_layer_norm"]},
    "layer saved": {"modules_to_save": ["ffn"], "target_modules": ["q_lin"]},
    "alora": {"alora_invocation_tokens": [5]}, "kasa": {"kasa_config": "KasaConfig"},
    "monteclora": {"monteclora_config": "MontecloraConfig"}, "velora": {"velora_config": "VeloraConfig"},
    "bdlora": {"use_bdlora": "BdLoraConfig"},
    "parameters": {"target_modules": ["q_lin"], "target_parameters": ["lin1.weight"]},
}  # fmt: skip
NEEDED: dict[str, dict[str, Any]] = {
    "ADALORA": {"total_step": 10}, "BOFT": {"boft_block_size": 4}, "C3A": {"block_size": 8}, "FOURIERFT": {"n_frequency": 20},
    "IA3": {"feedforward_modules": ["lin1", "lin2"]}, "LN_TUNING": {"target_modules": ["sa_layer_norm"]},
    "OFT": {"oft_block_size": 4, "r": 0}, "ROAD": {"group_size": 8},
    "TRAINABLE_TOKENS": {"token_indices": [5, 6, 7], "target_modules": ["word_embeddings"]},
    "VBLORA": {"num_vectors": 16, "vector_length": 16, "topk": 2}, "WAVEFT": {"n_frequency": 20},
}  # fmt: skip


def lora(settings: dict[str, Any]) -> LoraConfig:
    if "use_bdlora" in settings:
        patterns = {"target_modules_bd_a": ["lin1"], "target_modules_bd_b": ["q_lin"], "nblocks": 2}
        more = {"use_bdlora": lora_configs.BdLoraConfig(**patterns), "target_modules": ["q_lin", "lin1"]}
    else:
        more = {
            name: getattr(lora_configs, value)() if name.endswith("_config") else value
            for name, value in settings.items()
        }
    return LoraConfig(task_type="SEQ_CLS", **({"r": 4, "lora_alpha": 6, "target_modules": TARGETS} | more))


def other(kind: str) -> Any:
    config = PEFT_TYPE_TO_CONFIG_MAPPING[PeftType(kind)]
    fields = config.__dataclass_fields__
    settings = {name: value for name, value in (("target_modules", TARGETS), ("r", 4)) if name in fields}
    return config(task_type="SEQ_CLS", **(settings | NEEDED.get(kind, {})))


def adapted(encoder: Path, config: Any) -> Network:
    """The tiny encoder with what PEFT makes of it, every trained weight moved at random."""
    tiny_encoder = find_encoder(str(encoder))
    head = AdapterConfig(method="head")
    model = new_network(tiny_encoder, TASK, head, precision="fp32", device=torch.device("cpu"), dropout=0.0).model
    torch.manual_seed(1)
    with quiet_libraries():
        outer = get_peft_model(model, config)
    with torch.no_grad():
        for parameter in outer.parameters():
            if parameter.requires_grad and parameter.is_floating_point():
                parameter.add_(torch.randn_like(parameter) * 0.1)
    return Network(outer, tiny_encoder.architecture, TASK).eval()


def by_peft(network: Network) -> torch.Tensor:
    """Outputs by PEFT's own forward pass, each row alone."""
    network.model.set_attn_implementation("eager")
    rows = [torch.from_numpy(ids.astype(np.int64))[None] for ids in np.split(ROWS.ids, ROWS.offsets[1:-1])]
    logits = torch.cat([network.outer(input_ids=ids, attention_mask=torch.ones_like(ids)).logits for ids in rows])
    network.model.set_attn_implementation("distilora_packed")
    return logits


ROWS = random_rows()
CLOSE = {"rtol": 0.0, "atol": 5e-6}


@torch.no_grad()
@pytest.mark.parametrize(
    ("settings", "ours"),
    [pytest.param(settings, ours, id=name)
     for table, ours in ((LORA, True), (NOT_LORA, False)) for name, settings in table.items()],
)  # fmt: skip
def test_lora_and_its_variants(encoder: Path, settings: dict[str, Any], ours: bool) -> None:
    network = adapted(encoder, lora(settings))
    outputs = network(ROWS)
    assert network.computes_blocks == ours
    expected = by_peft(network)
    torch.testing.assert_close(outputs, expected, **CLOSE)
    with network.outer.disable_adapter():
        assert (by_peft(network) - expected).abs().max() > 1e-3  # the adapter does something


@torch.no_grad()
@pytest.mark.parametrize("kind", sorted(BY_TOKEN - {"LORA"}))
def test_other_tuners(encoder: Path, kind: str) -> None:
    network = adapted(encoder, other(kind))
    outputs = network(ROWS)
    assert network.computes_blocks == (kind == "TRAINABLE_TOKENS")  # of the embeddings alone
    expected = by_peft(network)
    torch.testing.assert_close(outputs, expected, **CLOSE)
    with network.outer.disable_adapter():
        assert (by_peft(network) - expected).abs().max() > 1e-3


@pytest.mark.parametrize("kind", sorted({kind.value for kind in PEFT_TYPE_TO_CONFIG_MAPPING} - BY_TOKEN))
def test_what_reads_whole_rows_or_wraps_the_model_is_refused(encoder: Path, tmp_path: Path, kind: str) -> None:
    tiny_encoder = find_encoder(str(encoder))
    network = new_network(
        tiny_encoder, TASK, AdapterConfig(r=4), precision="fp32", device=torch.device("cpu"), dropout=0.0
    )
    save_weights(network, tmp_path, "peft")
    settings = tmp_path / "adapter" / "adapter_config.json"
    config = json.loads(settings.read_text("utf-8"))
    settings.write_text(json.dumps({"peft_type": kind, "task_type": config["task_type"]}), "utf-8")
    with pytest.raises(ArtifactError, match=f"PEFT's {kind} is not an adapter that is supported"):
        load_network(tiny_encoder, TASK, tmp_path, weights="peft", precision="fp32", device=torch.device("cpu"))


def _both(network: Network) -> None:
    network.outer.add_adapter("second", lora({"target_modules": ["q_lin", "lin1"]}))
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if ".second." in name and "lora_" in name:
                parameter.normal_(std=0.2)
    for module in network.modules():
        if hasattr(module, "lora_A"):
            module.set_adapter(["default", "second"])


def _added_elsewhere(network: Network) -> None:
    """A second adapter on layers that had none, after the blocks were first used."""
    network(ROWS)
    network.outer.add_adapter("second", lora({"target_modules": ["out_lin"]}))
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if ".second." in name and "lora_" in name:
                parameter.normal_(std=0.2)
    network.outer.set_adapter("second")


def _hooked(network: Network) -> None:
    layer = network.model.base_model.transformer.layer[0].attention.q_lin
    layer.register_forward_hook(lambda module, inputs, result: result * 1.5)


def _merged_and_disabled(network: Network) -> None:
    network.outer.merge_adapter()
    network.outer.base_model.disable_adapter_layers()


@torch.no_grad()
@pytest.mark.parametrize(
    ("change", "ours"),
    [
        (_both, False), (_added_elsewhere, False), (_hooked, False), (_merged_and_disabled, False),
        (lambda network: network.outer.merge_adapter(), True),
        (lambda network: network.outer.base_model.disable_adapter_layers(), True),
    ],
    ids=["two at once", "added elsewhere", "hooked", "merged and disabled", "merged", "disabled"],
)  # fmt: skip
def test_adapters_changed_meanwhile(encoder: Path, change: Callable[[Network], None], ours: bool) -> None:
    network = adapted(encoder, lora({}))
    change(network)
    assert network.computes_blocks == ours
    outputs = network(ROWS)
    torch.testing.assert_close(outputs, by_peft(network), **CLOSE)


@torch.no_grad()
@pytest.mark.parametrize("settings", [{"use_dora": True}, {"lora_bias": True}], ids=str)
def test_variants_in_half_precision(encoder: Path, settings: dict[str, Any]) -> None:
    from distilora.model.build import _place

    network = _place(adapted(encoder, lora(settings)), "bf16", torch.device("cpu"))
    with torch.autocast("cpu", torch.bfloat16):
        outputs = network(ROWS)
    expected = by_peft(adapted(encoder, lora(settings)))
    assert (outputs - expected).abs().max() < 0.05 * expected.abs().max()


def test_a_network_of_ours_is_computed_by_our_blocks(encoder: Path) -> None:
    for settings in ({}, {"method": "qlora"}, {"method": "full"}, {"method": "head"}):
        assert network_of(encoder, **settings).computes_blocks
