"""Bench of the tasks: graded sentiment (SST-5), question answering (SubjQA, XQuAD), summaries (SciTLDR), by the embedded encoder.

    sst5-ordinal-seedN  recipes/sst5-embedded.yaml, which starts from the model of IMDB that comes with distilora; N = 0, 1, 2
    sst5-nominal-seedN  the same with task classification
    scitldr-seed0       recipes/scitldr-embedded.yaml; beside it the first sentences, TextRank on the encoder's states, the oracle
    subjqa-seed0        recipes/subjqa-embedded.yaml; beside it the best TF-IDF sentence and never answering; and on XQuAD;
                        with the no-answer threshold of validation, and always answering
    stars               IMDB's eight star ratings, ordinal, on 12,000 reviews cut to 128 tokens; measured on held-out reviews

TASKS_DATA names a folder with imdb, sst5, subjqa, xquad_en and scitldr, each with its splits as parquet files. Everything is chosen
on the validation splits; the test splits are read by these cells alone. Question answering and summaries have one seed each, for
the time that they take: their intervals are over questions and documents.
"""

import json
import math
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.harness.claims import RESULTS, Rows, run_cells, timed

SEEDS = (0, 1, 2)
FOLDER = RESULTS / "tasks"
DISTILORA = str(Path(sys.executable).parent / "distilora")
RESAMPLES = 2000
STARS = ("--task", "ordinal", "--data.label_column", "rating", "--data.train_size", "12000")


def compute(rows: Rows) -> Rows:
    """Claims from rows; the spread of a mean over seeds is from least to most, that of a paired gain its 95% interval."""
    cells = {row["cell"]: row for row in rows}

    def of(prefix: str) -> Rows:
        return [cells[f"{prefix}-seed{seed}"] for seed in SEEDS]

    def mean(name: str, values: list[float], unit: str, goal: str) -> dict[str, Any]:
        return {"name": name, "value": statistics.mean(values), "unit": unit, "goal": goal,
                "spread": [min(values), max(values)], "n": len(values)}  # fmt: skip

    def gain(name: str, interval: tuple[float, float, float], unit: str, count: int) -> dict[str, Any]:
        _, low, high = interval
        return {"name": name, "value": low, "unit": unit, "goal": "> 0", "spread": [low, high], "n": count}

    nominal, ordinal = of("sst5-nominal"), of("sst5-ordinal")
    answers, summaries, stars = [cells["subjqa-seed0"]], [cells["scitldr-seed0"]], cells["stars"]["metrics"]
    chosen = max((nominal, ordinal), key=lambda side: statistics.mean(row["validation_accuracy"] for row in side))
    distances = [np.asarray([row["distances"] for row in side], np.float64).mean(axis=0) for side in (nominal, ordinal)]
    shared = np.asarray([row["f1_of"] for row in answers]).mean(axis=0)
    tfidf, never = np.asarray(answers[0]["tfidf_f1_of"]), np.asarray(answers[0]["never_f1_of"])
    baseline = max((tfidf, never), key=lambda values: float(values.mean()))
    answerable = never == 0
    test, questions = "share of SST-5's 2,210 test sentences", "SubjQA's test questions"
    return [
        mean("sst5_accuracy", [row["accuracy"] for row in chosen], f"{test}, the task with more right on validation", ">= 0.5"),
        mean("sst5_nominal_accuracy", [row["accuracy"] for row in nominal], test, "none"),
        mean("sst5_ordinal_accuracy", [row["accuracy"] for row in ordinal], test, "none"),
        mean("sst5_nominal_mae", [row["mae"] for row in nominal], "classes, mean absolute error", "none"),
        mean("sst5_ordinal_mae", [row["mae"] for row in ordinal], "classes, mean absolute error", "none"),
        gain("sst5_ordinal_mae_gain_low", paired(distances[0] - distances[1]),
             "classes less than the nominal error, lower end of the paired 95% interval, means over seeds", len(distances[0])),
        mean("imdb_stars_accuracy", [stars["accuracy"]], "share of held-out IMDB reviews, eight star ratings", "none"),
        mean("imdb_stars_mae", [stars["mae"]], "classes, mean absolute error, eight star ratings", "none"),
        mean("subjqa_f1", [row["f1"] for row in answers], f"F1, {questions}", "none"),
        mean("subjqa_exact_match", [row["exact_match"] for row in answers], f"exact match, {questions}", "none"),
        gain("subjqa_f1_gain_low", paired(shared - baseline),
             "F1 over the best baseline, lower end of the paired 95% interval", len(shared)),
        mean("subjqa_never_f1", [float(never.mean())], f"F1 of never answering, {questions}", "none"),
        mean("subjqa_tfidf_f1", [float(tfidf.mean())], f"F1 of the best TF-IDF sentence, {questions}", "none"),
        mean("subjqa_answerable_ratio",
             [statistics.mean(row["always_f1_of"]) / float(np.asarray(row["tfidf_always_f1_of"])[answerable].mean())
              for row in answers], "F1 of the questions with an answer over the TF-IDF sentence's, both always answering", ">= 2"),
        mean("subjqa_answerable_ratio_declining",
             [float(np.asarray(row["f1_of"])[answerable].mean() / np.asarray(row["tfidf_f1_of"])[answerable].mean())
              for row in answers], "the same, both free to give no answer, by thresholds from validation", "none"),
        mean("xquad_f1", [row["xquad_f1"] for row in answers], "F1, XQuAD-en's 1,190 questions, which all have an answer", "none"),
        mean("xquad_f1_always", [row["xquad_always_f1"] for row in answers], "the same, always answering", "none"),
        *(mean(f"scitldr_{name}", [100 * row["rouge"][measure] for row in summaries], f"{measure} x 100, SciTLDR's test", goal)
          for name, measure, goal in (("rouge1", "rouge1", ">= 38.5"), ("rouge2", "rouge2", "none"),
                                      ("rougel", "rougeL", "none"), ("rougelsum", "rougeLsum", "none"))),
        *(mean(f"scitldr_{name}_rouge1", [100 * summaries[0][name]["rouge1"]], f"ROUGE-1 x 100 of {what}", "none")
          for name, what in (("lead1", "the first sentence"), ("lead3", "the first three"), ("textrank", "TextRank's sentence"),
                             ("oracle", "the oracle"))),
    ]  # fmt: skip


def paired(differences: NDArray[np.float64]) -> tuple[float, float, float]:
    """Return mean and 95% interval of paired differences, [N]: percentile bootstrap."""
    rng = np.random.default_rng(0)
    means = [differences[rng.integers(0, len(differences), len(differences))].mean() for _ in range(RESAMPLES)]
    return float(differences.mean()), float(np.quantile(means, 0.025)), float(np.quantile(means, 0.975))


def data(name: str) -> str:
    return str(Path(os.environ["TASKS_DATA"]) / name)


def train(name: str, recipe: str, *words: str) -> tuple[Path, float, float]:
    """Train a run; return its folder, wall and CPU seconds."""
    run = FOLDER / "runs" / name
    wall, cpu, _ = timed([DISTILORA, "train", recipe, *words, "--output", str(run), "--overwrite"])
    return run, wall, cpu


def answers_of(folder: Path, split: str | None = None) -> Rows:
    from distilora.files.tables import read_table

    rows = [dict(record.values) for record in read_table(folder / "predictions.parquet")]
    return [row for row in rows if split is None or row["split"] == split]


def run_stars() -> dict[str, Any]:
    """Learn stars from IMDB's training reviews, without the model that has seen those held out here."""
    words = ["--data.path", data("imdb"), *STARS, "--data.labels", "[1,2,3,4,7,8,9,10]", "--data.test_split", "heldout",
             "--data.max_length", "128", "--training.epochs", "1", "--init_from", "null"]  # fmt: skip
    run, wall, cpu = train("stars", "recipes/sst5-embedded.yaml", *words)
    metrics = json.loads((run / "metrics.json").read_text("utf-8"))["evaluations"][0]["metrics"]
    return {
        "metrics": {name: metrics[name]["value"] for name in ("accuracy", "mae", "quadratic_kappa")},
        "wall_s": wall,
        "cpu_s": cpu,
    }


def run_sst5(task: str, seed: int) -> dict[str, Any]:
    words = ["--data.path", data("sst5"), "--task", task, "--training.seed", str(seed)]
    run, wall, cpu = train(f"sst5-{task}-seed{seed}", "recipes/sst5-embedded.yaml", *words)
    rows = answers_of(run, "test")
    distances = [abs(int(row["label"]) - int(row["target"])) for row in rows]
    test, validation = json.loads((run / "metrics.json").read_text("utf-8"))["evaluations"][:2]
    return {
        "seed": seed,
        "examples": len(rows),
        "accuracy": sum(d == 0 for d in distances) / len(rows),
        "mae": sum(distances) / len(rows),
        "macro_f1": test["metrics"]["macro_f1"]["value"],
        "validation_accuracy": validation["metrics"]["accuracy"]["value"],
        "distances": distances,
        "wall_s": wall,
        "cpu_s": cpu,
    }


def run_subjqa(seed: int) -> dict[str, Any]:
    from distilora.files.tables import read_table
    from distilora.tasks.metrics.squad import exact, f1

    run, wall, cpu = train(
        f"subjqa-seed{seed}",
        "recipes/subjqa-embedded.yaml",
        "--data.path",
        data("subjqa"),
        "--training.seed",
        str(seed),
    )
    questions = [dict(record.values) for record in read_table(Path(data("subjqa")) / "test.parquet")]
    truths = [question["answers"]["text"] for question in questions]
    given = [row["answer"] or "" for row in answers_of(run, "test")]
    of = [f1(answer, truth) for answer, truth in zip(given, truths, strict=True)]
    domains = sorted({question["domain"] for question in questions})
    folder = FOLDER / "runs" / f"subjqa-seed{seed}-xquad"
    shutil.rmtree(folder, ignore_errors=True)
    words = ["--data.path", data("xquad_en"), "--output", str(folder)]
    subprocess.run([DISTILORA, "evaluate", str(run), *words], check=True)
    xquad = json.loads((folder / "metrics.json").read_text("utf-8"))["evaluation"]["metrics"]
    others = [dict(record.values) for record in read_table(Path(data("xquad_en")) / "test.parquet")]
    row = {
        "seed": seed,
        "examples": len(questions),
        "always_f1_of": always_answered(run, [question for question in questions if question["answers"]["text"]]),
        "xquad_always_f1": statistics.mean(always_answered(run, others)),
        "f1": statistics.mean(of),
        "exact_match": statistics.mean(exact(a, t) for a, t in zip(given, truths, strict=True)),
        "f1_of": [round(value, 4) for value in of],
        "by_domain": {
            name: statistics.mean(value for value, q in zip(of, questions, strict=True) if q["domain"] == name)
            for name in domains
        },
        "xquad_f1": xquad["f1"]["value"],
        "xquad_exact_match": xquad["exact_match"]["value"],
        "wall_s": wall,
        "cpu_s": cpu,
    }
    return row | tfidf_sentences(questions)


def always_answered(run: Path, questions: Rows) -> list[float]:
    """F1 of each question, answered with the best span, however likely no answer is."""
    from distilora.inference.predictor import load
    from distilora.tasks.metrics.squad import f1

    predictor = load(run)
    predictor.task = predictor.task.with_settings(threshold=math.inf)
    given = predictor([{"question": question["question"], "context": question["context"]} for question in questions])
    return [round(f1(a["answer"] or "", q["answers"]["text"]), 4) for a, q in zip(given, questions, strict=True)]


def tfidf_sentences(questions: Rows) -> dict[str, Any]:
    """F1 of the sentence whose TF-IDF is nearest to the question's, with a no-answer threshold from validation, and without."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    from distilora.data.fragments import sentence_starts
    from distilora.files.tables import read_table
    from distilora.tasks.metrics.squad import f1

    splits = {
        name: [dict(r.values) for r in read_table(Path(data("subjqa")) / f"{name}.parquet")]
        for name in ("train", "validation")
    }
    vectoriser = TfidfVectorizer(sublinear_tf=True, stop_words="english").fit(
        [text for row in splits["train"] for text in (row["question"], row["context"])]
    )

    def best(rows: Rows) -> tuple[list[str], NDArray[np.float64]]:
        chosen, scores = [], []
        for row in rows:
            starts = sentence_starts(row["context"])
            sentences = [row["context"][s:e].strip() for s, e in zip(starts, [*starts[1:], None], strict=True)]
            similar = (vectoriser.transform(sentences) @ vectoriser.transform([row["question"]]).T).toarray()[:, 0]
            chosen.append(sentences[int(similar.argmax())])
            scores.append(float(similar.max()))
        return chosen, np.asarray(scores)

    def f1_of(rows: Rows, chosen: Sequence[str], scores: NDArray[np.float64], threshold: float) -> list[float]:
        return [
            f1(sentence if score >= threshold else "", row["answers"]["text"])
            for row, sentence, score in zip(rows, chosen, scores, strict=True)
        ]

    chosen, scores = best(splits["validation"])
    levels = [-1.0, *np.unique(scores).tolist(), 2.0]
    threshold = max(levels, key=lambda t: statistics.mean(f1_of(splits["validation"], chosen, scores, t)))
    chosen, scores = best(questions)
    return {
        "tfidf_threshold": threshold,
        "tfidf_f1_of": [round(v, 4) for v in f1_of(questions, chosen, scores, threshold)],
        "tfidf_always_f1_of": [round(v, 4) for v in f1_of(questions, chosen, scores, -1.0)],
        "never_f1_of": [float(not row["answers"]["text"]) for row in questions],
    }


def run_scitldr(seed: int) -> dict[str, Any]:
    from distilora.files.tables import read_table

    run, wall, cpu = train(
        f"scitldr-seed{seed}",
        "recipes/scitldr-embedded.yaml",
        "--data.path",
        data("scitldr"),
        "--training.seed",
        str(seed),
    )
    split = json.loads((run / "metrics.json").read_text("utf-8"))["evaluations"][0]
    row: dict[str, Any] = {
        "seed": seed,
        "examples": split["examples"],
        "rouge": {name: metric["value"] for name, metric in split["metrics"].items()},
        "oracle": split["beside"]["oracle"],
        "wall_s": wall,
        "cpu_s": cpu,
    }
    if seed == 0:
        documents = [dict(record.values) for record in read_table(Path(data("scitldr")) / "test.parquet")]
        ranked = textrank([d["sentences"] for d in documents])
        row["lead1"] = mean_rouge(documents, [[0]] * len(documents))
        row["lead3"] = mean_rouge(documents, [[0, 1, 2]] * len(documents))
        row["textrank"] = mean_rouge(documents, [[int(scores.argmax())] for scores in ranked])
    return row


def mean_rouge(documents: Rows, chosen: Sequence[Sequence[int]]) -> dict[str, float]:
    from distilora.tasks.metrics.rouge import MEASURES, rouge

    scores = [
        rouge("\n".join(d["sentences"][i] for i in of if i < len(d["sentences"])), d["summaries"])
        for d, of in zip(documents, chosen, strict=True)
    ]
    return {name: statistics.mean(score[name] for score in scores) for name in MEASURES}


def textrank(documents: Sequence[Sequence[str]]) -> list[NDArray[np.float64]]:
    """Rank the sentences of each document by TextRank (Mihalcea & Tarau 2004) on cosines of the embedded encoder's mean states."""
    import torch

    from distilora.batching.tokens import tokenise, with_truncation
    from distilora.config.schema import AdapterConfig
    from distilora.data.examples import Example
    from distilora.inference.backends.torch_backend import TorchBackend
    from distilora.inference.lanes import run_rows
    from distilora.model.build import new_network
    from distilora.model.encoders.find import find_encoder, load_tokenizer
    from distilora.tasks.base import Task

    class Means(Task):
        """The mean state of each text, in place of an answer."""

        name, outputs, settings = "means", 1, {}

        def read(self, values: Any) -> Any: ...
        def loss(self, outputs: Any, targets: Any) -> Any: ...
        def decode(self, outputs: Any, examples: Any, tokenizer: Any) -> Any: ...
        def metrics(self, outputs: Any, targets: Any, resamples: int = 0) -> Any: ...
        def head(self, states: Any, rows: Any) -> Any:
            return states.mean()

    encoder = find_encoder("embedded")
    network = new_network(encoder, Means(), AdapterConfig(method="head"), precision="fp32", device=torch.device("cpu"))
    tokenizer = with_truncation(load_tokenizer(encoder), 256, "right")
    sentences = [Example((sentence,)) for document in documents for sentence in document]
    states = run_rows(tokenise(tokenizer, sentences).rows, TorchBackend(network, "fp32"), label="sentences", lanes=True)
    states /= np.linalg.norm(states, axis=1, keepdims=True)
    ranks, start = [], 0
    for document in documents:
        own = states[start : start + len(document)].astype(np.float64)
        start += len(document)
        similar = np.clip(own @ own.T, 0, None)
        np.fill_diagonal(similar, 0)
        moves = similar / np.maximum(similar.sum(axis=1, keepdims=True), 1e-12)
        rank = np.full(len(document), 1 / len(document))
        for _ in range(100):
            rank = 0.15 / len(document) + 0.85 * rank @ moves
        ranks.append(rank)
    return ranks


def main() -> None:
    """Run the cells, then write results/tasks.json and results/tasks.md."""
    cells: dict[str, Any] = {}
    for seed in SEEDS:
        cells |= {
            f"sst5-ordinal-seed{seed}": partial(run_sst5, "ordinal", seed),
            f"sst5-nominal-seed{seed}": partial(run_sst5, "classification", seed),
        }
    cells |= {"scitldr-seed0": partial(run_scitldr, 0), "subjqa-seed0": partial(run_subjqa, 0), "stars": run_stars}
    started = time.monotonic()
    run_cells("tasks", cells, compute, "make bench-tasks", __doc__ or "")
    path = RESULTS / "tasks.json"
    if path.exists():
        (RESULTS / "tasks.md").write_text(table(json.loads(path.read_text("utf-8"))), "utf-8")
    print(f"{(time.monotonic() - started) / 60:.1f} minutes")


def table(results: dict[str, Any]) -> str:
    """results/tasks.md: every claim."""
    lines = [
        "# Tasks, embedded encoder",
        "",
        "| claim | value | from | to | n | goal | unit |",
        "|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {c['name']} | {c['value']:.4g} | {c['spread'][0]:.4g} | {c['spread'][1]:.4g} | {c['n']:,} | {c['goal']} | {c['unit']} |"
        for c in results["claims"]
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
