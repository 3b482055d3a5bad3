"""Bench of the methods: qlora, lora and full (and head) on the same reviews, and what each holds in memory.

Cells, each in a process of its own, one after the other on an otherwise idle machine:

    rate-full-RATE     full fine-tuning on 600 of the reviews at two learning rates; the held-out reviews are carved out
                       first and their figures not kept. The rate with the lowest validation loss is what accuracy-full
                       uses; that of lora and qlora is the recipe's.
    accuracy-METHOD    2,000 IMDB reviews, one epoch, all six blocks, measured on the same 2,490 held-out reviews; then
                       merged, reloaded and compared with the unmerged on the first 500 of those reviews.
    memory-METHOD-N    15 updates of two passes of 8 x 256 tokens, nothing else in the process: weights, gradients,
                       optimiser, activations, and the peak of anonymous memory above its value after imports.
"""

import json
import math
import statistics
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

from bench.harness.claims import RESULTS, Rows, run_cells, timed

METHODS = ("qlora", "lora", "full", "head")
RATES = ("5e-5", "2e-4")
REPEATS = 2
COMPARED = 500
COMMON = ["--data.validation_size", "500", "--adapter.last_blocks", "null", "--training.validations", "2"]


def compute(rows: Rows) -> Rows:
    """Claims from rows. Intervals of accuracies and of paired differences are normal, 95%: mean +- 1.96 s / sqrt(n)."""
    answers = {row["method"]: row["correct"] for row in rows if row["cell"].startswith("accuracy")}
    memory: dict[str, Rows] = {m: [r for r in rows if r["cell"].startswith(f"memory-{m}-")] for m in METHODS}

    def mean(name: str, values: list[float], unit: str, goal: str) -> dict[str, Any]:
        centre = math.fsum(values) / len(values)
        spread = math.sqrt(math.fsum((v - centre) ** 2 for v in values) / (len(values) - 1) / len(values))
        low, high = centre - 1.96 * spread, centre + 1.96 * spread
        return {"name": name, "value": centre, "unit": unit, "goal": goal, "spread": [low, high], "n": len(values)}

    def right(method: str) -> list[float]:
        return [float(c) for c in answers[method]]

    def minus(one: str, other: str) -> list[float]:
        return [a - b for a, b in zip(right(one), right(other), strict=True)]

    def ratio(name: str, method: str, key: str, unit: str) -> dict[str, Any]:
        ratios = [a[key] / b[key] for a, b in zip(memory[method], memory["full"], strict=True)]
        return {"name": name, "value": statistics.median(ratios), "unit": unit, "goal": "none",
                "spread": [min(ratios), max(ratios)], "n": len(ratios)}  # fmt: skip

    of_reviews = "share of held-out reviews"
    return [
        mean("qlora_accuracy", right("qlora"), of_reviews, "none"),
        mean("lora_accuracy", right("lora"), of_reviews, "none"),
        mean("full_accuracy", right("full"), of_reviews, "none"),
        mean("head_accuracy", right("head"), of_reviews, "none"),
        mean("qlora_minus_lora", minus("qlora", "lora"), f"{of_reviews}, paired", "none"),
        mean("qlora_minus_full", minus("qlora", "full"), f"{of_reviews}, paired", "none"),
        ratio("weights_bytes_vs_full", "qlora", "weights_mb", "ratio of bytes held as weights"),
        ratio(
            "peak_memory_vs_full", "qlora", "peak_mb", "ratio of peak anonymous memory above its value after imports"
        ),
        ratio(
            "lora_peak_memory_vs_full",
            "lora",
            "peak_mb",
            "ratio of peak anonymous memory above its value after imports",
        ),
    ]


def train(method: str, folder: Path, words: list[str]) -> dict[str, Any]:
    command = [str(Path(sys.executable).parent / "distilora"), "train", "bench/encoder.yaml", "--output", str(folder),
               "--adapter.method", method, *COMMON, *words]  # fmt: skip
    wall, cpu, _ = timed(command)
    metrics = json.loads((folder / "metrics.json").read_text("utf-8"))
    return {
        "method": method,
        "wall_s": wall,
        "cpu_s": cpu,
        "train_reviews": metrics["data"]["train"],
        "validation_loss": metrics["training"]["best_validation_loss"],
        "training_s": metrics["training"]["seconds"],
        "precision": metrics["training"]["precision"],
        "round_trip": metrics["round_trip"],
        "agreement": metrics["agreement"],
        "memory": metrics["memory"],
        "trained_parameters": metrics["parameters"]["trained"],
    }


def rate(value: str) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as place:
        return {
            "rate": float(value),
            **train("full", Path(place) / "run", ["--training.learning_rate", value, "--data.train_size", "600"]),
        }


def accuracy(method: str) -> dict[str, Any]:
    import distilora
    from distilora.files.tables import read_table

    words = ["--data.train_size", "2000"]
    if method == "full":
        tried = [json.loads((RESULTS / "qlora" / "cells" / f"rate-full-{r}.json").read_text("utf-8")) for r in RATES]
        words += ["--training.learning_rate", str(min(tried, key=lambda row: row["validation_loss"])["rate"])]
    with tempfile.TemporaryDirectory() as place:
        folder, merged = Path(place) / "run", Path(place) / "merged"
        row = train(method, folder, words)
        answers = [r.values for r in read_table(folder / "predictions.parquet") if r.values["split"] == "heldout"]
        row["learning_rate"] = words[-1] if method == "full" else "the recipe's"
        row["correct"] = "".join(str(int(v["label"] == v["target"])) for v in answers)
        row["places"] = [v["place"] for v in answers][:3]  # the same reviews in the same order, whatever the method
        row["merging"] = distilora.export_run(folder, "merged", merged).parity
        texts = _heldout_texts(folder)[:COMPARED]
        agreed = [
            a["label"] == v["label"] for a, v in zip(distilora.load(merged)(texts), answers[:COMPARED], strict=True)
        ]
        row["merged_label_agreement"] = sum(agreed) / len(texts)
        if method == "qlora":
            labels = [answer["label"] for answer in distilora.load(folder, base="full")(texts)]
            row["full_base_label_agreement"] = sum(
                a == v["label"] for a, v in zip(labels, answers[:COMPARED], strict=True)
            ) / len(texts)
            row["full_base_accuracy"] = sum(
                a == v["target"] for a, v in zip(labels, answers[:COMPARED], strict=True)
            ) / len(texts)
    return row


def _heldout_texts(folder: Path) -> list[str]:
    import distilora
    from distilora.data.parts import read_parts

    config = distilora.parse(distilora.RunConfig, (), distilora.read_recipe(folder / "run.yaml"))
    task = distilora.load(folder).task
    test = read_parts(config.data, task).read_test
    assert test is not None
    return [example.texts[0] for example in test().items]


def memory(method: str) -> dict[str, Any]:
    wall, cpu, _ = 0.0, 0.0, 0.0
    with tempfile.TemporaryDirectory() as place:
        out = Path(place) / "memory.json"
        wall, cpu, _ = timed(
            [sys.executable, "-m", "bench.qlora", "--memory", method, str(out)], stderr=subprocess.DEVNULL
        )
        return {"method": method, "wall_s": wall, "cpu_s": cpu, **json.loads(out.read_text("utf-8"))}


def measure_memory(method: str, out: str) -> None:
    """In a process of its own: 15 updates of two passes each (the plan cuts an update into two bands of lengths)."""
    import numpy as np

    from distilora.batching.rows import rows_of
    from distilora.config.schema import AdapterConfig, TrainingConfig
    from distilora.hardware import pick_device, pick_precision
    from distilora.model.adapters.methods import METHODS as TABLE
    from distilora.model.build import new_network
    from distilora.model.encoders.find import find_encoder
    from distilora.tasks.classification import Classification
    from distilora.training.loop import fit
    from distilora.training.memory import Peak, after_imports_mb
    from distilora.training.setup import Labelled

    above = after_imports_mb()
    device = pick_device()
    precision = pick_precision("auto", device)
    attention = "eager" if device.type == "cpu" and precision == "bf16" else "sdpa"
    rng = np.random.default_rng(0)
    rows = rows_of([[rng.integers(1000, 30000, 256).tolist()] for _ in range(248)])
    train, validation = rows.take(np.arange(240)), rows.take(np.arange(240, 248))
    config = TrainingConfig(
        epochs=1, update_size=16, token_budget=2048, learning_rate=TABLE[method].learning_rate, dropout=0.0,
        precision=precision, device=device.type, validations=1, tracker="none", checkpoint_every=1000,
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as place, Peak(device, above) as peak:
        network = new_network(
            find_encoder("embedded"), Classification(("negative", "positive"), "text", "label"), AdapterConfig(method=method),
            precision=precision, device=device, attention=attention, dropout=0.0,
        )  # fmt: skip
        done = fit(network, Labelled(train, [0, 1] * 120), Labelled(validation, [0, 1] * 4), config, Path(place), budget=2048,
                   resume=False)  # fmt: skip
    row = {
        **done.memory,
        "peak_mb": peak.mb,
        "above_mb": above,
        "seconds": done.state.seconds,
        "precision": precision,
        "device": device.type,
    }
    Path(out).write_text(json.dumps(row), "utf-8")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--memory"]:
        measure_memory(sys.argv[2], sys.argv[3])
        sys.exit()
    cells = {f"memory-{method}-{n}": partial(memory, method) for n in range(REPEATS) for method in METHODS}
    cells |= {f"rate-full-{value}": partial(rate, value) for value in RATES}
    cells |= {f"accuracy-{method}": partial(accuracy, method) for method in METHODS}
    run_cells("qlora", cells, compute, "make bench-qlora", __doc__)
