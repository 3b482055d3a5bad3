"""Checks, as the parity gate, that an exported model answers like the fp32 original on texts it was not trained on.

    agreement   share of the texts with the same label                   at least 99.5%
    lost        headline metric of the original minus the export's       at most 0.2 points

Every backend and precision of the export is measured on this processor; the fastest that passes becomes the default. The texts
are the run's validation texts (never a test split, since they decide on the default), or others with `--held-out`. Validation
texts are read again from the run's data and must be unchanged: by the digest in its metrics.json, or, for a run without one,
by seen_texts.npy and the validation rows of predictions.parquet.
"""

import json
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distilora.artifact.check import read_check
from distilora.artifact.format import Artifact
from distilora.batching.rows import Rows
from distilora.config.measuring import SourceConfig
from distilora.config.parse import parse, read_recorded
from distilora.config.schema import RunConfig
from distilora.data.cleaning import cleaning
from distilora.data.examples import Example, Examples, read_examples
from distilora.data.overlap import SEEN, examples_digest, seen_among, seen_file
from distilora.data.parts import read_parts
from distilora.data.sources import open_source
from distilora.errors import DataError, DistiloraError, ParityError
from distilora.files.tables import read_table
from distilora.hardware import cpu_name, flags, vnni
from distilora.inference.backends import Backend
from distilora.inference.lanes import run_rows
from distilora.inference.regate import LEAST_AGREEMENT, LEAST_SHARE
from distilora.progress import say
from distilora.tasks.base import Task
from distilora.tasks.cascade import least_texts

MOST_LOST = 0.2  # percentage points of the metric
SAMPLE = 1000  # held-out texts to measure on
FOR_CASCADE = 5000  # where there is an n-gram expert, and texts enough to bound what a cascade loses (tasks/cascade.py)
CALIBRATION = 32  # texts to calibrate int8 on
SETTING = re.compile(r"(?:--)?\bdata\.\w+(?:: )?")


@dataclass(frozen=True)
class HeldOut:
    """Labelled texts to measure on, and others, from short to long, to calibrate int8 on."""

    name: str
    examples: Examples
    calibration: list[Example]
    chosen_on: bool  # whether the run's checkpoint and temperature were chosen on these texts


def read_held_out(artifact: Artifact, task: Task, path: str | None) -> HeldOut:
    """Read the validation texts of the artifact's run, or the unseen texts of the source at `path`.

    Raises DataError if they cannot be read, if the run's data have changed since training, or if all texts were seen in
    training or validation.
    """
    if path:
        return _from_source(artifact, task, path)
    run = artifact.folder.parent
    advice = "; give labelled texts that it was not trained on with --held-out"
    if not (run / "run.yaml").is_file():
        raise DataError(
            f"--held-out: {artifact.folder} is not in its run's folder, which has the validation texts{advice}"
        )
    config = parse(RunConfig, (), read_recorded(str(run / "run.yaml")))
    try:
        parts = read_parts(config.data, task)
    except DistiloraError as error:
        raise DataError(f"--held-out: the run's validation texts cannot be read ({error}){advice}") from None
    source = parts.summary["source"]
    difference = _difference(run, task, parts.validation)
    if difference:
        raise DataError(f"--held-out: {source} is no longer what the run was trained on ({difference}){advice}")
    trained = sorted(parts.train.items, key=lambda example: sum(map(len, example.texts)))
    indices = np.unique(np.linspace(0, len(trained) - 1, CALIBRATION).round().astype(int))
    return HeldOut(
        f"validation texts of {source}", _sample(parts.validation, artifact), [trained[i] for i in indices], True
    )


def _from_source(artifact: Artifact, task: Task, path: str) -> HeldOut:
    """Read a source, without texts seen in training or validation unless it is the run's own validation split."""
    try:
        name, examples = _read_source(artifact, task, path)
    except DistiloraError as error:
        raise DataError(_reworded(str(error), task)) from None
    hashes = seen_file(artifact.folder)
    digest = examples_digest(examples, task.target_name)
    own = digest == _data_section(artifact.folder.parent).get("validation_digest")
    if hashes is None:
        say(
            "note: no file beside the model records its training texts; make sure that the held-out texts are not among them"
        )
    elif not own:
        seen = seen_among(examples, hashes)
        if seen.all():
            raise DataError(f"--held-out: all {len(examples):,} texts of {name} were trained or chosen on; give others")
        if seen.any():
            say(
                f"note: {int(seen.sum()):,} of the {len(examples):,} held-out texts were trained or chosen on: left out"
            )
        examples = examples.take(np.flatnonzero(~seen))
    return HeldOut(name, _sample(examples, artifact), read_check(artifact.folder).examples, own)


def _data_section(run: Path) -> dict[str, Any]:
    """Read the data section of a run's metrics.json; empty if there is none."""
    try:
        return dict(json.loads((run / "metrics.json").read_text("utf-8"))["data"])
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _difference(run: Path, task: Task, validation: Examples) -> str:
    """Describe how `validation` differs from the run's validation texts; return an empty string if it does not."""
    digest = _data_section(run).get("validation_digest")
    if digest is not None:
        return (
            "" if examples_digest(validation, task.target_name) == digest else "the validation texts or labels differ"
        )
    hashes, predictions = run / SEEN, run / "predictions.parquet"
    if not hashes.is_file() or not predictions.is_file():
        return f"or cannot be compared: {SEEN} or predictions.parquet is missing"
    unseen = int((~seen_among(validation, hashes)).sum())
    if unseen:
        return f"{unseen:,} of {len(validation):,} validation texts are new"
    # Places and labels identify the split: a training text has another place.
    recorded = [
        (Path(r.values["place"]).name, r.values["target"])
        for r in read_table(predictions)
        if r.values["split"] == "validation"
    ]
    current = [(Path(e.place).name, task.target_name(e.target)) for e in validation.items]
    return "" if recorded == current else "validation has other rows or other labels"


def _read_source(artifact: Artifact, task: Task, path: str) -> tuple[str, Examples]:
    source = open_source(path, setting="--held-out")
    split = next((name for name in ("validation", "test") if name in source.splits), source.splits[0])
    aligned, records = task.aligned_to(source, split, SourceConfig(path=path, split=split), [])
    step = cleaning(artifact.cleaning["name"], artifact.cleaning["version"])
    return f"{source.name}, {split}", read_examples(records, aligned, step, split, False)


def _reworded(message: str, task: Task) -> str:
    """Reword an error about labelled data for `--held-out`, which has no `data.` settings.

    The advice follows the last semicolon; if the message names such a setting, the advice is replaced.
    """
    message = message.removeprefix("--held-out: ")
    if SETTING.search(message):
        problem = SETTING.sub("", message.rpartition("; ")[0] or message)
        text, label = (task.text_column or "text", task.label_column or "label")
        message = f"{problem}; give texts in a column {text!r} with labels in a column {label!r}, as in training"
    return f"--held-out: {message}"


def _sample(examples: Examples, artifact: Artifact) -> Examples:
    """Draw SAMPLE examples, or FOR_CASCADE, with a fixed seed; keep all, with a note, if there are fewer."""
    if len(examples) < SAMPLE:
        say(f"note: {len(examples):,} held-out texts instead of {SAMPLE:,}: the figures are less certain")
    bounds = bool(artifact.lexicon) and len(examples) >= least_texts(1)
    indices = np.random.default_rng(0).permutation(len(examples))[: FOR_CASCADE if bounds else SAMPLE]
    return examples.take(np.sort(indices))


def gate(
    task: Task,
    source: str,
    targets: Sequence[Any],
    rows: Rows,
    original: NDArray[np.float32],
    candidates: Mapping[str, tuple[Callable[[], Backend], float]],
    accept_loss: bool,
    finish: Callable[[NDArray[np.float32]], NDArray[np.float32]] = lambda outputs: outputs,
) -> tuple[dict[str, Any], dict[str, NDArray[np.float32]]]:
    """Measure agreement, loss and speed of each candidate and choose the default.

    Returns the artifact's `parity`, and each candidate's outputs, [G, ...], as they are decoded.

    Args:
        source: name of the source of the held-out texts.
        targets: targets of the held-out texts, from `task.targets`.
        rows: rows of the held-out texts.
        original: outputs of the fp32 original, [G, ...], divided by the temperature.
        candidates: by name, a function that opens a backend, and the temperature to divide its outputs by.
        accept_loss: choose the fastest candidate as default if none passes.
        finish: turns outputs divided by the temperature into those that are decoded: adds an n-gram expert's logits.

    For a task without labels, which has no agreement, the largest difference may be 1% of the largest output.
    Raises ParityError if no candidate passes and `accept_loss` is not set.
    """
    original = finish(original)
    metric, original_value = task.headline(original, targets)
    figures: dict[str, dict[str, Any]] = {}
    answered: dict[str, NDArray[np.float32]] = {}
    for name, (open_candidate, temperature) in candidates.items():
        backend = open_candidate()
        run_rows(rows.take(range(min(rows.groups, 4))), backend)  # warm-up: kernels are compiled at the first call
        started = time.monotonic()
        outputs = run_rows(rows, backend, label=f"parity of {name}", lanes=True) / np.float32(temperature)
        seconds = time.monotonic() - started
        answered[name] = outputs = finish(outputs)
        agreement, value = task.agreement(outputs, original), task.headline(outputs, targets)[1]
        difference, lost = float(np.abs(outputs - original).max()), 100 * (original_value - value)
        if agreement is None:
            passed = difference <= LEAST_SHARE * float(np.abs(original).max())
        else:
            passed = agreement >= LEAST_AGREEMENT and lost <= MOST_LOST + 1e-9
        figures[name] = {
            "agreement": agreement, metric: value, "lost_points": lost, "largest_difference": difference,
            "texts_per_s": rows.groups / max(seconds, 1e-9), "passed": passed,
        }  # fmt: skip
    passing = [name for name in figures if figures[name]["passed"]] or (list(figures) if accept_loss else [])
    if not passing:
        name, failed = next(iter(figures.items()))
        raise ParityError(
            f"--to: {name} gives the fp32 original's label for {failed['agreement'] or 0:.2%} of {rows.groups:,} texts (at least "
            f"{LEAST_AGREEMENT:.1%} needed) and loses {failed['lost_points']:.2f} points of {metric} (at most {MOST_LOST}); "
            "nothing was written; --accept-loss writes it all the same"
        )
    default = max(passing, key=lambda name: figures[name]["texts_per_s"])
    parity = {
        "held_out": source,
        "texts": rows.groups,
        "metric": metric,
        "fp32": original_value,
        "candidates": figures,
        "default": default,
        "accepted_loss": not figures[default]["passed"],
        "processor": cpu_name(),
        "flags": flags(),
        "vnni": vnni(),
    }
    return parity, answered
