"""Evaluation: metrics with intervals before and after the temperature, classes, slices, mistakes, predictions."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distilora.artifact import Artifact, read_artifact
from distilora.baseline import majority_baseline, verdict
from distilora.calibration import at_limit
from distilora.columns import measured_columns
from distilora.config import EvaluationConfig, MeasureConfig
from distilora.errors import DataError
from distilora.evaluation_folder import (
    choose_folder,
    data_name,
    evaluation_identity,
    make_folder,
    refuse_what_is_no_evaluation,
)
from distilora.examples import Examples, read_examples
from distilora.files import write_json
from distilora.full_disk import writing
from distilora.known_texts import examples_digest, seen_among, seen_file, target_name
from distilora.matching import matched
from distilora.progress import say
from distilora.slices import slice_metrics
from distilora.sources import Source, open_source
from distilora.tables import Record, write_table
from distilora.tasks import Task
from distilora.tasks.classification import Classification, check_columns
from distilora.tokens import Tokenised

EXCERPT = 600  # characters of a mistake's text


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
    trained: Mapping[str, int] | None = None,
) -> Measured:
    """Measure outputs [G, ...] of `examples`; `temperature` is the artifact's.

    `trained` counts the training examples of each label, for the majority baseline (see `majority_baseline`).
    """
    targets = examples.targets
    scaled = outputs / temperature
    metrics = task.metrics(scaled, targets, settings.bootstrap)
    figures = metrics.pop("figures", {})
    answers = task.decode(scaled, examples.items)
    result: dict[str, Any] = {
        "split": examples.split,
        "examples": len(examples),
        "blank_skipped": examples.skipped,
        "truncated": int(tokens.truncated.sum()),
        "temperature": temperature,
        "metrics": metrics,
        "slices": slice_metrics(task, examples, tokens, scaled),
        "labels": list(task.labels),
        "figures": figures,
    }
    if task.labels and "per_class" in figures:
        rows = figures.pop("per_class")
        result["classes"] = [{"label": label, **row} for label, row in zip(task.labels, rows, strict=True)]
        result["baseline"] = majority_baseline(result["classes"], trained)
        result["verdict"] = verdict(metrics, result["classes"], result["baseline"])
    if task.calibrated:
        raw = task.metrics(outputs, targets)
        result["temperature_at_limit"] = at_limit(temperature)
        result["before_temperature"] = {k: raw[k]["value"] for k in ("ece", "log_loss", "brier") if k in raw}
        result["mistakes"] = _mistakes(task, examples, answers, settings.mistakes)
    lengths = tokens.rows.group_lengths
    predictions = [
        {
            "split": examples.split,
            "place": example.place,
            "target": target_name(task, example.target),
            **answer,
            "tokens": int(lengths[i]),
            "truncated": bool(tokens.truncated[i]),
        }
        for i, (example, answer) in enumerate(zip(examples.items, answers, strict=True))
    ]
    return Measured(result, predictions)


def _mistakes(task: Task, examples: Examples, answers: Sequence[dict[str, Any]], most: int) -> list[dict[str, Any]]:
    wrong = [i for i, a in enumerate(answers) if a.get("label") != target_name(task, examples.items[i].target)]
    wrong.sort(key=lambda i: -answers[i]["score"])
    return [
        {
            "place": examples.items[i].place,
            "target": target_name(task, examples.items[i].target),
            "label": answers[i]["label"],
            "score": answers[i]["score"],
            "text": _excerpt(" ".join(examples.items[i].texts)),
        }
        for i in wrong[:most]
    ]


def _excerpt(text: str) -> str:
    return text if len(text) <= EXCERPT else f"{text[: EXCERPT // 2]} [...] {text[-EXCERPT // 2 :]}"


def evaluate(run: str | Path, config: MeasureConfig) -> tuple[dict[str, Any], Path]:
    """Measure a finished run on other labelled data; return the metrics and the folder with the report.

    Raises DataError naming the field (and row) at fault, ArtifactError if the run is not whole, ConfigError if the folder
    to write holds something else.
    """
    from distilora.lanes import run_rows
    from distilora.predict import Predictor, load
    from distilora.report import write_report
    from distilora.tokens import tokenise

    if config.output:
        refuse_what_is_no_evaluation(Path(config.output))
    artifact = read_artifact(run)
    source = open_source(config.data.path, config.data.name, config.data.revision, separator=config.data.separator)
    split = name = config.data.split
    if len(source.splits) == 1 and Path(config.data.path).is_file():
        split, name = source.splits[0], Path(config.data.path).stem
    predictor: Predictor = load(run, config.precision, config.device, config.encoder, config.base)
    matches: list[str] = []
    task, records = aligned(predictor.task, source, split, config, matches)
    examples = read_examples(records, task.read, predictor.clean, name, config.data.strict)
    precision = predictor.backend.precision
    digest = examples_digest(task, examples)
    identity = evaluation_identity(artifact, config, source.name, name, digest, precision)
    inside = (artifact.folder.parent / "run.yaml").is_file()  # else a merged model, which stays as it is
    home = artifact.folder.parent if inside else artifact.folder
    evaluations = home / "evaluations" if inside else home.with_name(f"{home.name}-evaluations")
    folder = choose_folder(config, evaluations, data_name(config, split), identity)
    tokens = tokenise(predictor.tokenizer, examples.items, f"tokenising {name}")
    outputs = run_rows(tokens.rows, predictor.backend, config.evaluation.token_budget, f"predicting {name}", True)
    trained = _trained_classes(home) if inside else None
    measured = measure(task, examples, tokens, outputs, artifact.temperature, config.evaluation, trained)
    notes = [source.note] if source.note else []
    notes += [*matches, *_other_columns(predictor.task, task), *_seen_in_training(artifact, examples)]
    summary = {
        "run": str(run),
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
        write_report(folder / "report.html", title, [measured.metrics], notes=notes, facts=facts)
        write_json(folder / "metrics.json", summary)
    return summary, folder


def _trained_classes(folder: Path) -> dict[str, int] | None:
    """The training examples of each label, from a run's metrics.json; None of a run that did not record them."""
    try:
        found = json.loads((folder / "metrics.json").read_text("utf-8"))["data"]["train_classes"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return found or None


def _other_columns(trained: Task, measured: Task) -> list[str]:
    """A note where text or label come from another column than in training."""
    if not isinstance(trained, Classification) or not isinstance(measured, Classification):
        return []
    pairs = {
        "Texts": (trained.text_column, measured.text_column),
        "Labels": (trained.label_column, measured.label_column),
    }
    return [
        f"{what} are read from column {now!r}; in training it was {then!r}."
        for what, (then, now) in pairs.items()
        if then is not None and then != now
    ]


def _seen_in_training(artifact: Artifact, examples: Examples) -> list[str]:
    """A note on how many of the texts the run was trained or chosen on, where its folder still knows them."""
    file = seen_file(artifact)
    count = int(seen_among(examples, file).sum()) if file else 0
    if not count:
        return []
    note = (
        f"{count:,} of these {len(examples):,} texts were trained or chosen on: on them the figures say how well they were "
        "learnt, not how well they are predicted."
    )
    say(f"warning: {note}")
    return [note]


def aligned(
    task: Task, source: Source, split: str, config: MeasureConfig, notes: list[str] | None = None
) -> tuple[Task, Iterator[Record]]:
    """The task set to this source's columns, and the records with the source's label names in place of its numbers.

    Where only the names differ, labels are matched by their place, and that is said aloud and to `notes`.
    Raises DataError naming the column at fault.
    """
    records = source.records(split, "data.split")
    if not isinstance(task, Classification):
        return task, records
    first = next(iter(source.records(split, "data.split")), None)
    if first is None:
        raise DataError(f"data.path: {source.name} {split} has no records; give another split")
    text, label = measured_columns(task, source, first.values, config.data)
    check_columns(text, label)
    matching = Classification(task.labels, text, label)
    names = source.label_names.get(label)
    return matching, matched(records, matching, names, source.name, [] if notes is None else notes)
