"""Keeps a scoring job in score.json: its settings, whether a resumed command matches them, and which files are its own.

Only files with names that scoring itself gives are ever removed from a folder.
"""

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from distilora.config.schema import BackendName, Base, LexiconUse
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
SCHEMA = 4  # of score.json; schema 1, which has no such field, stored `auto` unresolved; 2 knew no n-gram expert, 3 no cascade
Kind = Literal["parquet", "csv", "jsonl"]
_SHARD = r"shard-\d{5,}\.(?:parquet|csv|jsonl)"
_PART = r"\d{5,}(?:\.rejects\.jsonl|\.json)"
_TEMPORARY = re.compile(rf"\.(?:{_SHARD}|{_PART}|{re.escape(STATE)}|{re.escape(REJECTS)})\.\d+\.tmp")


@dataclass(frozen=True)
class Scoring:
    """Settings of a scoring job: the model, the input, the output, and how to compute."""

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
    abstain_error: float | None = None
    backend: BackendName = "auto"
    precision: InferencePrecision = "auto"
    device: Device = "auto"
    encoder: str | None = None
    base: Base = "auto"
    lexicon: LexiconUse = "auto"
    cascade: bool = False
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
        """Number of workers of the ray engine."""
        return self.workers or 2

    def row_settings(self) -> dict[str, Any]:
        """Return the settings, numerics aside, that the rows depend on; the others may change when a job is resumed."""
        return {
            name: getattr(self, name)
            for name in (
                "text_column", "separator", "limit", "shard_rows", "kind", "abstain_below", "abstain_error", "lexicon",
                "cascade",
            )
        }  # fmt: skip

    def loading(self) -> dict[str, Any]:
        """Return the arguments of `load`; `abstain_error` has become `abstain_below` by then (`score`)."""
        names = ("backend", "precision", "device", "encoder", "base", "abstain_below", "lexicon", "cascade")
        return {name: getattr(self, name) for name in names}

    def computing(self, numerics: Numerics) -> "Scoring":
        """Return these settings with every `auto` resolved as in the job."""
        return dataclasses.replace(self, **dataclasses.asdict(numerics))


@dataclass(frozen=True)
class Job:
    """Scoring job: the model's checksum, the settings that the rows depend on, the numerics, and the shard plan."""

    model: str
    settings: dict[str, Any]
    numerics: Numerics
    plan: ShardPlan

    def tree(self, state: Literal["running", "finished"], **more: Any) -> dict[str, Any]:
        """Return the content of score.json."""
        return {
            "schema": SCHEMA, "state": state, "model": self.model, "settings": self.settings,
            "numerics": dataclasses.asdict(self.numerics), "plan": self.plan.tree(), **more,
        }  # fmt: skip


def find_state(place: Place) -> dict[str, Any] | None:
    """Read score.json; return None if there is none that scoring wrote."""
    [state] = place.read_json([STATE])
    ours = isinstance(state, dict) and state.get("state") in ("running", "finished", "cleared")
    return state if ours else None


def _as_given(option: str, value: object) -> str:
    if value is None or value is False:
        return f"without {option}"
    return f"with {option}" if value is True else f"with {option} {value}"


def same_job(state: Mapping[str, Any], settings: Scoring, model: str) -> Job:
    """Return the job that was begun. Raises ConfigError naming the release, setting, model or input that differs from it."""
    ways = "give that again, another --output, or --overwrite"
    begun = f"--output: {settings.output} was begun with"
    if state.get("schema") != SCHEMA:
        raise ConfigError(
            f"{begun} another release of distilora; finish it with that, give another --output, or --overwrite"
        )
    job = Job(state["model"], state["settings"], Numerics(**state["numerics"]), ShardPlan.of(state["plan"]))
    if job.model != model:
        raise ConfigError(f"{begun} another model; {ways}")
    for name, value in settings.row_settings().items():
        if job.settings.get(name) != value:
            option = "--format" if name == "kind" else "--" + name.replace("_", "-")
            then, now = (_as_given(option, of) for of in (job.settings.get(name), value))
            raise ConfigError(f"--output: {settings.output} was begun {then}, now {now}; {ways}")
    for name, then in dataclasses.asdict(job.numerics).items():
        if (value := getattr(settings, name)) not in ("auto", then):
            raise ConfigError(f"{begun} --{name} {then}, now {value}; {ways}")
    inputs_then = {file.path: file for file in job.plan.inputs}
    inputs_now = {file.path: file for file in find_inputs(settings.source)}
    for path in sorted({*inputs_then, *inputs_now}):
        if inputs_then.get(path) != inputs_now.get(path):
            how = "has changed since" if path in inputs_now else "is gone since"
            how = how if path in inputs_then else "is new since"
            raise ConfigError(f"--output: {settings.output} was begun before: {path} {how}; {ways}")
    return job


def refuse_others(place: Place) -> None:
    """Raise ConfigError if the place, in which no job was begun, holds anything."""
    if place.folder is None:
        names = list(place.sizes())
    else:
        names = [path.name for path in place.folder.iterdir() if path.name != LOCK]
    foreign = min((name for name in names if not _TEMPORARY.fullmatch(name)), default="")
    if foreign:
        raise ConfigError(
            f"--output: {place.address} holds {foreign}, which scoring did not write; give another folder"
        )


def sweep(place: Place) -> None:
    """Remove temporary files of a killed process; a store has none."""
    if place.folder is not None:
        for path in [*place.folder.glob(".*.tmp"), *place.folder.glob(f"{PARTS}/.*.tmp")]:
            if _TEMPORARY.fullmatch(path.name) and path.is_file():
                path.unlink()


def clear(place: Place, everything: bool = False) -> None:
    """Remove the parts and, with `everything`, the shards and the rejects."""
    for name in place.sizes(PARTS):
        if re.fullmatch(_PART, name):
            place.remove(f"{PARTS}/{name}")
    if place.folder is not None and (parts := place.folder / PARTS).is_dir() and not any(parts.iterdir()):
        parts.rmdir()
    if everything:
        for name in place.sizes():
            if name == REJECTS or re.fullmatch(_SHARD, name):
                place.remove(name)
