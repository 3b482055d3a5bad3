"""Scores inputs of any size, resumably: inputs -> shard plan -> shards, each written whole -> rejects joined -> finished.

    OUT/score.json        model, settings, numerics, inputs, plan; at the end the counts
    OUT/shard-00000.*     rows in input order, the answer's columns added
    OUT/rejects.jsonl     rows that could not be scored: file, row, reason
    OUT/parts/            until all are finished: a record of every finished shard, and its rejects

A shard counts as finished once its record exists, which is written after it. So a process killed at any moment leaves
only shards to compute, and the same command computes them.
"""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from distilora.artifact.format import Artifact, read_artifact
from distilora.errors import ConfigError, DataError, OutputError
from distilora.files.atomic import atomic_text, sha256
from distilora.files.full_disk import writing
from distilora.files.locks import hold, let_go
from distilora.files.records import arrow
from distilora.files.stores import Place, find_inputs, is_address, local, opened
from distilora.inference.numerics import resolve
from distilora.inference.predictor import Predictor, load
from distilora.progress import Progress
from distilora.scoring.job import (
    REJECTS,
    STATE,
    Job,
    Scoring,
    clear,
    find_state,
    refuse_others,
    same_job,
    sweep,
)
from distilora.scoring.scorer import PARTS, Scorer, record_name, rejects_name, shard_name
from distilora.scoring.shards import ShardPlan, make_plan
from distilora.tasks.registry import restore

__all__ = ["Scoring", "score"]


def score(settings: Scoring) -> dict[str, Any]:
    """Score, or resume where a killed process stopped. Returns counts: rows, rejects, shards, resumed, seconds.

    Raises ConfigError if the output holds something else or was begun with other settings, OutputError if another process
    writes it, DataError for inputs that are not readable tables, or if no row can be scored (a single bad row is a reject).
    """
    begun = time.monotonic()
    artifact = read_artifact(settings.run)
    model = sha256(artifact.folder / "artifact.json")
    place = Place(settings.output)
    if settings.kind == "parquet":
        arrow()
    if not is_address(settings.source) and place.folder is not None and local(settings.source) == place.folder:
        raise ConfigError("--output: the same folder as the input; give another")
    with _claimed(place):
        state = find_state(place)
        if state is None:
            refuse_others(place)
        sweep(place)
        scorer: Scorer | None = None
        if state is None or settings.overwrite or state["state"] == "cleared":
            job, scorer = _begin(settings, artifact, model, place)
            done: dict[int, dict[str, int]] = {}
        else:
            job = same_job(state, settings, model)
            if state["state"] == "finished":
                clear(place)
                _refuse_rejects_alone(settings, place, state["counts"])
                rows = state["counts"]["rows"] + state["counts"]["rejects"]
                return {**state["counts"], "resumed": rows, "seconds": 0.0}
            done = _finished_shards(place, job.plan, settings.kind)
        settings = settings.computing(job.numerics)
        todo = [shard for shard in job.plan.shards if shard.number not in done]
        if todo and settings.engine == "local" and scorer is None:
            scorer = Scorer(_load_again(settings), job.plan, place, settings.kind)
        resumed = sum(job.plan.shards[number].rows for number in done)
        with Progress("scoring", job.plan.rows, "rows", done=resumed) as bar:
            if todo and scorer is None:
                from distilora.scoring.ray_engine import score_shards

                for number in score_shards(settings, artifact, job.plan, todo):
                    bar.add(job.plan.shards[number].rows)
            elif scorer is not None:
                for shard in todo:
                    scorer(shard, bar.add)
        counts = _finish(place, job, settings.kind)
        _refuse_rejects_alone(settings, place, counts)
    return {**counts, "resumed": resumed, "seconds": time.monotonic() - begun}


def _begin(settings: Scoring, artifact: Artifact, model: str, place: Place) -> tuple[Job, Scorer | None]:
    """Begin a job, written to the place once all its settings are checked; return it, and its scorer for the local engine."""
    local_engine = settings.engine == "local"
    find_inputs(settings.source)  # fails before the model is loaded
    # a worker gets a GPU only if asked for
    device = "cpu" if settings.device == "auto" and not local_engine else settings.device
    numerics = resolve(artifact, settings.backend, settings.precision, device, settings.base)
    predictor = load_alike(settings.run, settings.computing(numerics)) if local_engine else None
    task = restore(artifact.task["name"], artifact.task["settings"])
    plan = make_plan(
        settings.source, task, settings.text_column, settings.shard_rows, settings.limit, settings.separator
    )
    job = Job(model, settings.row_settings(), numerics, plan)
    scorer = Scorer(predictor, plan, place, settings.kind) if predictor else None
    if find_state(place) is not None:
        # written first, so that a job killed while clearing is not taken for a finished one that lacks its shards
        place.write_json(STATE, {"state": "cleared"})
        clear(place, everything=True)
    place.write_json(STATE, job.tree("running"))
    return job, scorer


def load_alike(run: str, settings: Scoring) -> Predictor:
    """Load a predictor in the job's precision. Raises ConfigError if the model computes in another one here."""
    predictor = load(run, **settings.loading())
    precision = predictor.backend.precision
    if precision != settings.precision:
        raise ConfigError(
            f"precision: {settings.precision} wanted, but on this machine the model computes in {precision}; score where it "
            f"computes so, or give --precision {precision} and another --output"
        )
    return predictor


def _load_again(settings: Scoring) -> Predictor:
    """Load the predictor of a job that was begun earlier, perhaps on another machine."""
    try:
        return load_alike(settings.run, settings)
    except ConfigError as error:
        raise ConfigError(
            f"--output: {settings.output} was begun with --device {settings.device} --precision {settings.precision}, not "
            f"available here ({error}); go on where it is, give another --output, or --overwrite"
        ) from None


@contextmanager
def _claimed(place: Place) -> Iterator[None]:
    """Lock a folder on disk, and remove it afterwards if it is empty; in a store nothing can be locked."""
    folder = place.folder
    if folder is None:
        yield
        return
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"output: {folder} cannot be made ({error.strerror}); give another --output") from None
        hold(folder)
        try:
            with writing(folder, "give the same command again"):
                yield
        finally:
            let_go(folder)
    finally:
        with suppress(OSError):  # a folder is not empty
            for path in missing:
                path.rmdir()


def _finished_shards(place: Place, plan: ShardPlan, kind: str) -> dict[int, dict[str, int]]:
    """Read the records of the shards that are complete, by number."""
    parts, sizes = place.sizes(PARTS), place.sizes()
    numbers = [s.number for s in plan.shards if record_name(s.number).removeprefix(f"{PARTS}/") in parts]
    records = zip(numbers, place.read_json([record_name(number) for number in numbers]), strict=True)
    return {
        number: record
        for number, record in records
        if record and sizes.get(shard_name(number, kind)) == record["bytes"]
    }


def _finish(place: Place, job: Job, kind: str) -> dict[str, Any]:
    done = _finished_shards(place, job.plan, kind)
    missing = next((shard.number for shard in job.plan.shards if shard.number not in done), None)
    if missing is not None:
        name = shard_name(missing, kind)
        raise OutputError(
            f"--output: {name} was computed but is not in {place.address}; give one that every machine sees"
        )
    with place.new(REJECTS) as path, atomic_text(path) as out:
        for number, record in sorted(done.items()):
            if record["rejects"]:
                with opened(place.read(rejects_name(number))) as lines:
                    out.writelines(line.decode("utf-8") for line in lines)
    records = [{"file": shard_name(number, kind), **record} for number, record in sorted(done.items())]
    counts = {key: sum(record[key] for record in done.values()) for key in ("rows", "rejects")}
    counts["shards"] = len(done)
    place.write_json(STATE, job.tree("finished", counts=counts, shards=records))
    clear(place)
    return counts


def _refuse_rejects_alone(settings: Scoring, place: Place, counts: dict[str, int]) -> None:
    """Raise DataError if every row was rejected: the fault is then hardly in the rows."""
    if counts["rows"] or not counts["rejects"]:
        return
    with opened(place.read(REJECTS)) as lines:
        first = json.loads(lines.readline())
    raise DataError(
        f"{settings.source}: none of {counts['rejects']:,} rows could be scored (row {first['row']}: {first['reason']}); "
        f"see {place.read(REJECTS)}, then correct the input or name its column of texts with --text-column"
    )
