"""Learning curve: what n-gram models and the encoder reach on 100, 300, 1,000 ... of the labels, all on the same examples.

Each size is a run of its own on a stratified subset of the training examples, which every larger one contains; validation and
held-out examples are the same for all. Nothing is fitted on a label outside of the subset, but for what validation chooses: the
checkpoint, the temperature, the weights of an n-gram expert.
"""

import math
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distilora.config.schema import RunConfig, TrainingConfig
from distilora.data.examples import Examples
from distilora.data.overlap import examples_digest
from distilora.data.parts import Parts, read_parts
from distilora.data.splits import nested_order
from distilora.errors import ConfigError, Interrupted, OutputError
from distilora.evaluation.baselines import fit_baselines, text_of
from distilora.evaluation.curve import summarise, write_curve
from distilora.progress import say
from distilora.runs.curve_folder import (
    SIZES,
    UPDATES,
    check_folder,
    curve_config,
    finished,
    identity_of,
    sizes_of,
    write_size,
    writing_curve,
)
from distilora.runs.expert import labelled, sampled
from distilora.runs.preflight import Checked, check_run
from distilora.runs.run import Run
from distilora.tasks.base import Outputs, Task
from distilora.tasks.metrics.names import metric_text
from distilora.training.processes import from_environment


@dataclass(frozen=True)
class _Curve:
    """What all sizes have in common."""

    checked: Checked
    folder: Path
    parts: Parts
    order: NDArray[np.int64]  # of the training examples: the first N are the subset of N labels
    measured: Examples  # the validation examples where none are held out
    updates: int


def learning_curve(
    config: RunConfig,
    folder: str | Path,
    sizes: Sequence[int | str] = SIZES,
    updates: int = UPDATES,
    task: Task | None = None,
    *,
    checked: Checked | None = None,
) -> dict[str, Any]:
    """Measure n-gram models and the encoder on subsets of the labels; return the contents of curve.json.

    Args:
        config: settings of a run; its folder and its test split are not used.
        folder: the curve's folder; sizes that are finished there with the same settings are not measured again.
        sizes: numbers of labels, or 'all'; larger ones than there are become all of them.
        updates: least number of updates of the encoder; on few labels it takes more epochs than the settings say.
        task: the task to train; None: the one that `config.task` names.
        checked: result of `preflight.check_run` for `curve_config(config, folder)`; None: it is called here.

    Raises ConfigError for settings that are no curve's, or of another curve in the folder; Interrupted when stopped; and what
    `train` raises.
    """
    folder = Path(folder)
    check_folder(folder, updates)
    if from_environment().count > 1:
        raise ConfigError("curve: runs in one process; start it without torchrun or accelerate launch")
    checked = checked or check_run(curve_config(config, folder), task, resume=True)
    task = checked.task
    if task.ngram_classes is None:
        raise ConfigError(f"task: {task.name} has no classes for an n-gram model to tell apart; give one that has")
    parts = read_parts(checked.config.data, task)
    strata = task.strata(parts.train.targets)
    wanted = sizes_of(tuple(sizes), len(parts.train), max(len(set(strata)), 2))
    measured = parts.validation if parts.read_test is None else parts.read_test()
    order = nested_order(strata, checked.config.data.seed)
    curve = _Curve(checked, folder, parts, order, measured, updates)
    with writing_curve(folder, identity_of(checked.config, updates, _digests(curve))):
        for size in wanted:
            rows = finished(folder)
            if size in rows:
                say(f"{size:,} labels: measured before")
                continue
            row = _measure(curve, size)
            write_size(folder, row)
            shutil.rmtree(folder / "training" / str(size), ignore_errors=True)
            figures = (f"{method['name']} {metric_text(method['metric'], method)}" for method in row["methods"])
            say(f"{size:,} labels: {', '.join(figures)}")
            write_curve(folder, _summary(curve))
        shutil.rmtree(folder / "training", ignore_errors=True)
        summary = _summary(curve)
        write_curve(folder, summary)
    return summary


def epochs_for(training: TrainingConfig, size: int, updates: int) -> int:
    """Compute the epochs on `size` examples: those of the settings, or as many as give `updates` updates."""
    return max(training.epochs, math.ceil(updates / math.ceil(size / training.update_size)))


def _measure(curve: _Curve, size: int) -> dict[str, Any]:
    """Train on the first `size` examples of the order, and measure every method."""
    folder, task = curve.folder / "training" / str(size), curve.checked.task
    resume = (folder / "checkpoints").is_dir()
    if not resume:
        shutil.rmtree(folder, ignore_errors=True)
    training = curve.checked.config.training
    training = replace(training, epochs=epochs_for(training, size, curve.updates))
    config = replace(curve.checked.config, output=str(folder), training=training)
    say(f"{size:,} labels: training for {training.epochs} epoch{'' if training.epochs == 1 else 's'}")
    with Run(config, resume=resume, checked=replace(curve.checked, config=config)) as run:
        run.read(curve.parts.only(curve.order[:size]))
        run.build()
        _fit(run)
        calibrate, items = run.fit_calibration(), curve.measured.items
        if curve.measured is curve.parts.validation:
            outputs = run.fitted.outputs
        else:
            tokens = task.tokenise(run.tokenizer, items, "tokenising heldout")
            outputs = run.outputs(tokens, "predicting heldout")
        targets = task.targets(items, run.tokenizer)
    expert = run.expert
    baselines = fit_baselines(task, sampled(labelled(run.parts)), None if expert is None else expert.baseline())
    texts = [text_of(example) for example in items]
    seconds = run.fitted.state.seconds
    logits: list[tuple[str, Outputs, float]] = [(each.name, each.logits(texts), each.seconds) for each in baselines]
    logits.append(("encoder", outputs / calibrate.temperature, seconds))
    if calibrate.expert is not None and expert is not None:
        logits.append(("combined", calibrate(outputs, items), seconds + expert.seconds))
    resamples = config.evaluation.bootstrap
    return {
        "size": size,
        "classes": task.counts(run.parts.train),
        "epochs": training.epochs,
        "updates": run.fitted.state.update,
        "best_update": run.fitted.state.best_update,
        "methods": [_figures(task, name, of_method, targets, took, resamples) for name, of_method, took in logits],
    }


def _fit(run: Run) -> None:
    """Train; what a stopped run says of going on is said of the curve."""
    try:
        run.fit()
    except (Interrupted, OutputError) as error:
        error.args = (re.sub(r"(with: )?distilora train --resume .*", "with the same command", str(error)),)
        raise


def _figures(
    task: Task, name: str, logits: Outputs, targets: Sequence[Any], seconds: float, resamples: int
) -> dict[str, Any]:
    """Measure a method by the task's first metric; `correct` has a digit for each example, by which methods are paired."""
    metrics = task.metrics(logits, targets, resamples)
    metrics.pop("figures", None)
    metric, measured = next(iter(metrics.items()))
    correct = "".join("1" if hit else "0" for hit in task.hits(logits, targets))
    return {"name": name, "metric": metric, **measured, "seconds": round(seconds, 2), "correct": correct}


def _digests(curve: _Curve) -> dict[str, str]:
    name = curve.checked.task.target_name
    parts = {
        "training data": curve.parts.train,
        "validation data": curve.parts.validation,
        "held-out data": curve.measured,
    }
    digests = {part: examples_digest(examples, name) for part, examples in parts.items()}
    return {"encoder": curve.checked.encoder.sha256, **digests}


def _summary(curve: _Curve) -> dict[str, Any]:
    config = curve.checked.config
    facts = {
        "task": curve.checked.task.name,
        "source": curve.parts.summary["source"],
        "encoder": curve.checked.encoder.name,
        "split": curve.measured.split,
        "examples": len(curve.measured),
        "validation": len(curve.parts.validation),
        "labels": len(curve.parts.train),
        "least_updates": curve.updates,
    }
    rows = list(finished(curve.folder).values())
    return summarise(rows, facts, curve.parts.notes, config, config.evaluation.bootstrap)
