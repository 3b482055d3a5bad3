"""Runs a suite: makes the cases, asks for all answers at once, and judges each check.

    suite, seed, own texts -> cases -> answer(texts) -> probabilities -> passed or not -> shares with intervals

Only the suite, the seed, the texts and the labels decide which cases there are, so two models are compared case by case.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from random import Random
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from distilora.evaluation.checks.naming import Naming, name_labels
from distilora.evaluation.checks.suite import Check, Suite
from distilora.evaluation.checks.templates import sample
from distilora.tasks.metrics.wilson import wilson

Probabilities = NDArray[np.float64]
Answer = Callable[[Sequence[str]], Probabilities]  # N texts -> [N, C]
FLOAT = 1e-9  # by which a probability that just reaches a bound may miss it


class Case(NamedTuple):
    """A text, and what it was changed to in a check of invariance or direction."""

    text: str
    changed: str | None = None


@dataclass(frozen=True)
class Said:
    """Answer to one text: the model's label, and the probability of each of the suite's names."""

    label: str
    probabilities: dict[str, float]


@dataclass(frozen=True)
class Judged:
    """Case with its answers and whether it passed; `badness` orders the failures, worst highest."""

    case: Case
    answer: Said
    changed_answer: Said | None
    passed: bool
    badness: float

    def record(self) -> dict[str, Any]:
        """Return the case as JSON values."""
        record: dict[str, Any] = {"text": self.case.text, "label": self.answer.label, "p": self.answer.probabilities}
        if self.changed_answer is not None:
            changed = self.changed_answer
            record |= {"changed": self.case.changed, "changed_label": changed.label, "changed_p": changed.probabilities}
        return record


@dataclass(frozen=True)
class CheckResult:
    """Outcome of a check; without cases, `skipped` says why."""

    check: Check
    cases: tuple[Judged, ...] = ()
    skipped: str = ""

    @property
    def passed(self) -> int:
        """Number of cases that passed."""
        return sum(case.passed for case in self.cases)

    @property
    def failures(self) -> list[Judged]:
        """Cases that failed, worst first."""
        return sorted((case for case in self.cases if not case.passed), key=lambda case: -case.badness)

    def record(self, examples: int) -> dict[str, Any]:
        """Return the outcome as JSON values, with at most `examples` failures."""
        check = self.check
        return {
            "name": check.name,
            "capability": check.capability,
            "kind": check.kind,
            "expectation": check.expectation,
            "on_data": check.on_data,
            "skipped": self.skipped,
            **share_of([self]),
            "failures": [case.record() for case in self.failures[:examples]],
        }


@dataclass(frozen=True)
class SuiteResult:
    """Outcome of a suite, check by check in its order."""

    suite: Suite
    naming: Naming
    seed: int
    checks: tuple[CheckResult, ...]

    @property
    def passed_share(self) -> float | None:
        """Share of the suite's own cases that passed, all checks together; None without any."""
        return share_of(self._of(on_data=False))["share"]  # type: ignore[no-any-return]

    def record(self, examples: int = 5) -> dict[str, Any]:
        """Return the outcome as JSON values; a check has at most `examples` of its failures.

        `checks_passed_share` is of the suite's own cases; those made of one's data have `data_passed_share`.
        """
        own, data = share_of(self._of(on_data=False)), share_of(self._of(on_data=True))
        capabilities = dict.fromkeys(result.check.capability for result in self._of(on_data=False) if result.cases)
        return {
            "suite": self.suite.name,
            "digest": self.suite.digest,
            "seed": self.seed,
            "labels": dict(zip(self.naming.labels, self.naming.names, strict=True)),
            "reading": self.naming.sentence(),
            "checks_passed_share": own["share"],
            "own": own,
            "data_passed_share": data["share"],
            "data": data,
            "capabilities": [
                {"name": name, **share_of([r for r in self._of(on_data=False) if r.check.capability == name])}
                for name in capabilities
            ],
            "checks": [result.record(examples) for result in self.checks],
        }

    def case_records(self) -> list[dict[str, Any]]:
        """Return every case as JSON values."""
        return [
            {"check": result.check.name, "kind": result.check.kind, "passed": case.passed, **case.record()}
            for result in self.checks
            for case in result.cases
        ]

    def _of(self, on_data: bool) -> list[CheckResult]:
        return [result for result in self.checks if result.check.on_data == on_data]


def share_of(results: Sequence[CheckResult]) -> dict[str, Any]:
    """Compute the share of cases that passed, with its Wilson interval, which takes the cases for independent."""
    cases, passed = sum(len(result.cases) for result in results), sum(result.passed for result in results)
    low, high = wilson(passed, cases) if cases else (None, None)
    return {"cases": cases, "passed": passed, "share": passed / cases if cases else None, "low": low, "high": high}


def run_checks(
    suite: Suite, answer: Answer, labels: Sequence[str] | Naming, *, texts: Sequence[str] = (), seed: int = 0
) -> SuiteResult:
    """Run a suite's checks on whatever answers texts.

    Args:
        answer: computes the probabilities [N, C] of N texts; called once, with every text once.
        labels: names of the C labels in order, or what `name_labels` made of them.
        texts: one's own texts, for checks that perturb them.
        seed: chooses the values of slots and the perturbations.

    Raises ConfigError if a label is unknown to the suite, ValueError if the probabilities have another shape.
    """
    naming = labels if isinstance(labels, Naming) else name_labels(suite, labels)
    planned = [(check, *_planned(check, suite, naming, texts, seed)) for check in suite.checks]
    asked = list(dict.fromkeys(text for _, cases, _ in planned for case in cases for text in case if text is not None))
    probabilities = np.asarray(answer(asked), np.float64) if asked else np.empty((0, len(naming.labels)))
    if probabilities.shape != (len(asked), len(naming.labels)):
        raise ValueError(f"answer: shape {probabilities.shape} given, {(len(asked), len(naming.labels))} wanted")
    by_name = naming.probabilities(probabilities)
    best = probabilities.argmax(axis=1)
    answers = {
        text: Said(naming.labels[int(best[i])], {name: float(values[i]) for name, values in by_name.items()})
        for i, text in enumerate(asked)
    }
    results = tuple(
        CheckResult(check, tuple(judge(check, case, answers, naming) for case in cases), skipped)
        for check, cases, skipped in planned
    )
    return SuiteResult(suite, naming, seed, results)


def make_cases(check: Check, suite: Suite, texts: Sequence[str], seed: int) -> list[Case]:
    """Make a check's cases, the same for the same seed: from its templates in equal parts, or from one's own texts."""
    rng = Random(f"{seed} {check.name}")
    sources: list[list[tuple[str, str | None]]]
    if check.on_data:
        sources = [[(text, None) for text in rng.sample(list(texts), len(texts))]]
    else:
        sources = [sample(template, suite.slots, check.cases, rng) for template in check.templates]
    turns = chain.from_iterable(zip(*(_padded(source, max(map(len, sources))) for source in sources), strict=True))
    cases: dict[Case, None] = {}
    for filled in turns:
        if len(cases) == check.cases:
            break
        if filled is None:
            continue
        text, changed = filled
        if check.perturbation is not None:
            changed = check.perturbation(text, rng)
        if check.kind == "mft" or (changed is not None and changed != text):
            cases[Case(text, changed)] = None
    return list(cases)


def judge(check: Check, case: Case, answers: dict[str, Said], naming: Naming) -> Judged:
    """Judge one case by the answers to its texts."""
    answer = answers[case.text]
    names = dict(zip(naming.labels, naming.names, strict=True))
    p = answer.probabilities
    if case.changed is None:
        right = sum(p.get(name, 0.0) for name in check.expect)
        return Judged(case, answer, None, names[answer.label] in check.expect, 1 - right)
    changed = answers[case.changed]
    moved = {name: changed.probabilities[name] - p[name] for name in p}
    if check.kind == "inv":
        most = max(map(abs, moved.values()), default=0.0)
        same = _called(answer, names) == _called(changed, names)
        return Judged(case, answer, changed, same and (check.within is None or most <= check.within + FLOAT), most)
    shortfall = max(-sign * moved[name] for name, sign in check.moves.items())  # how far the wrong way
    bound = -check.by if check.by else check.tolerance
    return Judged(case, answer, changed, shortfall <= bound + FLOAT, shortfall)


def _planned(check: Check, suite: Suite, naming: Naming, texts: Sequence[str], seed: int) -> tuple[list[Case], str]:
    """Return a check's cases, or why there are none."""
    missing = [name for name in check.names if name not in naming.distinct]
    if missing and (check.moves or len(missing) == len(check.expect)):
        return [], f"the model has no label for {', '.join(missing)}"
    if check.on_data and not texts:
        return [], "no texts of yours are given (--data.path)"
    cases = make_cases(check, suite, texts, seed)
    return cases, "" if cases else "the perturbation changes none of the texts"


def _called(answer: Said, names: dict[str, str]) -> str:
    """Return the suite's name of an answer; the label itself where it has none."""
    return names[answer.label] or f"label {answer.label}"


def _padded(source: Sequence[tuple[str, str | None]], length: int) -> list[tuple[str, str | None] | None]:
    return [*source, *[None] * (length - len(source))]
