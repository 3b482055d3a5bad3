"""Bench of accuracy: the longest recipe on IMDB's official split, two seeds, and what else its model can do.

    rotten-tomatoes-first   the encoder of the first recipe, as it was before the n-gram expert (bench/encoder.yaml), on snippets
    audit                   flipped labels among those that look wrong (bench/audit.py)
    seedN                   recipes/imdb-embedded-best.yaml with training.seed N; reads the test split, once

IMDB_DATA names the data: the Hub dataset (the default), or a folder laid out like it, with splits train, test, unsupervised.
Everything is chosen on a validation part of train; whatever reads the test split is written down in results/imdb/reads.jsonl
before it starts. A cell of a seed takes two hours; one that was stopped goes on from its checkpoint (results/imdb/runs/). Seed 1
was stopped for over two hours in all while other work ran, which its hours count and its CPU hours do not.

The runs stay in results/imdb/runs/, which is not committed; `python -m bench.imdb --ship` makes the adapter that comes with
distilora out of seed 0's.
"""

import hashlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from bench.harness.claims import RESULTS, Rows, commit, run_cells, timed
from bench.harness.ship import ship
from distilora.evaluation.views import STEPS, points

SEEDS = (0, 1)  # a third would have passed 15 CPU hours for the recipe and the search for it
RECIPE = "recipes/imdb-embedded-best.yaml"
FOLDER = RESULTS / "imdb"
READS = FOLDER / "reads.jsonl"
EXAMPLES = 25_000  # of the official test split
DISTILORA = str(Path(sys.executable).parent / "distilora")
TRAINING = f"""{RECIPE}, training.seed 0, on IMDB's official training and unlabelled reviews (Maas et al., ACL 2011), which are not
part of it: check.npz holds sentences of distilora's behaviour checks. The other seeds are in results/imdb.json."""
SNIPPETS = ("--data.path", "embedded", "--data.name", "rotten_tomatoes", "--data.split", "train")


def compute(rows: Rows) -> Rows:
    """Claims from rows; the spread of a mean over seeds is from least to most."""
    cells = {row["cell"]: row for row in rows}
    seeds = [row for row in rows if row["cell"].startswith("seed")]

    def claim(name: str, values: list[float], unit: str, goal: str, value: float | None = None) -> dict[str, Any]:
        value = statistics.mean(values) if value is None else value
        return {"name": name, "value": value, "unit": unit, "goal": goal, "spread": [min(values), max(values)],
                "n": len(values)}  # fmt: skip

    def of_test(view: str) -> list[float]:
        return [row["test"][view]["right"] / row["test"]["examples"] for row in seeds]

    def of_snippets(view: str) -> list[float]:
        return [row["rotten_tomatoes"][view]["right"] / row["rotten_tomatoes"]["examples"] for row in seeds]

    first = cells["rotten-tomatoes-first"]
    audit = [sum(flipped) / len(flipped) for flipped in cells["audit"]["flipped_of_top"]]
    test, snippets = "share of the official test reviews", "share of Rotten Tomatoes snippets, never trained on"
    combined = of_test("combined")
    return [
        claim("test_accuracy_mean", combined, f"{test}, encoder and n-gram expert combined", ">= 0.94"),
        claim("test_accuracy_sd", combined, "standard deviation over seeds", "none", statistics.stdev(combined)),
        claim("student_accuracy_mean", of_test("encoder"), f"{test}, the encoder alone", ">= 0.93"),
        claim("nbsvm_accuracy", of_test("expert"), f"{test}, the n-gram expert alone", "none"),
        claim("seeds", [float(len(seeds))], "seeds", "none"),
        claim("ece", [row["test"]["combined"]["ece"] for row in seeds], "expected calibration error, combined", "<= 0.01"),
        claim("hours", [row["wall_s"] / 3600 for row in seeds], "hours, all seeds together, stops of seed 1 included", "<= 3",
              sum(row["wall_s"] for row in seeds) / 3600),
        claim("cpu_hours", [row["cpu_s"] / 3600 for row in seeds], "CPU hours of a seed, on 2 cores", "none"),
        claim("checks_passed_share", [row["checks"]["combined"] for row in seeds], "share of behaviour checks, combined",
              f">= {statistics.mean(row['checks']['encoder'] for row in seeds):.4f}"),
        claim("checks_passed_share_encoder", [row["checks"]["encoder"] for row in seeds],
              "share of behaviour checks, the encoder alone", "none"),
        claim("rotten_tomatoes_accuracy", of_snippets("encoder"), f"{snippets}, the encoder alone",
              f">= {first['right'] / first['examples']:.4f}"),
        claim("rotten_tomatoes_combined", of_snippets("combined"), f"{snippets}, combined", "none"),
        claim("rotten_tomatoes_first_recipe", [first["right"] / first["examples"]],
              f"{snippets}, the encoder of the first recipe before the expert", "none"),
        claim("audit_precision_at_50", audit, "share of the 50 most suspicious labels that were flipped, 2% flipped", "none"),
        claim("test_reads", [float(sum(len(row["reads"]) for row in seeds))], "runs that were to read the test split", "none"),
    ]  # fmt: skip


def source() -> str:
    return os.environ.get("IMDB_DATA", "stanfordnlp/imdb")


def run_seed(seed: int) -> dict[str, Any]:
    """Train, measure on test once, then on snippets and checks. A run that was stopped goes on."""
    run = FOLDER / "runs" / f"seed{seed}"
    spent = run.with_suffix(".seconds")  # of this cell before it was stopped
    before = json.loads(spent.read_text("utf-8")) if spent.is_file() else [0.0, 0.0]
    if not (run / "metrics.json").is_file():
        words = [
            "--data.path",
            source(),
            "--data.unlabelled",
            source(),
            "--training.seed",
            str(seed),
            "--output",
            str(run),
        ]
        command = ["train", "--resume", str(run)] if (run / "run.yaml").is_file() else ["train", RECIPE, *words]
        note_reading(f"seed{seed}", command)
        started, cpu = time.monotonic(), os.times()
        try:
            subprocess.run([DISTILORA, *command], check=True)
        finally:
            now = os.times()
            used = now.children_user + now.children_system - cpu.children_user - cpu.children_system
            before = [before[0] + time.monotonic() - started, before[1] + used]
            spent.write_text(json.dumps(before), "utf-8")
    metrics = json.loads((run / "metrics.json").read_text("utf-8"))
    test, validation = metrics["evaluations"][:2]
    settings = (run / "run.yaml").read_text("utf-8")
    with tempfile.TemporaryDirectory() as folder:
        snippets = evaluate(run, Path(folder) / "snippets", *SNIPPETS)["evaluation"]
        checks = evaluate(run, Path(folder) / "checks", "--checks")["checks"]
    return {
        "seed": seed,
        "wall_s": before[0],
        "cpu_s": before[1],
        "settings_sha256": hashlib.sha256(settings.replace(str(run), "RUN").encode()).hexdigest(),
        "validation_digest": metrics["data"]["validation_digest"],
        "source": named(metrics["data"]["source"]),
        "labels": metrics["data"]["train"],
        "unlabelled": {**metrics["distillation"], "source": named(metrics["distillation"]["source"])},
        "encoder_sha256": metrics["encoder"]["sha256"],
        "precision": metrics["training"]["precision"],
        "test": views(test),
        "validation": views(validation),
        "reads": [read for read in reads() if read["cell"] == f"seed{seed}"],
        "steps": {"test": test["distillation"], "validation": validation["distillation"]},
        "baselines": test["ngram_baselines"],
        "slices": test["slices"],
        "stars": by_stars(run),
        "rotten_tomatoes": views(snippets),
        "checks": {
            "combined": checks["checks_passed_share"],
            "encoder": checks["encoder_alone"]["share"],
        },
        "stages_s": metrics["costs"]["stages_s"],
        "peak_anonymous_mb": metrics["costs"]["peak_anonymous_mb"],
    }


def views(split: dict[str, Any]) -> dict[str, Any]:
    """Right answers, interval and calibration of every view of one split."""
    count = split["examples"]
    of_views = split.get("views", {}).get("metrics") or {"encoder": split["metrics"]}
    return {
        "split": split["split"],
        "examples": count,
        **{
            name: {
                "right": round(view["accuracy"]["value"] * count),
                "low": view["accuracy"]["low"],
                "high": view["accuracy"]["high"],
                "ece": view["ece"]["value"],
                "log_loss": view["log_loss"]["value"],
            }
            for name, view in of_views.items()
        },
    }


def evaluate(run: Path, output: Path, *words: str) -> dict[str, Any]:
    subprocess.run([DISTILORA, "evaluate", str(run), *words, "--output", str(output)], check=True)
    result: dict[str, Any] = json.loads((output / "metrics.json").read_text("utf-8"))
    return result


def run_first() -> dict[str, Any]:
    """The first recipe as it was, on the snippets."""
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        wall, cpu, _ = timed([DISTILORA, "train", "bench/encoder.yaml", "--output", str(run)])
        snippets = views(evaluate(run, Path(folder) / "snippets", *SNIPPETS)["evaluation"])
    return {"examples": snippets["examples"], **snippets["encoder"], "wall_s": wall, "cpu_s": cpu}


def run_audit() -> dict[str, Any]:
    from bench.audit import SEEDS, TOP, seed

    rows = [seed(number) for number in SEEDS]
    return {
        "seeds": list(SEEDS),
        "flipped_of_top": [row["flipped_of_top"][:TOP] for row in rows],
        "wall_s": sum(row["wall_s"] for row in rows),
        "cpu_s": sum(row["cpu_s"] for row in rows),
    }


def note_reading(cell: str, command: list[str]) -> None:
    """Write down, before it happens, that the test split is going to be read."""
    recipe = hashlib.sha256(Path(RECIPE).read_bytes()).hexdigest()
    row = {"when": datetime.now(UTC).isoformat(timespec="seconds"), "cell": cell, "commit": commit(),
           "recipe_sha256": recipe, "resumed": "--resume" in command}  # fmt: skip
    FOLDER.mkdir(parents=True, exist_ok=True)
    with READS.open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(row) + "\n")


def named(source: str) -> str:
    """The folder's name, without where it lies here."""
    return Path(source).name if Path(source).exists() else source


def reads() -> Rows:
    return [json.loads(line) for line in READS.read_text("utf-8").splitlines()]


def by_stars(run: Path) -> Rows:
    """Accuracy of the combined model by star rating, where the source has one."""
    from distilora.data.sources import open_source
    from distilora.files.tables import read_table

    records = open_source(source()).records("test", "data.test_split")
    rating = [int(record.values.get("rating", 0)) for record in records]  # 0: the source has none
    answers = [row.values for row in read_table(run / "predictions.parquet") if row.values["split"] == "test"]
    if not any(rating) or len(answers) != len(rating):
        return []
    rows = []
    for stars in sorted(set(rating)):
        right = [a["target"] == a["label"] for a, of in zip(answers, rating, strict=True) if of == stars]
        rows.append({"stars": stars, "right": sum(right), "examples": len(right)})
    return rows


def table(rows: Rows) -> str:
    """results/imdb.md: accuracy of every view, the steps of each seed, accuracy by stars and by length."""
    seeds = [row for row in rows if row["cell"].startswith("seed")]
    sampling = 100 * 1.96 * (0.94 * 0.06 / EXAMPLES) ** 0.5
    lines = [
        "# IMDB, official test split",
        "",
        f"Sampling error of an accuracy near 94% of {EXAMPLES:,} reviews: {sampling:.2f} points (95%).",
        "",
        "| seed | combined | encoder alone | n-gram expert alone | ECE, combined | minutes |",
        "|---|---|---|---|---|---|",
    ]
    for row in seeds:
        figures = [f"{row['test'][view]['right'] / row['test']['examples']:.2%} ({row['test'][view]['low']:.2%} to "
                   f"{row['test'][view]['high']:.2%})" for view in ("combined", "encoder", "expert")]  # fmt: skip
        ece = row["test"]["combined"]["ece"]
        lines.append(f"| {row['seed']} | {' | '.join(figures)} | {ece:.4f} | {row['wall_s'] / 60:.0f} |")
    lines += ["", "Step by step, gain over the step before (95% interval):", "", "| step | " + " | ".join(
        f"seed {row['seed']}" for row in seeds) + " |", "|---|" + "---|" * len(seeds)]  # fmt: skip
    for steps in zip(*(row["steps"]["test"] for row in seeds), strict=True):
        cells = [f"{step['value']:.2%}" + (f" ({points(step['gain'])})" if "gain" in step else "") for step in steps]
        lines.append(f"| {STEPS[steps[0]['step']]} | {' | '.join(cells)} |")
    lines += ["", "By star rating, all seeds together:", "", "| stars | reviews | right |", "|---|---|---|"]
    for of_stars in zip(*(row["stars"] for row in seeds), strict=True):
        right, count = (sum(row[name] for row in of_stars) for name in ("right", "examples"))
        lines.append(f"| {of_stars[0]['stars']} | {of_stars[0]['examples']:,} | {right / count:.2%} |")
    return "\n".join(lines) + "\n"


def draw(rows: Rows, path: Path) -> None:
    """results/imdb.png: accuracy of every view, seeds as dots, and of the combined model by star rating."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    seeds = [row for row in rows if row["cell"].startswith("seed")]
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(8, 2.8))
    for number, view in enumerate(("expert", "encoder", "combined")):
        shares = [row["test"][view]["right"] / row["test"]["examples"] for row in seeds]
        left.barh(number, statistics.mean(shares), color="tab:blue" if view == "combined" else "tab:gray")
        left.plot(shares, [number] * len(shares), "k.")
    left.set_yticks(range(3), ["n-gram expert", "encoder alone", "combined"])
    left.set_xlim(0.9, 0.95)
    left.set_xlabel("accuracy, official test (axis from 0.9)")
    stars = seeds[0]["stars"]
    right.bar([str(row["stars"]) for row in stars], [row["right"] / row["examples"] for row in stars], color="tab:blue")
    right.set_ylim(0.8, 1)
    right.set_xlabel("stars")
    right.set_ylabel("right, combined")
    figure.tight_layout()
    figure.savefig(path, dpi=120)


def main() -> None:
    """Cells, then the files; --ship instead copies seed 0's model into the package."""
    if "--ship" in sys.argv:
        return ship(FOLDER / "runs" / "seed0", "imdb", TRAINING)
    cells = {"rotten-tomatoes-first": run_first, "audit": run_audit}
    cells |= {f"seed{seed}": partial(run_seed, seed) for seed in SEEDS}
    run_cells("imdb", cells, compute, "make bench-imdb", __doc__ or "")
    path = RESULTS / "imdb.json"
    if path.exists():
        rows: Rows = json.loads(path.read_text("utf-8"))["rows"]
        (RESULTS / "imdb.md").write_text(table(rows), "utf-8")
        draw(rows, RESULTS / "imdb.png")
    return None


if __name__ == "__main__":
    main()
