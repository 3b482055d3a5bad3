"""Runs the cells that are missing and writes results/inference.{json,md,png}. Help: --help."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from bench.harness.claims import RESULTS, ROOT, run_cells, timed
from bench.inference import OURS, Row, compute, tables
from bench.inference.contender import CASCADE, CONTENDERS, FP32, INT8, MERGED, OPENVINO, PLAIN
from bench.inference.picture import draw
from bench.score_memory import ROWS, measure
from bench.speed.data import prepare

HERE = Path(__file__).parent
WORK = Path(os.environ.get("INFERENCE_WORK", tempfile.gettempdir())) / "distilora-bench-inference"
DATA, REVIEWS = WORK / "data", WORK / "data" / "heldout.jsonl"
COMMAND = "make bench-inference"
ROUNDS, EACH, FIRSTS, KILLS = 3, 800, 5, 10
FORMS = (MERGED, FP32, INT8, OPENVINO)
LENGTHS, CALLS = (8, 16, 32, 64, 128, 256, 512), 100
DISTILORA = [sys.executable, "-m", "distilora", "--quiet"]


def environment() -> dict[str, str]:
    """bench/ importable, no network."""
    path = f"{ROOT}:{os.environ.get('PYTHONPATH', '')}"
    return {**os.environ, "PYTHONPATH": path, "HF_HUB_OFFLINE": "1"}


def python(*words: str) -> Row:
    """The JSON of a script's last line, and its wall and CPU seconds."""
    with tempfile.TemporaryFile("w+") as out:
        wall, cpu, _ = timed([sys.executable, *words], stdout=out, env=environment())
        out.seek(0)
        return {**json.loads(out.read().splitlines()[-1]), "wall_s": wall, "cpu_s": cpu}


def make_model() -> Row:
    """The run, its exports and the plain graph, as far as they are not there; what their gates said."""
    prepare(DATA)
    run = Path(os.environ.get("INFERENCE_RUN", WORK / "run"))
    wall = cpu = 0.0

    def do(*words: str) -> None:
        nonlocal wall, cpu
        took = timed([*words], env=environment())
        wall, cpu = wall + took[0], cpu + took[1]

    if not (run / "model").is_dir():
        do(*DISTILORA, "train", str(ROOT / "bench" / "encoder.yaml"), "--data.max_length", "512", "--data.train_size",
           "12000", "--data.validation_size", "1000", "--training.tracker", "none", "--output", str(run))  # fmt: skip
    for form in FORMS:
        if not (WORK / form).is_dir():
            do(*DISTILORA, "export", str(run), "--to", form, "--output", str(WORK / form))
    if not (WORK / PLAIN).is_file():
        do(sys.executable, "-m", "bench.inference.plain", str(WORK / MERGED), str(WORK / PLAIN))
    gates = {form: json.loads((WORK / form / "artifact.json").read_text("utf-8"))["parity"] for form in FORMS}
    return {"gates": gates, "wall_s": wall, "cpu_s": cpu}


def make_cascade() -> Row:
    """The run with an expert and its export; what the export's gate said and how the cascade's threshold was found."""
    from distilora import load

    prepare(DATA)
    run, wall, cpu = WORK / "cascade", 0.0, 0.0
    if not (run / "model").is_dir():
        wall, cpu, _ = timed(
            [*DISTILORA, "train", str(ROOT / "bench" / "encoder.yaml"), "--data.max_length", "512", "--data.train_size", "12000",
             "--data.validation_size", "5000", "--lexicon", "nbsvm", "--training.tracker", "none", "--output", str(run)],
            env=environment(),
        )  # fmt: skip
    heldout = {json.loads(line)["text"] for line in REVIEWS.read_text("utf-8").splitlines()}
    answers = json.loads((run / "metrics.json").read_text("utf-8"))["evaluations"][0]
    assert answers["examples"] == len(heldout), "another part was held out"
    if not (WORK / CASCADE).is_dir():
        took = timed(
            [*DISTILORA, "export", str(run), "--to", "openvino", "--output", str(WORK / CASCADE)], env=environment()
        )
        wall, cpu = wall + took[0], cpu + took[1]
    predictor = load(WORK / CASCADE, cascade=True)
    assert predictor.cascade is not None
    gate = json.loads((WORK / CASCADE / "artifact.json").read_text("utf-8"))["parity"]
    return {"gate": gate, "threshold": predictor.cascade.threshold.sentence(), "wall_s": wall, "cpu_s": cpu}


def contend(name: str, start: int, take: int, how: Row | None = None) -> Row:
    """A contender on some of the reviews."""
    words = [
        "-m",
        "bench.inference.contender",
        name,
        str(WORK),
        str(REVIEWS),
        "--start",
        str(start),
        "--take",
        str(take),
    ]
    return python(*words, "--how", json.dumps(how or {}))


def search() -> Row:
    """The fastest settings of `pipeline` and of ONNX Runtime on the first reviews after the rounds'."""
    ways = {
        "pipeline_best": [
            {"dtype": dtype, "batch_size": size} for dtype in ("float32", "bfloat16") for size in (1, 8, 32)
        ],
        "ort_fp32": [{"batch_size": size} for size in (1, 8, 32)],
    }
    tried: list[Row] = []
    for name, choices in ways.items():
        for how in choices:
            row = contend(name, ROUNDS * EACH, 96, how)
            tried.append({"name": name, "how": how, "reviews_per_s": row["reviews_per_s"], "wall_s": row["wall_s"],
                          "cpu_s": row["cpu_s"]})  # fmt: skip
    best = {name: max((row for row in tried if row["name"] == name), key=lambda row: row["reviews_per_s"])["how"]
            for name in ways}  # fmt: skip
    return {
        "tried": tried,
        "best": best,
        "wall_s": sum(r["wall_s"] for r in tried),
        "cpu_s": sum(r["cpu_s"] for r in tried),
    }


def one_round(number: int, name: str) -> Row:
    """A contender on a round's reviews."""
    best = json.loads((RESULTS / "inference" / "cells" / "search.json").read_text("utf-8"))["best"]
    return contend(name, (number - 1) * EACH, EACH, best.get(name))


def latency(name: str) -> Row:
    """ms of single texts by tokens, one after the other, lengths in turn."""
    from distilora import load

    started, used = time.monotonic(), time.process_time()
    predictor = load(WORK / {OURS: INT8, "distilora_merged": MERGED, "distilora_fp32": FP32}[name])
    times_ms: dict[int, list[float]] = {length: [] for length in LENGTHS}
    texts = {length: ["film " * (length - 3) + f"{'abcdefghijklmnopqrst'[i]}" for i in range(20)] for length in LENGTHS}
    for call in range(CALLS + 5):
        for length in LENGTHS:
            begun = time.perf_counter()
            predictor(texts[length][call % 20])
            if call >= 5:
                times_ms[length].append(1000 * (time.perf_counter() - begun))
    lengths = {n: len(predictor.tokenizer.encode(texts[n][0]).ids) for n in LENGTHS}
    assert all(abs(lengths[n] - n) <= 1 for n in LENGTHS), lengths
    return {
        "ms": {str(n): times_ms[n] for n in LENGTHS}, "p50": {str(n): float(np.percentile(times_ms[n], 50)) for n in LENGTHS},
        "p99": {str(n): float(np.percentile(times_ms[n], 99)) for n in LENGTHS}, "precision": predictor.backend.precision,
        "wall_s": time.monotonic() - started, "cpu_s": time.process_time() - used,
    }  # fmt: skip


def first_answer() -> Row:
    """Seconds of a whole process."""
    wall, cpu, peak = timed([*DISTILORA, "predict", str(WORK / INT8), "A slow start, but the last hour is superb."],
                            stdout=subprocess.DEVNULL, env=environment())  # fmt: skip
    return {"seconds": wall, "peak_mb": peak, "wall_s": wall, "cpu_s": cpu}


def torch_first_answer() -> Row:
    """Seconds of a whole process, of the saved run."""
    run = os.environ.get("INFERENCE_RUN", str(WORK / "run"))
    wall, cpu, peak = timed([*DISTILORA, "predict", run, "A slow start, but the last hour is superb."],
                            stdout=subprocess.DEVNULL, env=environment())  # fmt: skip
    return {"seconds": wall, "peak_mb": peak, "wall_s": wall, "cpu_s": cpu}


def scoring(words: int | None, count: int) -> Row:
    """Rows/s of `distilora score` on parquet, start included: held-out reviews, again and again, cut to so many words."""
    import pyarrow
    import pyarrow.parquet

    texts = [json.loads(line)["text"].split()[:words] for line in REVIEWS.read_text("utf-8").splitlines()]
    column = [f"{' '.join(texts[i % len(texts)])} {i // len(texts)}" for i in range(count)]
    with tempfile.TemporaryDirectory() as place:
        source = Path(place) / "in.parquet"
        pyarrow.parquet.write_table(pyarrow.table({"text": column}), source)
        command = [*DISTILORA, "score", str(WORK / INT8), str(source), "--output", str(Path(place) / "out")]
        wall, cpu, peak = timed(command, stdout=subprocess.DEVNULL, env=environment())
    return {"rows": count, "rows_per_s": count / wall, "busy": cpu / wall / (os.cpu_count() or 1), "peak_mb": peak,
            "wall_s": wall, "cpu_s": cpu}  # fmt: skip


def peak() -> Row:
    """Operations a second of square products, and those that the reviews of each round need of the encoder."""
    import torch

    from bench.speed.roofline import peak as measured
    from distilora import load

    started, used = time.monotonic(), time.process_time()
    cpu = torch.device("cpu")

    def int8() -> float:
        best = 0.0
        for size in (1024, 2048):
            a = torch.randint(-127, 127, (size, size), dtype=torch.int8)
            times = []
            for _ in range(12):
                begun = time.perf_counter()
                torch._int_mm(a, a)
                times.append(time.perf_counter() - begun)
            best = max(best, 2 * size**3 / float(np.median(times[3:])))
        return best

    peaks = {"int8": int8(), "bf16": measured(torch.bfloat16, cpu), "fp32": measured(torch.float32, cpu)}
    tokenizer = load(WORK / INT8).tokenizer
    texts = [json.loads(line)["text"] for line in REVIEWS.read_text("utf-8").splitlines()]
    config = json.loads((WORK / MERGED / "config.json").read_text("utf-8"))
    d, f, blocks, heads = config["dim"], config["hidden_dim"], config["n_layers"], config["n_heads"]
    needs = []
    for number in range(ROUNDS):
        encodings = tokenizer.encode_batch(texts[number * EACH : (number + 1) * EACH])
        n = np.asarray([len(encoding.ids) for encoding in encodings], float)
        whole = (blocks - 1) * (n * (8 * d * d + 4 * d * f) + 4 * n * n * d)
        needs.append(float((whole + 4 * n * heads * d).mean()))  # the last block reads first tokens only
    return {**peaks, "operations_per_review": needs, "wall_s": time.monotonic() - started,
            "cpu_s": time.process_time() - used}  # fmt: skip


def kills() -> Row:
    """Ten SIGKILLs at random moments of scoring 2,000 reviews in shards of 50; the shards must be those of one go."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as place:
        source, whole, out = Path(place) / "in.jsonl", Path(place) / "whole", Path(place) / "out"
        source.write_text("\n".join(REVIEWS.read_text("utf-8").splitlines()[:2000]) + "\n", "utf-8")
        words = [*DISTILORA, "score", str(WORK / INT8), str(source), "--shard-rows", "50", "--output"]
        subprocess.run([*words, str(whole)], check=True, env=environment(), stdout=subprocess.DEVNULL)
        undisturbed, rng, met = time.monotonic() - started, random.Random(3), 0
        for _ in range(KILLS):
            process = subprocess.Popen([*words, str(out)], env=environment(), stdout=subprocess.DEVNULL)
            time.sleep(rng.uniform(0.5, undisturbed / 6))
            process.send_signal(signal.SIGKILL)
            met += process.wait() == -signal.SIGKILL
        subprocess.run([*words, str(out)], check=True, env=environment(), stdout=subprocess.DEVNULL)
        names = sorted(path.name for path in whole.glob("shard-*"))
        same = names == sorted(path.name for path in out.glob("shard-*")) and all(
            (whole / name).read_bytes() == (out / name).read_bytes() for name in names
        )
    return {"kills": met, "same": same, "survived": met if same else 0, "shards": len(names), "undisturbed_s": undisturbed,
            "wall_s": time.monotonic() - started, "cpu_s": time.process_time()}  # fmt: skip


def main() -> None:
    """Cells, then the files."""
    cells: dict[str, Callable[[], Row]] = {"model": make_model, "search": search, "cascade": make_cascade}
    for number in range(1, ROUNDS + 1):
        for name in CONTENDERS:
            cells[f"round-{number}-{name}"] = partial(one_round, number, name)
    for name in (OURS, "distilora_fp32", "distilora_merged"):
        cells[f"latency-{name}"] = partial(latency, name)
    for number in range(1, FIRSTS + 1):
        cells[f"first-{number}"] = first_answer
        cells[f"torch-first-{number}"] = torch_first_answer
    cells |= {"score-short": partial(scoring, 8, 100_000), "score-reviews": partial(scoring, None, 5_000)}
    cells |= {f"memory-{count}": partial(measure, count) for count in ROWS}
    cells |= {"peak": peak, "kills": kills}
    run_cells("inference", cells, compute, COMMAND, __doc__ or "")
    path = RESULTS / "inference.json"
    if path.exists():
        rows: list[Any] = json.loads(path.read_text("utf-8"))["rows"]
        (RESULTS / "inference.md").write_text(tables(rows), "utf-8")
        draw(rows, RESULTS / "inference.png")


if __name__ == "__main__":
    if shutil.which("git") is None:
        sys.exit("git is needed, for the commit that a row is of")
    main()
