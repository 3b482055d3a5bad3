"""No leaked test set. Validation chooses checkpoint and temperature. The test split is read once, at the end.

Copies and near copies never straddle the splits made here. Before a run, its checks go through the test split for rows that
cannot be read and labels that are unknown; nothing of it is kept.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from support.stopping import ADAPTER, no_fresh_process, without_times, write_recipe
from support.tiny import tiny_config, tiny_reviews, write_csv

from distilora.artifact.format import read_artifact
from distilora.cli.main import main
from distilora.data import parts
from distilora.files.atomic import sha256
from distilora.files.tables import read_table
from distilora.runs import preflight
from distilora.runs.run import Run

Rows = list[tuple[str, str]]
POISON = b"\xff neither text nor a table"
SPLITS = {"train": tiny_reviews(160), "validation": tiny_reviews(40, 1), "test": tiny_reviews(40, 2)}


def flipped(rows: Rows) -> Rows:
    return [(text, {"neg": "pos", "pos": "neg"}[label]) for text, label in rows]


class Trained(NamedTuple):
    """A finished run on train.csv, validation.csv and test.csv."""

    folder: Path
    metrics: dict[str, Any]

    @property
    def model(self) -> tuple[str, float, int]:
        """The adapter's bytes, the temperature and the checkpoint."""
        best = self.metrics["training"]["best_update"]
        return sha256(self.folder / ADAPTER), read_artifact(self.folder).temperature, best


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, encoder: Path) -> Callable[..., Trained]:
    """Gives a run that the command has trained, with other rows in some of the splits."""

    def run(**changed: Rows) -> Trained:
        base = tmp_path_factory.mktemp("splits")
        (base / "data").mkdir()
        for name, rows in {**SPLITS, **changed}.items():
            write_csv(base / "data" / f"{name}.csv", rows)
        changes = {"data__validation_split": "validation", "training__epochs": 3, "training__validations": 6}
        recipe = write_recipe(base / "recipe.yaml", tiny_config(base / "run", base / "data", encoder, **changes))
        with pytest.MonkeyPatch.context() as patch:
            no_fresh_process(patch)
            assert main(["train", recipe]) == 0
        return Trained(base / "run", json.loads((base / "run" / "metrics.json").read_text("utf-8")))

    return run


@pytest.fixture(scope="module")
def plain(trained: Callable[..., Trained]) -> Trained:
    return trained()


def test_the_test_split_is_read_once_and_after_the_model_is_saved(
    plain: Trained, trained: Callable[..., Trained], monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the checks on, the file cannot be read until the model is verified; nor is it a second time."""
    check, read, evaluate, at_read = preflight.check_run, parts.read_examples, Run.evaluate, []

    def checked(config: Any, *words: Any, **more: Any) -> Any:
        result = check(config, *words, **more)
        (Path(config.data.path) / "test.csv").write_bytes(POISON)
        return result

    def evaluated(run: Run) -> Any:
        assert run.round_trip["run_precision"]["largest_difference"] == 0
        write_csv(Path(run.config.data.path) / "test.csv", SPLITS["test"])
        return evaluate(run)

    def poisoned_again(*words: Any) -> Any:
        examples = read(*words)
        at_read.append(examples.split)
        if examples.split == "test":
            Path(examples.items[0].place.rpartition(":")[0]).write_bytes(POISON)
        return examples

    monkeypatch.setattr(preflight, "check_run", checked)
    monkeypatch.setattr(parts, "read_examples", poisoned_again)
    monkeypatch.setattr(Run, "evaluate", evaluated)
    result = trained()
    assert at_read == ["train", "validation", "test"]
    assert result.model == plain.model
    assert without_times(result.metrics["evaluations"]) == without_times(plain.metrics["evaluations"])


def test_labels_of_the_test_split_change_nothing_but_its_own_figures(
    plain: Trained, trained: Callable[..., Trained]
) -> None:
    other = trained(test=flipped(SPLITS["test"]))
    assert other.model == plain.model
    (test, validation), (other_test, other_validation) = (
        without_times(run.metrics["evaluations"]) for run in (plain, other)
    )
    assert other_validation == validation
    assert test["split"] == "test"
    accuracies = [row["metrics"]["accuracy"]["value"] for row in (test, other_test)]
    assert accuracies[0] != accuracies[1]
    assert sum(accuracies) == pytest.approx(1)


def test_validation_chooses_checkpoint_and_temperature(plain: Trained, trained: Callable[..., Trained]) -> None:
    other = trained(validation=flipped(SPLITS["validation"]))
    for run in (plain, other):
        losses = {
            row["update"]: row["validation_loss"]
            for row in run.metrics["training"]["history"]
            if "validation_loss" in row
        }
        assert len(losses) == 6
        assert run.model[2] == min(losses, key=lambda update: losses[update])
    assert all(one != two for one, two in zip(other.model, plain.model, strict=True))
    steps = [[row["loss"] for row in run.metrics["training"]["history"] if "loss" in row] for run in (plain, other)]
    assert steps[0] == steps[1]  # training itself is the same


def test_copies_and_near_copies_do_not_straddle(encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    families = tiny_reviews(120)
    rows = [
        row for text, label in families for row in ((text, label), (f"{text} indeed", label), (text.upper(), label))
    ]
    order = np.random.default_rng(0).permutation(len(rows))
    data = write_csv(tmp_path / "reviews.csv", [rows[i] for i in order])
    config = tiny_config(tmp_path / "run", data, encoder, training__epochs=1)
    no_fresh_process(monkeypatch)
    assert main(["train", write_recipe(tmp_path / "recipe.yaml", config)]) == 0

    counted = json.loads((tmp_path / "run" / "metrics.json").read_text("utf-8"))["data"]
    assert (counted["read"], counted["exact_copies_dropped"]) == (360, 120)
    assert counted["near_copies_kept_together"] >= 120
    assert len(counted["copies_between_splits"]) == 3
    assert all(copies == {"exact": 0, "exact or near": 0} for copies in counted["copies_between_splits"].values())
    sides: dict[str, set[int]] = {"validation": set(), "heldout": set()}
    for record in read_table(tmp_path / "run" / "predictions.parquet"):
        row = int(str(record.values["place"]).rpartition(" ")[2]) - 1
        sides[str(record.values["split"])].add(int(order[row]) // 3)
    assert len(sides["validation"]) == 20
    assert len(sides["heldout"]) == 12
    assert not sides["validation"] & sides["heldout"]
    answered = sum(1 for _ in read_table(tmp_path / "run" / "predictions.parquet"))
    assert answered == 2 * (20 + 12)  # both of each family, so none is left to train on
