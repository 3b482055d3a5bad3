"""Hints: every one is accepted by the command it is given for; the names that other tools have are understood."""

import typing

import pytest

from distilora.cli.arguments import EVALUATE_OPTIONS, TRAIN_OPTIONS
from distilora.config.descriptions import stages
from distilora.config.hints import ALIASES, nearest
from distilora.config.measuring import MeasureConfig
from distilora.config.parse import parse
from distilora.config.schema import RunConfig
from distilora.errors import ConfigError

KNOWN = {
    config: {setting.key for stage in stages(config) for setting in stage.settings} for config in (RunConfig, MeasureConfig)
}  # fmt: skip
OPTIONS: dict[type, dict[str, str]] = {RunConfig: TRAIN_OPTIONS, MeasureConfig: EVALUATE_OPTIONS}
HINT = "; did you mean --"


def hint(flag: str, config: type) -> str | None:
    """What the error for an unknown flag says is meant."""
    with pytest.raises(ConfigError) as caught:
        parse(config, (flag, "1"), options=OPTIONS[config])
    message = str(caught.value)
    assert message.startswith(f"{flag}: there is no such setting; ")
    assert "\n" not in message
    return message.split(HINT)[1].removesuffix("?") if HINT in message else None


def accepted(config: type) -> set[str]:
    return KNOWN[config] | {
        option.split()[0].removeprefix("--") for option in OPTIONS[config] if option.startswith("--")
    }


@pytest.mark.parametrize("config", [RunConfig, MeasureConfig])
def test_every_hint_for_another_tools_name_is_accepted(config: type) -> None:
    hints = {alias: hint(f"--{alias}", config) for alias in ALIASES if alias not in accepted(config)}
    assert {alias: meant for alias, meant in hints.items() if meant is not None and meant not in accepted(config)} == {}
    assert config is MeasureConfig or None not in hints.values()


def test_every_alias_means_something() -> None:
    known = KNOWN[RunConfig] | KNOWN[MeasureConfig] | {"overwrite", "resume", "threads", "quiet", "workers"}
    assert {target for targets in ALIASES.values() for target in targets} <= known


@pytest.mark.parametrize("config", [RunConfig, MeasureConfig])
def test_every_setting_without_its_stage_or_with_a_slip_is_hinted_at(config: type) -> None:
    for key in KNOWN[config]:
        name = key.rsplit(".", 1)[-1]
        for flag in (name, name.replace("_", "-"), f"trainin.{name}", f"{key}s", key.replace("_", "-"), key.upper()):
            if flag in KNOWN[config]:
                continue
            meant = hint(f"--{flag}", config)
            assert meant in accepted(config), flag
        assert nearest(key.replace("_", "-"), KNOWN[config]) == key


@pytest.mark.parametrize(
    ("flag", "meant"),
    [
        ("lr", "training.learning_rate"),
        ("training.lr", "training.learning_rate"),  # not --training, which is a stage
        ("learning-rate", "training.learning_rate"),
        ("epochs", "training.epochs"),
        ("num_train_epochs", "training.epochs"),
        ("batch-size", "training.update_size"),
        ("per_device_train_batch_size", "training.update_size"),
        ("seed", "training.seed"),
        ("data.sed", "data.seed"),
        ("output_dir", "output"),
        ("max_length", "data.max_length"),
        ("max_seq_length", "data.max_length"),
        ("model", "encoder.name"),
        ("model_name_or_path", "encoder.name"),
        ("lora_r", "adapter.r"),
        ("lora_alpha", "adapter.alpha"),
        ("rank", "adapter.r"),
        ("adapter.rank", "adapter.r"),
        ("dataset", "data.path"),
        ("text_column", "data.text_column"),
        ("label_column", "data.label_column"),
        ("warmup", "training.warmup"),
        ("weight_decay", "training.weight_decay"),
        ("dropout", "training.dropout"),
        ("adapter.dropot", "adapter.dropout"),
        ("bf16", "training.precision"),
        ("device", "training.device"),
        ("ovewrite", "overwrite"),
        ("num_threads", "threads"),
        ("xyzzy", None),
    ],
)
def test_names_of_the_field(flag: str, meant: str | None) -> None:
    assert hint(f"--{flag}", RunConfig) == meant


def test_a_hint_is_one_of_the_commands_own() -> None:
    assert hint("--bf16", MeasureConfig) == "precision"
    assert hint("--model", MeasureConfig) == "encoder"
    assert hint("--batch_size", MeasureConfig) == "evaluation.token_budget"
    assert hint("--lr", MeasureConfig) is None
    assert hint("-lr", RunConfig) is not None


def test_nothing_is_like_nothing() -> None:
    assert nearest("lr", []) is None
    assert nearest("zzz", typing.get_type_hints(RunConfig)) is None
