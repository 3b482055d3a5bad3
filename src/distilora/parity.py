"""The parity gate: does an exported model still answer like the fp32 original, on texts it was not trained on?

    agreement   share of the texts with the same label          at least 99.5%
    lost        headline metric of the original minus its own    at most 0.2 points

Measured on this processor, for every way of computing that the export offers; the fastest that passes becomes its default.
The texts are the run's validation texts (a choice is made, so never a test split), or others with `--held-out`.
"""

import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distilora.artifact import Artifact, read_check
from distilora.backends import Backend
from distilora.cleaning import cleaning
from distilora.config import MeasureConfig, RunConfig, SourceConfig
from distilora.data import read_parts
from distilora.errors import DataError, DistiloraError, ParityError
from distilora.evaluation import aligned
from distilora.examples import Example, Examples, read_examples
from distilora.hardware import cpu_name, flags, vnni
from distilora.lanes import run_rows
from distilora.progress import say
from distilora.rows import Rows
from distilora.settings import parse, read_recipe
from distilora.sources import open_source
from distilora.tasks import Task

LEAST_AGREEMENT = 0.995
MOST_LOST = 0.2  # points, that is hundredths of the metric
LEAST_SHARE = 0.01
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
    """The validation texts of the artifact's run, read again as it read them, or those of the source `given`.

    Raises DataError if they cannot be read.
    """
    if given:
        try:
            name, examples = _read_given(artifact, task, given)
        except DistiloraError as error:
            raise DataError(_of_held_out(str(error), task)) from None
        return HeldOut(name, _some(examples), read_check(artifact).examples)
    recipe = artifact.folder.parent / "run.yaml"
    give = "; give labelled texts that it was not trained on with --held-out"
    if not recipe.is_file():
        raise DataError(f"--held-out: {artifact.folder} is not in its run's folder, whose validation texts tell{give}")
    config_of_run = parse(RunConfig, (), read_recipe(str(recipe)))
    try:
        parts = read_parts(config_of_run.data)
    except DistiloraError as error:
        raise DataError(f"--held-out: the run's validation texts cannot be read ({error}){give}") from None
    trained = sorted(parts.train.items, key=lambda example: sum(map(len, example.texts)))
    chosen = np.unique(np.linspace(0, len(trained) - 1, CALIBRATION).round().astype(int))
    return HeldOut(
        f"validation texts of {parts.summary['source']}", _some(parts.validation), [trained[i] for i in chosen]
    )


def _read_given(artifact: Artifact, task: Task, given: str) -> tuple[str, Examples]:
    source = open_source(given, setting="--held-out")
    split = next((name for name in ("validation", "test") if name in source.splits), source.splits[0])
    matched, records = aligned(task, source, split, MeasureConfig(data=SourceConfig(path=given, split=split)))
    clean = cleaning(artifact.cleaning["name"], artifact.cleaning["version"]).clean
    return f"{source.name}, {split}", read_examples(records, matched.read, clean, split, False)


def _of_held_out(message: str, task: Task) -> str:
    """An error of reading labelled data, told of `--held-out`, which has no settings of `data.` to set.

    What a message advises stands after its last semicolon; where it is such a setting, other advice takes its place.
    """
    message = message.removeprefix("--held-out: ")
    if SETTING.search(message):
        what = SETTING.sub("", message.rpartition("; ")[0] or message)
        text, label = (getattr(task, f"{name}_column", None) or name for name in ("text", "label"))
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
    held: HeldOut,
    rows: Rows,
    original: NDArray[np.float32],
    candidates: Mapping[str, tuple[Callable[[], Backend], float]],
    accept_loss: bool,
) -> dict[str, Any]:
    """What `parity` of the artifact holds: each candidate's agreement, loss and speed, and the default among them.

    Args:
        rows, original: the held-out texts and the fp32 original's outputs, [G, ...], temperature included.
        candidates: ways to compute, by name, each with the temperature its outputs are yet to be divided by.
        accept_loss: whether the fastest may be the default though none passes.

    A task without labels has no agreement; there the largest difference counts, at most 1% of the largest output.
    Raises ParityError if none passes and that is not accepted.
    """
    targets = held.examples.targets
    metric, reached = task.headline(original, targets)
    found: dict[str, dict[str, Any]] = {}
    for name, (opened, temperature) in candidates.items():
        backend = opened()
        run_rows(rows.take(range(min(rows.groups, 4))), backend)  # kernels are made at the first call
        started = time.monotonic()
        outputs = run_rows(rows, backend, label=f"parity of {name}", lanes=True) / np.float32(temperature)
        seconds = time.monotonic() - started
        agreed, value = _agreement(task, outputs, original), task.headline(outputs, targets)[1]
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
        "held_out": held.name,
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


def _agreement(task: Task, ours: NDArray[np.float32], theirs: NDArray[np.float32]) -> float | None:
    return float(np.mean(ours.argmax(1) == theirs.argmax(1))) if task.labels and ours.ndim == 2 else None
