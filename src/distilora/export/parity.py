"""The parity gate: whether an exported model still answers like the fp32 original on texts it was not trained on.

    agreement   share of the texts with the same label          at least 99.5%
    lost        headline metric of the original minus its own    at most 0.2 points

Every backend and precision that the export offers is measured on this processor; the fastest that passes becomes the default.
The texts are the run's validation texts (a choice is made, so never a test split), or others with `--held-out`. Validation
texts are read again from the run's data and used only if unchanged: by the digest in its metrics.json, or, for a run without
one, by seen_texts.npy and the validation rows of predictions.parquet.
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
from distilora.config.parse import parse, read_recipe
from distilora.config.schema import RunConfig, SourceConfig
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

MOST_LOST = 0.2  # percentage points of the metric
SAMPLE = 1000  # held-out texts to judge by
CALIBRATION = 32  # texts to calibrate int8 on
SETTING = re.compile(r"(?:--)?\bdata\.\w+(?:: )?")


@dataclass(frozen=True)
class HeldOut:
    """Labelled texts to judge by, and others, from short to long, to calibrate on."""

    name: str
    examples: Examples
    calibration: list[Example]


def read_held_out(artifact: Artifact, task: Task, path: str | None) -> HeldOut:
    """Read the validation texts of the artifact's run again, or the unseen texts of the source at `path`.

    Raises DataError if they cannot be read, if the run's data have changed since training, or if the run has seen all of
    the texts.
    """
    if path:
        return _from_source(artifact, task, path)
    run = artifact.folder.parent
    advice = "; give labelled texts that it was not trained on with --held-out"
    if not (run / "run.yaml").is_file():
        raise DataError(
            f"--held-out: {artifact.folder} is not in its run's folder, which has the validation texts{advice}"
        )
    config = parse(RunConfig, (), read_recipe(str(run / "run.yaml")))
    try:
        parts = read_parts(config.data, task)
    except DistiloraError as error:
        raise DataError(f"--held-out: the run's validation texts cannot be read ({error}){advice}") from None
    source = parts.summary["source"]
    changed = _difference(run, task, parts.validation)
    if changed:
        raise DataError(f"--held-out: {source} is no longer what the run was trained on ({changed}){advice}")
    trained = sorted(parts.train.items, key=lambda example: sum(map(len, example.texts)))
    chosen = np.unique(np.linspace(0, len(trained) - 1, CALIBRATION).round().astype(int))
    return HeldOut(f"validation texts of {source}", _sample(parts.validation), [trained[i] for i in chosen])


def _from_source(artifact: Artifact, task: Task, path: str) -> HeldOut:
    """Read a source without the texts that the run was trained or chosen on; the run's own validation split is kept whole."""
    try:
        name, examples = _read_source(artifact, task, path)
    except DistiloraError as error:
        raise DataError(_of_held_out(str(error), task)) from None
    hashes = seen_file(artifact.folder)
    if hashes is None:
        say("note: no file beside the model records its training texts: make sure that these are others")
    elif examples_digest(examples, task.target_name) != _recorded(artifact.folder.parent).get("validation_digest"):
        seen = seen_among(examples, hashes)
        if seen.all():
            raise DataError(f"--held-out: all {len(examples):,} texts of {name} were trained or chosen on; give others")
        if seen.any():
            say(
                f"note: {int(seen.sum()):,} of the {len(examples):,} held-out texts were trained or chosen on: left out"
            )
        examples = examples.take(np.flatnonzero(~seen))
    return HeldOut(name, _sample(examples), read_check(artifact.folder).examples)


def _recorded(run: Path) -> dict[str, Any]:
    """Read the data section of a run's metrics.json; empty if there is none."""
    try:
        return dict(json.loads((run / "metrics.json").read_text("utf-8"))["data"])
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _difference(run: Path, task: Task, validation: Examples) -> str:
    """Say how validation texts read again differ from those the run chose on; return an empty string if they do not."""
    digest = _recorded(run).get("validation_digest")
    if digest is not None:
        return (
            "" if examples_digest(validation, task.target_name) == digest else "the validation texts or labels differ"
        )
    hashes, predictions = run / SEEN, run / "predictions.parquet"
    if not hashes.is_file() or not predictions.is_file():
        return f"or cannot be compared: {SEEN} or predictions.parquet is missing"
    new = int((~seen_among(validation, hashes)).sum())
    if new:
        return f"{new:,} of {len(validation):,} validation texts are new"
    # Places and labels pin the split: a training text would have another place.
    then = [
        (Path(r.values["place"]).name, r.values["target"])
        for r in read_table(predictions)
        if r.values["split"] == "validation"
    ]
    now = [(Path(e.place).name, task.target_name(e.target)) for e in validation.items]
    return "" if then == now else "validation has other rows or other labels"


def _read_source(artifact: Artifact, task: Task, path: str) -> tuple[str, Examples]:
    source = open_source(path, setting="--held-out")
    split = next((name for name in ("validation", "test") if name in source.splits), source.splits[0])
    aligned, records = task.aligned_to(source, split, SourceConfig(path=path, split=split), [])
    clean = cleaning(artifact.cleaning["name"], artifact.cleaning["version"]).clean
    return f"{source.name}, {split}", read_examples(records, aligned.read, clean, split, False)


def _of_held_out(message: str, task: Task) -> str:
    """Reword an error of reading labelled data for `--held-out`, which has no `data.` settings.

    A message's advice follows its last semicolon; advice on such a setting is replaced.
    """
    message = message.removeprefix("--held-out: ")
    if SETTING.search(message):
        what = SETTING.sub("", message.rpartition("; ")[0] or message)
        text, label = (task.text_column or "text", task.label_column or "label")
        message = f"{what}; give texts in a column {text!r} with labels in a column {label!r}, as in training"
    return f"--held-out: {message}"


def _sample(examples: Examples) -> Examples:
    """Draw SAMPLE examples by a fixed seed; keep all, with a note, if there are fewer."""
    if len(examples) < SAMPLE:
        say(f"note: {len(examples):,} held-out texts instead of {SAMPLE:,}: the figures are less certain")
    chosen = np.random.default_rng(0).permutation(len(examples))[:SAMPLE]
    return examples.take(np.sort(chosen))


def gate(
    task: Task,
    source: str,
    targets: Sequence[Any],
    rows: Rows,
    original: NDArray[np.float32],
    candidates: Mapping[str, tuple[Callable[[], Backend], float]],
    accept_loss: bool,
) -> dict[str, Any]:
    """Measure each candidate's agreement, loss and speed, and choose the default: the artifact's `parity`.

    Args:
        source: name of the held-out texts' source.
        targets, rows, original: the held-out texts' targets from `task.targets`, their rows, and the fp32 original's outputs,
            [G, ...], divided by the temperature.
        candidates: by name, a function that opens a backend, and the temperature its outputs are still to be divided by.
        accept_loss: whether to choose the fastest as default if none passes.

    A task without labels has no agreement; its largest difference counts instead, at most 1% of the largest output.
    Raises ParityError if none passes and `accept_loss` is not set.
    """
    metric, original_value = task.headline(original, targets)
    measured: dict[str, dict[str, Any]] = {}
    for name, (open_candidate, temperature) in candidates.items():
        backend = open_candidate()
        run_rows(rows.take(range(min(rows.groups, 4))), backend)  # warm-up: kernels are compiled at the first call
        started = time.monotonic()
        outputs = run_rows(rows, backend, label=f"parity of {name}", lanes=True) / np.float32(temperature)
        seconds = time.monotonic() - started
        agreement, value = task.agreement(outputs, original), task.headline(outputs, targets)[1]
        difference, lost = float(np.abs(outputs - original).max()), 100 * (original_value - value)
        if agreement is None:
            passed = difference <= LEAST_SHARE * float(np.abs(original).max())
        else:
            passed = agreement >= LEAST_AGREEMENT and lost <= MOST_LOST + 1e-9
        measured[name] = {
            "agreement": agreement, metric: value, "lost_points": lost, "largest_difference": difference,
            "texts_per_s": rows.groups / max(seconds, 1e-9), "passed": passed,
        }  # fmt: skip
    passing = [name for name in measured if measured[name]["passed"]] or (list(measured) if accept_loss else [])
    if not passing:
        name, failed = next(iter(measured.items()))
        raise ParityError(
            f"--to: {name} gives the fp32 original's label for {failed['agreement'] or 0:.2%} of {rows.groups:,} texts (at least "
            f"{LEAST_AGREEMENT:.1%} wanted) and loses {failed['lost_points']:.2f} points of {metric} (at most {MOST_LOST}); "
            "nothing was written; --accept-loss writes it all the same"
        )
    default = max(passing, key=lambda name: measured[name]["texts_per_s"])
    return {
        "held_out": source,
        "texts": rows.groups,
        "metric": metric,
        "fp32": original_value,
        "candidates": measured,
        "default": default,
        "accepted_loss": not measured[default]["passed"],
        "processor": cpu_name(),
        "flags": flags(),
        "vnni": vnni(),
    }
