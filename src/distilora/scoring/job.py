"""The job of a place, score.json: what it was begun with, whether the same is asked for now, and what is its own there.

Nothing is removed from a folder but files of the names that scoring itself gives.
"""

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from distilora.config.schema import BackendName, Base
from distilora.errors import ConfigError
from distilora.files.locks import LOCK
from distilora.files.separators import separator_from
from distilora.files.stores import Place, find_inputs
from distilora.hardware import Device, InferencePrecision
from distilora.inference.numerics import Numerics
from distilora.scoring.scorer import PARTS
from distilora.scoring.shards import ShardPlan

STATE = "score.json"
REJECTS = "rejects.jsonl"
SCHEMA = 2  # of score.json; 1, which says nothing of it, kept `auto` instead of what it meant
Kind = Literal["parquet", "csv", "jsonl"]
_SHARD = r"shard-\d{5,}\.(?:parquet|csv|jsonl)"
_PART = r"\d{5,}(?:\.rejects\.jsonl|\.json)"
_TEMPORARY = re.compile(rf"\.(?:{_SHARD}|{_PART}|{re.escape(STATE)}|{re.escape(REJECTS)})\.\d+\.tmp")


@dataclass(frozen=True)
class Scoring:
    """What to score, with what, and where to."""

    run: str
    source: str
    output: str
    text_column: str | None = None
    separator: str | None = None
    limit: int | None = None
    shard_rows: int = 50_000
    kind: Kind = "parquet"
    engine: Literal["local", "ray"] = "local"
    address: str | None = None
    workers: int | None = None
    abstain_below: float = 0.0
    backend: BackendName = "auto"
    precision: InferencePrecision = "auto"
    device: Device = "auto"
    encoder: str | None = None
    base: Base = "auto"
    overwrite: bool = False

    def __post_init__(self) -> None:
        for name in ("limit", "shard_rows", "workers"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise ConfigError(f"--{name.replace('_', '-')}: {value} given, at least 1 wanted")
        if self.separator is not None:
            separator_from(self.separator, "--separator")
        if not 0 <= self.abstain_below <= 1:
            raise ConfigError(f"--abstain-below: {self.abstain_below!r} given, a probability from 0 to 1 wanted")
        for name, has in (("address", "a cluster"), ("workers", "workers")):
            if getattr(self, name) is not None and self.engine != "ray":
                raise ConfigError(f"--{name}: given, but only --engine ray has {has}; add that, or drop it")
        if self.engine == "ray" and (self.source.startswith("memory://") or self.output.startswith("memory://")):
            raise ConfigError("--engine: ray cannot share memory:// among its processes; give a folder or a store")

    @property
    def pool(self) -> int:
        """Workers of the ray engine."""
        return self.workers or 2

    def kept(self) -> dict[str, Any]:
        """The settings that rows depend on, beside the numerics; the others may change between a kill and going on."""
        return {
            name: getattr(self, name)
            for name in ("text_column", "separator", "limit", "shard_rows", "kind", "abstain_below")
        }

    def loading(self) -> dict[str, Any]:
        """How `load` is told to load the model."""
        names = ("backend", "precision", "device", "encoder", "base", "abstain_below")
        return {name: getattr(self, name) for name in names}

    def computing(self, numerics: Numerics) -> "Scoring":
        """The same with what `auto` means in this job."""
        return dataclasses.replace(self, **dataclasses.asdict(numerics))


@dataclass(frozen=True)
class Job:
    """What is computed: the model's checksum, the settings that rows depend on, the numerics, and the plan."""

    model: str
    settings: dict[str, Any]
    numerics: Numerics
    plan: ShardPlan

    def tree(self, state: Literal["running", "finished"], **more: Any) -> dict[str, Any]:
        """As the JSON of score.json."""
        own = {"model": self.model, "settings": self.settings, "numerics": dataclasses.asdict(self.numerics)}
        return {"schema": SCHEMA, "state": state, **own, "plan": self.plan.tree(), **more}


def find_state(place: Place) -> dict[str, Any] | None:
    """What score.json says, None if there is none that scoring wrote."""
    [state] = place.read_json([STATE])
    ours = isinstance(state, dict) and state.get("state") in ("running", "finished", "cleared")
    return state if ours else None


def _as_given(option: str, value: object) -> str:
    return f"without {option}" if value is None else f"with {option} {value}"


def same_job(state: Mapping[str, Any], settings: Scoring, model: str) -> Job:
    """The job that was begun. Raises ConfigError naming what differs from it, in this release, the settings or the inputs."""
    ways = "give that again, another --output, or --overwrite"
    begun = f"--output: {settings.output} was begun with"
    if state.get("schema") != SCHEMA:
        raise ConfigError(
            f"{begun} another release of distilora; finish it with that, give another --output, or --overwrite"
        )
    job = Job(state["model"], state["settings"], Numerics(**state["numerics"]), ShardPlan.of(state["plan"]))
    if job.model != model:
        raise ConfigError(f"{begun} another model; {ways}")
    for name, value in settings.kept().items():
        if job.settings.get(name) != value:
            option = "--format" if name == "kind" else "--" + name.replace("_", "-")
            then, now = (_as_given(option, of) for of in (job.settings.get(name), value))
            raise ConfigError(f"--output: {settings.output} was begun {then}, now {now}; {ways}")
    for name, kept in dataclasses.asdict(job.numerics).items():
        if (given := getattr(settings, name)) not in ("auto", kept):
            raise ConfigError(f"{begun} --{name} {kept}, now {given}; {ways}")
    held, found = {one.path: one for one in job.plan.inputs}, {one.path: one for one in find_inputs(settings.source)}
    for path in sorted({*held, *found}):
        if held.get(path) != found.get(path):
            how = "is new since" if path not in held else "is gone since" if path not in found else "has changed since"
            raise ConfigError(f"--output: {settings.output} was begun before: {path} {how}; {ways}")
    return job


def refuse_others(place: Place) -> None:
    """Raises ConfigError if the place, in which no job was begun, holds anything."""
    if place.folder is None:
        names = list(place.sizes())
    else:
        names = [path.name for path in place.folder.iterdir() if path.name != LOCK]
    there = min((name for name in names if not _TEMPORARY.fullmatch(name)), default="")
    if there:
        raise ConfigError(f"--output: {place.address} holds {there}, which is not of scoring; give another folder")


def sweep(place: Place) -> None:
    """Removes what a killed process was writing; a store shows no such files."""
    if place.folder is not None:
        for path in [*place.folder.glob(".*.tmp"), *place.folder.glob(f"{PARTS}/.*.tmp")]:
            if _TEMPORARY.fullmatch(path.name) and path.is_file():
                path.unlink()


def clear(place: Place, everything: bool = False) -> None:
    """Removes the parts, and of what is to be overwritten the shards and the rejects."""
    for name in place.sizes(PARTS):
        if re.fullmatch(_PART, name):
            place.remove(f"{PARTS}/{name}")
    if place.folder is not None and (parts := place.folder / PARTS).is_dir() and not any(parts.iterdir()):
        parts.rmdir()
    if everything:
        for name in place.sizes():
            if name == REJECTS or re.fullmatch(_SHARD, name):
                place.remove(name)
