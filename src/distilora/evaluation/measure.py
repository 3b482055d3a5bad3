"""Evaluation: metrics with intervals before and after the temperature, classes, slices, mistakes, predictions."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from distilora.artifact.format import Artifact, read_artifact
from distilora.batching.tokens import Tokenised
from distilora.config.schema import EvaluationConfig, MeasureConfig
from distilora.data.examples import Examples, read_examples
from distilora.data.overlap import examples_digest, seen_among, seen_file
from distilora.data.sources import open_source
from distilora.evaluation.folder import (
    choose_folder,
    data_name,
    evaluation_identity,
    make_folder,
    refuse_what_is_no_evaluation,
)
from distilora.evaluation.slices import slice_metrics
from distilora.files.atomic import write_json
from distilora.files.full_disk import writing
from distilora.files.tables import write_table
from distilora.progress import say
from distilora.tasks.base import Measurement, Task
from distilora.tasks.calibration import at_limit


@dataclass(frozen=True)
class Measured:
    """What one split gave: numbers for metrics.json, records for predictions.parquet."""

    metrics: dict[str, Any]
    predictions: list[dict[str, Any]]


def measure(
    task: Task,
    examples: Examples,
    tokens: Tokenised,
    outputs: NDArray[np.float32],
    temperature: float,
    settings: EvaluationConfig,
    tokenizer: Tokenizer,
    trained: Mapping[str, int] | None = None,
) -> Measured:
    """Measure outputs [G, ...] of `examples`, whose rows are `tokens`; `temperature` is the artifact's.

    `trained` are the task's counts of the training examples; None: not known.
    """
    targets = task.targets(examples.items, tokenizer)
    scaled = outputs / temperature
    metrics = task.metrics(scaled, targets, settings.bootstrap)
    figures = metrics.pop("figures", {})
    answers = task.decode(scaled, examples.items, tokenizer)
    result: dict[str, Any] = {
        "split": examples.split,
        "examples": len(examples),
        "blank_skipped": examples.skipped,
        "truncated": int(tokens.truncated.sum()),
        "temperature": temperature,
        "metrics": metrics,
        "slices": slice_metrics(task, examples, tokens, scaled, targets),
        "labels": list(task.labels),
        "figures": figures,
    }
    if task.calibrated:
        raw = task.metrics(outputs, targets)
        result["temperature_at_limit"] = at_limit(temperature)
        result["before_temperature"] = {k: raw[k]["value"] for k in ("ece", "log_loss", "brier") if k in raw}
    result |= task.findings(Measurement(examples, scaled, answers, metrics, figures, trained, settings.mistakes))
    lengths = tokens.rows.group_lengths
    predictions = [
        {
            "split": examples.split,
            "place": example.place,
            "target": task.target_name(example.target),
            **answer,
            "tokens": int(lengths[i]),
            "truncated": bool(tokens.truncated[i]),
        }
        for i, (example, answer) in enumerate(zip(examples.items, answers, strict=True))
    ]
    return Measured(result, predictions)


def evaluate(run: str | Path, config: MeasureConfig) -> tuple[dict[str, Any], Path]:
    """Measure a finished run on other labelled data; return the metrics and the folder with the report.

    Raises DataError naming the field (and row) at fault, ArtifactError if the run is not whole, ConfigError if the folder
    to write holds something else.
    """
    from distilora.evaluation.report import write_report
    from distilora.inference.lanes import run_rows
    from distilora.inference.predictor import Predictor, load

    if config.output:
        refuse_what_is_no_evaluation(Path(config.output))
    artifact = read_artifact(run)
    source = open_source(config.data.path, config.data.name, config.data.revision, separator=config.data.separator)
    split = name = config.data.split
    if len(source.splits) == 1 and Path(config.data.path).is_file():
        split, name = source.splits[0], Path(config.data.path).stem
    predictor: Predictor = load(run, config.precision, config.device, config.encoder, config.base)
    notes = [source.note] if source.note else []
    task, records = predictor.task.aligned_to(source, split, config.data, notes)
    examples = read_examples(records, task.read, predictor.clean, name, config.data.strict)
    precision = predictor.backend.precision
    digest = examples_digest(examples, task.target_name)
    identity = evaluation_identity(artifact, config, source.name, name, digest, precision)
    inside = (artifact.folder.parent / "run.yaml").is_file()  # else a merged model, which stays as it is
    home = artifact.folder.parent if inside else artifact.folder
    evaluations = home / "evaluations" if inside else home.with_name(f"{home.name}-evaluations")
    folder = choose_folder(config, evaluations, data_name(config, split), identity)
    tokens = task.tokenise(predictor.tokenizer, examples.items, f"tokenising {name}")
    outputs = run_rows(tokens.rows, predictor.backend, config.evaluation.token_budget, f"predicting {name}", True)
    trained = _trained_classes(home) if inside else None
    measured = measure(
        task, examples, tokens, outputs, artifact.temperature, config.evaluation, predictor.tokenizer, trained
    )
    notes += _seen_in_training(artifact, examples)
    summary = {
        "run": str(run),
        "task": task.name,
        "source": source.name,
        "encoder": artifact.encoder,
        "precision": precision,
        "base": config.base,
        "identity": identity,
        "notes": notes,
        "evaluation": measured.metrics,
    }
    make_folder(folder)
    title = f"{Path(run).name} on {source.name}, {name}"
    facts = {"encoder": artifact.encoder["name"], "precision": precision}
    facts |= {"base": identity["base"]} if identity["base"] else {}
    with writing(folder, "evaluate again"):
        write_table(folder / "predictions.parquet", measured.predictions)
        write_report(folder / "report.html", title, task, [measured.metrics], notes=notes, facts=facts)
        write_json(folder / "metrics.json", summary)
    return summary, folder


def _trained_classes(folder: Path) -> dict[str, int] | None:
    """The training examples of each label, from a run's metrics.json; None of a run that did not record them."""
    try:
        found = json.loads((folder / "metrics.json").read_text("utf-8"))["data"]["train_classes"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return found or None


def _seen_in_training(artifact: Artifact, examples: Examples) -> list[str]:
    """A note on how many of the texts the run was trained or chosen on, where its folder still knows them."""
    file = seen_file(artifact.folder)
    count = int(seen_among(examples, file).sum()) if file else 0
    if not count:
        return []
    note = (
        f"{count:,} of these {len(examples):,} texts were trained or chosen on: on them the figures say how well they were "
        "learnt, not how well they are predicted."
    )
    say(f"warning: {note}")
    return [note]
