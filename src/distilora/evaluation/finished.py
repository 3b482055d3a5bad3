"""A finished run or evaluation as its folder holds it: the answers to one split, and where its examples were read."""

import json
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distilora.artifact.format import model_folder, read_artifact
from distilora.config.measuring import SourceConfig
from distilora.config.parse import parse, read_recorded
from distilora.config.schema import CARVED, RunConfig
from distilora.data.parts import find_test
from distilora.data.sources import Source, open_source
from distilora.errors import ArtifactError, DataError
from distilora.files.tables import read_table
from distilora.tasks.base import Task
from distilora.tasks.registry import restore

# settings of a run that decide which examples its splits hold
_DECISIVE = (
    "path", "name", "revision", "test_path", "train_split", "validation_split", "validation_size", "test_split", "heldout",
    "group_column", "deduplicate", "cleaning", "seed",
)  # fmt: skip


@dataclass(frozen=True)
class Finished:
    """The answers of a finished run, or of an evaluation, to the examples of one split."""

    name: str  # the folder as it was given
    task: Task
    split: str
    splits: tuple[str, ...]  # all that the folder has answers for
    labels: tuple[str, ...]
    predictions: list[Mapping[str, Any]]  # rows of predictions.parquet
    origin: Mapping[str, Any]  # setting -> value: what decides which examples these are
    notes: tuple[str, ...]  # of an evaluation
    cleaning: Mapping[str, Any]  # name and version
    open_source: Callable[[], tuple[Source, str]]  # with the name of the split; raises DataError if the data are gone


def read_finished(folder: str | Path, split: str | None = None) -> Finished:
    """Read the answers of a run or an evaluation to a split; None: the one its report shows first.

    A folder with a single split is read whatever the split's name.
    Raises ArtifactError if the folder holds neither, or the run is not finished; DataError if it has no such split, or was
    written by a release that did not identify its examples.
    """
    path = Path(folder)
    if (path / "artifact.json").is_file() and (path.parent / "run.yaml").is_file():  # RUN/model
        path = path.parent
    summary = _summary(path)
    try:
        evaluations = summary["evaluations"] if "evaluations" in summary else [summary["evaluation"]]
        splits = {evaluation["split"]: tuple(evaluation["labels"]) for evaluation in evaluations}
        default = next(iter(splits))
    except (KeyError, TypeError, StopIteration):
        raise ArtifactError(f"{path}/metrics.json: damaged (its splits); copy the folder again") from None
    if split is None or len(splits) == 1:
        split = default
    if split not in splits:
        raise DataError(
            f"{folder}: was not measured on the split {split!r} (it has {', '.join(splits)}); name one that all have with "
            "--split"
        )
    predictions = _predictions(path, split)
    shared = (split, tuple(splits), splits[split], predictions)
    if "evaluations" in summary:
        artifact = read_artifact(path)
        task = restore(artifact.task["name"], artifact.task["settings"])
        data = read_recorded(path / "run.yaml").get("data", {})
        origin = {f"data.{name}": data.get(name) for name in _DECISIVE} | {"split": split}
        return Finished(str(folder), task, *shared, origin, (), artifact.cleaning, lambda: _source_of_run(path, split))
    reading, notes = summary["reading"], tuple(summary["notes"])
    task = restore(summary["task"], reading["settings"])
    origin = {f"data.{name}": reading["data"][name] for name in ("path", "name", "revision")} | {"split": split}
    data = SourceConfig(**reading["data"])
    return Finished(
        str(folder), task, *shared, origin, notes, reading["cleaning"], lambda: (_open(data), data.split)
    )  # fmt: skip


def _summary(folder: Path) -> dict[str, Any]:
    """Read metrics.json of a run or an evaluation. Raises ArtifactError if there is none."""
    try:
        summary = json.loads((folder / "metrics.json").read_text("utf-8"))
    except OSError:
        model_folder(folder)  # says so if nothing is there, or a run that was stopped
        advice = "an export or foreign model is compared by the folder that distilora evaluate writes"
        if (folder / "run.yaml").is_file():
            advice = f"finish it with: distilora train --resume {shlex.quote(str(folder))}"
        raise ArtifactError(f"{folder}: holds no measurement (metrics.json); {advice}") from None
    except ValueError as error:
        raise ArtifactError(f"{folder}/metrics.json: damaged ({error}); copy the folder again") from None
    if not isinstance(summary, dict) or not {"evaluations", "evaluation"} & set(summary):
        raise ArtifactError(f"{folder}: metrics.json is not that of a run or an evaluation; give the folder of one")
    return summary


def _predictions(folder: Path, split: str) -> list[Mapping[str, Any]]:
    """Read the rows of a split. Raises DataError if they are missing, or do not identify their examples."""
    file = folder / "predictions.parquet"
    rows = [record.values for record in read_table(file) if record.values.get("split") == split]
    if not rows:
        raise DataError(f"{file}: has no answers to {split!r}; copy the folder again")
    if not all(row.get("digest") for row in rows):
        raise DataError(
            f"{file}: an earlier release wrote it, without the digests by which examples are recognised; measure again with: "
            "distilora evaluate RUN --data.path PATH"
        )
    return rows


def _source_of_run(folder: Path, split: str) -> tuple[Source, str]:
    """Open the source that a run read a split from, or carved it out of."""
    config = parse(RunConfig, (), read_recorded(folder / "run.yaml")).data
    source = open_source(config.path, config.name, config.revision, separator=config.separator)
    carved = config.validation_split == CARVED
    if split == ("validation" if carved else config.validation_split):
        return source, config.train_split if carved else split
    test, test_split = find_test(config, source)
    return (source, config.train_split) if test is None else (test, test_split)


def _open(data: SourceConfig) -> Source:
    return open_source(data.path, data.name, data.revision, separator=data.separator)
