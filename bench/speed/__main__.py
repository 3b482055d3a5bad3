"""Runs the cells that are missing and writes results/speed.{json,md,png}. Help: --help."""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from bench.harness.claims import RESULTS, ROOT, run_cells, timed
from bench.speed import TARGET, Row, compute
from bench.speed.data import prepare

HERE = Path(__file__).parent
WORK = Path(os.environ.get("SPEED_WORK", tempfile.gettempdir())) / "distilora-bench-speed"
DATA = WORK / "data"
COMMAND = "make bench-speed"
LIMITS = {
    "reference": int(os.environ.get("SPEED_LIMIT", "67500")),
    "tuned": int(os.environ.get("SPEED_LIMIT_TUNED", "67500")),
}
REVIEWS = {
    "reference": 48,
    "tuned": 320,
    "tuned_16": 320,
    "tuned_dropout": 160,
    "full": 192,
    "distilora": 480,
    "distilora_3_epochs": 480,
}
ROUNDS, SEEDS, SCALES = 3, (0,), (1000, 10000, 25000, 75000)
KEPT, SHARED = 1000, 480  # reviews of the cells kept and processes
SIZES = (2000, 4000, 8000)  # reviews that the encoder sees beside an n-gram expert, until validation reaches 90%
RECIPE = str(ROOT / "bench" / "encoder.yaml")
LONG = ["--data.max_length", "512", "--training.tracker", "none", "--data.validation_size", "1000"]

SHORT = ["--training.validations", "1", "--data.validation_size", "16", "--data.heldout", "0.01"]


def python(*words: str) -> tuple[float, float, Row]:
    """Wall and CPU seconds of a script, and the JSON of its last line."""
    with tempfile.TemporaryFile("w+") as out:
        wall, cpu, _ = timed([sys.executable, *words], stdout=out, env=offline())
        out.seek(0)
        return wall, cpu, json.loads(out.read().splitlines()[-1])


def offline(**more: str) -> dict[str, str]:
    """The environment, bench/ importable, no network."""
    return {**os.environ, "PYTHONPATH": f"{ROOT}:{os.environ.get('PYTHONPATH', '')}", "HF_HUB_OFFLINE": "1",
            "HF_DATASETS_CACHE": str(WORK / "cache"), **more}  # fmt: skip


def run_curve(name: str) -> Row:
    """Goes on with the curve from results/speed/curves/NAME.safetensors, if it is there."""
    output = RESULTS / "speed" / "curves" / name
    output.parent.mkdir(parents=True, exist_ok=True)
    words = ["-m", "bench.speed.curve", name, str(prepare(DATA)), str(output), "--limit", str(LIMITS[name])]
    subprocess.run([sys.executable, *words], check=True, env=offline())
    points = [json.loads(line) for line in output.with_suffix(".jsonl").read_text("utf-8").splitlines()]
    wall = sum(point["wall_s"] for point in points)
    return {"points": points, "limit": LIMITS[name], "wall_s": wall, "cpu_s": wall}


def run_final(name: str) -> Row:
    """Held-out reviews right by the curve's last weights."""
    output = RESULTS / "speed" / "curves" / name
    wall, cpu, row = python("-m", "bench.speed.curve", name, str(prepare(DATA)), str(output), "--heldout")
    return {**row, "wall_s": wall, "cpu_s": cpu}


def run_rate(contender: str) -> Row:
    """Reviews/s of one epoch (three for distilora_3_epochs) over a few reviews."""
    data, reviews = str(prepare(DATA)), REVIEWS[contender]
    if contender.startswith("distilora"):
        epochs = 3 if contender.endswith("epochs") else 1
        words = ["--data.train_size", str(reviews), "--training.epochs", str(epochs), "--training.validations", "1"]
        wall, cpu, run = distilora(*words, "--data.validation_size", "16", "--data.heldout", "0.01")
        metrics = run["metrics"]
        return {"reviews_per_s": metrics["training"]["examples_per_s"], "reviews": reviews, "epochs": epochs,
                "startup_s": metrics["costs"]["stages_s"]["data"], "wall_s": wall, "cpu_s": cpu}  # fmt: skip
    script = f"bench.speed.{'reference' if contender == 'reference' else 'tuned'}"
    more = {
        "tuned": ["--dropout", "0"],
        "tuned_16": ["--dropout", "0", "--batch", "16"],
        "full": ["--full", "--dropout", "0"],
    }.get(contender, [])
    wall, cpu, row = python("-m", script, data, "--reviews", str(reviews), *more)
    return {"reviews_per_s": reviews / sum(row["step_s"]), "reviews": reviews, **row, "wall_s": wall, "cpu_s": cpu}


def distilora(
    *words: str, recipe: str = RECIPE, command: Sequence[str] = (), **environment: str
) -> tuple[float, float, Row]:
    """`distilora train` with a recipe at 512 tokens: wall and CPU seconds, metrics, and when each line was said.

    `command` is what runs distilora, its own by default.
    """
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "run"
        own = command or [str(Path(sys.executable).parent / "distilora")]
        whole = [*own, "train", recipe, "--output", str(output), *LONG, *words]
        before, started = os.times(), time.monotonic()
        process = subprocess.Popen(
            whole, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, env=offline(**environment)
        )
        assert process.stderr is not None
        said = [(time.monotonic() - started, line.rstrip()) for line in process.stderr]
        if process.wait():
            raise subprocess.CalledProcessError(process.returncode, whole, stderr="\n".join(line for _, line in said))
        wall, after = time.monotonic() - started, os.times()
        cpu = after.children_user + after.children_system - before.children_user - before.children_system
        run = {"metrics": json.loads((output / "metrics.json").read_text("utf-8")), "said": said}
        import pyarrow.parquet

        answers = pyarrow.parquet.read_table(output / "predictions.parquet").to_pylist()
        run["right"] = [int(a["label"] == a["target"]) for a in answers if a["split"] == "heldout"]
        return wall, cpu, run


def run_whole(seed: int) -> Row:
    """Seconds from the start of the process to each validation, and what the final model gets right."""
    words = ["--training.seed", str(seed), "--data.train_size", "12000", "--training.validations", "2"]
    wall, cpu, run = distilora(*words)
    metrics = run["metrics"]
    at = [seconds for seconds, line in run["said"] if line.startswith("validation after update")]
    judged = [row for row in metrics["training"]["history"] if "validation_loss" in row]
    points = [
        {"seconds": seconds, "reviews": row["update"] * 16, "accuracy": row["validation_accuracy"]}
        for seconds, row in zip(at, judged, strict=True)
    ]
    return {"seed": seed, "points": points, "right": run["right"], "stages_s": metrics["costs"]["stages_s"],
            "examples_per_s": metrics["training"]["examples_per_s"], "peak_rss_mb": metrics["costs"]["peak_resident_mb"],
            "wall_s": wall, "cpu_s": cpu}  # fmt: skip


def run_lexicon(seed: int) -> Row:
    """Seconds until a saved model of the first recipe, with n-gram expert, has 90% on validation: sizes in turn, summed up."""
    prepare(DATA)
    tries: list[Row] = []
    used = 0.0
    for size in SIZES:
        wall, cpu, run = distilora(
            "--training.seed",
            str(seed),
            "--data.train_size",
            str(size),
            recipe=str(ROOT / "recipes" / "imdb-embedded.yaml"),
        )
        used += cpu
        metrics = run["metrics"]
        of = {each["split"]: each["metrics"]["accuracy"]["value"] for each in metrics["evaluations"]}
        tries.append({"reviews": size, "seconds": wall - metrics["costs"]["stages_s"]["evaluation"], "wall_s": wall,
                      "accuracy": of["validation"], "heldout": of["heldout"]})  # fmt: skip
        if of["validation"] >= TARGET:
            break
    return {"seed": seed, "tries": tries, "wall_s": sum(row["wall_s"] for row in tries), "cpu_s": used}


def run_kept() -> Row:
    """Seconds of the same training twice: the second one finds what the frozen blocks computed."""
    prepare(DATA)
    words = ("--data.train_size", str(KEPT), "--training.epochs", "3", *SHORT)
    with tempfile.TemporaryDirectory() as cache:
        first, second = (distilora(*words, DISTILORA_CACHE=cache) for _ in range(2))
    return {
        "reviews": KEPT, "first_s": first[0], "second_s": second[0],
        "bytes": second[2]["metrics"]["training"]["prefix_cache"]["bytes"],
        "same": first[2]["metrics"]["training"]["history"] == second[2]["metrics"]["training"]["history"],
        "wall_s": first[0] + second[0], "cpu_s": first[1] + second[1],
    }  # fmt: skip


def run_processes() -> Row:
    """Reviews/s of one process on two threads, then of two processes on one thread each."""
    prepare(DATA)
    words = ("--data.train_size", str(SHARED), "--training.epochs", "1", *SHORT)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m", "distilora"]
    one, two = distilora(*words), distilora(*words, command=launch, OMP_NUM_THREADS="1")
    assert two[2]["metrics"]["training"]["processes"] == 2
    rates = [run["metrics"]["training"]["examples_per_s"] for _, _, run in (one, two)]
    return {"reviews": SHARED, "reviews_per_s": rates[0], "two_processes_reviews_per_s": rates[1], "wall_s": one[0] + two[0],
            "cpu_s": one[1] + two[1]}  # fmt: skip


def run_memory(contender: str) -> Row:
    """Peak of anonymous memory above its value after imports, MB, and total resident memory."""
    data = prepare(DATA)
    if contender == "full":
        words = ("--full", "--dropout", "0", "--tokens", "2048", "--reviews", "96")
        wall, cpu, row = python("-m", "bench.speed.tuned", str(data), *words)
        return {"peak_mb": row["peak_mb"], "resident_mb": row["resident_mb"], "wall_s": wall, "cpu_s": cpu}
    from bench.speed.scale import long_reviews

    file = long_reviews(data / "train.jsonl", WORK / "long.jsonl")
    words = [
        "--data.path",
        str(file),
        "--data.max_length",
        "256",
        "--data.validation_size",
        "8",
        "--data.labels",
        "null",
    ]
    wall, cpu, run = distilora(
        *words, "--training.validations", "1", "--data.train_size", "96", "--data.truncation_side", "right"
    )
    metrics = run["metrics"]
    return {"peak_mb": metrics["memory"]["peak_mb"], "resident_mb": metrics["costs"]["peak_resident_mb"],
            "activations_mb": metrics["memory"]["activations_mb"], "wall_s": wall, "cpu_s": cpu}  # fmt: skip


def run_roofline() -> Row:
    """The rounds of roofline.py."""
    wall, cpu, row = python("-m", "bench.speed.roofline", str(prepare(DATA)))
    return {**row, "wall_s": wall, "cpu_s": cpu}


def run_scale(corpus: str | None, count: int) -> Row:
    """Reviews/s and memory of `count` reviews, 64 tokens, one trained block."""
    from bench.speed.scale import made_up

    prepare(DATA)
    file = made_up(corpus, DATA / "train.jsonl", WORK / f"scale-{count}.jsonl", count)
    words = ["--data.path", str(file), "--data.max_length", "64", "--adapter.last_blocks", "1", "--data.labels", "null",
             "--training.validations", "1", "--data.validation_size", "64", "--data.heldout", "0.01",
             "--data.train_size", "null"]  # fmt: skip
    wall, cpu, run = distilora(*words)
    metrics = run["metrics"]
    return {"reviews": metrics["data"]["train"], "tokens": metrics["data"]["train_tokens"], "corpus": bool(corpus),
            "reviews_per_s": metrics["training"]["examples_per_s"], "peak_mb": metrics["memory"]["peak_mb"],
            "resident_mb": metrics["costs"]["peak_resident_mb"], "stages_s": metrics["costs"]["stages_s"],
            "wall_s": wall, "cpu_s": cpu}  # fmt: skip


def run_few(interpreter: str) -> Row:
    """SetFit in its own environment (few.py)."""
    if not interpreter:
        raise SystemExit("SPEED_SETFIT: not set; give the Python of an environment with SetFit (bench/speed/few.py)")
    with tempfile.TemporaryFile("w+") as out:
        wall, cpu, _ = timed([interpreter, str(HERE / "few.py"), str(prepare(DATA))], stdout=out, env=offline())
        out.seek(0)
        return {**json.loads(out.read().splitlines()[-1]), "wall_s": wall, "cpu_s": cpu}


def main() -> None:
    """Cells in order; SPEED_CORPUS names the unlabelled reviews, a parquet file with a column `text`.

    SPEED_SETFIT names the Python of an environment with SetFit; without it that cell stays as it is.
    """
    corpus = os.environ.get("SPEED_CORPUS")
    cells: dict[str, Any] = {}
    for number in range(ROUNDS):
        cells |= {f"rate-{number}-{name}": partial(run_rate, name) for name in REVIEWS}
    cells["roofline"] = run_roofline
    cells |= {
        f"memory-{name}-{number}": partial(run_memory, name) for number in range(2) for name in ("full", "distilora")
    }
    cells |= {f"whole-{seed}": partial(run_whole, seed) for seed in SEEDS}
    cells |= {f"lexicon-{seed}": partial(run_lexicon, seed) for seed in SEEDS}
    cells |= {f"kept-{number}": run_kept for number in range(ROUNDS)}
    cells |= {f"processes-{number}": run_processes for number in range(ROUNDS)}
    cells |= {f"curve-{name}": partial(run_curve, name) for name in LIMITS}
    cells |= {f"final-{name}": partial(run_final, name) for name in LIMITS}
    cells |= {f"scale-{count}": partial(run_scale, corpus, count) for count in SCALES}
    interpreter = os.environ.get("SPEED_SETFIT", "")
    if interpreter or (RESULTS / "speed" / "cells" / "few.json").exists():
        cells["few"] = partial(run_few, interpreter)
    run_cells("speed", cells, compute, COMMAND, sys.modules["bench.speed"].__doc__ or "")
    if (RESULTS / "speed.json").exists():
        from bench.speed.picture import write_picture, write_table

        results = json.loads((RESULTS / "speed.json").read_text("utf-8"))
        write_table(results, RESULTS / "speed.md")
        write_picture(results, RESULTS / "speed.png")


if __name__ == "__main__":
    main()
