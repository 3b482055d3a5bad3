"""Copies a run's model into the package, where a name stands for it (artifact/shipped.py).

The texts in check.npz are a run's own validation texts. Data are not redistributed, so the copy is checked by sentences of the
behaviour checks instead, and their outputs are computed anew, from the run's weights. Of metrics.json the copy has what a service
tells of a model: the figures of each evaluation, without texts.
"""

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

from distilora.artifact.check import Check, check_examples
from distilora.artifact.format import read_artifact, write_artifact
from distilora.artifact.shipped import FOLDER
from distilora.artifact.tokenizer import open_tokenizer
from distilora.data.examples import Example
from distilora.evaluation.checks.run import make_cases
from distilora.evaluation.checks.suite import read_suite
from distilora.export.roundtrip import compare
from distilora.inference.backends import open_backend
from distilora.inference.calibrate import calibrator_of
from distilora.inference.lanes import run_rows
from distilora.tasks.registry import restore

OWN = ("check.npz", "artifact.json")  # written anew


def ship(run: Path, name: str, training: str) -> None:
    """Write the package's folder of that name and check that it loads; `training` stands in its card for the run's own account."""
    artifact = read_artifact(run)
    task = restore(artifact.task["name"], artifact.task["settings"])
    examples = check_examples([Example((text,)) for text in sentences()])
    rows = task.tokenise(open_tokenizer(artifact), examples).rows
    expert = calibrator_of(artifact).expert
    check = Check(
        examples,
        run_rows(rows, open_backend(artifact, artifact.precision, "cpu"), artifact.token_budget),
        run_rows(rows, open_backend(artifact, "fp32", "cpu"), artifact.token_budget),
        None if expert is None else expert.logits(examples),
    )

    def copy(folder: Path) -> None:
        shutil.copytree(artifact.folder, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns(*OWN))
        card = (run / "README.md").read_text("utf-8").split("## Training")[0]
        for old, new in (
            (f"{run}/model/", ""),
            (str(run), name),
            (f"# {run.name}\n", f"# {name}\n"),
            (" (model/lexicon)", ""),
        ):
            card = card.replace(old, new)
        (folder / "README.md").write_text(f"{card}## Training\n\n{training}\n", "utf-8")
        metrics = json.loads((run / "metrics.json").read_text("utf-8"))
        (folder / "metrics.json").write_text(json.dumps(told(metrics), indent=2) + "\n", "utf-8")

    write_artifact(FOLDER / name, dataclasses.replace(artifact, agreement={}), copy, check)
    compare(read_artifact(FOLDER / name), "cpu")


def told(metrics: dict[str, Any]) -> dict[str, Any]:
    """Return what the service tells of a run's metrics.json (serving/cards.py): counts, metrics and reliability."""
    return {
        "evaluations": [
            {
                **{name: evaluation[name] for name in ("split", "examples", "metrics")},
                "figures": {"reliability": (evaluation.get("figures") or {}).get("reliability")},
            }
            for evaluation in metrics["evaluations"]
        ]
    }


def sentences() -> list[str]:
    """Sentences of the suite that comes with distilora."""
    suite = read_suite("sentiment")
    checks = [check for check in suite.checks if not check.on_data]
    return sorted({case.text for check in checks for case in make_cases(check, suite, (), 0)})
