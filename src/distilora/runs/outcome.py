"""The outcome of a run, written for people and programs: metrics.json, predictions, report and model card."""

import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from distilora.artifact.format import Artifact
from distilora.config.parse import to_tree
from distilora.config.schema import DataConfig, RunConfig
from distilora.data.overlap import SEEN, examples_digest
from distilora.data.parts import Parts
from distilora.evaluation.measure import Measured
from distilora.evaluation.model_card import model_card
from distilora.evaluation.report import write_report
from distilora.files.atomic import atomic_text, write_bytes, write_json
from distilora.files.tables import write_table
from distilora.model.adapters.methods import METHODS
from distilora.model.encoders.find import Encoder
from distilora.tasks.base import Task
from distilora.training.imbalance import overdone
from distilora.training.loop import Fitted
from distilora.version import __version__

_FILMS = re.compile("imdb|rotten.?tomatoes", re.IGNORECASE)  # sources of film reviews, by their names


@dataclass(frozen=True)
class Outcome:
    """Everything that a run has produced. `measured` has the final test first, if there is one."""

    config: RunConfig
    encoder: Encoder
    artifact: Artifact
    pad_token: str
    task: Task
    parts: Parts
    fragments: int  # of training texts, trained on, too
    train_tokens: int
    parameters: dict[str, Any]
    fitted: Fitted
    round_trip: dict[str, Any]
    measured: Sequence[Measured]
    seen: NDArray[np.uint64]  # fingerprints of the texts trained and chosen on
    costs: dict[str, Any]
    unlabelled: Mapping[str, Any] | None  # counts of the unlabelled texts, of a run that was distilled
    initial: Mapping[str, Any] | None  # of the run that this one started from


def write_outcome(folder: Path, outcome: Outcome) -> dict[str, Any]:
    """Write predictions.parquet, report.html, README.md and, last, metrics.json; return the contents of metrics.json."""
    summary = _summary(outcome)
    splits = [measured.metrics for measured in outcome.measured]
    write_table(folder / "predictions.parquet", [row for measured in outcome.measured for row in measured.predictions])
    write_report(
        folder / "report.html",
        f"{folder.name}: {outcome.encoder.name} on {summary['data']['source']}",
        outcome.task,
        splits,
        history=outcome.fitted.state.history,
        notes=summary["notes"],
        facts=_facts(outcome, summary),
        settings=yaml.safe_dump(to_tree(outcome.config), sort_keys=False, allow_unicode=True),
    )
    card = model_card(
        str(folder),
        outcome.artifact,
        outcome.task,
        outcome.pad_token,
        outcome.config.data.truncation_side,
        splits,
        summary["notes"],
        summary["data"],
    )
    with atomic_text(folder / "README.md") as stream:
        stream.write(card)
    buffer = io.BytesIO()
    np.save(buffer, outcome.seen)
    write_bytes(folder / SEEN, buffer.getvalue())
    write_json(folder / "metrics.json", summary)
    return summary


def notes_for(config: RunConfig, parts: Parts) -> list[str]:
    """Write sentences on what the figures mean, and where they flatter."""
    notes = [parts.summary["note"]] if parts.summary["note"] else []
    if parts.summary["test_split"] == "heldout":
        caveat = _caveat(config.data, parts.summary["source"])
        share = f"{config.data.heldout:.{0 if config.data.heldout >= 0.01 else 1}%}"
        notes.append(
            f"The final test is not an official test split: it is {share} of the training examples, stratified, "
            f"held out before anything was chosen. Exact and near copies are kept on one side; {caveat}"
        )
    elif parts.read_test is None:
        notes.append(
            "There is no final test. The validation figures flatter: the checkpoint and the temperature were chosen on "
            "those examples."
        )
    notes += [*parts.notes, *filter(None, [overdone(config.training)])]
    for pair, counts in parts.summary["copies_between_splits"].items():
        if counts["exact or near"]:
            notes.append(
                f"Copies between {pair}: {counts['exact or near']} examples of the second have a copy in the first "
                f"({counts['exact']} of them exact)."
            )
    return notes


def _caveat(data: DataConfig, source: str) -> str:
    """Say which texts may be on both sides of a held-out test, besides copies."""
    film = _FILMS.search(Path(source).name)
    related, shared = ("reviews of one film", "the film") if film else ("several by one author", "what they share")
    if data.group_column:
        return f"no value of {data.group_column} is on both sides."
    if data.carve == "consecutive":
        order = f"by {data.order_column}" if data.order_column else "in the order of the source"
        return (
            f"the examples of each label are consecutive {order}: texts of one label that belong together, such as {related}, "
            "are on both sides only where a stretch ends, if they stand together; those of different labels may be "
            f"(--data.group_column prevents that if a column names {shared})."
        )
    return (
        f"but texts that belong together, such as {related}, may be on both sides, which makes the figure a little high "
        f"(--data.group_column prevents that if a column names {shared}; --data.carve consecutive makes it rare if they "
        "stand together)."
    )


def _summary(outcome: Outcome) -> dict[str, Any]:
    config, state = outcome.config, outcome.fitted.state
    distillation: dict[str, Any] = {} if outcome.unlabelled is None else {"distillation": dict(outcome.unlabelled)}
    summary = {
        "distilora": __version__,
        "task": outcome.task.name,
        "method": config.adapter.method,
        "encoder": outcome.encoder.describe(),
        "data": {
            **outcome.parts.summary,
            "train_split": config.data.train_split,
            "fragments": outcome.fragments,
            "train_tokens": outcome.train_tokens,
            "train_classes": outcome.task.counts(outcome.parts.train),
            "validation_digest": examples_digest(outcome.parts.validation, outcome.task.target_name),
        },
        "parameters": outcome.parameters,
        "training": {
            "updates": state.update,
            "planned_updates": outcome.fitted.updates,
            "stopped_early": outcome.fitted.stopped_early,
            "best_update": state.best_update,
            "best_validation_loss": state.best_loss,
            "seconds": round(state.seconds, 2),
            "updating_seconds": round(state.updating, 2),
            "examples_per_s": round(outcome.fitted.seen / max(state.updating, 1e-9), 2),
            "precision": config.training.precision,
            "device": config.training.device,
            "processes": outcome.fitted.processes,
            "prefix_cache": {name: outcome.fitted.prefix[name] for name in ("blocks", "bytes")},
            "history": state.history,
        },
        "memory": {name: round(value, 4) for name, value in outcome.fitted.memory.items()},
        "round_trip": outcome.round_trip,
        "agreement": outcome.artifact.agreement,
        "evaluations": [{k: v for k, v in m.metrics.items() if k != "mistakes"} for m in outcome.measured],
        **distillation,
        **({} if outcome.initial is None else {"init_from": dict(outcome.initial)}),
        "notes": notes_for(config, outcome.parts),
        "costs": outcome.costs,
    }
    finite: dict[str, Any] = _finite(summary)
    return finite


def _facts(outcome: Outcome, summary: dict[str, Any]) -> dict[str, str]:
    """Fill the report's table on the run."""
    data, costs, counts = summary["data"], summary["costs"], summary["parameters"]
    training = outcome.config.training
    return {
        "examples": f"{data['train']:,} for training, {data['validation']:,} for validation",
        "read": f"{data['read']:,} records, {data['blank_skipped']} blank skipped, {data['exact_copies_dropped']} exact copies "
        f"dropped, {data['near_copies_kept_together']} pairs of near copies kept together",
        "method": METHODS[outcome.config.adapter.method].phrase,
        "trained parameters": f"{counts['trained']:,} of {counts['total']:,} ({counts['share']:.2%})",
        "best checkpoint": f"after update {outcome.fitted.state.best_update:,} of {outcome.fitted.updates:,}, by validation loss",
        "time": f"{costs['wall_s'] / 60:.1f} minutes ({costs['cpu_s'] / 60:.1f} CPU minutes), of which training and validation "
        f"{outcome.fitted.state.seconds / 60:.1f}",
        **({} if outcome.unlabelled is None else {"unlabelled texts": _unlabelled(outcome.unlabelled)}),
        **dict(memory_rows(costs)),
        "training memory": _memory(summary["memory"], training.device),
        "device and precision": f"{training.device}, {training.precision}",
        "round trip": f"{summary['round_trip']['texts']} texts reproduced by a fresh process",
    }


def _unlabelled(counts: Mapping[str, Any]) -> str:
    removed = "; ".join(
        f"of {part} {removed['exact']:,} exact, {removed['near']:,} near"
        for part, removed in counts["copies_removed"].items()
    )
    return (
        f"{counts['used']:,} of {counts['read']:,}; {counts['exact_copies_dropped']:,} exact copies of one another dropped, copies "
        f"removed: {removed}"
    )


def memory_rows(costs: dict[str, Any]) -> list[tuple[str, str]]:
    """List the memory and disk space that a run took as pairs (name, figure), for the terminal and the report."""
    if costs.get("peak_anonymous_mb") is None:  # not Linux
        rows = [("peak memory, mapped files included", f"{costs['peak_resident_mb'] or float('nan'):,.0f} MB")]
    else:
        rows = [("peak memory", f"{costs['peak_anonymous_mb']:,.0f} MB (the process's own, without mapped files)")]
    if costs["cache_on_disk_mb"]:
        found = costs.get("cache_found_mb")
        of_others = f", {found:,.0f} MB of it from an earlier run" if found else ""
        rows.append(("frozen-prefix cache", f"{costs['cache_on_disk_mb']:,.0f} MB on disk while it trained{of_others}"))
    return rows


def _memory(measured: dict[str, float | None], device: str) -> str:
    names = {"weights_mb": "weights", "gradients_mb": "gradients", "optimizer_mb": "optimiser",
             "activations_mb": "activations of the largest micro-batch"}  # fmt: skip
    figures = ", ".join(
        f"{name} {measured[key]:,.1f} MB" for key, name in names.items() if measured.get(key) is not None
    )
    peak = measured.get("peak_mb")
    kind = "allocated on the GPU" if device == "cuda" else "anonymous memory above its value after imports"
    return figures + (f"; peak {peak:,.0f} MB ({kind})" if peak is not None else "")


def _finite(value: Any) -> Any:
    """Replace floats that JSON cannot represent by None."""
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value
