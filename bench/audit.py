"""Bench of the audit: of the 50 IMDB labels that it ranks most suspicious, how many were flipped on purpose.

Three cells, one for each seed: 2% of the labels of `embedded`, IMDB's training reviews, are flipped at random, the n-gram expert
judges all of them out of fold, and the 50 that look most wrong are looked up. A label that IMDB itself has wrong counts against
the audit, for nobody flipped it.
"""

import time
from functools import cache
from typing import Any

import numpy as np

from bench.harness.claims import Rows, run_cells

SEEDS = (0, 1, 2)
FLIPPED = 0.02
TOP = 50


def compute(rows: Rows) -> Rows:
    """Claims from rows: the mean over seeds, spread from least to most."""
    top = [sum(row["flipped_of_top"][:TOP]) / TOP for row in rows]
    found = [row["flipped_found"] / row["flipped"] for row in rows]

    def claim(name: str, values: list[float], unit: str) -> dict[str, Any]:
        return {"name": name, "value": float(np.mean(values)), "unit": unit, "goal": "none",
                "spread": [min(values), max(values)], "n": len(values)}  # fmt: skip

    return [
        claim("audit_precision_at_50", top, "share of the 50 most suspicious labels that were flipped, 2% flipped"),
        claim("audit_recall", found, "share of the flipped labels among those that look wrong"),
    ]


@cache
def reviews() -> tuple[list[str], np.ndarray, np.ndarray]:
    """Texts, labels and clusters of near copies of IMDB's training reviews."""
    from distilora.config.measuring import AuditConfig
    from distilora.config.schema import DataConfig
    from distilora.data.audit import find_copies, read_labelled
    from distilora.evaluation.audit import audited_task

    config = AuditConfig(data=DataConfig(path="embedded"))
    task = audited_task(config)
    table = read_labelled(config.data, task, task.label_column)
    targets = np.asarray([row.target for row in table.rows], np.int64)
    return [row.cleaned for row in table.rows], targets, find_copies(table).clusters


def seed(number: int) -> dict[str, Any]:
    from distilora.evaluation.label_errors import expert_probabilities, judge, most_suspicious

    started, cpu = time.monotonic(), time.process_time()
    texts, targets, clusters = reviews()
    chosen = np.random.default_rng(number).permutation(len(texts))[: round(FLIPPED * len(texts))]
    flipped = np.isin(np.arange(len(texts)), chosen)
    labels = np.where(flipped, 1 - targets, targets)
    probabilities = expert_probabilities(texts, labels, 2, clusters, np.ones(len(texts), bool))
    wrong = judge(labels, probabilities).wrong
    top = most_suspicious(labels, probabilities, TOP)
    return {
        "seed": number,
        "reviews": len(texts),
        "flipped": int(flipped.sum()),
        "flagged": int(wrong.sum()),
        "flipped_found": int((wrong & flipped).sum()),
        "flipped_of_top": flipped[top].astype(int).tolist(),
        "wall_s": round(time.monotonic() - started, 1),
        "cpu_s": round(time.process_time() - cpu, 1),
    }


if __name__ == "__main__":
    run_cells("audit", {f"seed{n}": lambda n=n: seed(n) for n in SEEDS}, compute, "make bench-audit", __doc__)
