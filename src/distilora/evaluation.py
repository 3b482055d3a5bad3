"""Evaluation: metrics with intervals before and after the temperature, slices, mistakes, predictions."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distilora.artifact import read_artifact
from distilora.config import EvaluationConfig, MeasureConfig
from distilora.duplicates import fingerprints
from distilora.errors import DataError
from distilora.examples import Examples, read_examples
from distilora.matching import matched
from distilora.progress import say
from distilora.sources import Source, open_source
from distilora.tables import Record, write_json, write_table
from distilora.tasks import Task
from distilora.tasks.classification import LABEL_COLUMNS, TEXT_COLUMNS, Classification, check_columns, find_column
from distilora.tokens import Tokenised

NEGATION = re.compile(
    r"\b(?:not|no|never|nothing|nobody|none|neither|nor|nowhere|cannot|without)\b|n['’]t\b", re.IGNORECASE
)
LENGTH_BINS = (0, 64, 128, 192, 256, 384, 512)  # tokens as read
SEEN = "seen_texts.npy"  # in a run's folder
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
) -> Measured:
    """Measures outputs [G, ...] of `examples`; `temperature` is the artifact's."""
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
        "slices": _slices(task, examples, tokens, scaled),
        "labels": list(task.labels),
        "figures": figures,
    }
    if task.calibrated:
        raw = task.metrics(outputs, targets)
        result["before_temperature"] = {k: raw[k]["value"] for k in ("ece", "log_loss", "brier") if k in raw}
        result["mistakes"] = _mistakes(task, examples, answers, settings.mistakes)
    lengths = tokens.rows.group_lengths
    predictions = [
        {
            "split": examples.split,
            "place": example.place,
            "target": _target(task, example.target),
            **answer,
            "tokens": int(lengths[i]),
            "truncated": bool(tokens.truncated[i]),
        }
        for i, (example, answer) in enumerate(zip(examples.items, answers, strict=True))
    ]
    return Measured(result, predictions)


def _slices(task: Task, examples: Examples, tokens: Tokenised, outputs: NDArray[np.float32]) -> list[dict[str, Any]]:
    """The headline metric on parts of the examples: by length, truncation and presence of negation."""
    lengths = tokens.rows.group_lengths
    negated = np.asarray([bool(NEGATION.search(" ".join(e.texts))) for e in examples.items])
    edges = [*LENGTH_BINS, int(lengths.max(initial=0)) + 1]
    parts = [
        (f"{low + 1}-{high} tokens", (lengths > low) & (lengths <= high)) for low, high in pairwise(edges) if high > low
    ]
    parts += [("truncated", tokens.truncated), ("read whole", ~tokens.truncated)]
    parts += [("with a negation", negated), ("without a negation", ~negated)]
    rows = []
    for name, inside in parts:
        index = np.flatnonzero(inside)
        if len(index):
            measured = task.metrics(outputs[index], [examples.items[i].target for i in index])
            headline = next(iter(measured))
            rows.append({"slice": name, "examples": len(index), "metric": headline, **measured[headline]})
    return rows


def _mistakes(task: Task, examples: Examples, answers: Sequence[dict[str, Any]], most: int) -> list[dict[str, Any]]:
    wrong = [i for i, a in enumerate(answers) if a.get("label") != _target(task, examples.items[i].target)]
    wrong.sort(key=lambda i: -answers[i]["score"])
    return [
        {
            "place": examples.items[i].place,
            "target": _target(task, examples.items[i].target),
            "label": answers[i]["label"],
            "score": answers[i]["score"],
            "text": _excerpt(" ".join(examples.items[i].texts)),
        }
        for i in wrong[:most]
    ]


def _excerpt(text: str) -> str:
    return text if len(text) <= EXCERPT else f"{text[: EXCERPT // 2]} [...] {text[-EXCERPT // 2 :]}"


def _target(task: Task, target: Any) -> Any:
    return task.labels[target] if task.labels and isinstance(target, int) else target


def evaluate(run: str | Path, config: MeasureConfig) -> tuple[dict[str, Any], Path]:
    """Measures a finished run on other labelled data; returns the metrics and the folder with the report.

    Raises DataError naming the field (and row) at fault, ArtifactError if the run is not whole.
    """
    from distilora.lanes import run_rows
    from distilora.predict import Predictor, load
    from distilora.report import write_report
    from distilora.tokens import tokenise

    artifact = read_artifact(run)
    source = open_source(config.data.path, config.data.name, config.data.revision)
    split = name = config.data.split
    if len(source.splits) == 1 and Path(config.data.path).is_file():
        split, name = source.splits[0], Path(config.data.path).stem
    predictor: Predictor = load(run, config.precision, config.device, config.encoder, config.base)
    matches: list[str] = []
    task, records = aligned(predictor.task, source, split, config, matches)
    examples = read_examples(records, task.read, predictor.clean, name, config.data.strict)
    tokens = tokenise(predictor.tokenizer, examples.items, f"tokenising {name}")
    outputs = run_rows(tokens.rows, predictor.backend, config.evaluation.token_budget, f"predicting {name}", True)
    measured = measure(task, examples, tokens, outputs, artifact.temperature, config.evaluation)
    inside = (artifact.folder.parent / "run.yaml").is_file()  # else a merged model, which stays as it is
    home = artifact.folder.parent if inside else artifact.folder
    evaluations = home / "evaluations" if inside else home.with_name(f"{home.name}-evaluations")
    folder = Path(config.output) if config.output else evaluations / name
    notes = [source.note] if source.note else []
    notes += [*matches, *_seen_in_training(home, examples)]
    summary = {
        "run": str(run),
        "source": source.name,
        "encoder": artifact.encoder,
        "precision": predictor.backend.precision,
        "base": config.base,
        "notes": notes,
        "evaluation": measured.metrics,
    }
    folder.mkdir(parents=True, exist_ok=True)
    write_table(folder / "predictions.parquet", measured.predictions)
    title = f"{Path(run).name} on {source.name}, {name}"
    facts = {"encoder": artifact.encoder["name"], "precision": predictor.backend.precision}
    write_report(folder / "report.html", title, [measured.metrics], notes=notes, facts=facts)
    write_json(folder / "metrics.json", summary)
    return summary, folder


def _seen_in_training(folder: Path, examples: Examples) -> list[str]:
    """A note on how many of the texts the run was trained or chosen on, where its folder still knows them."""
    if not (folder / SEEN).is_file():
        return []
    seen = np.load(folder / SEEN, allow_pickle=False)
    count = int(np.isin(fingerprints([" ".join(e.texts) for e in examples.items]), seen).sum())
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
    wanted = config.data.text_column or (task.text_column if task.text_column in first.values else None)
    text = find_column(first.values, wanted, TEXT_COLUMNS, "data.text_column")
    wanted = config.data.label_column or (task.label_column if task.label_column in first.values else None)
    label = find_column(first.values, wanted, LABEL_COLUMNS, "data.label_column")
    check_columns(text, label)
    matching = Classification(task.labels, text, label)
    names = source.label_names.get(label)
    return matching, matched(records, matching, names, source.name, [] if notes is None else notes)
