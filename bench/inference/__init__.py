"""Bench of prediction: distilora against what people run, on real held-out IMDB reviews, one process after the other.

`python -m bench.inference` (`make bench-inference`) runs the cells that are missing:

    model           a run of 12,000 reviews at 512 tokens (or INFERENCE_RUN, a finished one) and its exports, with their gates
    search          the fastest way to call `pipeline`, and the fastest batch for plain ONNX Runtime, on the first 96 reviews
    cascade         a run with an n-gram expert and 5,000 validation reviews, exported to OpenVINO, for `--cascade`
    round-N-NAME    reviews/s and labels of a contender on the Nth 800 held-out reviews, interleaved in rounds
    latency-NAME    seconds of single texts of 8 to 512 tokens, one after the other
    first-N         seconds from the start of `distilora predict` to the answer of an export
    torch-first-N   the same of the saved run, on PyTorch
    score-WHAT      rows/s of `distilora score` on parquet: 100,000 texts of eight words, 5,000 reviews
    memory-N        peak memory of scoring N rows with a tiny model (bench/score_memory.py)
    peak            the processor's peak in products of int8, bf16 and fp32 matrices, and the operations that a review needs
    kills           `distilora score` killed ten times at random, beside an undisturbed one

Contenders (contender.py): `pipeline` as people call it (a list, truncation on), `pipeline_best` with the dtype and batch
size that the search found, `ort_fp32` the Transformers model by torch.onnx in ONNX Runtime, each batch padded to its
longest; distilora's int8 and fp32 graphs, its export to OpenVINO and its merged model with defaults; `distilora_combined` and
`distilora_cascade`, the cell cascade's model without and with `--cascade`. Loading is not counted, four texts warm up.
"""

import statistics
from collections.abc import Callable
from typing import Any

Row = dict[str, Any]
OURS, OPENVINO, COMBINED, CASCADE = "distilora_int8", "distilora_openvino", "distilora_combined", "distilora_cascade"
GOALS = {
    "throughput_vs_pipeline": ">= 5", "openvino_throughput_vs_pipeline": ">= 5",
    "throughput_vs_pipeline_best": ">= 3.5", "throughput_vs_ort_fp32": ">= 4",
    "cascade_accuracy_loss": "<= 0.1", "score_memory_growth": "<= 1.05", "torch_first_answer_s": "<= 2.5",
    "accuracy_loss": "<= 0.2", "label_agreement": ">= 0.995", "first_answer_s": "<= 0.5", "score_kills_survived": ">= 10",
}  # fmt: skip
PUBLISHED = {32: 150, 128: 55, 256: 27, 512: 12}  # HF Infinity, DistilBERT (66M), 2 cores, requests/s


def compute(rows: list[Row]) -> list[Row]:
    """Claims from rows: medians of the rounds, spread from least to most; accuracy and agreement over all reviews."""
    cells = {row["cell"]: row for row in rows}
    rounds = sorted({int(name.split("-")[1]) for name in cells if name.startswith("round-")})

    def of(number: int, name: str) -> Row:
        return cells[f"round-{number}-{name}"]

    def claim(name: str, values: list[float], unit: str) -> Row:
        return {"name": name, "value": statistics.median(values), "unit": unit, "goal": GOALS.get(name, "none"),
                "spread": [min(values), max(values)], "n": len(values)}  # fmt: skip

    def ratio(name: str, ours: str = OURS) -> list[float]:
        return [of(n, ours)["reviews_per_s"] / of(n, name)["reviews_per_s"] for n in rounds]

    def right(name: str) -> list[bool]:
        return [a == b for n in rounds for a, b in zip(of(n, name)["labels"], of(n, name)["targets"], strict=True)]

    same = [a == b for n in rounds for a, b in zip(of(n, OURS)["labels"], of(n, "pipeline")["labels"], strict=True)]
    whole, ours = right("pipeline"), right(OURS)  # `pipeline` computes in fp32
    lost = 100 * (sum(whole) - sum(ours)) / len(ours)
    peak = cells["peak"]
    done = [of(n, OURS)["reviews_per_s"] * peak["operations_per_review"][n - 1] for n in rounds]
    firsts = [row["seconds"] for name, row in cells.items() if name.startswith("first-")]
    claims = [
        claim("throughput_vs_pipeline", ratio("pipeline"), "times"),
        claim("throughput_vs_pipeline_best", ratio("pipeline_best"), "times"),
        claim("throughput_vs_ort_fp32", ratio("ort_fp32"), "times"),
        claim("bf16_throughput_vs_pipeline", ratio("pipeline", "distilora_merged"), "times"),
        claim("fp32_throughput_vs_ort_fp32", ratio("ort_fp32", "distilora_fp32"), "times"),
        claim("reviews_per_s", [of(n, OURS)["reviews_per_s"] for n in rounds], "reviews/s, 512 tokens at most"),
        {
            **claim("accuracy_loss", [lost], f"points of accuracy against fp32 on {len(ours):,} held-out reviews"),
            "n": len(ours),
        },
        {**claim("label_agreement", [sum(same) / len(same)], "of the labels as in fp32"), "n": len(same)},
        claim("share_of_peak", [each / peak["int8"] for each in done], "of the int8 peak"),
        claim("share_of_bf16_peak", [each / peak["bf16"] for each in done], "of the bf16 peak"),
        claim("first_answer_s", firsts, "s from process start, onnx backend"),
        claim("score_kills_survived", [cells["kills"]["survived"]], "kills"),
    ]
    if f"round-{rounds[0]}-{OPENVINO}" in cells:  # rows of before have none
        claims += later_claims(cells, claim, ratio, right)
    for name, row in cells.items():
        if name == f"latency-{OURS}":
            for length, times in row["ms"].items():
                claims.append({**claim(f"latency_p50_{length}", times, f"ms, a text of {length} tokens"),
                               "value": row["p50"][length], "spread": [min(times), row["p99"][length]]})  # fmt: skip
    return claims


def later_claims(
    cells: dict[str, Row],
    claim: Callable[[str, list[float], str], Row],
    ratio: Callable[[str, str], list[float]],
    right: Callable[[str], list[bool]],
) -> list[Row]:
    """Claims on OpenVINO, the cascade, a saved run's first answer and scoring."""
    whole, alone = right(COMBINED), right(CASCADE)
    lost = 100 * (sum(whole) - sum(alone)) / len(whole)
    memory = {row["rows"]: row["peak_mb"] for name, row in cells.items() if name.startswith("memory-")}
    fewest, most = min(memory), max(memory)
    firsts = [row["seconds"] for name, row in cells.items() if name.startswith("torch-first-")]
    unit = f"points of accuracy against the same without it, on {len(whole):,} held-out reviews"
    return [
        claim("openvino_throughput_vs_pipeline", ratio("pipeline", OPENVINO), "times"),
        claim("cascade_throughput_vs_pipeline", ratio("pipeline", CASCADE), "times"),
        claim("combined_throughput_vs_pipeline", ratio("pipeline", COMBINED), "times, without the cascade"),
        {**claim("cascade_accuracy_loss", [lost], unit), "n": len(whole)},
        claim("torch_first_answer_s", firsts, "s from process start, torch backend"),
        {
            **claim("score_memory_growth", [peak / memory[fewest] for rows, peak in memory.items() if rows != fewest],
                    f"peak at {most:,} rows / peak at {fewest:,} rows"),
            "value": memory[most] / memory[fewest],
        },
        claim("score_short_rows_per_s", [cells["score-short"]["rows_per_s"]], "rows/s, texts of eight words, int8"),
        claim("score_reviews_rows_per_s", [cells["score-reviews"]["rows_per_s"]], "rows/s, reviews, int8"),
    ]  # fmt: skip


def tables(rows: list[Row]) -> str:
    """results/inference.md."""
    cells = {row["cell"]: row for row in rows}
    claims = {claim["name"]: claim for claim in compute(rows)}
    rounds = sorted({int(name.split("-")[1]) for name in cells if name.startswith("round-")})
    names = [name.split("-", 2)[2] for name in cells if name.startswith("round-1-")]
    lines = ["# Prediction", "", "Reviews/s, each round another thousand held-out reviews.", ""]
    lines += [_row(["", *(f"round {n}" for n in rounds), "accuracy", "how"]), "|---" * (len(rounds) + 3) + "|"]
    for name in names:
        measured = [cells[f"round-{n}-{name}"] for n in rounds]
        right = [a == b for row in measured for a, b in zip(row["labels"], row["targets"], strict=True)]
        rates = " | ".join(f"{row['reviews_per_s']:.1f}" for row in measured)
        lines.append(f"| {name} | {rates} | {sum(right) / len(right):.2%} | {measured[0]['how']} |")
    lines += ["", "| claim | value | spread | goal |", "|---|---|---|---|"]
    for claim in claims.values():
        low, high = claim["spread"]
        lines.append(
            f"| {claim['name']} | {claim['value']:.3g} {claim['unit']} | {low:.3g} to {high:.3g} | {claim['goal']} |"
        )
    single = {name.split("-")[1]: row for name, row in cells.items() if name.startswith("latency-")}
    lines += [
        "",
        "Single texts, ms, p50 and p99; requests/s beside HF Infinity's published ones (DistilBERT of 66M parameters,",
    ]
    lines += ["2 cores; the encoder here has 22M).", ""]
    lines += [_row(["tokens", *single, "int8 requests/s", "HF Infinity"]), "|---" * (len(single) + 3) + "|"]
    for length in cells[f"latency-{OURS}"]["p50"]:
        shown = [f"{row['p50'][length]:.1f}, {row['p99'][length]:.1f}" for row in single.values()]
        rate = 1000 / single[OURS]["p50"][length]
        lines.append(_row([length, *shown, f"{rate:.0f}", PUBLISHED.get(int(length), "")]))
    return "\n".join(lines) + "\n"


def _row(values: list[Any]) -> str:
    return "| " + " | ".join(map(str, values)) + " |"
