"""Paired comparison of finished runs, or evaluations, on the same examples: each with the first.

difference   metric of the other minus metric of the first; 95% interval: both are computed for the same resamples of the
             examples, and the quantiles are those of their differences (paired percentile bootstrap, Efron 1979)
p            McNemar's exact test on the examples that only one of the two answers correctly

What the two answer alike cancels out, so a difference can be certain where the intervals of the metrics overlap.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distilora.errors import ConfigError
from distilora.evaluation.finished import Finished, read_finished
from distilora.evaluation.same_examples import align
from distilora.evaluation.texts import read_texts
from distilora.tasks.base import Remeasured, Task
from distilora.tasks.metrics.bootstrap import interval
from distilora.tasks.metrics.paired import McNemar, mcnemar

SIGNIFICANT = 0.05  # divided by the number of comparisons (Bonferroni)
Figure = dict[str, float | None]  # value, low, high
_BESIDE_THE_ANSWER = {"split", "place", "digest", "target", "tokens", "truncated"}  # columns of predictions.parquet


@dataclass(frozen=True)
class Changed:
    """Example that one of two models answers better."""

    place: str
    digest: str
    text: str | None  # cleaned; None if it cannot be read again
    target: Any
    first: dict[str, Any]  # answer of the first run
    other: dict[str, Any]
    shown: list[str]  # target and both answers for a reader


@dataclass(frozen=True)
class Pair:
    """Another run compared with the first; wins are examples that the other answers better."""

    other: str
    differences: dict[str, Figure]  # other minus first
    mcnemar: McNemar | None  # a: the other, b: the first; None if answers are not correct or wrong
    verdict: str
    wins: list[Changed]
    losses: list[Changed]


@dataclass(frozen=True)
class Comparison:
    """Metrics of two or more runs on the same examples, and all others paired with the first."""

    split: str
    examples: int
    resamples: int
    metrics: dict[str, dict[str, Figure]]  # run -> metric -> value with its own interval
    pairs: list[Pair]
    notes: list[str]

    @property
    def first(self) -> str:
        """The run that the others are compared with."""
        return next(iter(self.metrics))

    def record(self) -> dict[str, Any]:
        """Return the comparison as JSON values."""
        return {"first": self.first, **asdict(self)}


def compare(
    runs: Sequence[str | Path], *, split: str | None = None, resamples: int = 1000, examples: int = 20
) -> Comparison:
    """Compare finished runs, or folders of evaluations, with the first of them on the same examples.

    Args:
        runs: two or more folders.
        split: split to compare on; None: the one that the first run's report shows first, its test if it has one.
        resamples: number of resamples behind the intervals.
        examples: number of wins, and of losses, returned with their texts: those of the largest difference in quality.

    Raises ConfigError for fewer than two runs; ArtifactError if one is not finished; DataError, saying what differs, if they
    were not measured on the same examples.
    """
    names = [str(run) for run in runs]
    _check(names, resamples, examples)
    first = read_finished(names[0], split)
    others = [read_finished(name, split or first.split) for name in names[1:]]
    answers = [first.predictions, *(align(first, other) for other in others)]
    measured = [first.task.remeasure(rows, resamples) for rows in answers]
    chosen = [_changed(measured[0], other, examples) for other in measured[1:]]
    digests = {first.predictions[i]["digest"] for sides in chosen for side in sides for i in side}
    texts, missing = read_texts([first, *others], digests) if digests else ({}, "")
    pairs = []
    for other, rows, ours, (wins, losses) in zip(others, answers[1:], measured[1:], chosen, strict=True):
        sides = ([_example(first.task, texts, answers[0][i], rows[i]) for i in side] for side in (wins, losses))
        pairs.append(_pair(first.name, other.name, measured[0], ours, len(others), *sides))
    metrics = {name: _metrics(each) for name, each in zip(names, measured, strict=True)}
    notes = [*_notes(first, others), *([missing] if missing else [])]
    return Comparison(first.split, len(first.predictions), resamples, metrics, pairs, notes)


def _check(names: Sequence[str], resamples: int, examples: int) -> None:
    """Raise ConfigError for arguments of `compare` that are out of range."""
    if len(names) < 2:
        raise ConfigError(f"RUN: {len(names)} given, two or more are compared; name another")
    folders = [Path(name).resolve() for name in names]
    for i, folder in enumerate(folders):
        if folder in folders[:i]:
            raise ConfigError(f"RUN: {names[i]} is given twice; name another")
    if resamples < 100:
        raise ConfigError(f"resamples: {resamples} given, at least 100 wanted")
    if examples < 0:
        raise ConfigError(f"examples: {examples} given, 0 or more wanted")


def _metrics(measured: Remeasured) -> dict[str, Figure]:
    return {name: _with_interval(value, measured.resampled.get(name)) for name, value in measured.metrics.items()}


def _with_interval(value: float | None, values: NDArray[np.float64] | None) -> Figure:
    low, high = (None, None) if values is None or value is None else interval(values)
    return {"value": value, "low": low, "high": high}


def _pair(
    first: str,
    other: str,
    before: Remeasured,
    after: Remeasured,
    pairs: int,
    wins: list[Changed],
    losses: list[Changed],
) -> Pair:
    """Compare another run's measurement with the first's; `pairs` is the number of such comparisons."""
    differences = {}
    for name, value in after.metrics.items():
        start = before.metrics[name]
        values = None
        if name in before.resampled and name in after.resampled:
            values = after.resampled[name] - before.resampled[name]
        differences[name] = _with_interval(None if value is None or start is None else value - start, values)
    tested = None
    if before.correct is not None and after.correct is not None:
        tested = mcnemar(after.correct, before.correct)
    verdict = _verdict(first, other, tested, len(before.quality), pairs) if tested else ""
    return Pair(other, differences, tested, verdict, wins, losses)


def _verdict(first: str, other: str, tested: McNemar, count: int, pairs: int) -> str:
    """Say in a sentence whether one of two runs is more often correct, as far as the examples tell."""
    if tested["p"] > SIGNIFICANT / pairs:
        return f"As far as these {count:,} examples tell, {other} and {first} may be equally accurate (p = {tested['p']:.2g})."
    better, worse = (other, first) if tested["a_only"] > tested["b_only"] else (first, other)
    return f"{better} is more accurate than {worse} (p = {tested['p']:.2g})."


def _changed(first: Remeasured, other: Remeasured, most: int) -> tuple[list[int], list[int]]:
    """Choose the examples that the other answers better, and those it answers worse, those that changed most in front."""
    gain = other.quality - first.quality
    if first.correct is None or other.correct is None:
        better, worse = gain > 0, gain < 0
    else:
        better, worse = other.correct & ~first.correct, first.correct & ~other.correct
    order = np.argsort(-np.abs(gain), kind="stable")
    wins, losses = (order[side[order]][:most].tolist() for side in (better, worse))
    return wins, losses


def _example(task: Task, texts: Mapping[str, str], first: Mapping[str, Any], other: Mapping[str, Any]) -> Changed:
    before, after = (
        {name: value for name, value in row.items() if name not in _BESIDE_THE_ANSWER} for row in (first, other)
    )
    shown = [task.target_text(first["target"]), task.answer_text(before), task.answer_text(after)]
    return Changed(first["place"], first["digest"], texts.get(first["digest"]), first["target"], before, after, shown)


def _notes(first: Finished, others: Sequence[Finished]) -> list[str]:
    """Write what a reader of the comparison must know."""
    notes = []
    if first.split == "validation":
        notes.append(
            "The checkpoints and temperatures were chosen on the validation examples, so the metrics flatter all runs a little."
        )
    elif "validation" in first.splits:
        notes.append(
            f"To choose between runs, compare them with --split validation: examples that a choice was made on ({first.split}) "
            "are no test of it any more."
        )
    if len(others) > 1:
        notes.append(
            f"{len(others)} comparisons are made, so each p is held against {SIGNIFICANT} / {len(others)} = "
            f"{SIGNIFICANT / len(others):.2g} (Bonferroni); the intervals are 95% each."
        )
    runs: dict[str, list[str]] = {}  # a note -> those that have it
    for each in (first, *others):
        for note in each.notes:
            runs.setdefault(note, []).append(each.name)
    return notes + [f"{', '.join(names)}: {note}" for note, names in runs.items()]
