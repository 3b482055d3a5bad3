"""Bench of training speed: distilora against what people run, on real IMDB, on this machine, one process after the other.

Every contender is a short script of its own: reference.py, tuned.py (also full fine-tuning), few.py (SetFit),
distilora's command.
`python -m bench.speed` (`make bench-speed`) runs the cells that are missing, in this order:

    curve-NAME          accuracy by reviews of reference and tuned (curve.py), as far as --limit says; hours
    final-NAME          held-out reviews that the last weights of the curve get right
    rate-N-CONTENDER    reviews/s at max length 512, interleaved in rounds: one epoch over a few hundred reviews, the same
                        random ones for all; distilora's default recipe at 512 for one epoch and for three (the contenders
                        are three-epoch recipes; what is frozen is then computed once)
    whole-N             the whole of distilora's recipe at 512 and 12,000 reviews, seed N: seconds from the start of the process to
                        each validation, and held-out reviews right
    lexicon-N           the first recipe at 512, an n-gram expert beside the encoder: seconds until a saved model has 90% on
                        validation, every size that was tried counted
    kept-N              three epochs over 1,000 reviews, twice: the second run finds what the frozen blocks computed
    processes-N         reviews/s of one process on two threads, and of two processes on one thread each
    memory-NAME-N       peak of anonymous memory at 2,048 tokens a pass, reviews of 256 tokens: full (Trainer), distilora
    roofline            share of the processor's ceiling (roofline.py)
    few                 SetFit on 8 reviews of each class, where SPEED_SETFIT names the Python of its environment (few.py)
    scale-N             reviews/s and memory of N unlabelled reviews with made-up labels (--corpus), 64 tokens, one block

What is compared with what:

- A contender's time to 90% is start-up, tokenising, and reviews of its curve's first validation of 90% over its rate; its
  validations are not counted. distilora's is the clock's, validations, caches and imports included.
- A curve that ended below 90% gives a lower bound; the claim's unit says so.
"""

import math
import statistics
from collections.abc import Callable
from typing import Any

Row = dict[str, Any]
TARGET = 0.90
TUNED = ("tuned", "tuned_16", "tuned_dropout")  # batches of 32, of 16, of 32 with the model's own dropout
GOALS = {
    "reviews_per_s_vs_reference": ">= 20", "reviews_per_s_vs_tuned": ">= 2", "time_to_90_vs_reference": ">= 30",
    "time_to_90_vs_tuned": ">= 3", "share_of_peak": ">= 0.70", "peak_memory_vs_full": "<= 0.35",
    "accuracy_difference_vs_reference": "95% interval above -0.005", "time_to_90_with_lexicon_vs_reference": "none",
    "kept_states_speedup": "none", "two_processes_vs_one": ">= 1",
}  # fmt: skip


def compute(rows: list[Row]) -> list[Row]:
    """Claims from rows: medians of the rounds' ratios, spread from least to most; paired intervals are normal, 95%."""
    cells = {row["cell"]: row for row in rows}
    rounds = sorted({int(name.split("-")[1]) for name in cells if name.startswith("rate-")})
    runs = [row for name, row in cells.items() if name.startswith("whole-")]

    def rate(number: int, *contenders: str) -> float:
        return max(float(cells[f"rate-{number}-{name}"]["reviews_per_s"]) for name in contenders)

    def claim(name: str, values: list[float], unit: str, goal: str | None = None) -> Row:
        return {"name": name, "value": statistics.median(values), "unit": unit, "goal": goal or GOALS[name],
                "spread": [min(values), max(values)], "n": len(values)}  # fmt: skip

    claims = [
        claim("reviews_per_s_vs_reference", [rate(n, "distilora_3_epochs") / rate(n, "reference") for n in rounds],
              "times, three epochs each"),
        claim("reviews_per_s_vs_tuned", [rate(n, "distilora_3_epochs") / rate(n, *TUNED) for n in rounds],
              "times, three epochs each"),
        claim("one_epoch_vs_reference", [rate(n, "distilora") / rate(n, "reference") for n in rounds], "times", "none"),
        claim("one_epoch_vs_tuned", [rate(n, "distilora") / rate(n, *TUNED) for n in rounds], "times", "none"),
        claim("reviews_per_s", [rate(n, "distilora") for n in rounds], "reviews/s, 512 tokens at most", "none"),
    ]  # fmt: skip
    for name in ("reference", "tuned"):
        times = [contender_seconds(cells, name, number) for number in rounds]
        ours = [first_at(row["points"], "seconds") or math.inf for row in runs]  # a run that never got there counts 0
        reached = first_at(cells[f"curve-{name}"]["points"], "reviews") is not None
        claims.append(claim(f"time_to_90_vs_{name}", [t / o for t in times for o in ours],
                            "times" if reached else "times, at least: the curve ended below 90%"))  # fmt: skip
    reached_at = [seconds for row in runs if (seconds := first_at(row["points"], "seconds")) is not None]
    if reached_at:
        claims.append(claim("time_to_90_s", reached_at, f"s, {len(reached_at)} of {len(runs)} runs got there", "none"))
    if "kept-0" in cells:  # rows of before have none
        claims += later_claims(cells, rounds, claim)
    claims.append(
        claim("share_of_peak", [r["share"] for r in cells["roofline"]["rounds"]], "share of the bf16 matrix peak")
    )
    ratios = [row["peak_mb"] / cells[name.replace("distilora", "full")]["peak_mb"]
              for name, row in cells.items() if name.startswith("memory-distilora")]  # fmt: skip
    claims.append(claim("peak_memory_vs_full", ratios, "times"))
    differences = [a - b for row in runs for a, b in zip(row["right"], cells["final-reference"]["right"], strict=True)]
    claims.append(interval("accuracy_difference_vs_reference", differences, len(cells["final-reference"]["right"])))
    claims.append(interval("heldout_accuracy", [float(c) for row in runs for c in row["right"]],
                           len(cells["final-reference"]["right"]), "none"))  # fmt: skip
    return claims


def later_claims(cells: dict[str, Row], rounds: list[int], claim: Callable[[str, list[float], str], Row]) -> list[Row]:
    """Claims on the n-gram expert, kept states and several processes."""
    times = [contender_seconds(cells, "reference", number) for number in rounds]
    tries = [row["tries"] for name, row in cells.items() if name.startswith("lexicon-")]
    ours = [sum(row["seconds"] for row in tried) if tried[-1]["accuracy"] >= TARGET else math.inf for tried in tries]
    least = "" if first_at(cells["curve-reference"]["points"], "reviews") else ", at least: its curve ended below 90%"
    kept = [row["first_s"] / row["second_s"] for name, row in cells.items() if name.startswith("kept-")]
    shared = [
        row["two_processes_reviews_per_s"] / row["reviews_per_s"]
        for name, row in cells.items()
        if name.startswith("processes-")
    ]
    return [
        claim("time_to_90_with_lexicon_vs_reference", [t / o for t in times for o in ours], f"times{least}"),
        claim(
            "kept_states_speedup", kept, "times, three epochs over 1,000 reviews, process start and evaluation included"
        ),
        claim("two_processes_vs_one", shared, "times the reviews/s of one process on as many threads"),
    ]


def interval(name: str, values: list[float], n: int, goal: str | None = None) -> Row:
    """A claim of a mean over n reviews (of several runs each) with its normal 95% interval over reviews."""
    runs = len(values) // n
    means = [math.fsum(values[i::n]) / runs for i in range(n)]
    centre = math.fsum(means) / n
    error = 1.96 * math.sqrt(math.fsum((m - centre) ** 2 for m in means) / (n - 1) / n)
    return {"name": name, "value": centre, "unit": "share of held-out reviews", "goal": goal or GOALS[name],
            "spread": [centre - error, centre + error], "n": n}  # fmt: skip


def first_at(points: list[Row], key: str) -> float | None:
    """`key` at the first validation of 90% or more; None if there is none."""
    return next((float(point[key]) for point in points if point["accuracy"] >= TARGET), None)


def contender_seconds(cells: dict[str, Row], name: str, number: int) -> float:
    """Seconds from a contender's start to 90%, or to its curve's end, at the rate measured in a round."""
    points = cells[f"curve-{name}"]["points"]
    reviews = first_at(points, "reviews") or points[-1]["reviews"]
    names = TUNED if name == "tuned" else (name,)
    best = max((cells[f"rate-{number}-{n}"] for n in names), key=lambda row: row["reviews_per_s"])
    return float(best["startup_s"] + reviews / best["reviews_per_s"])
