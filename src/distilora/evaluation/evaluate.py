"""Evaluation of a finished run on other labelled data, written to a folder of its own."""

import json
from pathlib import Path
from typing import Any

from distilora.artifact.format import Artifact, read_artifact
from distilora.config.measuring import MeasureConfig
from distilora.config.parse import to_tree
from distilora.data.examples import Examples, read_examples
from distilora.data.overlap import examples_digest, seen_among, seen_file
from distilora.data.sources import open_source
from distilora.evaluation.checks.evaluate import check_predictor, checks_digest, evaluate_checks, write_cases
from distilora.evaluation.checks.showing import checks_section
from distilora.evaluation.checks.suite import read_suite
from distilora.evaluation.folder import (
    check_output,
    choose_folder,
    data_name,
    evaluation_identity,
    evaluations_of,
    make_folder,
    run_of,
)
from distilora.evaluation.measure import measure
from distilora.files.atomic import write_json
from distilora.files.full_disk import writing
from distilora.files.tables import write_table
from distilora.progress import plural, say


def evaluate(run: str | Path, config: MeasureConfig) -> tuple[dict[str, Any], Path]:
    """Measure a finished run on other labelled data; return the metrics and the folder with the report.

    With `config.checks.suite` its checks are run, too, and without data they alone are.

    Raises DataError naming the field (and row) at fault, ArtifactError if the run is incomplete, ConfigError if the output
    folder holds something else.
    """
    if config.checks.suite and not config.data.path:
        return evaluate_checks(run, config)
    from distilora.evaluation.report import write_report
    from distilora.inference.lanes import run_rows
    from distilora.inference.predictor import Predictor, load

    suite = read_suite(config.checks.suite) if config.checks.suite else None
    artifact = read_artifact(run)
    check_output(config, artifact)
    source = open_source(config.data.path, config.data.name, config.data.revision, separator=config.data.separator)
    split = name = config.data.split
    if len(source.splits) == 1 and Path(config.data.path).is_file():
        split, name = source.splits[0], Path(config.data.path).stem
    predictor: Predictor = load(
        run, config.precision, config.device, config.encoder, config.base, lexicon=config.lexicon
    )
    notes = [source.note] if source.note else []
    task, records = predictor.task.aligned_to(source, split, config.data, notes)
    examples = read_examples(records, task, predictor.cleaning, name, config.data.strict)
    precision = predictor.backend.precision
    digest = examples_digest(examples, task.target_name)
    identity = evaluation_identity(artifact, config, source.name, name, digest, precision)
    name_of_data = data_name(config, split)
    checked = None
    if suite:
        identity["checks"] = checks_digest(suite, config.checks)
        name_of_data += "-checks"
        checked = check_predictor(predictor, suite, config.checks, [" ".join(e.texts) for e in examples.items])
    folder = choose_folder(config, evaluations_of(artifact), name_of_data, identity)
    tokens = task.tokenise(predictor.tokenizer, examples.items, f"tokenising {name}")
    outputs = run_rows(tokens.rows, predictor.backend, config.evaluation.token_budget, f"predicting {name}", True)
    home = run_of(artifact)
    trained = _trained_classes(home) if home else None
    measured = measure(
        task, examples, tokens, outputs, predictor.calibrate, config.evaluation, predictor.tokenizer, trained
    )
    notes += _seen_in_training(artifact, examples)
    summary: dict[str, Any] = {
        "run": str(run),
        "task": task.name,
        "reading": {
            "settings": dict(task.settings),
            "cleaning": artifact.cleaning,
            "data": {**to_tree(config.data), "path": _absolute(config.data.path), "split": split},
        },
        "source": source.name,
        "encoder": artifact.encoder,
        "precision": precision,
        "base": config.base,
        "identity": identity,
        "notes": notes,
        "evaluation": measured.metrics,
    }
    if checked:
        summary["checks"] = checked.record(config.checks.examples)
    make_folder(folder)
    title = f"{Path(run).name} on {source.name}, {name}"
    facts = {"encoder": artifact.encoder["name"], "precision": precision}
    facts |= {"base": identity["base"]} if identity["base"] else {}
    with writing(folder, "evaluate again"):
        write_table(folder / "predictions.parquet", measured.predictions)
        if checked:
            write_cases(folder, checked)
        sections = [checks_section(summary["checks"])] if checked else []
        write_report(
            folder / "report.html", title, task, [measured.metrics], sections=sections, notes=notes, facts=facts
        )
        write_json(folder / "metrics.json", summary)
    return summary, folder


def _absolute(path: str) -> str:
    """Make the path of a file or folder absolute; a name on the Hub, or 'embedded', stays as it is."""
    location = Path(path).expanduser()
    return str(location.absolute()) if path != "embedded" and location.exists() else path


def _trained_classes(folder: Path) -> dict[str, int] | None:
    """Read the number of training examples of each label from a run's metrics.json; None if it did not record them."""
    try:
        counts = json.loads((folder / "metrics.json").read_text("utf-8"))["data"]["train_classes"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return counts or None


def _seen_in_training(artifact: Artifact, examples: Examples) -> list[str]:
    """Note how many of the texts the run was trained or chosen on; no note if none were, or its folder has no record."""
    hashes = seen_file(artifact.folder)
    count = int(seen_among(examples, hashes).sum()) if hashes else 0
    if not count:
        return []
    note = (
        f"{count:,} of these {plural(len(examples), 'text')} {'was' if count == 1 else 'were'} trained or chosen on: figures of "
        "such texts show how well they were learnt, not how well the model predicts."
    )
    say(f"warning: {note}")
    return [note]
