"""Runs a suite on a saved model, through its predictor on any backend, and writes what came out to a folder."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from distilora.artifact.shipped import is_shipped
from distilora.config.measuring import ChecksConfig, MeasureConfig
from distilora.errors import ConfigError, MissingExtra
from distilora.evaluation.checks.naming import name_labels
from distilora.evaluation.checks.run import Answer, Probabilities, SuiteResult, run_checks
from distilora.evaluation.checks.showing import checks_section
from distilora.evaluation.checks.suite import Suite, read_suite
from distilora.evaluation.folder import (
    check_output,
    choose_folder,
    evaluation_identity,
    evaluations_of,
    make_folder,
)
from distilora.files.atomic import atomic_text, write_json
from distilora.files.full_disk import writing
from distilora.progress import say

if TYPE_CHECKING:
    from distilora.inference.predictor import Predictor


def evaluate_checks(run: str | Path, config: MeasureConfig) -> tuple[dict[str, Any], Path]:
    """Run a suite on a saved model; return what metrics.json holds and the folder.

    Raises ConfigError if the suite is wrong or does not suit the model's labels, ArtifactError if the model is incomplete.
    """
    from distilora.evaluation.report import write_report
    from distilora.inference.predictor import load

    assert config.checks.suite is not None
    suite = read_suite(config.checks.suite)
    if config.output:
        check_output(config)
    predictor = load(run, config.precision, config.device, config.encoder, config.base, lexicon=config.lexicon)
    artifact, precision = predictor.artifact, predictor.backend.precision
    if not config.output and not Path(run).expanduser().exists() and not is_shipped(artifact.folder):
        raise ConfigError(f"output: nothing given, and {run} is no folder to write into; name a folder with --output")
    check_output(config, artifact)
    identity = evaluation_identity(
        artifact, config, suite.name, "checks", checks_digest(suite, config.checks), precision
    )
    result = check_predictor(predictor, suite, config.checks)
    folder = choose_folder(config, evaluations_of(artifact), f"checks-{suite.name}", identity)
    summary: dict[str, Any] = {
        "run": str(run),
        "task": predictor.task.name,
        "encoder": artifact.encoder,
        "precision": precision,
        "base": config.base,
        "identity": identity,
        "checks": result.record(config.checks.examples),
    }
    if predictor.calibrate.expert is not None:  # what the encoder would pass without its n-gram expert
        alone = load(run, precision, config.device, config.encoder, config.base, lexicon="none")
        summary["checks"]["encoder_alone"] = check_predictor(alone, suite, config.checks).record(0)["own"]
    make_folder(folder)
    with writing(folder, "evaluate again"):
        write_cases(folder, result)
        try:
            section = checks_section(summary["checks"])
            facts = {"encoder": artifact.encoder["name"], "precision": precision}
            write_report(
                folder / "report.html", f"{Path(run).name}: checks", predictor.task, [], sections=[section], facts=facts
            )
        except MissingExtra as error:  # a machine that only serves
            say(f"note: report.html is not written: {error}")
        write_json(folder / "metrics.json", summary)
    return summary, folder


def check_predictor(
    predictor: "Predictor", suite: Suite, settings: ChecksConfig, texts: Sequence[str] = ()
) -> SuiteResult:
    """Run a suite on a predictor; `texts` are one's own. Raises ConfigError if the suite does not suit its labels."""
    if predictor.task.output_kind != "label":
        raise ConfigError(f"checks: task {predictor.task.name} does not answer a text with one label; checks need that")
    chosen = {name: tuple(map(str, labels)) for name in ("negative", "positive") if (labels := getattr(settings, name))}
    naming = name_labels(suite, predictor.labels, chosen)
    return run_checks(suite, answer_of(predictor), naming, texts=texts, seed=settings.seed)


def answer_of(predictor: "Predictor") -> Answer:
    """Make the function from texts to probabilities [N, C] that `run_checks` takes of a predictor."""

    def answer(texts: Sequence[str]) -> Probabilities:
        names = [f"p_{label}" for label in predictor.labels]
        return np.asarray(
            [[answer[name] for name in names] for answer in predictor(list(texts), strict=True)], np.float64
        )

    return answer


def checks_digest(suite: Suite, settings: ChecksConfig) -> str:
    """Compute the SHA-256 of everything that decides which checks a model is put to."""
    parts = [suite.digest, settings.seed, settings.negative, settings.positive]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def write_cases(folder: Path, result: SuiteResult) -> None:
    """Write every case, passed or failed, with its answers to cases.jsonl."""
    with atomic_text(folder / "cases.jsonl") as stream:
        for record in result.case_records():
            stream.write(json.dumps(record, ensure_ascii=False) + "\n")
