"""The table of methods: what each trains, by which rates, and which settings do not go with it."""

from pathlib import Path

import pytest
import torch
from support.families import SETTINGS
from support.tiny import tiny_config, tiny_model_config
from transformers import AutoModelForSequenceClassification, PreTrainedModel

from distilora.cli.main import main
from distilora.config.schema import AdapterConfig, TrainingConfig
from distilora.errors import ConfigError
from distilora.model.adapters.methods import METHODS
from distilora.model.build import new_network
from distilora.model.encoders.families import ARCHITECTURES, Architecture, in_head
from distilora.model.encoders.find import Encoder, find_encoder
from distilora.model.network import Network
from distilora.runs.resolve import resolve, say_what_is_used
from distilora.tasks.classification import Classification
from distilora.training.optimizer import parameter_groups

TASK = Classification(("neg", "pos"), "text", "label")
LINEAR = ("attention.q_lin", "attention.k_lin", "attention.v_lin", "attention.out_lin", "ffn.lin1", "ffn.lin2")
HEAD = {f"{layer}.{part}" for layer in ("pre_classifier", "classifier") for part in ("weight", "bias")}
EMBEDDINGS = {
    "embeddings.word_embeddings.weight", "embeddings.position_embeddings.weight", "embeddings.LayerNorm.weight",
    "embeddings.LayerNorm.bias",
}  # fmt: skip


def block(number: int) -> set[str]:
    """A DistilBERT block's own parameters."""
    layers = (*LINEAR, "sa_layer_norm", "output_layer_norm")
    return {f"transformer.layer.{number}.{layer}.{part}" for layer in layers for part in ("weight", "bias")}


def low_rank(number: int) -> set[str]:
    """What LoRA adds to a block."""
    return {f"transformer.layer.{number}.{layer}.lora_{part}.default.weight" for layer in LINEAR for part in "AB"}


@pytest.fixture(scope="module")
def tiny_encoder(encoder: Path) -> Encoder:
    return find_encoder(str(encoder))


def build(tiny_encoder: Encoder, **adapter: object) -> Network:
    return new_network(
        tiny_encoder, TASK, AdapterConfig(**adapter), precision="fp32", device=torch.device("cpu"), dropout=0.0
    )


@pytest.mark.parametrize(
    ("settings", "inside"),
    [
        ({"method": "lora"}, low_rank(0) | low_rank(1)),
        ({"method": "lora", "last_blocks": 1}, low_rank(1)),
        ({"method": "qlora"}, low_rank(0) | low_rank(1)),
        ({"method": "qlora", "last_blocks": 1}, low_rank(1)),
        ({"method": "full"}, EMBEDDINGS | block(0) | block(1)),
        ({"method": "full", "last_blocks": 2}, block(0) | block(1)),
        ({"method": "full", "last_blocks": 1}, block(1)),
        ({"method": "head"}, set()),
    ],
)
def test_what_is_trained(tiny_encoder: Encoder, settings: dict[str, object], inside: set[str]) -> None:
    trained = set(build(tiny_encoder, **settings).trained())
    if settings["method"] in ("lora", "qlora"):
        around, head = "outer.base_model.model.", {name.replace(".", ".modules_to_save.default.") for name in HEAD}
    else:
        around, head = "outer.", HEAD
    assert trained == {f"{around}distilbert.{name}" for name in inside} | {f"{around}{name}" for name in head}


@pytest.mark.parametrize("method", METHODS)
def test_every_method_starts_from_the_same_head(tiny_encoder: Encoder, method: str) -> None:
    def head(method: str) -> list[torch.Tensor]:
        trained = build(tiny_encoder, method=method).trained()
        return [p for name, p in trained.items() if in_head(name, tiny_encoder.architecture)]

    assert all(torch.equal(ours, theirs) for ours, theirs in zip(head(method), head("lora"), strict=True))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("head_rate", [None, 3e-2])
def test_parameter_groups(tiny_encoder: Encoder, method: str, head_rate: float | None) -> None:
    trained = build(tiny_encoder, method=method).trained()
    config = TrainingConfig(learning_rate=1e-3, head_learning_rate=head_rate, weight_decay=0.1)
    groups = parameter_groups(trained, tiny_encoder.architecture, config)
    assert sorted(id(p) for group in groups for p in group["params"]) == sorted(map(id, trained.values()))
    of = {id(p): group for group in groups for p in group["params"]}
    for name, parameter in trained.items():
        assert of[id(parameter)]["peak"] == ((head_rate or 1e-3) if "classifier" in name else 1e-3), name
        vector = name.endswith("bias") or "norm" in name.lower()
        assert of[id(parameter)]["weight_decay"] == (0.0 if vector else 0.1), name


@pytest.fixture(params=ARCHITECTURES.values(), ids=ARCHITECTURES)
def family(request: pytest.FixtureRequest) -> Architecture:
    return request.param


def class_of(family: Architecture) -> PreTrainedModel:
    """The Transformers class around a family's tiny encoder."""
    config = tiny_model_config(family.model_type, **SETTINGS.get(family.model_type, {}))
    return AutoModelForSequenceClassification.from_config(config)


def opened(family: Architecture, **adapter: object) -> set[str]:
    """Names of what a method leaves open to training."""
    settings = AdapterConfig(**adapter)
    injected = METHODS[settings.method].inject(class_of(family), family, settings, 2)
    return {name for name, p in injected.named_parameters() if p.requires_grad}


def test_in_head_is_what_the_head_computes_with(family: Architecture) -> None:
    model = class_of(family)
    family.head(model, torch.randn(2, 32)).sum().backward()
    used = {name for name, p in model.named_parameters() if p.grad is not None}
    assert used == {name for name, _ in model.named_parameters() if in_head(name, family)}


def test_what_is_trained_in_every_family(family: Architecture) -> None:
    names = {name for name, _ in class_of(family).named_parameters()}
    head = {name for name in names if in_head(name, family)}
    assert opened(family, method="head") == head
    assert opened(family, method="full") == names
    assert opened(family, method="full", last_blocks=1) == head | {n for n in names if f".{family.blocks}.1." in n}
    adapted = opened(family, method="lora", r=2)
    assert {name for name in adapted if in_head(name, family)} == {name for name in adapted if "lora_" not in name}
    assert sum("lora_" not in name for name in adapted) == len(head)


@pytest.mark.parametrize(("method", "rate"), [("lora", 5e-4), ("qlora", 5e-4), ("full", 5e-5), ("head", 1e-3)])
def test_default_rates(method: str, rate: float, encoder: Path, reviews: Path, tmp_path: Path) -> None:
    def rates(**changes: object) -> tuple[float | None, float | None]:
        changes = {"adapter__method": method, "training__learning_rate": None, **changes}
        training = resolve(tiny_config(tmp_path / "run", reviews, encoder, **changes)).training
        return training.learning_rate, training.head_learning_rate

    assert rates() == (rate, rate)
    assert rates(training__learning_rate=0.02) == (0.02, 0.02)
    assert rates(training__head_learning_rate=0.03) == (rate, 0.03)
    assert rates(training__learning_rate=0.02, training__head_learning_rate=0.03) == (0.02, 0.03)


IMPOSSIBLE = [
    (
        {"method": "head", "last_blocks": 1},
        "adapter.last_blocks: 1 given",
        "set it to null, or use method lora or full",
    ),
    ({"method": "head", "dropout": 0.1}, "adapter.dropout: 0.1 given", "use training.dropout, or method lora"),
    ({"method": "full", "dropout": 0.1}, "adapter.dropout: 0.1 given", "use training.dropout, or method lora"),
    ({"method": "head", "targets": "attention"}, "adapter.targets: given", "use method lora"),
    ({"method": "full", "targets": "query_value"}, "adapter.targets: given", "narrow it with adapter.last_blocks"),
    ({"method": "full", "targets": ("q_lin",)}, "adapter.targets: given", "or use method lora"),
]


@pytest.mark.parametrize(("settings", "named", "fix"), IMPOSSIBLE)
def test_settings_that_do_not_go_with_the_method(
    settings: dict[str, object], named: str, fix: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ConfigError) as error:
        METHODS[settings["method"]].check(AdapterConfig(**settings))
    said = str(error.value)
    assert said.startswith(named)
    assert f"method {settings['method']}" in said
    assert fix in said
    assert "\n" not in said

    flags = {k: f"[{','.join(v)}]" if isinstance(v, tuple) else v for k, v in settings.items()}
    words = [word for key, value in flags.items() for word in (f"--adapter.{key}", str(value))]
    assert main(["train", *words, "--output", str(tmp_path / "run")]) == 2
    assert capsys.readouterr().err == f"distilora: {said}\n"
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("method", ["qlora", "full"])
def test_more_blocks_than_there_are(tiny_encoder: Encoder, method: str) -> None:
    with pytest.raises(ConfigError, match=r"^adapter\.last_blocks: 3 given, but the encoder has 2; give fewer$"):
        build(tiny_encoder, method=method, last_blocks=3)


@pytest.mark.parametrize(
    ("method", "rate", "warned"),
    [
        ("lora", 5e-3, True),
        ("lora", 4.9e-3, False),
        ("full", 5e-4, True),
        ("full", 4.9e-4, False),
        ("head", 9e-3, False),
    ],
)
def test_a_rate_that_is_high_for_the_method(
    method: str, rate: float, warned: bool, encoder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changes = {"adapter__method": method, "training__learning_rate": rate}
    config = tiny_config(tmp_path / "run", tmp_path / "reviews.csv", encoder, **changes)
    say_what_is_used(resolve(config), find_encoder(str(encoder)))
    said = f"warning: training.learning_rate {rate:g} is high for {METHODS[method].phrase}; "
    assert (f"{said}{METHODS[method].learning_rate:g} is usual\n" in capsys.readouterr().err) == warned
