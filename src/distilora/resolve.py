"""Decides what a run's settings leave open, for this machine, checks them against the encoder, and says what is used."""

import dataclasses
import importlib.util
import json
from pathlib import Path
from typing import cast

import torch

from distilora import hardware
from distilora.config import Device, RunConfig
from distilora.encoders import Encoder
from distilora.errors import ConfigError
from distilora.methods import METHODS
from distilora.progress import say
from distilora.settings import parse, read_recipe


def resume_config(folder: str | Path, threads: int | None = None) -> RunConfig:
    """The settings of an unfinished run, from its run.yaml, on other threads if a number is given.

    Raises ConfigError if there is none or it is finished.
    """
    folder = Path(folder)
    if (folder / "metrics.json").is_file():
        raise ConfigError(f"--resume: {folder} is finished; see its report.html")
    if not (folder / "run.yaml").is_file():
        raise ConfigError(f"--resume: {folder} holds no run; give the folder that the stopped run named")
    config = dataclasses.replace(parse(RunConfig, (), read_recipe(folder / "run.yaml")), output=str(folder))
    if threads is None:
        return config
    return dataclasses.replace(config, training=dataclasses.replace(config.training, threads=threads))


def resolve(config: RunConfig) -> RunConfig:
    """The settings with every null that the run decides decided for this machine."""
    training, encoder = config.training, config.encoder
    device = hardware.pick_device(training.device)
    precision = hardware.pick_precision(training.precision, device)
    on_cpu = device.type == "cpu"
    attention = encoder.attention
    if attention == "auto":
        attention = "packed"
    rate = training.learning_rate or METHODS[config.adapter.method].learning_rate
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


def check_lengths(config: RunConfig, encoder: Encoder) -> None:
    """Raises ConfigError for more tokens than the encoder reads."""
    if config.data.max_length > encoder.max_length:
        raise ConfigError(
            f"data.max_length: {config.data.max_length} given, but {encoder.name} reads {encoder.max_length} tokens; give fewer"
        )


def check_tracker(config: RunConfig) -> None:
    """Raises ConfigError if the tracker is not installed."""
    tracker = config.training.tracker
    if tracker != "none" and importlib.util.find_spec(tracker) is None:  # Accelerate would only warn, and log nothing
        raise ConfigError(f"training.tracker: {tracker} is not installed; pip install {tracker}, or set it to none")


def say_if_on_other_threads(folder: Path) -> None:
    """A note where the run in the folder was begun on another number of threads than PyTorch has now."""
    file = folder / "environment.json"
    if not file.is_file():  # stopped before its first update
        return
    before, now = json.loads(file.read_text("utf-8")).get("threads"), torch.get_num_threads()
    if before != now:
        say(f"note: this run was begun with threads: {before} and goes on with {now}: the last bits of its weights may differ; "
            f"--threads {before} keeps them")  # fmt: skip


def say_what_is_used(config: RunConfig, encoder: Encoder) -> None:
    """Encoder, device, precision, and what a user may not expect of them."""
    say(f"encoder: {encoder.name} ({encoder.source}, {encoder.config['model_type']})")
    if not encoder.architecture.attention_registry:
        say(f"note: {encoder.config['model_type']} does not honour Transformers' attention registry: rows stay padded")
    training, method = config.training, METHODS[config.adapter.method]
    threads = f", {torch.get_num_threads()} threads" if training.device == "cpu" else ""
    say(f"device: {training.device}{threads}, precision {training.precision}, attention {config.encoder.attention}")
    if method.quantised:
        say("note: qlora holds the blocks' weights in 4 bits, which on an encoder this small is little of what training takes, "
            "and widens them at each use: expect it to be slower than lora, not faster")  # fmt: skip
    assert training.learning_rate is not None  # resolved
    if training.learning_rate >= 10 * method.learning_rate:
        say(
            f"warning: training.learning_rate {training.learning_rate:g} is high for {method.phrase}; {method.learning_rate:g} "
            "is usual"
        )
