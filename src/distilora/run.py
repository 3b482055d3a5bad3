"""A whole run, top to bottom: data, tokens, network, training, artifact, round trip, evaluation, report.

What it leaves in the run's folder:

    model/               the artifact, all that travels
    run.yaml             settings, resolved
    metrics.json         figures, data counts, costs
    predictions.parquet  every answer on validation and test
    environment.json     versions, processor, commit
    events/              curves for TensorBoard
    report.html          for people
    README.md            model card
    checkpoints/         the last two; removed when the run is finished
"""

import dataclasses
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from tokenizers import Tokenizer

from distilora import __version__, hardware
from distilora.artifact import Artifact, Check, check_examples, write_artifact
from distilora.backends.torch_backend import run_network
from distilora.calibration import fit_temperature
from distilora.card import model_card
from distilora.config import RunConfig, parse, read_recipe, to_tree
from distilora.data import Parts, read_parts, shared_copies
from distilora.encode import Network
from distilora.encoders import Encoder, find_encoder, load_tokenizer
from distilora.errors import ConfigError, RoundTripError
from distilora.evaluation import Measured, measure
from distilora.fit import Fitted, Labelled, fit
from distilora.network import new_network, save_adapter
from distilora.predict import run_rows
from distilora.progress import say
from distilora.report import write_report
from distilora.roundtrip import verify
from distilora.rows import Rows
from distilora.tables import atomic_text, write_json, write_table
from distilora.tasks import Task
from distilora.tokens import Tokenised, tokenise, with_truncation


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
        budget=config.evaluation.token_budget,
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
        sets[test.split] = test
    parts.summary["copies_between_splits"] = shared_copies(sets)
    clock.mark("evaluation")

    summary = _summary(config, encoder, parts, fitted, measured, train_tokens, parameters, round_trip, clock)
    _write_rest(folder, config, artifact, parts, encoder, fitted, measured, summary, tokenizer)
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
        device=device.type,
        precision=precision,
        token_budget=training.token_budget or (2048 if on_cpu else 32768),
        head_learning_rate=training.head_learning_rate or training.learning_rate,
        dropout=0.0 if training.dropout is None and on_cpu else training.dropout,
    )
    return dataclasses.replace(config, training=training, encoder=dataclasses.replace(encoder, attention=attention))


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


def _run(network: Network, rows: Rows, config: RunConfig, label: str = "") -> Any:
    backend = _Running(network.eval(), config.training.precision)
    return run_rows(rows, backend, config.evaluation.token_budget, label)


class _Running:
    """A network in memory as a backend."""

    def __init__(self, network: Network, precision: str) -> None:
        self.network, self.precision = network, precision

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
        token_budget=config.evaluation.token_budget,
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
    return run_rows(rows, _Running(exact.eval(), "fp32"), config.evaluation.token_budget)


def _verified(folder: Path, task: Task, device: str) -> dict[str, Any]:
    try:
        found = verify(folder / "model", task, device)
    except RoundTripError:
        shutil.rmtree(folder / "model.rejected", ignore_errors=True)
        (folder / "model").rename(folder / "model.rejected")
        raise
    say(f"round trip: a fresh process gives back the outputs of {found['texts']} texts")
    return found


def notes_for(config: RunConfig, parts: Parts) -> list[str]:
    """What a reader of the figures must know."""
    notes = [parts.summary["note"]] if parts.summary["note"] else []
    if parts.summary["test_split"] == "heldout":
        notes.append(
            "This is not the official test split. The final test is a stratified tenth held out of the training examples"
            if abs(config.data.heldout - 0.1) < 1e-9
            else f"This is not an official test split. The final test is {config.data.heldout:.0%} held out of the training examples"
        )
        notes[-1] += (
            f", and no value of {config.data.group_column} is on both sides."
            if config.data.group_column
            else ": exact and near copies are kept on one side, but reviews of one film may fall on both sides, so the "
            "figure is a little high. --data.group_column prevents that where a column names the film."
        )
    elif parts.read_test is None:
        notes.append(
            "There is no final test. The validation figures flatter: the checkpoint and the temperature were chosen on "
            "those examples."
        )
    for pair, counts in parts.summary["copies_between_splits"].items():
        if counts["exact or near"]:
            notes.append(
                f"Copies between {pair}: {counts['exact or near']} examples of the second have a copy in the first "
                f"({counts['exact']} of them exact)."
            )
    return notes


def _summary(
    config: RunConfig,
    encoder: Encoder,
    parts: Parts,
    fitted: Fitted,
    measured: Sequence[Measured],
    tokens: Tokenised,
    parameters: dict[str, Any],
    round_trip: dict[str, Any],
    clock: _Clock,
) -> dict[str, Any]:
    state = fitted.state
    return {
        "distilora": __version__,
        "task": parts.task.name,
        "encoder": encoder.describe(),
        "data": {**parts.summary, "train_split": config.data.train_split, "train_tokens": len(tokens.rows.ids)},
        "parameters": parameters,
        "training": {
            "updates": state.update,
            "planned_updates": fitted.updates,
            "stopped_early": fitted.stopped_early,
            "best_update": state.best_update,
            "best_validation_loss": state.best_loss,
            "seconds": round(state.seconds, 2),
            "examples_per_s": round(min(state.update * config.training.update_size,
                                        len(parts.train) * config.training.epochs) / max(state.seconds, 1e-9), 2),
            "precision": config.training.precision,
            "device": config.training.device,
            "history": state.history,
        },
        "round_trip": round_trip,
        "evaluations": [{k: v for k, v in m.metrics.items() if k != "mistakes"} for m in measured],
        "notes": notes_for(config, parts),
        "costs": clock.costs(),
    }  # fmt: skip


def _write_rest(
    folder: Path,
    config: RunConfig,
    artifact: Artifact,
    parts: Parts,
    encoder: Encoder,
    fitted: Fitted,
    measured: Sequence[Measured],
    summary: dict[str, Any],
    tokenizer: Tokenizer,
) -> None:
    splits = [m.metrics for m in measured]
    notes = summary["notes"]
    data, costs, counted = summary["data"], summary["costs"], summary["parameters"]
    write_table(folder / "predictions.parquet", [p for m in measured for p in m.predictions])
    write_report(
        folder / "report.html",
        f"{folder.name}: {encoder.name} on {data['source']}",
        splits,
        history=fitted.state.history,
        notes=notes,
        settings=yaml.safe_dump(to_tree(config), sort_keys=False, allow_unicode=True),
        facts={
            "examples": f"{data['train']:,} to train on, {data['validation']:,} to choose on",
            "read": f"{data['read']:,} records, {data['blank_skipped']} blank skipped, "
            f"{data['exact_copies_dropped']} exact copies dropped, {data['near_copies_kept_together']} pairs of near copies kept together",
            "trained parameters": f"{counted['trained']:,} of {counted['total']:,} ({counted['share']:.2%})",
            "best checkpoint": f"after update {fitted.state.best_update:,} of {fitted.updates:,}, by validation loss",
            "time": f"{costs['wall_s'] / 60:.1f} minutes ({costs['cpu_s'] / 60:.1f} CPU minutes), of which training and validation {fitted.state.seconds / 60:.1f}",
            "peak memory": f"{costs['peak_memory_mb']:,.0f} MB",
            "device and precision": f"{config.training.device}, {config.training.precision}",
            "round trip": f"{summary['round_trip']['texts']} texts given back by a fresh process",
        },
    )
    padding = tokenizer.id_to_token(int(encoder.config.get("pad_token_id") or 0)) or "[PAD]"
    card = model_card(str(folder), artifact, parts.task.labels, parts.task.outputs, padding, splits, notes, data)
    with atomic_text(folder / "README.md") as stream:
        stream.write(card)
    write_json(folder / "metrics.json", _finite(summary))


def _finite(value: Any) -> Any:
    """The value with floats that JSON cannot hold as null."""
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value
