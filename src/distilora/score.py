"""Scoring without limit of size: inputs -> plan -> shards, each appearing whole -> rejects joined -> finished.

    OUT/score.json        model, settings, inputs, plan; at the end the counts
    OUT/shard-00000.*     rows in input order, the answer's columns added
    OUT/rejects.jsonl     rows that could not be scored: file, row, reason
    OUT/parts/            meanwhile: a record of every finished shard, and its rejects

A shard counts when its record is there, which is written after it. So a process killed at any moment leaves nothing but
shards to compute, and the same command computes them.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

from distilora.artifact import Artifact, read_artifact
from distilora.config import BackendName, Base, Device, InferencePrecision
from distilora.errors import ConfigError, OutputError
from distilora.files import sha256
from distilora.folder import LEFT, LOCK, hold, let_go, writing
from distilora.predict import load
from distilora.progress import Progress
from distilora.reading import arrow
from distilora.score_plan import Plan, Shard, make_plan
from distilora.score_shard import PARTS, Scorer, record_name, rejects_name, shard_name
from distilora.storage import Place, find_inputs, is_address, local, opened
from distilora.tables import atomic_text
from distilora.tasks import restore

STATE = "score.json"
REJECTS = "rejects.jsonl"
Kind = Literal["parquet", "csv", "jsonl"]


@dataclass(frozen=True)
class Scoring:
    """What to score, with what, and where to."""

    run: str
    source: str
    output: str
    text_column: str | None = None
    shard_rows: int = 50_000
    kind: Kind = "parquet"
    engine: Literal["local", "ray"] = "local"
    address: str | None = None
    workers: int = 2
    abstain_below: float = 0.0
    backend: BackendName = "auto"
    precision: InferencePrecision = "auto"
    device: Device = "auto"
    encoder: str | None = None
    base: Base = "auto"
    overwrite: bool = False

    def __post_init__(self) -> None:
        if self.shard_rows < 1:
            raise ConfigError(f"--shard-rows: {self.shard_rows} given, at least 1 wanted")
        if self.workers < 1:
            raise ConfigError(f"--workers: {self.workers} given, at least 1 wanted")
        if not 0 <= self.abstain_below <= 1:
            raise ConfigError(f"--abstain-below: {self.abstain_below!r} given, a probability from 0 to 1 wanted")
        if self.address and self.engine != "ray":
            raise ConfigError("--address: given, but only --engine ray has a cluster; add that, or drop it")
        if self.engine == "ray" and (self.source.startswith("memory://") or self.output.startswith("memory://")):
            raise ConfigError("--engine: ray cannot share memory:// among its processes; give a folder or a store")

    def kept(self) -> dict[str, Any]:
        """The settings that rows depend on; the others may change between a kill and going on."""
        names = ("text_column", "shard_rows", "kind", "abstain_below", "backend", "precision", "device", "base")
        return {name: getattr(self, name) for name in names}

    def loading(self) -> dict[str, Any]:
        """How `load` is told to load the model."""
        names = ("backend", "precision", "device", "encoder", "base", "abstain_below")
        return {name: getattr(self, name) for name in names}


def score(settings: Scoring) -> dict[str, Any]:
    """Scores, or goes on where a killed process stopped. Returns counts: rows, rejects, shards, resumed, seconds.

    Raises ConfigError if the output holds something else, OutputError if it is being written, DataError for inputs that
    cannot be read as tables (a bad row is a reject, not an error).
    """
    begun = time.monotonic()
    artifact = read_artifact(settings.run)
    place = Place(settings.output)
    if settings.kind == "parquet":
        arrow()
    if not is_address(settings.source) and place.folder is not None and local(settings.source) == place.folder:
        raise ConfigError("--output: the same folder as the input; give another")
    with _claimed(place):
        plan, state = _begun(settings, artifact, place)
        if state["state"] == "finished":
            _clear(place)
            return {**state["counts"], "resumed": state["counts"]["rows"] + state["counts"]["rejects"], "seconds": 0.0}
        done = _finished_shards(place, plan, settings.kind)
        todo = [shard for shard in plan.shards if shard.number not in done]
        resumed = sum(plan.shards[number].rows for number in done)
        with Progress("scoring", plan.rows, "rows", done=resumed) as bar:
            if todo and settings.engine == "ray":
                from distilora.score_ray import score_shards

                for number in score_shards(settings, artifact, plan, todo):
                    bar.add(plan.shards[number].rows)
            elif todo:
                _score_here(settings, place, plan, todo, bar)
        counts = _finish(place, plan, settings.kind, state)
    return {**counts, "resumed": resumed, "seconds": time.monotonic() - begun}


def _score_here(settings: Scoring, place: Place, plan: Plan, todo: Sequence[Shard], bar: Progress) -> None:
    scorer = Scorer(load(settings.run, **settings.loading()), plan, place, settings.kind)
    for shard in todo:
        scorer(shard, bar.add)


@contextmanager
def _claimed(place: Place) -> Iterator[None]:
    """A folder on a disk is locked; nothing can lock one in a store."""
    if place.folder is None:
        yield
        return
    try:
        place.folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"output: {place.folder} cannot be made ({error.strerror}); give another --output") from None
    hold(place.folder)
    try:
        with writing(place.folder, "give the same command again"):
            for left in [*place.folder.glob(LEFT), *place.folder.glob(f"{PARTS}/{LEFT}")]:
                left.unlink()
            yield
    finally:
        let_go(place.folder)


def _begun(settings: Scoring, artifact: Artifact, place: Place) -> tuple[Plan, dict[str, Any]]:
    """The plan and the state of what was begun in this place with the same model, settings and inputs, or of a new one."""
    identity = {"model": sha256(artifact.folder / "artifact.json"), "settings": settings.kept()}
    [state] = place.read_json([STATE])
    if state is not None and not settings.overwrite and state["state"] != "cleared":
        plan = Plan.of(state["plan"])
        _compare(settings, state, identity, plan)
        return plan, state
    if state is not None:
        # First this, so that one killed while clearing is not taken for a finished one that lacks its shards.
        place.write_json(STATE, {"state": "cleared"})
        _clear(place, everything=True)
    elif there := _others(place):
        raise ConfigError(f"--output: {settings.output} holds {there}, which is not of scoring; give another folder")
    plan = make_plan(settings.source, restore(artifact.task["name"], artifact.task["settings"]), settings.text_column,
                     settings.shard_rows)  # fmt: skip
    state = {"state": "running", **identity, "plan": plan.tree()}
    place.write_json(STATE, state)
    return plan, state


def _compare(settings: Scoring, state: dict[str, Any], identity: dict[str, Any], plan: Plan) -> None:
    """Raises ConfigError naming what differs from what was begun."""
    ways = "give that again, another --output, or --overwrite"
    begun = f"--output: {settings.output} was begun with"
    if state["model"] != identity["model"]:
        raise ConfigError(f"{begun} another model; {ways}")
    for name, value in identity["settings"].items():
        if state["settings"].get(name) != value:
            option = "--format" if name == "kind" else "--" + name.replace("_", "-")
            raise ConfigError(f"{begun} {option} {state['settings'].get(name)}, now {value}; {ways}")
    then, now = {one.path: one for one in plan.inputs}, {one.path: one for one in find_inputs(settings.source)}
    for path in sorted({*then, *now}):
        if then.get(path) != now.get(path):
            how = "is new since" if path not in then else "is gone since" if path not in now else "has changed since"
            raise ConfigError(f"--output: {settings.output} was begun before: {path} {how}; {ways}")


def _others(place: Place) -> str:
    if place.folder is None:
        names = list(place.sizes())
    else:
        names = [path.name for path in place.folder.iterdir() if path.name != LOCK and not path.match(LEFT)]
    return min(names, default="")


def _clear(place: Place, everything: bool = False) -> None:
    """Removes the parts, and of what is to be overwritten the shards and the rejects."""
    for name in place.sizes(PARTS):
        place.remove(f"{PARTS}/{name}")
    if place.folder is not None and (place.folder / PARTS).is_dir():
        (place.folder / PARTS).rmdir()
    if everything:
        for name in place.sizes():
            if name.startswith("shard-") or name == REJECTS:
                place.remove(name)


def _finished_shards(place: Place, plan: Plan, kind: str) -> dict[int, dict[str, int]]:
    """Records of the shards that are there whole, by number."""
    known, sizes = place.sizes(PARTS), place.sizes()
    numbers = [s.number for s in plan.shards if record_name(s.number).removeprefix(f"{PARTS}/") in known]
    found = zip(numbers, place.read_json([record_name(number) for number in numbers]), strict=True)
    return {number: record for number, record in found if sizes.get(shard_name(number, kind)) == record["bytes"]}


def _finish(place: Place, plan: Plan, kind: str, state: dict[str, Any]) -> dict[str, Any]:
    done = _finished_shards(place, plan, kind)
    lacking = next((shard.number for shard in plan.shards if shard.number not in done), None)
    if lacking is not None:
        name = shard_name(lacking, kind)
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
    place.write_json(STATE, {**state, "state": "finished", "counts": counts, "shards": records})
    _clear(place)
    return counts
