"""Resolution of a run's settings: nulls decided for this machine, checked against the encoder, and reported."""

import dataclasses
import importlib.util
import json
from collections.abc import Collection
from pathlib import Path
from typing import Any, cast

from distilora import hardware
from distilora.config.parse import parse, read_recorded
from distilora.config.schema import RunConfig
from distilora.errors import ConfigError, MissingExtra
from distilora.hardware import Device
from distilora.model.adapters.methods import METHODS
from distilora.model.encoders.find import EMBEDDED, Encoder, weight_shapes
from distilora.progress import say

MUON_RATE = 2.5e-3  # its updates have the same size whatever the gradient's, so it does not depend on the method


def resume_config(folder: str | Path, threads: int | None = None) -> RunConfig:
    """Read the settings of an unfinished run from its run.yaml, with another number of `threads` if given.

    Raises ConfigError if there is no run or it is finished.
    """
    folder = Path(folder)
    if (folder / "metrics.json").is_file():
        raise ConfigError(f"--resume: {folder} is finished; see its report.html")
    if not (folder / "run.yaml").is_file():
        raise ConfigError(
            f"--resume: {folder} holds no run; give the folder that the stopped run named, or, if it was stopped before "
            "that had been written, start it again"
        )
    config = dataclasses.replace(parse(RunConfig, (), read_recorded(folder / "run.yaml")), output=str(folder))
    if threads is None:
        return config
    return dataclasses.replace(config, training=dataclasses.replace(config.training, threads=threads))


def with_absolute_paths(config: RunConfig) -> RunConfig:
    """Make the paths in the settings absolute, so that a run can be resumed from any working directory."""

    def absolute(name: str | None) -> str | None:
        if not name or name == EMBEDDED:
            return name
        try:
            path = Path(name).expanduser()
            return str(path.absolute()) if path.exists() else name  # a name on the Hub
        except (OSError, RuntimeError, ValueError):  # a name too long, an unknown user, a null character
            return name

    data = dataclasses.replace(
        config.data,
        path=cast(str, absolute(config.data.path)),
        test_path=absolute(config.data.test_path),
        unlabelled=absolute(config.data.unlabelled),
    )
    encoder = dataclasses.replace(config.encoder, name=cast(str, absolute(config.encoder.name)))
    return dataclasses.replace(config, init_from=absolute(config.init_from), data=data, encoder=encoder)


def resolve(config: RunConfig) -> RunConfig:
    """Decide for this machine every setting that may be left null or auto."""
    training, encoder = config.training, config.encoder
    device = hardware.pick_device(training.device)
    precision = hardware.pick_precision(training.precision, device)
    on_cpu = device.type == "cpu"
    attention = encoder.attention
    if attention == "auto":
        attention = "packed"
    rate = training.learning_rate or usual_rate(config)
    training = dataclasses.replace(
        training,
        device=cast(Device, device.type),
        precision=precision,
        token_budget=hardware.pick_token_budget(training.token_budget, device),
        learning_rate=rate,
        head_learning_rate=training.head_learning_rate or rate,
        dropout=0.0 if training.dropout is None and on_cpu else training.dropout,
    )
    budget = hardware.pick_token_budget(config.evaluation.token_budget, device)
    return dataclasses.replace(
        config,
        training=training,
        encoder=dataclasses.replace(encoder, attention=attention),
        evaluation=dataclasses.replace(config.evaluation, token_budget=budget),
    )


def check_method(config: RunConfig) -> None:
    """Raise ConfigError for settings that do not go with the run's method."""
    method = METHODS[config.adapter.method]
    method.check(config.adapter)
    if config.training.optimizer == "muon" and method.arithmetic is None:
        raise ConfigError(
            f"training.optimizer: muon given, but it is for low-rank updates, which method {method.name} has none of; give adamw"
        )


def usual_rate(config: RunConfig) -> float:
    """Return the peak learning rate that usually serves the method and the optimiser."""
    return MUON_RATE if config.training.optimizer == "muon" else METHODS[config.adapter.method].learning_rate


def check_given(config: RunConfig, flags: Collection[str], recipe: dict[str, Any]) -> None:
    """Raise ConfigError for a setting of `adapter` that the run's method does not read.

    Args:
        flags: dotted names of the settings given as flags; an unused one is refused whatever its value.
        recipe: the recipe's settings; default values are accepted, so that a run.yaml can serve as a recipe.
    """
    check_method(config)
    default = type(config.adapter)()
    stage = recipe.get("adapter") or {}
    for name in unused_settings(config):
        if f"adapter.{name}" in flags or (name in stage and stage[name] != getattr(default, name)):
            users = " or ".join(method.name for method in METHODS.values() if name in method.settings)
            raise ConfigError(
                f"adapter.{name}: given, but method {config.adapter.method} does not use it; drop it, or use method {users}"
            )


def unused_settings(config: RunConfig) -> list[str]:
    """List the settings of `adapter` that the run's method does not read."""
    read = ("method", "last_blocks", *METHODS[config.adapter.method].settings)
    return [field.name for field in dataclasses.fields(config.adapter) if field.name not in read]


def check_adapter(config: RunConfig, encoder: Encoder) -> None:
    """Raise ConfigError for layers or blocks that the encoder does not have, MissingExtra if the method lacks a package.

    The layers are identified by the names of the matrices in the encoder's files.
    """
    adapter, family = config.adapter, encoder.architecture
    if METHODS[adapter.method].quantised and importlib.util.find_spec("bitsandbytes") is None:
        raise MissingExtra("bitsandbytes", "qlora")
    if adapter.last_blocks is not None and adapter.last_blocks > encoder.blocks:
        raise ConfigError(
            f"adapter.last_blocks: {adapter.last_blocks} given, but the encoder has {encoder.blocks}; give fewer"
        )
    if "targets" in unused_settings(config) or not isinstance(adapter.targets, tuple):
        return
    layers = {name.removesuffix(".weight") for name, shape in weight_shapes(encoder).items() if len(shape) == 2}
    for target in adapter.targets:
        # Either name may lack its prefix: in the setting, or in a file of the base model alone.
        if target not in family.head_layers and not any(
            f".{layer}".endswith(f".{target}") or target.endswith(f".{layer}") for layer in layers
        ):
            raise ConfigError(
                f"adapter.targets: {target!r} given, but {encoder.name} has no such layer; choose from "
                f"{', '.join(family.targets('all'))}"
            )


def check_lengths(config: RunConfig, encoder: Encoder) -> None:
    """Raise ConfigError for more tokens than the encoder reads."""
    if config.data.max_length > encoder.max_length:
        raise ConfigError(
            f"data.max_length: {config.data.max_length} given, but {encoder.name} reads {encoder.max_length} tokens; give fewer"
        )


def check_tracker(config: RunConfig) -> None:
    """Raise ConfigError if the tracker is not installed."""
    tracker = config.training.tracker
    if tracker != "none" and importlib.util.find_spec(tracker) is None:  # Accelerate would only warn, and log nothing
        raise ConfigError(f"training.tracker: {tracker} is not installed; pip install {tracker}, or set it to none")


def say_if_on_other_threads(folder: Path) -> None:
    """Note that the run in the folder was begun on another number of threads than PyTorch has now."""
    file = folder / "environment.json"
    if not file.is_file():  # stopped before its first update
        return
    import torch

    before, now = json.loads(file.read_text("utf-8")).get("threads"), torch.get_num_threads()
    if before != now:
        say(f"note: this run was begun with threads: {before} and continues with {now}: the last bits of its weights may differ; "
            f"--threads {before} keeps them")  # fmt: skip


def say_what_is_used(config: RunConfig, encoder: Encoder) -> None:
    """Print the encoder, device and precision, and warn of what a user may not expect of them."""
    say(f"encoder: {encoder.name} ({encoder.source}, {encoder.config['model_type']})")
    if not encoder.architecture.attention_registry:
        say(f"note: {encoder.config['model_type']} does not honour Transformers' attention registry: rows stay padded")
    import torch

    training, method = config.training, METHODS[config.adapter.method]
    threads = f", {torch.get_num_threads()} threads" if training.device == "cpu" else ""
    say(f"device: {training.device}{threads}, precision {training.precision}, attention {config.encoder.attention}")
    if method.quantised:
        say(f"note: {method.name} keeps the blocks' weights in 4 bits, which on an encoder this small saves little of the "
            "training memory, and dequantises them at each use: expect it to be slower, not faster")  # fmt: skip
    default = type(config.adapter)()
    unused = [name for name in unused_settings(config) if getattr(config.adapter, name) != getattr(default, name)]
    if unused:
        names = ", ".join(f"adapter.{name}" for name in unused)
        say(f"warning: {names}: not used by method {method.name}")
    assert training.learning_rate is not None  # resolved
    usual = usual_rate(config)
    if training.learning_rate >= 10 * usual:
        say(
            f"warning: training.learning_rate {training.learning_rate:g} is high for {method.phrase}; {usual:g} "
            "is usual"
        )
