"""Bench of the learning curve: what each method reaches on 100, 300, 1,000 and 3,000 of IMDB's training reviews, and in what time.

    labels-N    distilora curve recipes/imdb-embedded.yaml on N reviews: TF-IDF, NB-SVM, the encoder, both combined
    setfit-N    SetFit on the same N reviews, where CURVE_SETFIT names the Python of an environment with it (speed/few.py)

All methods are measured on the same tenth of the reviews, consecutive by id, so that a film's reviews are on one side. SetFit
takes time in proportion to the pairs it makes of N reviews (40 N): it has cells for the sizes at which it finishes.
"""

import json
import os
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from bench.harness.claims import RESULTS, ROOT, Rows, run_cells, timed

SIZES = ("100", "300", "1000", "3000")  # more of them would take hours; bench/imdb.py has all of the labels
SETFIT = ("100", "300")
RECIPE = "recipes/imdb-embedded.yaml"
WORDS = ("--data.carve", "consecutive", "--data.order_column", "id", "--data.train_size", "null", "--lexicon", "nbsvm")
FEW = Path(__file__).parent / "speed" / "few.py"


def compute(rows: Rows) -> Rows:
    """Claims from rows: an accuracy for each size and method, its 95% interval as the spread."""
    return [
        {
            "name": f"accuracy_{row['labels']}_{method['name']}",
            "value": method["value"],
            "unit": f"share of held-out reviews, {row['size']:,} labels",
            "goal": "none",
            "spread": [method["low"], method["high"]],
            "n": row["examples"],
        }
        for row in rows
        for method in row["methods"]
    ]


def run_size(labels: str) -> dict[str, Any]:
    """Every method of the command on one number of reviews."""
    with tempfile.TemporaryDirectory() as folder:
        distilora = str(Path(sys.executable).parent / "distilora")
        wall, cpu, _ = timed([distilora, "curve", RECIPE, *WORDS, "--sizes", labels, "--output", folder])
        curve = json.loads((Path(folder) / "curve.json").read_text("utf-8"))
    (row,) = curve["sizes"]
    return {
        "labels": labels,
        **{name: row[name] for name in ("size", "epochs", "updates", "best_update", "classes", "methods", "take")},
        "examples": curve["examples"],
        "validation": curve["validation"],
        "wall_s": wall,
        "cpu_s": cpu,
    }


def run_setfit(interpreter: str, labels: str) -> dict[str, Any]:
    """SetFit, in its own environment, on the reviews that the command takes."""
    from distilora.tasks.metrics.bootstrap import interval, resampled_mean

    if not interpreter:
        raise SystemExit("CURVE_SETFIT: not set; give the Python of an environment with SetFit (bench/speed/few.py)")
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile("w+") as out:
        write_reviews(Path(folder), int(labels))
        offline = {**os.environ, "HF_HUB_OFFLINE": "1"}
        wall, cpu, _ = timed([interpreter, str(FEW), folder, "--all"], stdout=out, env=offline)
        out.seek(0)
        row = json.loads(out.read().splitlines()[-1])
    right = np.asarray(row["right"], np.float64)
    low, high = interval(resampled_mean(right, 1000))
    method = {"name": "setfit", "value": float(right.mean()), "low": low, "high": high, "seconds": row["seconds"]}
    return {"labels": labels, "size": int(labels), "methods": [method], "examples": len(right), "setfit": row["setfit"],
            "wall_s": wall, "cpu_s": cpu}  # fmt: skip


def write_reviews(folder: Path, size: int) -> None:
    """Write the reviews of a size, and those held out, as few.py reads them."""
    from distilora.config.parse import parse, read_recipe
    from distilora.config.schema import RunConfig
    from distilora.data.parts import read_parts
    from distilora.data.splits import nested_order
    from distilora.runs.curve_folder import curve_config
    from distilora.runs.preflight import check_data
    from distilora.tasks.registry import find_task

    config = curve_config(parse(RunConfig, WORDS, read_recipe(ROOT / RECIPE)), folder)
    data, task = check_data(config.data, find_task(config.task))
    parts = read_parts(data, task)
    order = nested_order(task.strata(parts.train.targets), data.seed)
    assert parts.read_test is not None
    for name, examples in (("train", parts.only(order[:size]).train), ("heldout", parts.read_test())):
        lines = [json.dumps({"text": example.texts[0], "label": example.target}) for example in examples.items]
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n", "utf-8")


def cells() -> dict[str, Any]:
    """The cells: SetFit's only where it can run, or has run."""
    interpreter = os.environ.get("CURVE_SETFIT", "")
    of_setfit = {f"setfit-{labels}": partial(run_setfit, interpreter, labels) for labels in SETFIT}
    done = {name for name in of_setfit if (RESULTS / "curve" / "cells" / f"{name}.json").exists()}
    return {f"labels-{labels}": partial(run_size, labels) for labels in SIZES} | {
        name: run for name, run in of_setfit.items() if interpreter or name in done
    }


if __name__ == "__main__":
    run_cells("curve", cells(), compute, "make bench-curve", __doc__)
