"""Bench of the service: distilora against what people serve with, and what load, stops and broken requests do to it.

`python -m bench.serving` (`make bench-serving`) runs the cells that are missing, all on the same two cores as the load:

    model           the run that is served (SERVING_RUN, else the first recipe without n-gram expert) and its exports
    search          the fastest settings of each peer
    round-N-NAME    a contender alone: labels of 200 held-out reviews, requests/s of a closed loop on 1, 4 and 16 connections
    load-N          capacity in a closed loop, then open loops at 50% to 400% of it
    lost            SIGTERM, adapter swaps and a full queue under load: what was accepted, and what was answered
    fuzz            20,000 broken requests (fuzz.py)
    schemathesis    requests derived from the OpenAPI document, by the Python in SERVING_SCHEMATHESIS
    soak            memory in 10 minutes of reviews and broken requests
    mixed           32 adapters in turn against one of them, unmerged, on the same shared encoder; memory by adapters

Contenders: servers.py. Peers that are not there have cells that say so. The load is a process of its own (load.py) on loopback.
"""

import statistics
from itertools import pairwise
from typing import Any

Row = dict[str, Any]
OURS = "distilora"
EXPORTS = {"distilora_onnx_int8": "onnx-int8", "distilora_openvino": "openvino"}  # of the run, served by us, too
QUICKEST = "distilora_openvino"
PEERS = ("litserve", "infinity", "pipeline")
CONTENDERS = (OURS, *EXPORTS, *PEERS)
TAIL_S = 60  # the soak's memory is compared between its first and last minute
GOALS = {
    "rps_vs_best_peer": ">= 2", "accuracy_loss": "<= 0.2", "mixed_32_adapters": ">= 0.85", "p99_over_p50_at_80": "<= 3",
    "goodput_at_4x": ">= 0.9", "refusals_not_429": "<= 0", "lost_requests": "<= 0", "fuzz_requests": ">= 20000",
    "fuzz_5xx": "<= 0", "soak_growth": "<= 0.01",
}  # fmt: skip


def compute(rows: list[Row]) -> list[Row]:
    """Claims from rows: medians of rounds, spread from least to most; counts are sums."""
    cells = {row["cell"]: row for row in rows}
    claims = [
        _speed(cells),
        _load(cells),
        _lost(cells["lost"]),
        _fuzz(cells),
        _soak(cells["soak"]),
        _mixed(cells["mixed"]),
    ]
    return [claim for part in claims for claim in part]


def claim(name: str, values: list[float], unit: str, value: float | None = None, n: int | None = None) -> Row:
    """Make a claim: the median of values, and how many they are, unless `value` and `n` are given."""
    return {
        "name": name, "value": statistics.median(values) if value is None else value, "unit": unit, "goal": GOALS.get(name, "none"),
        "spread": [min(values), max(values)], "n": len(values) if n is None else n,
    }  # fmt: skip


def quantile(values: list[float], percent: int) -> float:
    """Return a percentile of two values or more, between neighbours where it falls between them."""
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1]


def numbered(cells: dict[str, Row], kind: str) -> list[int]:
    """Return the numbers of the rounds of a kind, in order."""
    return sorted({int(name.split("-")[1]) for name in cells if name.startswith(f"{kind}-")})


def present(cells: dict[str, Row]) -> list[str]:
    """Return the peers that were measured in every round."""
    rounds = numbered(cells, "round")
    return [name for name in PEERS if all("missing" not in cells[f"round-{n}-{name}"] for n in rounds)]


def fastest(row: Row) -> float:
    """Return the requests/s of a contender's round, at the number of connections that suits it best."""
    return float(max(rate["requests_per_s"] for rate in row["rates"].values()))


def right(cells: dict[str, Row], name: str) -> list[bool]:
    """Tell for each labelled review of all rounds whether a contender was right."""
    measured = [cells[f"round-{n}-{name}"] for n in numbered(cells, "round")]
    return [a == b for row in measured for a, b in zip(row["labels"], row["targets"], strict=True)]


def _speed(cells: dict[str, Row]) -> list[Row]:
    rounds, peers = numbered(cells, "round"), present(cells)
    missing = [name for name in PEERS if name not in peers]
    against = f"the fastest of {', '.join(peers)} in each round" + (
        f" (MISSING: {', '.join(missing)})" if missing else ""
    )
    ours = {
        OURS: "`distilora serve RUN`",
        **{name: f"the same of the run's export to {form}" for name, form in EXPORTS.items()},
    }
    of = {name: [fastest(cells[f"round-{n}-{name}"]) for n in rounds] for name in (*ours, *peers)}
    best = [max(of[name][place] for name in peers) for place in range(len(rounds))]
    reviews = len(right(cells, OURS))
    most = max(sum(right(cells, name)) for name in peers)
    of_labels = f"points of accuracy less than the most accurate of {', '.join(peers)}, {reviews:,} held-out reviews"
    claims = []
    for name, how in ours.items():
        own = "" if name == QUICKEST else f"{name.removeprefix('distilora').strip('_') or 'run'}_"
        claims += [
            claim(f"{own}rps_vs_best_peer", [a / b for a, b in zip(of[name], best, strict=True)],
                  f"times the requests/s of {against}; {how}, defaults"),
            claim(f"{own}accuracy_loss", [100 * (most - sum(right(cells, name))) / reviews], f"{of_labels}; {how}", n=reviews),
            claim(f"{own}requests_per_s", of[name],
                  f"requests/s of one review, 256 tokens at most, load on the same 2 cores; {how}"),
        ]  # fmt: skip
    return claims


def level(row: Row, share: float) -> Row:
    """Return the level of a load cell at a share of capacity."""
    return next(dict(each) for each in row["levels"] if each["share"] == share)


def goodput(each: Row) -> float:
    """Return the requests/s of a level that were answered with 200."""
    return float(each["answered"] / (each["until"] - each["since"]))


def _load(cells: dict[str, Row]) -> list[Row]:
    measured = [cells[f"load-{n}"] for n in numbered(cells, "load")]
    tails = [quantile(ms, 99) / quantile(ms, 50) for ms in (level(row, 0.8)["ms"] for row in measured)]
    held = [goodput(level(row, 4.0)) / row["capacity"]["requests_per_s"] for row in measured]
    statuses = [each["statuses"] for row in measured for each in row["levels"]]
    asked = sum(sum(counts.values()) for counts in statuses)
    wrong = sum(number for counts in statuses for status, number in counts.items() if status not in ("200", "429"))
    return [
        claim("p99_over_p50_at_80", tails, "p99 / p50 of the time to the answer, open loop at 80% of capacity"),
        claim("goodput_at_4x", held, "of capacity, answered with 200 at 4x capacity"),
        claim("refusals_not_429", [wrong], "requests neither answered nor refused with 429, at all loads", n=asked),
    ]


def lost_of(part: Row) -> int:
    """Count what was lost in an upheaval: statuses that should not be, and answers given that never came to the client."""
    odd = sum(number for status, number in part["statuses"].items() if int(status) not in part["expected"])
    return int(odd + max(0, part["given"].get("200", 0) - part["statuses"].get("200", 0)) + (part.get("code", 0) != 0))


def _lost(row: Row) -> list[Row]:
    lost = sum(lost_of(part) for part in row["parts"])
    answered = sum(part["statuses"].get("200", 0) for part in row["parts"])
    kinds = ", ".join(dict.fromkeys(part["what"] for part in row["parts"]))
    return [claim("lost_requests", [lost], f"accepted requests without their answer: {kinds}", n=answered)]


def bad(row: Row) -> int:
    """Count statuses of 500 or more, hangs, and a service that is not ready afterwards; not a 504 that `timeout_ms` asked for."""
    high = sum(number for status, number in row["statuses"].items() if int(status) >= 500) - row.get("asked_504", 0)
    return int(high + row.get("hangs", 0) + (not row["ready_afterwards"]))


def _fuzz(cells: dict[str, Row]) -> list[Row]:
    measured = [cells[name] for name in ("fuzz", "schemathesis") if "missing" not in cells[name]]
    by = "fuzz.py and schemathesis" if len(measured) == 2 else "fuzz.py (MISSING: schemathesis)"
    sent, wrong = sum(row["requests"] for row in measured), sum(bad(row) for row in measured)
    return [
        claim("fuzz_requests", [sent], f"requests of {by}"),
        claim(
            "fuzz_5xx",
            [wrong],
            f"statuses of 500 or more, but for 504 to a timeout_ms of its own, and hangs, from {by}",
            n=sent,
        ),
    ]


def _soak(row: Row) -> list[Row]:
    samples = row["samples_s_mb"]
    first = [mb for at, mb in samples if row["from_s"] <= at < row["from_s"] + TAIL_S]
    last = [mb for at, mb in samples if row["to_s"] - TAIL_S <= at <= row["to_s"]]
    before = statistics.median(first)
    growth = statistics.median(last) / before - 1
    spread = [min(last) / before - 1, max(last) / before - 1]
    minutes = (row["to_s"] - row["from_s"]) / 60
    unit = f"growth of the median anonymous memory from the first to the last minute of {minutes:.0f}"
    return [claim("soak_growth", spread, unit, growth, len(first) + len(last))]


def _mixed(row: Row) -> list[Row]:
    ratios = [pair["mixed"]["requests_per_s"] / pair["one"]["requests_per_s"] for pair in row["pairs"]]
    memory = row["memory"]
    steps = [(b["mb"] - a["mb"]) / (b["adapters"] - a["adapters"]) for a, b in pairwise(memory)]
    fewest, most = memory[0]["adapters"], memory[-1]["adapters"]
    each = (memory[-1]["mb"] - memory[0]["mb"]) / (most - fewest)
    return [
        claim("mixed_32_adapters", ratios, f"of the requests/s of one unmerged adapter, {row['adapters']} in turn"),
        claim("mb_per_adapter", steps, f"MB of anonymous memory for each adapter from {fewest} to {most}", each),
    ]
