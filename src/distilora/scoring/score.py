"""Scores tables of any size, resumably: inputs -> shard plan -> shards, each written atomically -> rejects merged -> finished.

    OUT/score.json        model, settings, numerics, inputs, plan; counts once finished
    OUT/shard-00000.*     rows in input order, with the answer's columns
    OUT/rejects.jsonl     rows that could not be scored: file, row, reason
    OUT/parts/            record and rejects of every finished shard, removed at the end

A shard is finished once its record exists, which is written after it. So a process may be killed at any moment; the same
command computes the remaining shards.
"""

import dataclasses
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
from distilora.inference.abstention import check_abstention, threshold_for
from distilora.inference.cascade import check_cascade
from distilora.inference.numerics import Numerics, resolve
from distilora.inference.predictor import Predictor, load
from distilora.progress import Progress, say, say_once
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
    """Score all rows, or resume where a killed process stopped; return counts: rows, rejects, shards, resumed, seconds.

    Raises ConfigError if the output holds other files or a job with other settings, OutputError if another process
    writes to it, DataError if an input is not a readable table or no row can be scored (a single bad row is a reject).
    """
    started = time.monotonic()
    artifact = read_artifact(settings.run)
    check_abstention(artifact, settings.abstain_below, settings.abstain_error, settings.base, settings.lexicon)
    if settings.cascade:
        check_cascade(artifact, settings.lexicon, settings.abstain_error)
    model = sha256(artifact.folder / "artifact.json")
    place = Place(settings.output)
    if settings.kind == "parquet":
        arrow()
    if not is_address(settings.source) and place.folder is not None and local(settings.source) == place.folder:
        raise ConfigError("--output: the same folder as the input; give another")
    with _locked(place):
        state = find_state(place)
        if state is None:
            refuse_others(place)
        sweep(place)
        scorer: Scorer | None = None
        if state is None or settings.overwrite or state["state"] == "cleared":
            job, scorer = _begin(settings, artifact, model, place)
            finished: dict[int, dict[str, int]] = {}
        else:
            job = same_job(state, settings, model)
            if state["state"] == "finished":
                clear(place)
                _refuse_rejects_alone(settings, place, state["counts"])
                rows = state["counts"]["rows"] + state["counts"]["rejects"]
                return {**state["counts"], "resumed": rows, "seconds": 0.0}
            finished = _finished_shards(place, job.plan, settings.kind)
        settings = _computing(settings, artifact, job.numerics)
        pending = [shard for shard in job.plan.shards if shard.number not in finished]
        if pending and settings.engine == "local" and scorer is None:
            scorer = Scorer(_load_resumed(settings), job.plan, place, settings.kind)
        resumed = sum(job.plan.shards[number].rows for number in finished)
        with Progress("scoring", job.plan.rows, "rows", initial=resumed) as bar:
            if pending and scorer is None:
                from distilora.scoring.ray_engine import score_shards

                for number in score_shards(settings, artifact, job.plan, pending):
                    bar.add(job.plan.shards[number].rows)
            elif scorer is not None:
                for shard in pending:
                    scorer(shard, bar.add)
        if scorer is not None and scorer.predictor.cascade is not None:
            say(f"note: {scorer.predictor.cascade.sentence()}")
        counts = _finish(place, job, settings.kind)
        _refuse_rejects_alone(settings, place, counts)
    return {**counts, "resumed": resumed, "seconds": time.monotonic() - started}


def _begin(settings: Scoring, artifact: Artifact, model: str, place: Place) -> tuple[Job, Scorer | None]:
    """Start a job and write its state once all settings are checked; return it, with a scorer for the local engine."""
    local_engine = settings.engine == "local"
    find_inputs(settings.source)  # fails before the model is loaded
    # workers use a GPU only with --device cuda
    device = "cpu" if settings.device == "auto" and not local_engine else settings.device
    numerics = resolve(artifact, settings.backend, settings.precision, device, settings.base)
    computing = _computing(settings, artifact, numerics)
    predictor = load_predictor(settings.run, computing) if local_engine else None
    task = restore(artifact.task["name"], artifact.task["settings"])
    plan = make_plan(
        settings.source, task, settings.text_column, settings.shard_rows, settings.limit, settings.separator
    )
    job = Job(model, settings.row_settings(), numerics, plan)
    scorer = Scorer(predictor, plan, place, settings.kind) if predictor else None
    if find_state(place) is not None:
        # written first, so that a job killed while clearing does not look finished without its shards
        place.write_json(STATE, {"state": "cleared"})
        clear(place, everything=True)
    place.write_json(STATE, job.tree("running"))
    return job, scorer


def _computing(settings: Scoring, artifact: Artifact, numerics: Numerics) -> Scoring:
    """Return the settings with every `auto` resolved as in the job, and the threshold for `abstain_error` in its place.

    Raises ConfigError if no threshold keeps that error rate.
    """
    settings = settings.computing(numerics)
    if settings.abstain_error is None:
        return settings
    threshold = threshold_for(artifact, settings.precision, settings.abstain_error)
    say_once(f"note: {threshold.sentence()}")
    return dataclasses.replace(settings, abstain_below=threshold.score, abstain_error=None)


def load_predictor(run: str, settings: Scoring) -> Predictor:
    """Load a predictor in the job's precision. Raises ConfigError if this machine falls back to another one."""
    predictor = load(run, **settings.loading())
    precision = predictor.backend.precision
    if precision != settings.precision:
        raise ConfigError(
            f"precision: {settings.precision} is not available on this machine, where the model computes in {precision}; score "
            f"where it is, or give --precision {precision} and another --output"
        )
    return predictor


def _load_resumed(settings: Scoring) -> Predictor:
    """Load the predictor of a resumed job, which may have been started on another machine."""
    try:
        return load_predictor(settings.run, settings)
    except ConfigError as error:
        raise ConfigError(
            f"--output: {settings.output} was begun with --device {settings.device} --precision {settings.precision}, not "
            f"available here ({error}); resume where they are, give another --output, or --overwrite"
        ) from None


@contextmanager
def _locked(place: Place) -> Iterator[None]:
    """Lock an output folder on disk, and remove it afterwards if it is empty; a store has no locks."""
    folder = place.folder
    if folder is None:
        yield
        return
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"output: {folder} cannot be created ({error.strerror}); give another --output") from None
        hold(folder)
        try:
            with writing(folder, "give the same command again"):
                yield
        finally:
            let_go(folder)
    finally:
        with suppress(OSError):  # the folder is not empty
            for path in missing:
                path.rmdir()


def _finished_shards(place: Place, plan: ShardPlan, kind: str) -> dict[int, dict[str, int]]:
    """Read the records of the finished shards, by number; a shard of another size than recorded is not finished."""
    parts, sizes = place.sizes(PARTS), place.sizes()
    numbers = [s.number for s in plan.shards if record_name(s.number).removeprefix(f"{PARTS}/") in parts]
    records = zip(numbers, place.read_json([record_name(number) for number in numbers]), strict=True)
    return {
        number: record
        for number, record in records
        if record and sizes.get(shard_name(number, kind)) == record["bytes"]
    }


def _finish(place: Place, job: Job, kind: str) -> dict[str, Any]:
    """Check that every shard is there, merge the rejects and write the counts; return the counts."""
    finished = _finished_shards(place, job.plan, kind)
    missing = next((shard.number for shard in job.plan.shards if shard.number not in finished), None)
    if missing is not None:
        name = shard_name(missing, kind)
        raise OutputError(
            f"--output: {name} was computed but is not in {place.address}; give one that all machines share"
        )
    with place.new(REJECTS) as path, atomic_text(path) as out:
        for number, record in sorted(finished.items()):
            if record["rejects"]:
                with opened(place.read(rejects_name(number))) as lines:
                    out.writelines(line.decode("utf-8") for line in lines)
    records = [{"file": shard_name(number, kind), **record} for number, record in sorted(finished.items())]
    counts = {key: sum(record[key] for record in finished.values()) for key in ("rows", "rejects")}
    counts["shards"] = len(finished)
    place.write_json(STATE, job.tree("finished", counts=counts, shards=records))
    clear(place)
    return counts


def _refuse_rejects_alone(settings: Scoring, place: Place, counts: dict[str, int]) -> None:
    """Raise DataError if every row was rejected, which points to a wrong input or column."""
    if counts["rows"] or not counts["rejects"]:
        return
    with opened(place.read(REJECTS)) as lines:
        first = json.loads(lines.readline())
    raise DataError(
        f"{settings.source}: none of {counts['rejects']:,} rows could be scored (row {first['row']}: {first['reason']}); "
        f"see {place.read(REJECTS)}, then correct the input or name its text column with --text-column"
    )
