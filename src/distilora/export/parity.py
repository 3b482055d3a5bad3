"""The parity gate: does an exported model still answer like the fp32 original, on texts it was not trained on?

    agreement   share of the texts with the same label          at least 99.5%
    lost        headline metric of the original minus its own    at most 0.2 points

Measured on this processor, for every way of computing that the export offers; the fastest that passes becomes its default.
The texts are the run's validation texts (a choice is made, so never a test split), or others with `--held-out`. The run's
are read again from its data, and only taken if they are what they were: by the digest in its metrics.json, or, of a run
without one, by seen_texts.npy and the validation rows of predictions.parquet.
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

MOST_LOST = 0.2  # points, that is hundredths of the metric
WANTED = 1000  # texts
CALIBRATION = 32
SETTING = re.compile(r"(?:--)?\bdata\.\w+(?:: )?")


@dataclass(frozen=True)
class HeldOut:
    """Labelled texts to judge by, and others, from the short to the long, to calibrate on."""

    name: str
    examples: Examples
    calibration: list[Example]


def read_held_out(artifact: Artifact, task: Task, given: str | None) -> HeldOut:
    """Read the validation texts of the artifact's run again, or those of the source `given` that it has not seen.

    Raises DataError if they cannot be read, if the run's data are no longer what it was trained on, or if it has seen all
    of the texts given.
    """
    if given:
        return _from_source(artifact, task, given)
    run = artifact.folder.parent
    give = "; give labelled texts that it was not trained on with --held-out"
    if not (run / "run.yaml").is_file():
        raise DataError(f"--held-out: {artifact.folder} is not in its run's folder, whose validation texts tell{give}")
    config_of_run = parse(RunConfig, (), read_recipe(str(run / "run.yaml")))
    try:
        parts = read_parts(config_of_run.data, task)
    except DistiloraError as error:
        raise DataError(f"--held-out: the run's validation texts cannot be read ({error}){give}") from None
    source = parts.summary["source"]
    changed = _difference(run, task, parts.validation)
    if changed:
        raise DataError(f"--held-out: {source} is no longer what the run was trained on ({changed}){give}")
    trained = sorted(parts.train.items, key=lambda example: sum(map(len, example.texts)))
    chosen = np.unique(np.linspace(0, len(trained) - 1, CALIBRATION).round().astype(int))
    return HeldOut(f"validation texts of {source}", _some(parts.validation), [trained[i] for i in chosen])


def _from_source(artifact: Artifact, task: Task, given: str) -> HeldOut:
    """The texts of a source, less those that the run has trained or chosen on; its validation split, whole, is taken."""
    try:
        name, examples = _read_given(artifact, task, given)
    except DistiloraError as error:
        raise DataError(_of_held_out(str(error), task)) from None
    file = seen_file(artifact.folder)
    if file is None:
        say("note: nothing beside the model tells which texts it was trained on: make sure that these are others")
    elif examples_digest(examples, task.target_name) != _recorded(artifact.folder.parent).get("validation_digest"):
        seen = seen_among(examples, file)
        if seen.all():
            raise DataError(f"--held-out: all {len(examples):,} texts of {name} were trained or chosen on; give others")
        if seen.any():
            say(
                f"note: {int(seen.sum()):,} of the {len(examples):,} held-out texts were trained or chosen on: left out"
            )
        examples = examples.take(np.flatnonzero(~seen))
    return HeldOut(name, _some(examples), read_check(artifact.folder).examples)


def _recorded(run: Path) -> dict[str, Any]:
    """What a run's metrics.json says of its data; empty where there is none."""
    try:
        return dict(json.loads((run / "metrics.json").read_text("utf-8"))["data"])
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _difference(run: Path, task: Task, validation: Examples) -> str:
    """How validation texts read again differ from those the run chose on; empty if they do not."""
    digest = _recorded(run).get("validation_digest")
    if digest is not None:
        return (
            "" if examples_digest(validation, task.target_name) == digest else "the validation texts or labels differ"
        )
    seen, answers = run / SEEN, run / "predictions.parquet"
    if not seen.is_file() or not answers.is_file():
        return f"or that cannot be told: {SEEN} or predictions.parquet is missing"
    new = int((~seen_among(validation, seen)).sum())
    if new:
        return f"{new:,} of {len(validation):,} validation texts are new"
    # Places and labels pin the division: texts that are only trained on would stand elsewhere.
    then = [
        (Path(r.values["place"]).name, r.values["target"])
        for r in read_table(answers)
        if r.values["split"] == "validation"
    ]
    now = [(Path(e.place).name, task.target_name(e.target)) for e in validation.items]
    return "" if then == now else "other rows, or other labels, came to validation"


def _read_given(artifact: Artifact, task: Task, given: str) -> tuple[str, Examples]:
    source = open_source(given, setting="--held-out")
    split = next((name for name in ("validation", "test") if name in source.splits), source.splits[0])
    aligned, records = task.aligned_to(source, split, SourceConfig(path=given, split=split), [])
    clean = cleaning(artifact.cleaning["name"], artifact.cleaning["version"]).clean
    return f"{source.name}, {split}", read_examples(records, aligned.read, clean, split, False)


def _of_held_out(message: str, task: Task) -> str:
    """An error of reading labelled data, told of `--held-out`, which has no settings of `data.` to set.

    What a message advises stands after its last semicolon; where it is such a setting, other advice takes its place.
    """
    message = message.removeprefix("--held-out: ")
    if SETTING.search(message):
        what = SETTING.sub("", message.rpartition("; ")[0] or message)
        text, label = (task.text_column or "text", task.label_column or "label")
        message = f"{what}; give texts in a column {text!r} with labels in a column {label!r}, as in training"
    return f"--held-out: {message}"


def _some(examples: Examples) -> Examples:
    """WANTED of them, drawn by a fixed seed; all where there are fewer, and that is said."""
    if len(examples) < WANTED:
        say(f"note: {len(examples):,} held-out texts instead of {WANTED:,}: what follows is known less well")
    chosen = np.random.default_rng(0).permutation(len(examples))[:WANTED]
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
    """What `parity` of the artifact holds: each candidate's agreement, loss and speed, and the default among them.

    Args:
        source, targets, rows, original: of the held-out texts: where they are from, what `task.targets` gave, their rows, and
            the fp32 original's outputs, [G, ...], temperature included.
        candidates: ways to compute, by name, each with the temperature its outputs are yet to be divided by.
        accept_loss: whether the fastest may be the default though none passes.

    A task without labels has no agreement; there the largest difference counts, at most 1% of the largest output.
    Raises ParityError if none passes and that is not accepted.
    """
    metric, reached = task.headline(original, targets)
    found: dict[str, dict[str, Any]] = {}
    for name, (opened, temperature) in candidates.items():
        backend = opened()
        run_rows(rows.take(range(min(rows.groups, 4))), backend)  # kernels are made at the first call
        started = time.monotonic()
        outputs = run_rows(rows, backend, label=f"parity of {name}", lanes=True) / np.float32(temperature)
        seconds = time.monotonic() - started
        agreed, value = task.agreement(outputs, original), task.headline(outputs, targets)[1]
        difference, lost = float(np.abs(outputs - original).max()), 100 * (reached - value)
        if agreed is None:
            passed = difference <= LEAST_SHARE * float(np.abs(original).max())
        else:
            passed = agreed >= LEAST_AGREEMENT and lost <= MOST_LOST + 1e-9
        found[name] = {
            "agreement": agreed, metric: value, "lost_points": lost, "largest_difference": difference,
            "texts_per_s": rows.groups / max(seconds, 1e-9), "passed": passed,
        }  # fmt: skip
    passing = [name for name in found if found[name]["passed"]] or (list(found) if accept_loss else [])
    if not passing:
        name, worst = next(iter(found.items()))
        raise ParityError(
            f"--to: {name} gives {worst['agreement'] or 0:.2%} of {rows.groups:,} labels as the fp32 original (at least "
            f"{LEAST_AGREEMENT:.1%} wanted) and loses {worst['lost_points']:.2f} points of {metric} (at most {MOST_LOST}); "
            "nothing was written; --accept-loss writes it all the same"
        )
    default = max(passing, key=lambda name: found[name]["texts_per_s"])
    return {
        "held_out": source,
        "texts": rows.groups,
        "metric": metric,
        "fp32": reached,
        "candidates": found,
        "default": default,
        "accepted_loss": not found[default]["passed"],
        "processor": cpu_name(),
        "flags": flags(),
        "vnni": vnni(),
    }
