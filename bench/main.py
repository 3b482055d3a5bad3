"""Bench of the main job: what `make train` gives and costs, and how long `make test` takes.

Cells, each a whole process of its own, one after the other on an otherwise idle machine:

    train-seedN   distilora train recipes/imdb-embedded.yaml --training.seed N, for N = 0, 1, 2
    test          make test, everything installed

A finished cell is written to results/main/cells/ and skipped from then on; `--again` measures anew. The held-out
reviews are the same for every seed (data.seed), so the spread of accuracy is that of training alone.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from claims import RESULTS, ROOT, commit, machine, write_results

SEEDS = (0, 1, 2)
CELLS = RESULTS / "main" / "cells"


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
        claim("heldout_accuracy", [row["accuracy"] for row in train], "share of held-out reviews", ">= 0.88"),
        claim("train_minutes", [row["wall_s"] / 60 for row in train], "minutes", "<= 10"),
        claim("train_cpu_minutes", [row["cpu_s"] / 60 for row in train], "CPU minutes", "none"),
        claim("test_minutes", [row["wall_s"] / 60 for row in test], "minutes", "<= 6"),
        claim("peak_memory_mb", [row["peak_memory_mb"] for row in train], "MB (10^6 bytes), resident", "none"),
    ]


def timed(command: list[str]) -> tuple[float, float, float]:
    """Wall seconds, CPU seconds and peak resident MB of a command and its children. Raises CalledProcessError."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.monotonic()
    subprocess.run(command, cwd=ROOT, check=True)
    wall = time.monotonic() - started
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return wall, cpu, after.ru_maxrss * 1024 / 1e6


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
    return {
        "seed": seed,
        "wall_s": wall,
        "cpu_s": cpu,
        "peak_memory_mb": metrics["costs"]["peak_memory_mb"],
        "split": final["split"],
        "examples": final["examples"],
        "accuracy": final["metrics"]["accuracy"]["value"],
        "accuracy_low": final["metrics"]["accuracy"]["low"],
        "accuracy_high": final["metrics"]["accuracy"]["high"],
        "macro_f1": final["metrics"]["macro_f1"]["value"],
        "auroc": final["metrics"]["auroc"]["value"],
        "ece": final["metrics"]["ece"]["value"],
        "precision": metrics["training"]["precision"],
        "train_reviews": metrics["data"]["train"],
        "examples_per_s": metrics["training"]["examples_per_s"],
        "stages_s": metrics["costs"]["stages_s"],
    }


def run_test() -> dict[str, Any]:
    wall, cpu, _ = timed(["make", "test"])
    return {"wall_s": wall, "cpu_s": cpu}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--again", action="store_true", help="measure every cell anew")
    parser.add_argument("--only", help="measure this cell alone")
    args = parser.parse_args()
    cells = {f"train-seed{seed}": (lambda seed=seed: run_train(seed)) for seed in SEEDS} | {"test": run_test}
    CELLS.mkdir(parents=True, exist_ok=True)
    for name, run in cells.items():
        path = CELLS / f"{name}.json"
        if (path.exists() and not args.again) or (args.only and args.only != name):
            continue
        row = {"cell": name, "machine": machine(), "commit": commit(), "load_before": os.getloadavg()[0], **run()}
        temporary = path.with_suffix(".tmp")
        temporary.write_text(json.dumps(row, indent=2) + "\n", "utf-8")
        temporary.replace(path)
    rows = [
        json.loads((CELLS / f"{name}.json").read_text("utf-8")) for name in cells if (CELLS / f"{name}.json").exists()
    ]
    if len(rows) == len(cells):
        write_results("main", rows, compute(rows), "make bench-main")


if __name__ == "__main__":
    main()
