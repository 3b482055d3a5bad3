"""A whole run, top to bottom: data, tokens, network, training, artifact, round trip, evaluation, report.

What it leaves in the run's folder:

    model/               the artifact, all that travels
    run.yaml             settings, resolved
    metrics.json         figures, data counts, costs
    predictions.parquet  every answer on validation and test
    environment.json     versions, processor, commit
    seen_texts.npy       hashes of the texts trained and chosen on, by which `evaluate` knows them again
    events/              curves for TensorBoard
    report.html          for people
    README.md            model card
    checkpoints/         the last two; removed when the run is finished
"""

import dataclasses
import importlib.util
import shutil
import time
from pathlib import Path
from typing import Any, cast

import torch
import yaml
from tokenizers import Tokenizer

from distilora import __version__, hardware
from distilora.artifact import Artifact, Check, check_examples, write_artifact
from distilora.backends.torch_backend import run_network
from distilora.calibration import fit_temperature
from distilora.config import Device, Precision, RunConfig
from distilora.data import Parts, read_parts, shared_copies
from distilora.duplicates import fingerprints
from distilora.encode import Network
from distilora.encoders import Encoder, find_encoder, load_tokenizer
from distilora.errors import ConfigError, RoundTripError
from distilora.evaluation import measure
from distilora.fit import Labelled, fit
from distilora.network import new_network, save_adapter
from distilora.outcome import Outcome, write_outcome
from distilora.predict import run_rows
from distilora.progress import say
from distilora.roundtrip import verify
from distilora.rows import Rows
from distilora.settings import parse, read_recipe, to_tree
from distilora.tables import atomic_text, write_json
from distilora.tasks import Task
from distilora.tokens import tokenise, with_truncation


def train(
    config: RunConfig, task: Task | None = None, *, overwrite: bool = False, resume: bool = False
) -> dict[str, Any]:
    """Runs everything and returns what metrics.json holds.

    Args:
        config: the settings; nulls are decided here and written to run.yaml.
        task: None for classification, set up from the data's columns and labels.
        overwrite: replace what a former run left in `config.output`.
        resume: go on from that folder's latest checkpoint.

    Raises ConfigError, DataError, EncoderError or MissingExtra for what is asked for and cannot be had, before
    anything is written; Interrupted when stopped; RoundTripError if the saved model does not give back its outputs.
    """
    clock = _Clock()
    folder = Path(config.output)
    _check_output(folder, overwrite, resume)
    config = resolve(config)
    encoder = find_encoder(config.encoder.name, config.encoder.revision)
    _check_lengths(config, encoder)
    _check_tracker(config)
    _say_what_is_used(config, encoder)

    parts = read_parts(config.data, task)
    tokenizer = with_truncation(load_tokenizer(encoder), config.data.max_length, config.data.truncation_side)
    train_tokens = tokenise(tokenizer, parts.train.items, "tokenising train")
    validation_tokens = tokenise(tokenizer, parts.validation.items, "tokenising validation")
    clock.mark("data")

    network = new_network(
        encoder, parts.task, config.adapter, precision=config.training.precision,
        device=torch.device(config.training.device), attention=config.encoder.attention,
        dropout=config.training.dropout, seed=config.training.seed,
    )  # fmt: skip
    parameters = _count(network)
    say(f"training {parameters['trained']:,} of {parameters['total']:,} parameters ({parameters['share']:.2%})")
    _claim(folder, config, overwrite and not resume)

    fitted = fit(
        network,
        Labelled(train_tokens.rows, parts.train.targets),
        Labelled(validation_tokens.rows, parts.validation.targets),
        config.training,
        folder,
        budget=_budget(config),
        resume=resume,
    )
    clock.mark("training")
    temperature = fit_temperature(fitted.outputs, parts.validation.targets) if parts.task.calibrated else 1.0
    artifact = _write_model(folder, config, encoder, parts, network, tokenizer, temperature)
    round_trip = _verified(folder, parts.task, config.training.device)
    clock.mark("saving and round trip")

    measured = [
        measure(parts.task, parts.validation, validation_tokens, fitted.outputs, temperature, config.evaluation)
    ]
    sets = {"train": parts.train, "validation": parts.validation}
    if parts.read_test is not None:
        test = parts.read_test()
        test_tokens = tokenise(tokenizer, test.items, f"tokenising {test.split}")
        outputs = _run(network, test_tokens.rows, config, f"predicting {test.split}")
        measured.insert(0, measure(parts.task, test, test_tokens, outputs, temperature, config.evaluation))
        sets["test"] = test
    parts.summary["copies_between_splits"] = shared_copies(sets)
    clock.mark("evaluation")

    padding = tokenizer.id_to_token(int(encoder.config.get("pad_token_id") or 0)) or "[PAD]"
    summary = write_outcome(
        folder,
        Outcome(
            config, encoder, artifact, padding, parts, len(train_tokens.rows.ids), parameters, fitted, round_trip, measured,
            fingerprints([" ".join(e.texts) for e in [*parts.train.items, *parts.validation.items]]), clock.costs(),
        ),
    )  # fmt: skip
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    return summary


def resume_config(folder: str | Path) -> RunConfig:
    """The settings of an unfinished run, from its run.yaml; raises ConfigError if there is none or it is finished."""
    folder = Path(folder)
    if (folder / "metrics.json").is_file():
        raise ConfigError(f"--resume: {folder} is finished; see its report.html")
    if not (folder / "run.yaml").is_file():
        raise ConfigError(f"--resume: {folder} holds no run; give the folder that the stopped run named")
    return dataclasses.replace(parse(RunConfig, (), read_recipe(folder / "run.yaml")), output=str(folder))


def resolve(config: RunConfig) -> RunConfig:
    """The settings with every null that the run decides decided for this machine."""
    training, encoder = config.training, config.encoder
    device = hardware.pick_device(training.device)
    precision = hardware.pick_precision(training.precision, device)
    on_cpu = device.type == "cpu"
    attention = encoder.attention
    if attention == "auto":
        attention = "eager" if on_cpu and precision == "bf16" else "sdpa"
    training = dataclasses.replace(
        training,
        device=cast(Device, device.type),
        precision=precision,
        token_budget=hardware.pick_token_budget(training.token_budget, device),
        head_learning_rate=training.head_learning_rate or training.learning_rate,
        dropout=0.0 if training.dropout is None and on_cpu else training.dropout,
    )
    budget = hardware.pick_token_budget(config.evaluation.token_budget, device)
    return dataclasses.replace(
        config,
        training=training,
        encoder=dataclasses.replace(encoder, attention=attention),
        evaluation=dataclasses.replace(config.evaluation, token_budget=budget),
    )


class _Clock:
    """Seconds of each stage."""

    def __init__(self) -> None:
        self.start = self.last = time.monotonic()
        self.cpu = time.process_time()
        self.stages: dict[str, float] = {}

    def mark(self, stage: str) -> None:
        now = time.monotonic()
        self.stages[stage] = round(now - self.last, 2)
        self.last = now

    def costs(self) -> dict[str, Any]:
        return {
            "wall_s": round(time.monotonic() - self.start, 2),
            "cpu_s": round(time.process_time() - self.cpu, 2),
            "stages_s": self.stages,
            "peak_memory_mb": round(hardware.peak_memory_mb(), 1),
        }


def _check_output(folder: Path, overwrite: bool, resume: bool) -> None:
    if resume or not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    if not folder.is_dir():
        raise ConfigError(f"output: {folder} is a file; give another folder")
    ours = (folder / "run.yaml").is_file()
    if overwrite and not ours:
        raise ConfigError(
            f"output: {folder} holds something other than a run and is not overwritten; give another folder"
        )
    if not overwrite:
        more = f", --overwrite, or --resume {folder}" if (folder / "checkpoints").is_dir() else " or --overwrite"
        raise ConfigError(f"output: {folder} is not empty; give another --output{more if ours else ''}")


def _claim(folder: Path, config: RunConfig, overwrite: bool) -> None:
    if overwrite and folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_text(folder / "run.yaml") as stream:
        yaml.safe_dump(to_tree(config), stream, sort_keys=False, allow_unicode=True)
    write_json(folder / "environment.json", hardware.environment())


def _check_lengths(config: RunConfig, encoder: Encoder) -> None:
    if config.data.max_length > encoder.max_length:
        raise ConfigError(
            f"data.max_length: {config.data.max_length} given, but {encoder.name} reads {encoder.max_length} tokens; give fewer"
        )


def _check_tracker(config: RunConfig) -> None:
    tracker = config.training.tracker
    if tracker != "none" and importlib.util.find_spec(tracker) is None:  # Accelerate would only warn, and log nothing
        raise ConfigError(f"training.tracker: {tracker} is not installed; pip install {tracker}, or set it to none")


def _say_what_is_used(config: RunConfig, encoder: Encoder) -> None:
    say(f"encoder: {encoder.name} ({encoder.source}, {encoder.config['model_type']})")
    if not encoder.architecture.attention_registry:
        say(f"note: {encoder.config['model_type']} does not honour Transformers' attention registry: rows stay padded")
    training = config.training
    threads = f", {torch.get_num_threads()} threads" if training.device == "cpu" else ""
    say(f"device: {training.device}{threads}, precision {training.precision}, attention {config.encoder.attention}")


def _count(network: Network) -> dict[str, Any]:
    trained = sum(p.numel() for p in network.trained().values())
    replaced = sum(p.numel() for name, p in network.named_parameters() if "original_module" in name)
    total = sum(p.numel() for p in network.parameters()) - replaced
    return {"trained": trained, "total": total, "share": trained / total}


def _budget(config: RunConfig) -> int:
    assert config.evaluation.token_budget is not None  # resolved
    return config.evaluation.token_budget


def _run(network: Network, rows: Rows, config: RunConfig, label: str = "") -> Any:
    return run_rows(rows, _Running(network.eval(), config.training.precision, _budget(config)), label=label)


class _Running:
    """A network in memory as a backend."""

    def __init__(self, network: Network, precision: Precision, token_budget: int) -> None:
        self.network, self.precision, self.token_budget = network, precision, token_budget

    def run(self, rows: Rows) -> Any:
        return run_network(self.network, rows, self.precision)


def _write_model(
    folder: Path,
    config: RunConfig,
    encoder: Encoder,
    parts: Parts,
    network: Network,
    tokenizer: Tokenizer,
    temperature: float,
) -> Artifact:
    examples = check_examples(parts.validation.items)
    rows = tokenise(tokenizer, examples).rows
    check = Check(examples, _run(network, rows, config), _fp32_outputs(config, encoder, parts.task, network, rows))

    def write_files(target: Path) -> None:
        tokenizer.save(str(target / "tokenizer.json"))
        save_adapter(network, target / "adapter")

    artifact = Artifact(
        task={"name": parts.task.name, "settings": dict(parts.task.settings)},
        cleaning={"name": parts.cleaning.name, "version": parts.cleaning.version},
        max_length=config.data.max_length,
        encoder=encoder.describe(),
        weights="peft",
        precision=config.training.precision,
        attention=config.encoder.attention,
        token_budget=_budget(config),
        temperature=temperature,
        distilora=__version__,
    )
    return write_artifact(folder / "model", artifact, write_files, check)


def _fp32_outputs(config: RunConfig, encoder: Encoder, task: Task, network: Network, rows: Rows) -> Any:
    """Outputs in fp32, from the encoder's own weights and the trained ones in memory, not through any saved file."""
    exact = new_network(
        encoder,
        task,
        config.adapter,
        precision="fp32",
        device=network.device,
        attention=config.encoder.attention,
        dropout=0.0,
    )
    trained = network.trained()
    with torch.no_grad():
        for name, parameter in exact.trained().items():
            parameter.copy_(trained[name])
    return run_rows(rows, _Running(exact.eval(), "fp32", _budget(config)))


def _verified(folder: Path, task: Task, device: Device) -> dict[str, Any]:
    try:
        found = verify(folder / "model", task, device)
    except RoundTripError:
        shutil.rmtree(folder / "model.rejected", ignore_errors=True)
        (folder / "model").rename(folder / "model.rejected")
        raise
    say(f"round trip: a fresh process gives back the outputs of {found['texts']} texts")
    return found
