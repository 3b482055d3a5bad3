"""Bench of the main job: what `make train` gives and costs, and how long `make test` takes.

`heldout_accuracy` is that of the combined model, `encoder_accuracy` and `nbsvm_accuracy` are those of its two parts alone.

Cells, each a whole process of its own, one after the other on an otherwise idle machine:

    train-seedN   distilora train recipes/imdb-embedded.yaml --training.seed N, for N = 0, 1, 2
    test          make test, everything installed

A finished cell is written to results/main/cells/ and skipped from then on; `--again` measures anew. The held-out
reviews are the same for every seed (data.seed), so the spread of accuracy is that of training alone.
"""

import json
import statistics
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

from bench.harness.claims import run_cells, timed

SEEDS = (0, 1, 2)


def compute(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Claims from rows: medians over the training cells, spread from least to most."""
    train = [row for row in rows if row["cell"].startswith("train")]
    test = [row for row in rows if row["cell"] == "test"]

    def claim(name: str, values: list[float], unit: str, goal: str) -> dict[str, Any]:
        spread = [min(values), max(values)]
        return {
            "name": name,
            "value": statistics.median(values),
            "unit": unit,
            "goal": goal,
            "spread": spread,
            "n": len(values),
        }

    return [
        claim("heldout_accuracy", [row["accuracy"] for row in train], "share of held-out reviews", ">= 0.915"),
        claim("encoder_accuracy", [row["encoder_accuracy"] for row in train], "share of held-out reviews", ">= 0.90"),
        claim("nbsvm_accuracy", [row["nbsvm_accuracy"] for row in train], "share of held-out reviews", "none"),
        claim("train_minutes", [row["wall_s"] / 60 for row in train], "minutes", "<= 5"),
        claim("train_cpu_minutes", [row["cpu_s"] / 60 for row in train], "CPU minutes", "none"),
        claim("test_minutes", [row["wall_s"] / 60 for row in test], "minutes", "<= 6"),
        claim("peak_memory_mb", [row["peak_anonymous_mb"] for row in train], "MB (10^6 bytes), anonymous", "none"),
    ]


def run_train(seed: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "run"
        wall, cpu, _ = timed(
            [
                str(Path(sys.executable).parent / "distilora"), "train", "recipes/imdb-embedded.yaml",
                "--output", str(output), "--training.seed", str(seed),
            ]
        )  # fmt: skip
        metrics = json.loads((output / "metrics.json").read_text("utf-8"))
    final = metrics["evaluations"][0]
    views = final["views"]["metrics"]
    return {
        "seed": seed,
        "wall_s": wall,
        "cpu_s": cpu,
        **{name: metrics["costs"][name] for name in ("peak_anonymous_mb", "cache_on_disk_mb", "peak_resident_mb")},
        "split": final["split"],
        "examples": final["examples"],
        "accuracy": final["metrics"]["accuracy"]["value"],
        "accuracy_low": final["metrics"]["accuracy"]["low"],
        "accuracy_high": final["metrics"]["accuracy"]["high"],
        "encoder_accuracy": views["encoder"]["accuracy"]["value"],
        "nbsvm_accuracy": views["expert"]["accuracy"]["value"],
        "macro_f1": final["metrics"]["macro_f1"]["value"],
        "auroc": final["metrics"]["auroc"]["value"],
        "ece": final["metrics"]["ece"]["value"],
        "precision": metrics["training"]["precision"],
        "train_reviews": metrics["data"]["train"],
        "examples_per_s": metrics["training"]["examples_per_s"],
        "stages_s": metrics["costs"]["stages_s"],
    }


def run_test() -> dict[str, Any]:
    wall, cpu, _ = timed(["make", "test", "ARGS="])
    return {"wall_s": wall, "cpu_s": cpu}


if __name__ == "__main__":
    cells = {f"train-seed{seed}": partial(run_train, seed) for seed in SEEDS} | {"test": run_test}
    run_cells("main", cells, compute, "make bench-main", __doc__)
